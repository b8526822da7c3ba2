"""Convolution of images that lie (H, C, W, N) in memory, as window.py says: products with the rows of the images.

A row of an image, with all its channels and of the whole batch, is then a matrix (C, W·N), and kh rows one below the
other are a matrix (kh·C, W·N) without being copied. So a convolution gathers only the kw shifted copies of each row
that stand for the columns of the kernel, and each row of the output is one product with the kh rows that its windows
cover. docs/convolution.md derives it line by line.
"""

from functools import reduce

import numpy as np

from tinyadv.backend import array_module, wide
from tinyadv.window import inside, outside, padded, shifted

# Sums of at most this many terms are made in float64 on a CPU, and rounded once. Flat parts of an image, of which the
# first layer sees many, then give exactly equal results, whatever their place in a matrix product: which maximum of a
# pooling window is the first, and so the gradient, does not depend on how the images are batched.
FEW_TERMS = 32


def correlate(x, weight, counts, stride, padding):
    """x (N, C, H, W) with weight (F, C, kh, kw) -> (N, F, OH, OW): columns gathered, then a product for each row."""
    xp, (f, c, kh, kw), n = array_module(x), weight.shape, len(x)
    y = xp.empty((counts[0], f, counts[1] * n), xp.result_type(x, weight))
    dtype = np.float64 if c * kh * kw <= FEW_TERMS else wide(y)
    rows = _gather(x, kw, counts[1], stride[1], padding[1], dtype)
    matrix = weight.transpose(0, 2, 3, 1).reshape(f, -1).astype(dtype, copy=False)  # (F, kh·kw·C)
    _multiply_rows(matrix, rows, kh, -padding[0], stride[0], y)
    return outside(y.reshape(counts[0], f, counts[1], n))


def correlate_adjoint(g, weight, size, stride, padding):
    """The adjoint of correlate in x: g (N, F, OH, OW) -> (N, C, H, W): a product for each row, then columns folded."""
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


def weight_gradient(x, g, kernel, stride, padding):
    """The adjoint of correlate in its weight: the sum over all rows of columns · gᵀ."""
    xp, c, (n, f, oh, ow) = array_module(x), x.shape[1], g.shape
    rows = _gather(x, kernel[1], ow, stride[1], padding[1], wide(g))  # (H, kw·C, OW·N)
    g = inside(g).reshape(oh, f, ow * n).swapaxes(1, 2).astype(rows.dtype, copy=False)
    gradient = xp.zeros((kernel[0] * kernel[1] * c, f), g.dtype)
    for outputs, terms, stacks in _stacks(rows, kernel[0], -padding[0], stride[0], oh):
        for stack, upstream in zip(stacks, g[outputs], strict=True):  # nothing is made that is larger than the weights
            gradient[terms] += stack @ upstream
    return gradient.reshape(*kernel, c, f).transpose(3, 2, 0, 1)


def level(y, x, kernel, stride, padding):
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


def _meeting(tap, size, count, stride, padding):
    """(outputs, inputs), slices of columns: output q meets input q·stride + tap - padding, if that is in the image."""
    offset = tap - padding
    start = max(0, -(offset // stride))
    stop = max(start, min(count, (size - 1 - offset) // stride + 1))
    return slice(start, stop), slice(start * stride + offset, max(0, (stop - 1) * stride + offset + 1), stride)
