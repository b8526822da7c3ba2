"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) and layer normalisation (arXiv:1607.06450)."""

from functools import partial

import numpy as np

from tinyadv.backend import array_module, wide
from tinyadv.fused import normalised_slope, scaled, scales, slope_scales
from tinyadv.parallel import all_reduce
from tinyadv.shapes import check_bias, check_equal, check_ndim
from tinyadv.tensor import op
from tinyadv.window import keeps_order


def batch_statistics(x):
    """The mean and the (biased) variance of every channel of an array (N, C, H, W), each (C,), and their sample size.

    Where x is one part of a batch that is computed in parts, they are those of the whole batch.
    """
    count, total = all_reduce(x.size // x.shape[1], channel_sums(x))
    size = max(count, 1)  # an empty batch has no mean; zero will do
    mean = total / size
    z = x - per_channel(mean, x)
    (squares,) = all_reduce(channel_sums(z, z))
    return mean, squares / size, count


@partial(op, operands=3)
def batch_norm(x, weight, bias, mean, variance, eps=1e-5, of_batch=False):
    """weight * (x - mean) / sqrt(variance + eps) + bias for every channel of x (N, C, H, W).

    weight, bias, mean, variance: (C,). `of_batch` says that mean and variance are those of x itself
    (`batch_statistics`), so that the gradient flows through them too; otherwise they are constants.
    """
    check_ndim(x.shape, 4, "batch_norm", "images of shape (N, C, H, W)")
    check_equal(x.shape[1], mean.shape[0], "batch_norm", "the images' number of channels", "the layer's")
    check_equal(weight.shape, mean.shape, "batch_norm", "the shape of the weight", "that of the mean")
    check_bias(bias, mean.shape[0], "batch_norm", "channels")
    inverse, scale, shift = scales(weight, bias, mean, variance, eps)
    known: list = []  # g and its sums(g): all three gradients need them

    def sums(g):
        """The sums of g and of g·z, where z = (x - mean) / sqrt(variance + eps)."""
        if not known or known[0] is not g:
            known[:] = g, channel_sums(g), channel_sums(g, x - per_channel(mean, x)) * inverse
        return known[1:]

    def x_vjp(g):
        if not of_batch:
            return g * per_channel(scale, g)
        count, g_sum, gz_sum = all_reduce(x.size // x.shape[1], *sums(g))
        factor, shift = slope_scales(scale, inverse, g_sum, gz_sum, max(count, 1))
        return normalised_slope(g, x, *(per_channel(values, x) for values in (mean, factor, shift, scale)))

    y = scaled(x, per_channel(scale, x), per_channel(shift, x))
    y = y.astype(np.result_type(x.dtype, weight.dtype), copy=False)
    return y, x_vjp, lambda g: sums(g)[1], lambda g: sums(g)[0]


@partial(op, operands=3)
def layer_norm(x, weight, bias, eps=1e-5):
    """weight * (x - mean) / sqrt(variance + eps) + bias along the last axis of x (..., D); weight and bias (D,).

    Ba et al. 2016, arXiv:1607.06450, of the (biased) variance.
    """
    check_ndim(weight.shape, 1, "layer_norm", "a weight of shape (D,)")
    check_equal(x.shape[-1], weight.shape[0], "layer_norm", "the last axis of x", "the size of the weight")
    check_bias(bias, weight.shape[0], "layer_norm", "elements")
    z, variance = _centred(x, -1)
    inverse = (variance + eps) ** -0.5
    z *= inverse
    y = (z * weight + bias).astype(np.result_type(x.dtype, weight.dtype), copy=False)
    return y, lambda g: _normalised_vjp(g * weight, z, inverse, -1), lambda g: g * z, lambda g: g


@op
def standardize(x, floor):
    """(x - mean) / sqrt(max(variance, floor)) for every example of x (N, ...), of all its elements."""
    axes = tuple(range(1, x.ndim))
    z, variance = _centred(x.astype(np.float64, copy=False), axes)  # the floor would magnify rounding errors
    inverse = array_module(x).maximum(variance, floor) ** -0.5
    z *= inverse
    return z.astype(x.dtype, copy=False), lambda g: _normalised_vjp(g, z, inverse, axes, variance >= floor)


def _centred(x, axes):
    """x - mean and the variance along the axes, which are kept."""
    z = x - x.mean(axis=axes, keepdims=True, dtype=wide(x))
    return z, (z * z).mean(axis=axes, keepdims=True)


def _normalised_vjp(g, z, inverse, axes, varies=True):
    """The gradient in x of z = (x - mean) * inverse; where the inverse is a constant, `varies` is False."""
    y = g - g.mean(axis=axes, keepdims=True, dtype=wide(g))
    y -= varies * z * (g * z).mean(axis=axes, keepdims=True)
    y *= inverse
    return y


def channel_sums(*factors):
    """(C,): the sum of the product of one or two arrays (N, C, H, W) over all axes but the channels.

    With NumPy, einsum makes no product first, and is three times as fast as `sum` over several axes. That of CuPy
    copies both arrays, and multiplies C pairs of long vectors.
    """
    dtype, xp = np.result_type(*(x.dtype for x in factors), np.float32), array_module(*factors)
    if not keeps_order(factors[0]):
        return (factors[0] * factors[1] if factors[1:] else factors[0]).sum(axis=(0, 2, 3), dtype=dtype)
    return xp.einsum(",".join(["nchw"] * len(factors)) + "->c", *factors, dtype=dtype)


def per_channel(values, x):
    """(C,) -> (N, C, 1, W), to broadcast against x (N, C, H, W): written out for a whole row, one run in memory.

    NumPy is twice as fast with that as with (C, 1, 1), where it handles every row of every channel on its own; CuPy
    takes (C, 1, 1).
    """
    if not keeps_order(x):
        return values[:, None, None]
    n, c, _, w = x.shape
    return values.repeat(w * n).reshape(c, w, n).transpose(2, 0, 1)[:, :, None]
