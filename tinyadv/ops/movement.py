"""Operations that move elements without computing on them. Most vjps are views: nothing is copied."""

import math
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from tinyadv.backend import array_module, wide
from tinyadv.tensor import Tensor, op
from tinyadv.window import keeps_order


@op
def reshape(x, shape):
    """The elements in another shape; one length may be -1."""
    return x.reshape(shape), lambda g: g.reshape(x.shape)


@op
def flatten(x):
    """(N, ...) -> (N, D): all axes but the first made one. The batch stays where it is in memory (window.py)."""
    shape = x.shape  # for the vjp, which needs no more of x
    if not keeps_order(x):
        return x.reshape(len(x), math.prod(shape[1:])), lambda g: g.reshape(shape)
    y = array_module(x).moveaxis(x, 0, -1).reshape(math.prod(shape[1:]), len(x))  # (D, N)
    return y.T, lambda g: arranged(g.reshape(shape))


def arranged(x):
    """A copy of an array (N, ...): with NumPy the batch last in memory and the rows of images first, (H, C, W, N)."""
    if not keeps_order(x):
        return x.copy()
    order, back = ((2, 1, 3, 0), (3, 1, 0, 2)) if x.ndim == 4 else ((*range(1, x.ndim), 0), (-1, *range(x.ndim - 1)))
    return x.transpose(order).copy().transpose(back)


@op
def transpose(x, axes=None):
    """The axes in another order; reversed by default."""
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes]).tolist()
    return x.transpose(axes), lambda g: g.transpose(back)


@op
def broadcast_to(x, shape):
    """x repeated to a shape. The engine sums the gradient back, as it does for every broadcast."""
    return array_module(x).broadcast_to(x, shape), lambda g: g


@op
def pad(x, width, value=0.0):
    """x padded with `value`; width is ((before, after), ...), one pair for each axis."""
    inner = tuple(slice(before, before + n) for (before, _), n in zip(width, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in zip(width, x.shape, strict=True))
    y = array_module(x).full_like(x, value, shape=shape)  # in the memory order of x
    y[inner] = x
    return y, lambda g: g[inner]


@op
def getitem(x, index):
    """x[index], with integers, slices, `...`, integer arrays and masks, as in NumPy."""
    xp = array_module(x)
    parts = index if isinstance(index, tuple) else (index,)
    may_repeat = any(not isinstance(part, int | slice | type(None) | type(...)) for part in parts)

    def vjp(g):
        whole = xp.zeros_like(x, dtype=wide(x))
        if may_repeat:
            xp.add.at(whole, index, g)
        else:
            whole[index] = g
        return whole

    return x[index], vjp


def concatenate(tensors: Sequence, axis: int = 0) -> Tensor:
    """The tensors one after the other along an axis."""
    return _concatenate(*tensors, axis=axis)


@partial(op, operands=sys.maxsize)
def _concatenate(*arrays, axis):
    ends = np.cumsum([array.shape[axis] for array in arrays]).tolist()
    bounds = zip([0, *ends[:-1]], ends, strict=True)

    def vjp(start, end):
        return lambda g: g[(slice(None),) * (axis % g.ndim) + (slice(start, end),)]

    return array_module(*arrays).concatenate(arrays, axis=axis), *(vjp(*bound) for bound in bounds)
