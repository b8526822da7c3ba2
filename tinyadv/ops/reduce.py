"""Operations that sum up axes: `axis` is None (all), an integer or a tuple, and `keepdims` is as in NumPy."""

import numpy as np

from tinyadv.backend import array_module, wide
from tinyadv.tensor import op


@op
def sum(x, axis=None, keepdims=False):
    """The sum over the axes."""
    xp, y = array_module(x), _total(x, axis, keepdims)
    return y.astype(x.dtype, copy=False), lambda g: xp.broadcast_to(_keep(g, x, axis), x.shape)


@op
def mean(x, axis=None, keepdims=False):
    """The mean over the axes; 0 of no elements, as the mean loss of an empty batch."""
    xp, y = array_module(x), _total(x, axis, keepdims)
    count = x.size / y.size if x.size else 1.0  # of the elements in each mean
    return (y / count).astype(x.dtype), lambda g: xp.broadcast_to(_keep(g, x, axis) * (1 / count), x.shape)


def _total(x, axis, keepdims):
    """The sum in float64: in float32, its error would grow with the length of a first axis."""
    return x.sum(axis=axis, keepdims=keepdims, dtype=np.float64)


@op
def max(x, axis=None, keepdims=False):
    """The maximum over the axes; elements that share it share its gradient."""
    return _extreme(x, x.max(axis=axis, keepdims=True), axis, keepdims)


@op
def min(x, axis=None, keepdims=False):
    """The minimum over the axes; elements that share it share its gradient."""
    return _extreme(x, x.min(axis=axis, keepdims=True), axis, keepdims)


def _extreme(x, y, axis, keepdims):
    def vjp(g):
        hit = x == y
        sharers = hit.sum(axis=axis, keepdims=True, dtype=wide(x))
        return hit * (_keep(g, x, axis) / (sharers + (sharers == 0)))  # nobody hits a maximum that is NaN

    return y if keepdims else y.squeeze(axis=axis), vjp


@op
def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) without overflow; -inf where every element is -inf."""
    xp = array_module(x)
    top, rest = logsumexp_parts(x, axis)
    y = (top + rest).astype(x.dtype, copy=False)
    value = y if keepdims else y.squeeze(axis=axis)
    return value, lambda g: _keep(g, x, axis) * xp.exp(x - xp.where(y == -xp.inf, 0, y).astype(x.dtype))


def logsumexp_parts(x, axis):
    """(top, rest) of an array, axes kept: log(sum(exp(x))) = top + rest, where top is the largest element.

    rest is wide: float16 does not hold the sum of 65,505 equal terms.
    """
    xp = array_module(x)
    top = x.max(axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0).astype(x.dtype)  # inf - inf would be NaN
    with np.errstate(divide="ignore"):  # log(0) is the right answer for a row of -inf
        return top, xp.log(xp.exp(x - top).sum(axis=axis, keepdims=True, dtype=wide(x)))


def _keep(g, x, axis):
    """The reduced g with its axes back, as length 1, whether or not they were kept."""
    if axis is None or not x.ndim:
        return g.reshape((1,) * x.ndim)
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    return g.reshape([1 if a in axes else n for a, n in enumerate(x.shape)])
