"""Hybrid zonotopes: bounds that also track how the numbers of a network depend on the same pixels of the input.

Mirman et al. 2018 (DiffAI, ICML): a centre, a box of independent errors, and error terms whose symbols are shared by
all numbers of the network. The ReLU is that of Singh et al. 2018 (DeepZ, NeurIPS), the line of least area.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinyadv import ops
from tinyadv.backend import array_module, device_of
from tinyadv.certify.abstract import Abstract, Origin, at, beside
from tinyadv.certify.interval import Interval
from tinyadv.certify.rounding import rounding_error
from tinyadv.ops.movement import _concatenate
from tinyadv.shapes import to_count
from tinyadv.tensor import Tensor

BY_IMAGES = {ops.linear, ops.conv2d, ops.batch_norm, ops.avg_pool2d}  # treat each image of a batch by itself
AFFINE = {*BY_IMAGES, ops.add, ops.subtract, ops.negative, ops.flatten, ops.reshape, ops.transpose, ops.broadcast_to,
          ops.pad, ops.getitem, ops.sum, ops.mean, _concatenate}
BILINEAR = {ops.multiply, ops.matmul, ops.divide}  # affine where one argument is a constant, that of divide the second


class Zonotope(Abstract):
    """The arrays centre + box * e0 + the sum of errors[m] * e_m, with all e in [-1, 1], as far as they are in interval.

    The hybrid zonotopes of Mirman et al. 2018 (DiffAI, ICML), with the relu of Singh et al. 2018 (DeepZ, NeurIPS).
    low, high: of the input, as for an Interval. Each pixel gets an error term of its own, so an image of D pixels costs
    the memory of D images. Affine operations are exact. For an operation that is neither affine nor relu, or that mixes
    the images of a batch, the terms are given up: what follows is an interval. The interval of each step is computed,
    too, so that low and high are never looser than interval arithmetic. Zonotopes are for evaluation: train with
    intervals. All Zonotopes of one operation must be computed from the same one, else ValueError: for two inputs, make
    one Zonotope of both, and take its parts.
    terms: how many units of each relu get a new error term for the gap that it leaves, those with the largest gaps; the
    others' gaps go into the box. It takes memory, and is tighter from the next relu on: with all of them it is DeepZ.
    centre, box: Tensors (N, ...); errors: (M, N, ...); interval: the Interval. value, roundoff: as for an Interval.
    """

    __slots__ = ("box", "centre", "errors", "interval", "symbols", "terms")

    def __init__(self, low: Any, high: Any, value: Any = None, roundoff: float = 0.0, terms: int = 0):
        interval, terms = Interval(low, high, value, roundoff), to_count("terms", terms, least=0)
        radius = interval.radius.data
        xp, pixels = array_module(radius), math.prod(radius.shape[1:])
        with device_of(radius):
            rows = xp.eye(pixels, dtype=radius.dtype)[:, None] * radius.reshape(1, len(radius), pixels)  # (D, N, D)
        self.terms, self.symbols = terms, [pixels]  # the number of symbols so far, of all values made of this one
        self._set(interval, interval.centre, interval.radius * 0, Tensor(rows.reshape(pixels, *radius.shape)), None)

    def _set(self, interval: Interval, centre: Tensor, box: Tensor, errors: Tensor, origin: Origin | None) -> Zonotope:
        radius = box + ops.abs(errors).sum(axis=0)
        self.interval, self.centre, self.box, self.errors, self.origin = interval, centre, box, errors, origin
        self.low, self.high = ops.maximum(centre - radius, interval.low), ops.minimum(centre + radius, interval.high)
        self.value, self.sample = interval.value, centre
        return self

    def _through(self, operation: Callable, args: tuple, kwargs: dict[str, Any]) -> Abstract:
        if any(x.symbols is not self.symbols for x in args if isinstance(x, Zonotope)):
            raise ValueError(f"{operation.__name__}: all Zonotopes must be computed from the same one, as their error "
                             "terms are shared; make one Zonotope of all inputs, and take its parts, as z[:, :3]")
        interval = operation(*at(args, "interval"), **kwargs)
        if operation is ops.relu:
            parts = self._relu()
        elif _is_affine(operation, args) and not _mixes(operation, args, kwargs, interval.shape):
            centre, box = (operation(*at(args, part), **kwargs) for part in ("centre", "_around_zero"))
            box = box.radius
            if interval.roundoff:
                error = rounding_error(operation, args, kwargs, interval.roundoff, interval.magnitude)
                box = box if error is None else box + error
            parts = centre, box, self._errors(operation, args, kwargs)
        else:
            parts = interval.centre, interval.radius, interval.centre[None][:0]
        made = Zonotope.__new__(Zonotope)
        made.terms, made.symbols = self.terms, self.symbols
        return made._set(interval, *parts, Origin(operation, args, kwargs))

    @property
    def _around_zero(self) -> Interval:
        return Interval(-self.box, self.box)

    def _relu(self) -> tuple[Tensor, Tensor, Tensor]:
        """Between low and high, relu is slope * x + offset, up to the offset; on one side of zero it is exact."""
        low, high = self.low.data, self.high.data
        xp = array_module(low)
        crossing = (low < 0) & (high > 0)
        slope = xp.where(crossing, high / xp.where(crossing, high - low, 1), (low >= 0) * 1.0).astype(low.dtype)
        offset = xp.where(crossing, -slope * low / 2, 0).astype(low.dtype)
        centre, errors = slope * self.centre + offset, self.errors * slope
        gaps = offset.reshape(len(self), math.prod(self.shape[1:])).copy()
        if self.terms:
            sums = gaps.sum(axis=0)
            units = (-sums).argsort()[:min(self.terms, int((sums > 0).sum()))]
            used, n = self.symbols[0] - len(errors), len(units)  # by other values, that are not made of this one
            new = xp.zeros((used + n, *gaps.shape), low.dtype)
            new[xp.arange(used, used + n), :, units] = gaps[:, units].T
            gaps[:, units], self.symbols[0] = 0, self.symbols[0] + n
            errors = ops.concatenate([errors, new.reshape(len(new), *self.shape)])
        return centre, slope * self.box + gaps.reshape(self.shape), errors

    def _errors(self, operation: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """The error terms behind an affine operation: what it makes of each, less what it makes of zero."""
        zero = operation(*(x.centre * 0 if isinstance(x, Zonotope) else x for x in args), **kwargs)
        m, n = max(len(x.errors) for x in args if isinstance(x, Zonotope)), len(self)
        if not m:
            return zero[None][:0]
        if operation in BY_IMAGES:
            rows = operation(self.errors.reshape((m * n, *self.shape[1:])), *args[1:], **kwargs)
            return rows.reshape((m, n, *rows.shape[1:])) - zero
        rows = [operation(*(x._term(k) if isinstance(x, Zonotope) else x for x in args), **kwargs) for k in range(m)]
        return ops.concatenate([row[None] for row in rows]) - zero

    def _term(self, k: int) -> Tensor:
        return self.errors[k] if k < len(self.errors) else self.centre * 0

    @beside
    def worst(self, labels: Any) -> Tensor:
        """(N, K): for logits, upper bounds of z_j - z_y, as `Interval.worst`, and never above it."""
        labels, xp = self.own(labels), array_module(self.low.data)
        n, k = self.shape
        rows = xp.arange(n)
        difference, terms = self.centre, self.errors
        worst = difference - difference[rows, labels].reshape(n, 1)
        worst = worst + ops.abs(terms - terms[:, rows, labels].reshape(len(terms), n, 1)).sum(axis=0)
        if self.origin is not None and self.origin.operation is ops.linear:  # the box of the layer before: see Interval
            x, weight, *_ = self.origin.args
            box: Any = ops.linear(x._around_zero, weight)
            spread, error = box.worst(labels), self.box - box.high  # the rest is of rounding
        else:
            spread, error = self.box * 0, self.box
        worst = worst + spread + error + error[rows, labels].reshape(n, 1)
        return ops.minimum(worst * (labels[:, None] != xp.arange(k)).astype(self.dtype), self.interval.worst(labels))

    def __repr__(self) -> str:
        return f"Zonotope(shape={self.shape}, {self.dtype}, {len(self.errors)} error terms)"


def _is_affine(operation: Callable, args: tuple) -> bool:
    constant = [i for i, x in enumerate(args[:2]) if not isinstance(x, Zonotope)]
    return operation in AFFINE or (operation in BILINEAR and (constant == [1] or (
        constant == [0] and operation is not ops.divide)))


def _mixes(operation: Callable, args: tuple, kwargs: dict[str, Any], shape: tuple[int, ...]) -> bool:
    """Whether a row of the result, of that shape, depends on another image than its own, whose symbols are others.

    If not, NaN in all images whose number has a 1, or a 0, in some binary digit does not reach the other rows.
    """
    if operation in BY_IMAGES or 0 in shape:
        return False
    one, rows = next(x.centre for x in args if isinstance(x, Zonotope)).data, shape[0] if shape else 1
    xp, most = array_module(one), max(rows, *(len(x) for x in args if isinstance(x, Zonotope)))
    for k in range(2 * (most - 1).bit_length()):
        has = xp.arange(most) >> k // 2 & 1 == k % 2
        marks = xp.where(has, xp.nan, 0).astype(one.dtype)
        marked = (x.centre + marks[:len(x)].reshape(-1, *[1] * (x.ndim - 1)) if isinstance(x, Zonotope) else x
                  for x in args)
        reached = xp.isnan(operation(*marked, **kwargs).data.reshape(rows, -1)).any(axis=1)
        if (reached & ~has[:rows]).any():
            return True
    return False
