"""Convolution and pooling of images in C order: all windows written out as the columns of one matrix.

It is far larger than the images, but then a convolution is a single product, and few kernels are launched: on a GPU
both count for more. docs/convolution.md compares it with the products of rows.py. Chellapilla, Puri and Simard
2006 ("High performance convolutional neural networks for document processing"), section 3.
"""

import math

from tinyadv.backend import array_module
from tinyadv.window import fold, padded


def columns(x, kernel, counts, stride, padding, value=0.0):
    """The windows of x (N, C, H, W): (C·kh·kw, N·OH·OW)."""
    x = padded(x, padding, value)
    (n, c, _, _), (sn, sc, sh, sw) = x.shape, x.strides
    shape, strides = (c, *kernel, n, *counts), (sc, sh, sw, sn, sh * stride[0], sw * stride[1])
    windows = array_module(x).lib.stride_tricks.as_strided(x, shape, strides)
    return windows.reshape(c * math.prod(kernel), n * math.prod(counts))


def correlate(x, weight, counts, stride, padding):
    """x (N, C, H, W) with weight (F, C, kh, kw) -> (N, F, OH, OW)."""
    y = weight.reshape(len(weight), -1) @ columns(x, weight.shape[2:], counts, stride, padding)
    return y.reshape(len(weight), len(x), *counts).swapaxes(0, 1)


def correlate_adjoint(g, weight, size, stride, padding):
    """The adjoint of correlate in x: g (N, F, OH, OW) -> (N, C, H, W)."""
    (f, c, *kernel), (n, _, *counts) = weight.shape, g.shape
    shares = (weight.reshape(f, -1).T @ _by_filters(g)).reshape(c, math.prod(kernel), n, *counts)
    return _folded(shares.transpose(1, 2, 0, 3, 4), size, tuple(kernel), stride, padding)


def weight_gradient(x, g, kernel, stride, padding):
    """The adjoint of correlate in its weight: g (N, F, OH, OW) -> (F, C, kh, kw)."""
    gradient = _by_filters(g) @ columns(x, kernel, g.shape[2:], stride, padding).T
    return gradient.reshape(g.shape[1], x.shape[1], *kernel)


def _by_filters(g):
    """(N, F, OH, OW) -> (F, N·OH·OW)."""
    return g.swapaxes(0, 1).reshape(g.shape[1], -1)


def _folded(shares, size, window, stride, padding):
    """The images (N, C, H, W) of sums of shares (kh·kw, N, C, OH, OW), one for each element of a window."""
    _, n, c, oh, ow = shares.shape
    if window == stride and padding == (0, 0) and tuple(size) == (oh * window[0], ow * window[1]):  # one for each pixel
        return shares.reshape(*window, n, c, oh, ow).transpose(2, 3, 4, 0, 5, 1).reshape(n, c, *size)
    return fold(shares[::-1], shares[0], size, window, stride, padding)


def max_pool(x, window, counts, stride, padding):
    """The maximum of each window, (N, C, H, W) -> (N, C, OH, OW), and its vjp."""
    (n, c, *size), xp = x.shape, array_module(x)
    pixels = columns(x.reshape(n * c, 1, *size), window, counts, stride, padding, -xp.inf)
    pixels = pixels.reshape(math.prod(window), n, c, *counts)
    first = pixels.argmax(axis=0)

    def vjp(g):
        taken = xp.arange(math.prod(window)).reshape(-1, 1, 1, 1, 1) == first
        return _folded(taken * g, size, window, stride, padding)

    return pixels.max(axis=0), vjp
