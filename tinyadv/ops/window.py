"""Convolution and pooling: operations on the windows of an image.

Images are (N, C, H, W) to the outside. In memory they are (C, H, W, N), the batch last: the public shape is a
transposed view, which costs nothing, and every operation keeps the memory order of its input. It pays three times:
a row of a shifted image is one run of W·N numbers, so patches are gathered and pooled at the speed of memcpy
however few channels there are; the product of weights (F, C·kh·kw) and patches (C·kh·kw, OH·OW·N) is the next
image without a transposition; and flattening to (C·H·W, N) is free.

Everything rests on one view, the windows (C, kh, kw, OH, OW, N) of an image: its values copied out are the patch
matrix of a convolution, and its slices windows[:, i, j] are the shifted images that pooling compares.
"""

import math
from collections.abc import Iterator

import numpy as np

from tinyadv.backend import array_module
from tinyadv.ops.reduce import mean
from tinyadv.shapes import check_equal, check_ndim, pair, window_counts
from tinyadv.tensor import Tensor, op

# A patch matrix is made and used up in blocks of about this many bytes, to stay in the caches.
# A GPU wants few and large products instead, and only its memory is a limit.
BLOCK_BYTES, GPU_BLOCK_BYTES = 1 << 21, 1 << 28

# Sums of at most this many terms are made in float64 on a CPU, and rounded once. Flat parts of an image, of which the
# first layer sees many, then give exactly equal results, whatever their place in a matrix product: which maximum of a
# pooling window is the first, and so the gradient, does not depend on how the images are batched.
FEW_TERMS = 32


@op
def conv2d(x, weight, bias=None, stride=1, padding=0):
    """The cross-correlation of the images with F kernels: (N, C, H, W), (F, C, kh, kw), (F,) -> (N, F, OH, OW).

    stride, padding: an integer or a (height, width) pair; padding is with zeros, on both sides.
    Raises ValueError if shapes do not match or the kernel does not fit.
    """
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding", least=0)
    check_ndim(x.shape, 4, "conv2d", "images of shape (N, C, H, W)")
    check_ndim(weight.shape, 4, "conv2d", "a weight of shape (F, C, kh, kw)")
    check_equal(x.shape[1], weight.shape[1], "conv2d", "the images' number of channels", "the weight's")
    if bias is not None:
        check_equal(bias.size, weight.shape[0], "conv2d", "the size of the bias", "the weight's number of filters")
    kernel = weight.shape[2:]
    window_counts(x.shape[2:], kernel, stride, padding, "conv2d")

    def x_vjp(g):
        g = _batch_last(g)  # (F, OH, OW, N)
        reach = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
        # Folding adds C·kh·kw numbers per output pixel; correlating copies F·kh·kw per input pixel, at half the price.
        copies, adds = weight.shape[0] * math.prod(x.shape[2:]), 2 * weight.shape[1] * math.prod(g.shape[1:3])
        if stride == (1, 1) and min(reach) >= 0 and copies <= adds:
            flipped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)  # (C, F, kh, kw)
            return _batch_first(_correlate(_padded(g, reach), flipped, None, stride))
        return _batch_first(_fold_product(weight, g, x.shape[2:], stride, padding))

    def weight_vjp(g):
        return _weight_gradient(_padded(_batch_last(x), padding), _batch_last(g), kernel, stride)

    y = _correlate(_padded(_batch_last(x), padding), weight, bias, stride)
    return _batch_first(y), x_vjp, weight_vjp, lambda g: g.sum(axis=(0, 2, 3))


@op
def max_pool2d(x, size, stride=None, padding=0):
    """The maximum of each window: (N, C, H, W) -> (N, C, OH, OW). `stride` is `size` unless given.

    Padding never wins. The gradient goes to the first maximum of a window, row by row.
    """
    size, stride, padding = _pool_arguments("max_pool2d", x, size, stride, padding)
    xp = array_module(x)
    padded = _padded(_batch_last(x), padding, -xp.inf)
    windows = _windows(padded, size, stride)
    y = windows[:, 0, 0].copy()
    for i, j in _taps(size)[1:]:
        xp.maximum(y, windows[:, i, j], out=y)

    def vjp(g):
        g = _batch_last(g)
        open_windows = xp.ones(y.shape, bool)  # those whose maximum has not been met yet

        def share(i, j):
            hit = windows[:, i, j] == y
            xp.logical_and(hit, open_windows, out=hit)
            xp.logical_xor(open_windows, hit, out=open_windows)
            return g, hit

        return _batch_first(_fold(share, padded, x.shape[2:], size, stride, padding))

    return _batch_first(y), vjp


@op
def avg_pool2d(x, size, stride=None, padding=0):
    """The mean of each window, zeros of the padding included: (N, C, H, W) -> (N, C, OH, OW).

    `stride` is `size` unless given.
    """
    size, stride, padding = _pool_arguments("avg_pool2d", x, size, stride, padding)
    padded = _padded(_batch_last(x), padding)
    windows = _windows(padded, size, stride)
    y = windows[:, 0, 0].copy()
    for i, j in _taps(size)[1:]:
        y += windows[:, i, j]
    y /= math.prod(size)

    def vjp(g):
        share = _batch_last(g) / math.prod(size)
        return _batch_first(_fold(lambda i, j: (share, 1), padded, x.shape[2:], size, stride, padding))

    return _batch_first(y), vjp


def global_avg_pool2d(x) -> Tensor:
    """The mean of each channel of each image: (N, C, H, W) -> (N, C)."""
    return mean(x, axis=(2, 3))


def _pool_arguments(operation, x, size, stride, padding):
    size = pair(size, "size", least=1)
    stride = size if stride is None else pair(stride, "stride", least=1)
    padding = pair(padding, "padding", least=0)
    check_ndim(x.shape, 4, operation, "images of shape (N, C, H, W)")
    if 2 * padding[0] > size[0] or 2 * padding[1] > size[1]:
        raise ValueError(f"{operation}: padding {padding} must be at most half of the window {size}")
    window_counts(x.shape[2:], size, stride, padding, operation)
    return size, stride, padding


def _batch_last(x):
    """(N, C, H, W) -> (C, H, W, N), contiguous: a view of what this file made, a copy of what others did."""
    return array_module(x).ascontiguousarray(x.transpose(1, 2, 3, 0))


def _batch_first(x):
    """(C, H, W, N) -> (N, C, H, W), a view."""
    return x.transpose(3, 0, 1, 2)


def _padded(x, padding, value=0.0):
    """x (C, H, W, N) in a frame of `value`, `padding` (height, width) wide on each side."""
    if padding == (0, 0):
        return x
    (ph, pw), (c, h, w, n) = padding, x.shape
    framed = array_module(x).full((c, h + 2 * ph, w + 2 * pw, n), value, x.dtype)
    framed[:, ph : ph + h, pw : pw + w] = x
    return framed


def _windows(x, kernel, stride):
    """The windows of x (C, H, W, N): a view (C, kh, kw, OH, OW, N), windows[c, i, j, h, w] = x[c, h·s + i, w·s + j]."""
    c, h, w, n = x.shape
    oh, ow = window_counts((h, w), kernel, stride, (0, 0), "windows")
    sc, sh, sw, sn = x.strides
    as_strided = array_module(x).lib.stride_tricks.as_strided
    return as_strided(x, (c, *kernel, oh, ow, n), (sc, sh, sw, sh * stride[0], sw * stride[1], sn))


def _taps(kernel) -> list[tuple[int, int]]:
    """The (i, j) of a window, row by row."""
    return [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]


def _blocks(x, windows) -> Iterator[tuple[slice, slice]]:
    """(rows, columns) of the output whose patches fit in a block: whole rows if one fits, else parts of one."""
    limit = BLOCK_BYTES if isinstance(x, np.ndarray) else GPU_BLOCK_BYTES
    c, kh, kw, oh, ow, n = windows.shape
    pixels = max(1, limit // max(1, c * kh * kw * n * x.itemsize))
    rows, columns = max(1, pixels // ow), min(pixels, ow)
    for top in range(0, oh, rows):
        for left in range(0, ow, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def _correlate(x, weight, bias, stride):
    """x (C, H, W, N), already padded, with weight (F, C, kh, kw) -> (F, OH, OW, N): patches gathered, one product."""
    xp = array_module(x)
    windows = _windows(x, weight.shape[2:], stride)
    y = xp.empty((len(weight), *windows.shape[3:]), xp.result_type(x, weight))
    few = xp is np and math.prod(weight.shape[1:]) <= FEW_TERMS
    matrix = weight.reshape(len(weight), -1).astype(np.float64 if few else y.dtype, copy=False)  # (F, C·kh·kw)
    for rows, columns in _blocks(x, windows):
        patches = windows[:, :, :, rows, columns].astype(matrix.dtype, order="C").reshape(matrix.shape[1], -1)
        block = y[:, rows, columns].reshape(len(y), -1)  # a view: whole rows, or part of one, are one run
        if matrix.dtype == y.dtype:
            xp.matmul(matrix, patches, out=block)
        else:
            block[...] = matrix @ patches
        if bias is not None:
            block += bias[:, None]
    return y


def _weight_gradient(x, g, kernel, stride):
    """The adjoint of _correlate in its weight: the sum over blocks of g · patchesᵀ."""
    windows = _windows(x, kernel, stride)
    total = array_module(x).zeros((len(g), math.prod(windows.shape[:3])), g.dtype)
    for rows, columns in _blocks(x, windows):
        patches = windows[:, :, :, rows, columns].reshape(total.shape[1], -1)
        total += g[:, rows, columns].reshape(len(g), -1) @ patches.T
    return total.reshape(len(g), *windows.shape[:3])


def _fold_product(weight, g, size, stride, padding):
    """The adjoint of _correlate in x: the patches' gradient weightᵀ · g, block by block, folded into an image."""
    xp = array_module(g)
    c, kernel = weight.shape[1], weight.shape[2:]
    (h, w), (ph, pw) = size, padding
    image = xp.zeros((c, h + 2 * ph, w + 2 * pw, g.shape[3]), g.dtype)
    windows = _windows(image, kernel, stride)
    matrix = weight.reshape(len(weight), -1).T  # (C·kh·kw, F)
    for rows, columns in _blocks(image, windows):
        block = windows[:, :, :, rows, columns]
        patches = (matrix @ g[:, rows, columns].reshape(len(g), -1)).reshape(block.shape)
        for i, j in reversed(_taps(kernel)):  # so a pixel sums up by output row, however these are cut
            block[:, i, j] += patches[:, i, j]  # within one (i, j) no pixel occurs twice
    return image[:, ph : ph + h, pw : pw + w]


def _fold(share, padded, size, kernel, stride, padding):
    """The adjoint of _windows: the image in which every pixel sums up the products share(i, j) of two arrays."""
    xp = array_module(padded)
    (h, w), (ph, pw) = size, padding
    apart = stride[0] >= kernel[0] and stride[1] >= kernel[1]  # windows that share no pixel need no sum
    image = xp.zeros_like(padded)
    windows = _windows(image, kernel, stride)
    for i, j in _taps(kernel):
        if apart:
            xp.multiply(*share(i, j), out=windows[:, i, j])
        else:
            windows[:, i, j] += xp.multiply(*share(i, j))
    return image[:, ph : ph + h, pw : pw + w]
