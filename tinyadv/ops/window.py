"""Convolution and pooling: operations on the windows of an image.

Images are (N, C, H, W) to the outside. In memory they are (H, C, W, N), rows outermost and the batch last: the public
shape is a transposed view, which costs nothing, and every operation keeps the memory order of its input. A row of an
image, with all its channels and of the whole batch, is then a matrix (C, W·N), and kh rows one below the other are a
matrix (kh·C, W·N) without being copied. So a convolution gathers only the kw shifted copies of each row that stand for
the columns of the kernel, and each row of the output is one product with the kh rows that its windows cover.
docs/convolution.md derives it line by line.
"""

import math
from itertools import repeat

import numpy as np

from tinyadv.backend import array_module
from tinyadv.ops.normalize import channel_sums
from tinyadv.ops.reduce import mean
from tinyadv.shapes import check_channels, check_equal, check_ndim, pair, window_counts
from tinyadv.tensor import Tensor, op

# Sums of at most this many terms are made in float64 on a CPU, and rounded once. Flat parts of an image, of which the
# first layer sees many, then give exactly equal results, whatever their place in a matrix product: which maximum of a
# pooling window is the first, and so the gradient, does not depend on how the images are batched.
FEW_TERMS = 32

# BLAS is slow where the left matrix has few rows. So where the result has at most this many channels, and no more than
# what it is made from, the products are folded (_correlate_adjoint: kw times as many rows), not the images gathered.
FEW_CHANNELS = 32


@op
def conv2d(x, weight, bias=None, stride=1, padding=0):
    """The cross-correlation of the images with F kernels: (N, C, H, W), (F, C, kh, kw), (F,) -> (N, F, OH, OW).

    stride, padding: an integer or a (height, width) pair; padding is with zeros, on both sides.
    Raises ValueError if shapes do not match or the kernel does not fit.
    """
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding", least=0)
    check_ndim(x.shape, 4, "conv2d", "images of shape (N, C, H, W)")
    check_ndim(weight.shape, 4, "conv2d", "a weight of shape (F, C, kh, kw)")
    check_channels(x.shape, weight.shape[1], "conv2d", "the weight's")
    if bias is not None:
        check_equal(bias.size, weight.shape[0], "conv2d", "the size of the bias", "the weight's number of filters")
    size, kernel = x.shape[2:], weight.shape[2:]
    counts = window_counts(size, kernel, stride, padding, "conv2d")
    # With stride 1 a correlation is the adjoint of another, of the flipped kernel, in a frame of kernel - 1 - padding.
    flipped = weight[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, F, kh, kw)
    frame = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    two_ways, (f, c) = stride == (1, 1) and min(frame) >= 0, weight.shape[:2]
    folds_back, folds_forth = c <= min(f, FEW_CHANNELS), f <= min(c, FEW_CHANNELS) and weight[0].size > FEW_TERMS

    def x_vjp(g):
        if two_ways and not folds_back:
            return _outside(_correlate(_inside(g), flipped, size, stride, frame))
        return _outside(_correlate_adjoint(_inside(g), weight, size, stride, padding))

    if two_ways and folds_forth:
        y = _correlate_adjoint(_inside(x), flipped, counts, stride, frame)
    else:
        y = _correlate(_inside(x), weight, counts, stride, padding)
    if bias is not None:
        y += bias.repeat(y[0, 0].size).reshape(y.shape[1:])  # written out: NumPy adds long runs twice as fast
    return _outside(y), x_vjp, lambda g: _weight_gradient(_inside(x), _inside(g), kernel, stride, padding), channel_sums


@op
def max_pool2d(x, size, stride=None, padding=0):
    """The maximum of each window: (N, C, H, W) -> (N, C, OH, OW). `stride` is `size` unless given.

    Padding is -inf, and loses to every number. The gradient goes to the first maximum of a window, row by row.
    """
    window, stride, padding, counts = _pool_arguments("max_pool2d", x, size, stride, padding)
    xp, size = array_module(x), x.shape[2:]  # the vjp captures the size and not x
    padded = _padded(_inside(x), padding, -xp.inf)
    first, *others = _shifted(padded, window, stride, counts)
    y, larger = first.copy(), []  # the maximum so far, and for each further element, in which windows it is larger
    for values in others:
        larger.append(values > y)
        xp.maximum(y, values, out=y)

    def vjp(g):
        def shares(rest):  # the gradient of each window, until the last element that was larger takes it
            for was_larger in reversed(larger):
                taken = rest * was_larger
                yield taken
                rest = rest - taken
            yield rest

        g = _inside(g)
        return _outside(_fold(shares(g), g, size, window, stride, padding))

    return _outside(y), vjp


@op
def avg_pool2d(x, size, stride=None, padding=0):
    """The mean of each window, padding included: (N, C, H, W) -> (N, C, OH, OW). `stride` is `size` unless given."""
    window, stride, padding, counts = _pool_arguments("avg_pool2d", x, size, stride, padding)
    padded, size = _padded(_inside(x), padding), x.shape[2:]
    first, *others = _shifted(padded, window, stride, counts)
    y = first.copy()
    for values in others:
        y += values
    y /= math.prod(window)

    def vjp(g):
        share = _inside(g) / math.prod(window)
        return _outside(_fold(repeat(share), share, size, window, stride, padding))

    return _outside(y), vjp


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
    return size, stride, padding, window_counts(x.shape[2:], size, stride, padding, operation)


def _inside(x):
    """(N, C, H, W) -> (H, C, W, N), contiguous: a view of what this file made, a copy of what others did."""
    return array_module(x).ascontiguousarray(x.transpose(2, 1, 3, 0))


def _outside(x):
    """(H, C, W, N) -> (N, C, H, W), a view."""
    return x.transpose(3, 1, 0, 2)


def _padded(x, padding, value=0.0):
    """x (H, C, W, N) in a frame of `value`, `padding` (height, width) wide on each side."""
    if padding == (0, 0):
        return x
    (ph, pw), (h, c, w, n) = padding, x.shape
    framed = array_module(x).full((h + 2 * ph, c, w + 2 * pw, n), value, x.dtype)
    framed[ph : ph + h, :, pw : pw + w] = x
    return framed


def _meeting(tap, size, count, stride, padding):
    """(outputs, inputs), slices of columns: output q meets input q·stride + tap - padding, if that is in the image."""
    offset = tap - padding
    start = max(0, -(offset // stride))
    stop = max(start, min(count, (size - 1 - offset) // stride + 1))
    return slice(start, stop), slice(start * stride + offset, max(0, (stop - 1) * stride + offset + 1), stride)


def _gather(x, kw, count, stride, padding, dtype):
    """The kw shifted copies of every row: x (H, C, W, N) -> (H, kw·C, OW·N), as they meet the kernel's columns."""
    x = _padded(x, (0, padding))
    (h, c, _, n), (sh, sc, sw, sn) = x.shape, x.strides
    as_strided = array_module(x).lib.stride_tricks.as_strided
    shifted = as_strided(x, (h, kw, c, count, n), (sh, sw, sc, sw * stride, sn))
    return shifted.astype(dtype, order="C", copy=False).reshape(h, kw * c, count * n)


def _stacks(rows, reach, first, stride, count):
    """(outputs, terms, stacks), which together cover every output row once; rows (H, R, L): R lines of L numbers each.

    Output row q is made of the `reach` rows from first + q·stride on, which lie one below the other in memory: stacks
    (outputs, terms, L) is a view. Rows outside of the image are zero, and left out: terms are the lines that exist.
    """
    h, r, length = rows.shape
    low = min(count, max(0, -(first // stride)))  # the output rows from here on,
    high = max(low, min(count, (h - reach - first) // stride + 1))  # up to here, have all their rows
    if low < high:
        as_strided, (s_row, s_line, s_number) = array_module(rows).lib.stride_tricks.as_strided, rows.strides
        shape, strides = (high - low, reach * r, length), (s_row * stride, s_line, s_number)
        yield slice(low, high), slice(0, reach * r), as_strided(rows[first + low * stride :], shape, strides)
    for q in (*range(low), *range(high, count)):
        top = first + q * stride
        start, stop = max(0, top), max(0, top, min(h, top + reach))
        terms = slice((start - top) * r, (stop - top) * r)
        yield slice(q, q + 1), terms, rows[start:stop].reshape(1, (stop - start) * r, length)


def _multiply_rows(matrix, rows, reach, first, stride, y):
    """y[q] = matrix @ the stack of rows that output row q is made of: (M, reach·R), (H, R, L), y (count, M, L)."""
    for outputs, terms, stacks in _stacks(rows, reach, first, stride, len(y)):
        array_module(rows).matmul(matrix[:, terms], stacks, out=y[outputs])


def _correlate(x, weight, counts, stride, padding):
    """x (H, C, W, N) with weight (F, C, kh, kw) -> (OH, F, OW, N): columns gathered, then a product for each row."""
    xp, (f, c, kh, kw), n = array_module(x), weight.shape, x.shape[3]
    y = xp.empty((counts[0], f, counts[1] * n), xp.result_type(x, weight))
    few = isinstance(x, np.ndarray) and c * kh * kw <= FEW_TERMS
    dtype = np.float64 if few else y.dtype
    columns = _gather(x, kw, counts[1], stride[1], padding[1], dtype)
    matrix = weight.transpose(0, 2, 3, 1).reshape(f, -1).astype(dtype, copy=False)  # (F, kh·kw·C)
    _multiply_rows(matrix, columns, kh, -padding[0], stride[0], y)
    return y.reshape(counts[0], f, counts[1], n)


def _correlate_adjoint(g, weight, size, stride, padding):
    """The adjoint of _correlate in x: g (OH, F, OW, N) -> (H, C, W, N): a product for each row, then columns folded."""
    xp, (f, c, _, kw), (_, _, ow, n) = array_module(g), weight.shape, g.shape
    image = xp.zeros((size[0], c, size[1], n), xp.result_type(g, weight))
    g = g.reshape(len(g), f, ow * n)
    for phase in range(stride[0]):  # the rows phase, phase + stride, ... of the image meet the same rows of the kernel
        rows = image[phase :: stride[0]]
        shift, tap = divmod(phase + padding[0], stride[0])
        taps = weight[:, :, tap :: stride[0]][:, :, ::-1]  # (F, C, reach, kw), in the order in which rows of g follow
        reach = taps.shape[2]
        matrix = taps.transpose(3, 1, 2, 0).reshape(kw * c, reach * f)
        products = xp.empty((len(rows), kw * c, ow * n), image.dtype)
        _multiply_rows(matrix, g, reach, shift - reach + 1, 1, products)
        products = products.reshape(len(rows), kw, c, ow, n)
        for j in range(kw):
            outputs, inputs = _meeting(j, size[1], ow, stride[1], padding[1])
            rows[:, :, inputs] += products[:, j, :, outputs]
    return image


def _weight_gradient(x, g, kernel, stride, padding):
    """The adjoint of _correlate in its weight: the sum over all rows of columns · gᵀ."""
    xp, c, (oh, f, ow, n) = array_module(x), x.shape[1], g.shape
    columns = _gather(x, kernel[1], ow, stride[1], padding[1], g.dtype)  # (H, kw·C, OW·N)
    g = g.reshape(oh, f, ow * n).swapaxes(1, 2)
    gradient = xp.zeros((kernel[0] * kernel[1] * c, f), g.dtype)
    for outputs, terms, stacks in _stacks(columns, kernel[0], -padding[0], stride[0], oh):
        for stack, upstream in zip(stacks, g[outputs], strict=True):  # nothing is made that is larger than the weights
            gradient[terms] += stack @ upstream
    return gradient.reshape(*kernel, c, f).transpose(3, 2, 0, 1)


def _shifted(x, window, stride, counts):
    """Views (OH, C, OW, N) of x (H, C, W, N): for each element of a window, row by row, its value in every window."""
    (sh, sw), (oh, ow) = stride, counts
    return [x[i : i + sh * (oh - 1) + 1 : sh, :, j : j + sw * (ow - 1) + 1 : sw]
            for i in range(window[0]) for j in range(window[1])]


def _fold(shares, g, size, window, stride, padding):
    """The adjoint of _shifted: an image (H, C, W, N) of sums of shares like g, one for each element, the last first."""
    xp, (oh, c, ow, n), (h, w), (ph, pw) = array_module(g), g.shape, size, padding
    tiled = window == stride and (h + 2 * ph, w + 2 * pw) == (oh * stride[0], ow * stride[1])  # one share a pixel
    image = (xp.empty if tiled else xp.zeros)((h + 2 * ph, c, w + 2 * pw, n), g.dtype)
    for pixels, share in zip(reversed(_shifted(image, window, stride, (oh, ow))), shares, strict=False):
        pixels[...] = share if tiled else pixels + share
    return image[ph : ph + h, :, pw : pw + w]
