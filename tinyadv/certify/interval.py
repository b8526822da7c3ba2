"""Interval arithmetic: the bounds of every number in a network, from those of its input.

Moore 1966, "Interval analysis"; for the certification and training of networks Gowal et al. 2018, arXiv:1810.12715,
"interval bound propagation" (IBP). The rules of the operations are in rules.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyadv import ops
from tinyadv.attacks.base.arguments import check_images
from tinyadv.backend import Array, array_module, device_of, on_its_device
from tinyadv.certify.abstract import Abstract, Origin, at, beside
from tinyadv.certify.rounding import rounding_error
from tinyadv.shapes import check_not_negative
from tinyadv.tensor import _UNRECORDED, Tensor, recording


class Ball(NamedTuple):
    """What a rule returns that knows the centre and the radius; the others return (low, high)."""

    centre: Tensor
    radius: Tensor


MADE: dict[str, Callable[[Any], Tensor]] = {
    "low": lambda x: x.centre - x.radius, "high": lambda x: x.centre + x.radius,
    "centre": lambda x: (x.low + x.high) * 0.5, "radius": lambda x: (x.high - x.low) * 0.5}
RULES: dict[Callable, Callable] = {}


class Interval(Abstract):
    """All arrays between low and high, element by element; `model(Interval(low, high))` bounds the logits.

    Gowal et al. 2018, arXiv:1810.12715, section 3.
    low, high: Tensors or arrays of one shape, low <= high. value: an array between them that is computed along with
    the bounds, which layers in training mode need: the clean images. roundoff: the unit roundoff of the network whose
    rounding errors the bounds are to include, 2**-24 for float32; give low and high in float64 then (rounding.py). An
    operation on several Intervals uses the largest roundoff. The bounds are Tensors, so a loss of them can be
    differentiated. ValueError if low is above high anywhere, or the value is not between them, up to rounding.
    """

    __slots__ = ("centre", "radius", "roundoff")
    radius: Tensor

    def __init__(self, low: Any, high: Any, value: Any = None, roundoff: float = 0.0):
        check_not_negative("roundoff", roundoff)
        self.low, self.high = Tensor(low), Tensor(high)
        self.value = None if value is None else Tensor(value)
        self.roundoff, self.origin, self.sample = roundoff, None, self.low
        _require("low must be at most high, and of the same shape", operator.le, low=self.low, high=self.high)
        if roundoff and not self.low.dtype == self.high.dtype == np.float64:
            raise ValueError(f"low and high must be float64 where roundoff is given, got {self.low.dtype} and "
                             f"{self.high.dtype}: else the rounding of the bounds themselves is not covered")
        if self.value is not None:
            _require("value must be between low and high, and of their shape", _between, value=self.value, low=self.low,
                     high=self.high)

    @classmethod
    @on_its_device
    def around(cls, x: Array, eps: float, bounds: tuple[float, float] = (0.0, 1.0), value: Any = None) -> Interval:
        """The points within linf distance eps of the images x (N, ...), and within the bounds of the data.

        ValueError for images that are not within the bounds: the interval would not hold them.
        """
        check_images(x, bounds)
        low, high = map(float, bounds)  # a NumPy number of float64 would widen the images
        eps = eps if np.ndim(eps) else float(eps)
        return cls((x - eps).clip(low, high), (x + eps).clip(low, high), value)

    def __getattr__(self, name: str) -> Any:
        """low and high are made of the centre and the radius where they are first needed, or the other way round."""
        if name in MADE:
            with recording(self.sample._node is not _UNRECORDED):  # as the others were, whoever asks first
                setattr(self, name, MADE[name](self))
            return getattr(self, name)
        return super().__getattr__(name)  # type: ignore[misc]  # it names the remedy

    def _through(self, operation: Callable, args: tuple, kwargs: dict[str, Any]) -> Interval:
        if operation not in RULES:
            raise TypeError(f"{operation.__name__} has no rule for an argument of the class Interval: the rules are "
                            f"those of {', '.join(sorted(each.__name__ for each in RULES))}")
        several = [x for x in args if isinstance(x, Interval)]
        roundoff = max(x.roundoff for x in several)
        result = self._of(RULES[operation](operation, *args, **kwargs), roundoff)
        if roundoff:
            error = rounding_error(operation, args, kwargs, roundoff, result.magnitude)
            if error is not None:
                result = self._of((result.low - error, result.high + error), roundoff)
        known = all(x.value is not None for x in several)
        result.value = operation(*at(args, "value"), **kwargs) if known else None
        result.origin = Origin(operation, args, kwargs)
        return result

    def _of(self, found: Ball | tuple[Tensor, Tensor], roundoff: float) -> Interval:
        """Of what a rule returns."""
        made = Interval.__new__(Interval)
        made.roundoff, made.sample = roundoff, found[0]
        if isinstance(found, Ball):
            made.centre, made.radius = found
        else:
            made.low, made.high = found
        return made

    @beside
    def worst(self, labels: Any) -> Tensor:
        """(N, K): for logits, upper bounds of z_j - z_y, where y are the labels (N,); 0 for j = y.

        If the last operation is linear, the difference of two logits is one more linear function, whose bound is never
        looser than the difference of their bounds: the "elision of the last layer" of Gowal et al., section 3.
        All points are classified as y if all others are below 0.
        """
        labels, xp = self.own(labels), array_module(self.low.data)
        n, k = self.shape
        rows = xp.arange(n)
        others = (labels[:, None] != xp.arange(k)).astype(self.dtype)
        if self.origin is None or self.origin.operation is not ops.linear:
            return (self.high - self.low[rows, labels].reshape(n, 1)) * others
        x, weight, *_ = self.origin.args
        wide = weight * xp.ones(1, self.dtype) if isinstance(weight, Tensor) else weight.astype(self.dtype)
        differences = ops.abs(wide.reshape(1, k, -1) - wide.reshape(k, 1, -1))  # (K, K, D): of each pair of rows
        radius = ops.linear(x.radius, differences.reshape(k * k, -1)).reshape(n, k, k)[rows, labels]
        centre = self.centre
        worst = centre - centre[rows, labels].reshape(n, 1) + radius
        if self.roundoff:
            error = rounding_error(ops.linear, self.origin.args, {}, self.roundoff, self.magnitude)
            assert error is not None
            worst = worst + error + error[rows, labels].reshape(n, 1)
        return worst * others


def _between(value: Array, low: Array, high: Array) -> Array:
    """Where it is, up to two roundings: an attack and a box may round otherwise."""
    room = 2 * float(np.finfo(low.dtype).eps) * (abs(low) + abs(high))
    return (low - room <= value) & (value <= high + room)


def _require(what: str, holds: Callable[..., Array], **given: Tensor) -> None:
    """ValueError unless they are of one shape, and it holds everywhere: it shows the first numbers that are wrong."""
    shapes = dict.fromkeys(each.shape for each in given.values())
    if len(shapes) > 1:
        raise ValueError(f"{what}; got shapes {' and '.join(map(str, shapes))}")
    arrays = [each.data for each in given.values()]
    with device_of(*arrays):
        right = holds(*arrays)
        if not right.all():
            place = int((~right).reshape(-1).argmax())
            wrong = (f"{name} {float(each.data.reshape(-1)[place])}" for name, each in given.items())
            raise ValueError(f"{what}; got {', '.join(wrong)}")


def rule(*operations: Callable) -> Callable[[Callable], Callable]:
    """Enter a function of an operation and its arguments, which returns the bounds, as the rule of these operations."""
    def enter(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(operations, function))
        return function
    return enter
