"""Pooling: one number for each window of an image."""

import math
from itertools import repeat

from tinyadv import columns
from tinyadv.backend import array_module, wide
from tinyadv.ops.reduce import mean
from tinyadv.shapes import check_ndim, pair, window_counts
from tinyadv.tensor import Tensor, op
from tinyadv.window import fold, keeps_order, ordered, padded, shifted


@op
def max_pool2d(x, size, stride=None, padding=0):
    """The maximum of each window: (N, C, H, W) -> (N, C, OH, OW). `stride` is `size` unless given.

    Padding is -inf, and loses to every number. The gradient goes to the first maximum of a window, row by row.
    """
    window, stride, padding, counts = _pool_arguments("max_pool2d", x, size, stride, padding)
    if not keeps_order(x):
        return columns.max_pool(x, window, counts, stride, padding)
    xp, size = array_module(x), x.shape[2:]  # the vjp captures the size and not x
    framed = padded(ordered(x), padding, -xp.inf)
    first, *others = shifted(framed, window, stride, counts)
    y, larger = first.copy("K"), []  # the maximum so far, and for each further element, in which windows it is larger
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

        g = ordered(g)
        return fold(shares(g), g, size, window, stride, padding)

    return y, vjp


@op
def avg_pool2d(x, size, stride=None, padding=0):
    """The mean of each window, padding included: (N, C, H, W) -> (N, C, OH, OW). `stride` is `size` unless given."""
    window, stride, padding, counts = _pool_arguments("avg_pool2d", x, size, stride, padding)
    framed, size = padded(ordered(x), padding), x.shape[2:]
    first, *others = shifted(framed, window, stride, counts)
    y = first.astype(wide(x))
    for values in others:
        y += values
    y /= math.prod(window)

    def vjp(g):
        share = ordered(g) / math.prod(window)
        return fold(repeat(share), share, size, window, stride, padding)

    return y.astype(x.dtype, copy=False), vjp


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
