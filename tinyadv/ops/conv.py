"""Convolution: with NumPy, matrix products with the rows of the images (rows.py); with CuPy, those of columns.py."""

from functools import partial
from inspect import unwrap

from tinyadv import columns, rows
from tinyadv.backend import array_module
from tinyadv.ops.normalize import channel_sums, per_channel
from tinyadv.shapes import check_bias, check_channels, check_ndim, pair, to_count, window_counts
from tinyadv.tensor import op
from tinyadv.window import keeps_order, side_by_side

# BLAS is slow where the left matrix has few rows. So where the result has at most this many channels, and no more than
# what it is made from, the products are folded (correlate_adjoint: kw times as many rows), not the images gathered.
FEW_CHANNELS = 32


@partial(op, operands=3)
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
    folds_back, folds_forth = c <= min(f, FEW_CHANNELS), f <= min(c, FEW_CHANNELS) and weight[0].size > rows.FEW_TERMS
    by = rows if keeps_order(x) else columns

    def x_vjp(g):
        if two_ways and not (by is rows and folds_back):
            return by.correlate(g, flipped, size, stride, frame)
        return by.correlate_adjoint(g, weight, size, stride, padding)

    if by is rows and two_ways and folds_forth:
        y = by.correlate_adjoint(x, flipped, counts, stride, frame)
    else:
        y = by.correlate(x, weight, counts, stride, padding)
    if by is rows and weight[0].size > rows.FEW_TERMS and counts[1] > 1:
        rows.level(y, x, kernel, stride, padding)
    if bias is not None:
        y += per_channel(bias, y)

    def weight_vjp(g):
        return by.weight_gradient(x, g, kernel, stride, padding)[:, :, ::down, ::across]

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
