"""The base class of the balls, and how arrays of examples are seen as rows and as pixels."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from tinyadv.backend import Array, array_module, is_array, move
from tinyadv.fused import bounded, finite_sizes, limited
from tinyadv.random import Streams

_FAR = 0.25  # of the largest number that there is: the longest step, so that no sum with it overflows


class Ball:
    """The base class of all balls. x: (N, ...), within the bounds; eps: the radius; bounds: (low, high) of the data."""

    def __init__(self, x: Array, eps: float, bounds: tuple[float, float]):
        farthest = math.prod(x.shape[1:]) * (float(bounds[1]) - float(bounds[0]))  # in any norm, inside the bounds
        self.x, self.bounds = x, bounds
        self.eps = min(float(eps), 2 * farthest)  # a float32 of NumPy would round what follows, 1e300 overflow
        self.low = _inward(bounds[0], x.dtype, math.inf)
        self.high = _inward(bounds[1], x.dtype, -math.inf)

    def around(self, x: Array) -> Ball:
        """The same kind of ball around other points."""
        return type(self)(x, self.eps, self.bounds)

    @staticmethod
    def distance(perturbation: Array) -> Array:
        """The norms (N,) of the perturbations (N, ...), in float64."""
        raise TypeError("a Ball is linf, l2, l1 or l0")

    @staticmethod
    def steepest(g: Array) -> Array:
        """The directions (N, ...) of norm 1 along which <g, .> grows the most; 0 if g is 0."""
        raise TypeError("a Ball is linf, l2, l1 or l0")

    @staticmethod
    def shrink(perturbation: Array, radius: Array) -> Array:
        """The nearest perturbations (N, ...) of norm radius (N,) or less, up to rounding, and without bounds."""
        raise TypeError("a Ball is linf, l2, l1 or l0")

    def distance_to(self, points: Array) -> Array:
        """The distances (N,) of the points (N, ...) from x, in float64."""
        return self.distance(points.astype(np.float64) - self.x)

    def nearer(self, points: Array, fraction: Array) -> Array:
        """The points (N, ...) moved towards x, so that a fraction (N,) of their distance remains; in float64."""
        far = points.astype(np.float64) - self.x
        return self.x + column(fraction, far) * far

    def farthest(self) -> Array:
        """The largest distance (N,) that a point within `low` and `high` has from x."""
        return self.distance(array_module(self.x).maximum(self.x - self.low, self.high - self.x))

    def step(self, points: Array, g: Array, size: float | Array) -> Array:
        """Move the points (N, ...) by `size`, a number or (N,), in the direction of steepest ascent, and project."""
        longest = _FAR * float(np.finfo(g.dtype).max)
        size = column(cast(Any, size).clip(0, longest).astype(g.dtype), points) if is_array(size) else min(
            max(float(size), 0.0), longest)
        return self.project(points + size * self.steepest(g))

    def project(self, points: Array) -> Array:
        """Project the points (N, ...) onto the ball and the bounds, in x's dtype. Inner points stay; NaN becomes x."""
        return self.project_to_bounds(points)

    def project_to_bounds(self, points: Array) -> Array:
        """The points (N, ...) within the bounds alone, in x's dtype; NaN becomes x."""
        xp = array_module(points)
        if xp is not np:
            return bounded(points, self.low, self.high, self.x).astype(self.x.dtype, copy=False)
        points = xp.clip(points, self.low, self.high).astype(self.x.dtype, copy=False)
        lost = xp.isnan(points)
        return xp.where(lost, self.x, points) if lost.any() else points

    def rounded(self, points: Array, levels: Array) -> Array:
        """The points (N, ...) rounded to their levels (N, ...), where rounding may leave them in the ball."""
        return levels

    def random(self, streams: Streams, radius: Array | None = None) -> Array:
        """A random point for each example, uniform in the ball or in one of radius (N,), clipped to the bounds."""
        offset = move(self._sample(streams, self.x.shape[1:]), like=self.x)
        return self.project(self.x + (self.eps if radius is None else column(radius, offset)) * offset)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        raise TypeError("a Ball is linf, l2, l1 or l0")


def fill(worth: Array, room: Array, price: Array, budget: Array) -> Array:
    """The distance (N, D) that each pixel moves, if pixels move one after the other, the largest worth (N, D) first.

    Each moves as far as its room (N, D) allows, until the budget (N, 1) is spent. A move of 1 costs its price (N, D).
    """
    xp = array_module(room)
    order = xp.argsort(-worth, axis=1, kind="stable")  # of equal ones the first: on any machine
    price, room = (xp.take_along_axis(array, order, axis=1) for array in (price, room))
    moves = xp.minimum(xp.maximum(budget - before(price * room), 0) / or_one(price), room)
    return xp.take_along_axis(moves, xp.argsort(order, axis=1), axis=1)


def before(values: Array) -> Array:
    """(N, D): for each value, the sum of all values to its left."""
    return array_module(values).pad(values.cumsum(axis=1)[:, :-1], ((0, 0), (1, 0)))


def _inward(bound: float, dtype: np.dtype, inward: float) -> Array:
    """The bound in the dtype of the data, rounded inwards: up for inward = inf, down for -inf."""
    rounded = np.asarray(bound, dtype)[()]  # a number: a GPU takes no array of the host
    outside = float(rounded) < bound if inward > 0 else float(rounded) > bound
    return np.nextafter(rounded, np.asarray(inward, dtype)) if outside else rounded


def flat(x: Array) -> Array:
    """(N, ...) -> (N, D)."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def pixels(x: Array) -> Array:
    """(N, ..., H, W) -> (N, C, H * W), where all axes between N and H are channels; (N, D) -> (N, 1, D)."""
    return x.reshape(len(x), math.prod(x.shape[1:-2]), math.prod(x.shape[-2:])) if x.ndim > 2 else x[:, None]


def column(values: Array, like: Array) -> Array:
    """(N,) -> (N, 1, ...), to broadcast against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def or_one(values: Array) -> Array:
    """The values, with 1 in place of 0, to divide by."""
    return values + (values == 0)


def usable(g: Array) -> Array:
    """The gradient (n, ...) with finite elements: infinite ones become the largest finite one of the image, NaN 0."""
    if isinstance(g, np.ndarray) and np.isfinite(g).all():
        return g
    return limited(g, column(flat(finite_sizes(g)).max(axis=1), g))
