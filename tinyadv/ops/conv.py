"""Convolution: with NumPy, matrix products with the rows of the images; with CuPy, those of columns.py.

With NumPy images lie (H, C, W, N) in memory, as window.py says. A row of an image, with all its channels and of the
whole batch, is then a matrix (C, W·N), and kh rows one below the other are a matrix (kh·C, W·N) without being copied.
So a convolution gathers only the kw shifted copies of each row that stand for the columns of the kernel, and each row
of the output is one product with the kh rows that its windows cover. docs/convolution.md derives it line by line.
"""

from functools import reduce
from inspect import unwrap

import numpy as np

from tinyadv import columns
from tinyadv.backend import array_module, wide
from tinyadv.ops.normalize import channel_sums, per_channel
from tinyadv.shapes import check_bias, check_channels, check_ndim, pair, to_count, window_counts
from tinyadv.tensor import op
from tinyadv.window import inside, keeps_order, outside, padded, shifted, side_by_side

# Sums of at most this many terms are made in float64 on a CPU, and rounded once. Flat parts of an image, of which the
# first layer sees many, then give exactly equal results, whatever their place in a matrix product: which maximum of a
# pooling window is the first, and so the gradient, does not depend on how the images are batched.
FEW_TERMS = 32

# BLAS is slow where the left matrix has few rows. So where the result has at most this many channels, and no more than
# what it is made from, the products are folded (_correlate_adjoint: kw times as many rows), not the images gathered.
FEW_CHANNELS = 32


@op
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """The cross-correlation of the images with F kernels: (N, C, H, W), (F, C, kh, kw), (F,) -> (N, F, OH, OW).

    stride, padding: an integer or a (height, width) pair; padding is with zeros, on both sides.
    dilation: the step between the pixels that a kernel meets; as slow as a kernel that meets those between them, too.
    It is one, with zeros there: an infinite pixel times 0 gives NaN.
    groups: how many parts the channels and the filters are split into, for convolutions side by side; the weight is
    then (F, C / groups, kh, kw).
    Raises ValueError if shapes do not match or the kernel does not fit.
    """
    stride, padding = pair(stride, "stride", least=1), pair(padding, "padding", least=0)
    check_ndim(weight.shape, 4, "conv2d", "a weight of shape (F, C, kh, kw)")
    if bias is not None:
        check_bias(bias, weight.shape[0], "conv2d", "filters")
    if groups != 1:
        return _in_groups(x, weight, bias, groups, stride, padding, dilation)
    check_channels(x.shape, weight.shape[1], "conv2d", "the weight's")
    down, across = pair(dilation, "dilation", least=1)
    if (down, across) != (1, 1):  # zeros between the rows and columns of the kernels
        dense, (f, c, kh, kw) = weight, weight.shape
        weight = array_module(x).zeros((f, c, (kh - 1) * down + 1, (kw - 1) * across + 1), dense.dtype)
        weight[:, :, ::down, ::across] = dense
    size, kernel = x.shape[2:], weight.shape[2:]
    counts = window_counts(size, kernel, stride, padding, "conv2d")
    # With stride 1 a correlation is the adjoint of another, of the flipped kernel, in a frame of kernel - 1 - padding.
    flipped = weight[:, :, ::-1, ::-1].swapaxes(0, 1)  # (C, F, kh, kw)
    frame = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    two_ways, (f, c) = stride == (1, 1) and min(frame) >= 0, weight.shape[:2]
    folds_back, folds_forth = c <= min(f, FEW_CHANNELS), f <= min(c, FEW_CHANNELS) and weight[0].size > FEW_TERMS
    correlate, adjoint, gradient = _correlate, _correlate_adjoint, _weight_gradient
    if not (by_rows := keeps_order(x)):
        correlate, adjoint, gradient = columns.correlate, columns.correlate_adjoint, columns.weight_gradient

    def x_vjp(g):
        if two_ways and not (by_rows and folds_back):
            return correlate(g, flipped, size, stride, frame)
        return adjoint(g, weight, size, stride, padding)

    if by_rows and two_ways and folds_forth:
        y = adjoint(x, flipped, counts, stride, frame)
    else:
        y = correlate(x, weight, counts, stride, padding)
    if by_rows and weight[0].size > FEW_TERMS and counts[1] > 1:
        _level(y, x, kernel, stride, padding)
    if bias is not None:
        y += per_channel(bias, y)

    def weight_vjp(g):
        return gradient(x, g, kernel, stride, padding)[:, :, ::down, ::across]

    return y, x_vjp, weight_vjp, channel_sums


def _in_groups(x, weight, bias, groups, *options):
    """conv2d of each group by itself, and the results side by side."""
    xp, filters = array_module(x), len(weight)
    if filters % to_count("groups", groups):
        raise ValueError(f"conv2d: groups must be a divisor of the weight's {filters} filters, got {groups!r}")
    check_channels(x.shape, weight.shape[1] * groups, "conv2d", "that of the weight times groups")
    biases = [None] * groups if bias is None else xp.split(bias, groups)
    parts = zip(xp.split(x, groups, 1), xp.split(weight, groups), biases, strict=True)
    ys, x_vjps, w_vjps, _ = zip(*(unwrap(conv2d)(*part, *options) for part in parts), strict=True)

    def each(vjps, g):
        return [vjp(part) for vjp, part in zip(vjps, xp.split(g, groups, 1), strict=True)]

    return (side_by_side(ys), lambda g: side_by_side(each(x_vjps, g)),
            lambda g: xp.concatenate(each(w_vjps, g)), channel_sums)


def _level(y, x, kernel, stride, padding):
    """Where a window of x (N, C, H, W) equals the one to its left, take over that one's values in y (N, F, OH, OW).

    Columns that the kernel's padding covers count as different: with stride 1 such equal windows are all zero anyway.
    """
    (_, _, oh, ow), (kh, kw), (sh, sw), (ph, pw) = y.shape, kernel, stride, padding
    # An eighth of the channels tells nearly all windows apart that are not flat.
    for channels in (x[:, ::8], x) if x.shape[1] > 1 else (x,):
        same = (channels[..., sw:] == channels[..., :-sw]).all(axis=1, keepdims=True)
        same = padded(padded(same, (ph, 0), True), (0, pw), False)
        rows = reduce(np.logical_and, shifted(same, (kh, 1), (sh, 1), (oh, same.shape[3])))
        windows = reduce(np.logical_and, shifted(rows, (1, kw), (1, sw), (oh, ow - 1)))  # (N, 1, OH, OW - 1)
        if not windows.any():
            return
    if not (windows & (y[..., 1:] != y[..., :-1])).any():
        return  # as with most BLAS kernels
    for w in range(1, ow):
        np.copyto(y[..., w], y[..., w - 1], where=windows[..., w - 1])


def _gather(x, kw, count, stride, padding, dtype):
    """The kw shifted copies of every row: x (N, C, H, W) -> (H, kw·C, OW·N), as they meet the kernel's columns."""
    x = inside(padded(x, (0, padding)))
    (h, c, _, n), (sh, sc, sw, sn) = x.shape, x.strides
    as_strided = array_module(x).lib.stride_tricks.as_strided
    copies = as_strided(x, (h, kw, c, count, n), (sh, sw, sc, sw * stride, sn))
    return copies.astype(dtype, order="C", copy=False).reshape(h, kw * c, count * n)


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
    """x (N, C, H, W) with weight (F, C, kh, kw) -> (N, F, OH, OW): columns gathered, then a product for each row."""
    xp, (f, c, kh, kw), n = array_module(x), weight.shape, len(x)
    y = xp.empty((counts[0], f, counts[1] * n), xp.result_type(x, weight))
    dtype = np.float64 if c * kh * kw <= FEW_TERMS else wide(y)
    rows = _gather(x, kw, counts[1], stride[1], padding[1], dtype)
    matrix = weight.transpose(0, 2, 3, 1).reshape(f, -1).astype(dtype, copy=False)  # (F, kh·kw·C)
    _multiply_rows(matrix, rows, kh, -padding[0], stride[0], y)
    return outside(y.reshape(counts[0], f, counts[1], n))


def _correlate_adjoint(g, weight, size, stride, padding):
    """The adjoint of _correlate in x: g (N, F, OH, OW) -> (N, C, H, W): a product for each row, then columns folded."""
    xp, (f, c, _, kw), (n, _, oh, ow) = array_module(g), weight.shape, g.shape
    dtype = xp.result_type(g, weight)
    image = xp.zeros((size[0], c, size[1], n), np.promote_types(dtype, np.float32))
    g = inside(g).reshape(oh, f, ow * n).astype(image.dtype, copy=False)
    for phase in range(stride[0]):  # the rows phase, phase + stride, ... of the image meet the same rows of the kernel
        rows = image[phase :: stride[0]]
        shift, tap = divmod(phase + padding[0], stride[0])
        taps = weight[:, :, tap :: stride[0]][:, :, ::-1]  # (F, C, reach, kw), in the order in which rows of g follow
        reach = taps.shape[2]
        matrix = taps.transpose(3, 1, 2, 0).reshape(kw * c, reach * f).astype(image.dtype, copy=False)
        products = xp.empty((len(rows), kw * c, ow * n), image.dtype)
        _multiply_rows(matrix, g, reach, shift - reach + 1, 1, products)
        products = products.reshape(len(rows), kw, c, ow, n)
        for j in range(kw):
            outputs, inputs = _meeting(j, size[1], ow, stride[1], padding[1])
            rows[:, :, inputs] += products[:, j, :, outputs]
    return outside(image.astype(dtype, copy=False))


def _weight_gradient(x, g, kernel, stride, padding):
    """The adjoint of _correlate in its weight: the sum over all rows of columns · gᵀ."""
    xp, c, (n, f, oh, ow) = array_module(x), x.shape[1], g.shape
    rows = _gather(x, kernel[1], ow, stride[1], padding[1], wide(g))  # (H, kw·C, OW·N)
    g = inside(g).reshape(oh, f, ow * n).swapaxes(1, 2).astype(rows.dtype, copy=False)
    gradient = xp.zeros((kernel[0] * kernel[1] * c, f), g.dtype)
    for outputs, terms, stacks in _stacks(rows, kernel[0], -padding[0], stride[0], oh):
        for stack, upstream in zip(stacks, g[outputs], strict=True):  # nothing is made that is larger than the weights
            gradient[terms] += stack @ upstream
    return gradient.reshape(*kernel, c, f).transpose(3, 2, 0, 1)


def _meeting(tap, size, count, stride, padding):
    """(outputs, inputs), slices of columns: output q meets input q·stride + tap - padding, if that is in the image."""
    offset = tap - padding
    start = max(0, -(offset // stride))
    stop = max(start, min(count, (size - 1 - offset) // stride + 1))
    return slice(start, stop), slice(start * stride + offset, max(0, (stop - 1) * stride + offset + 1), stride)
