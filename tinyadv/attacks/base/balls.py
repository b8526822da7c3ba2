"""The balls that limit a perturbation. All code that depends on the norm is in this file.

A ball is the set of points within eps of x and within the bounds of the data. It has methods for projection, random
points, distance and steepest ascent. The budget is exact: each returned point satisfies |point - x| <= eps, computed in
float64, without a tolerance.
"""

from __future__ import annotations

import math

import numpy as np

from tinyadv.backend import Array, array_module, move
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
        raise TypeError("a Ball is linf, l2 or l1")

    @staticmethod
    def steepest(g: Array) -> Array:
        """The directions (N, ...) of norm 1 along which <g, .> grows the most; 0 if g is 0."""
        raise TypeError("a Ball is linf, l2 or l1")

    def step(self, points: Array, g: Array, size: float | Array) -> Array:
        """Move the points (N, ...) by `size`, a number or (N,), in the direction of steepest ascent, and project."""
        size = array_module(g).asarray(size, np.float64).clip(0, _FAR * float(np.finfo(g.dtype).max)).astype(g.dtype)
        return self.project(points + column(size, points) * self.steepest(g))

    def project(self, points: Array) -> Array:
        """Project the points (N, ...) onto the ball and the bounds, in x's dtype. Inner points stay; NaN becomes x."""
        xp = array_module(points)
        points = xp.clip(points, self.low, self.high).astype(self.x.dtype, copy=False)
        lost = xp.isnan(points)
        return xp.where(lost, self.x, points) if lost.any() else points

    def random(self, streams: Streams, radius: Array | None = None) -> Array:
        """A random point for each example, uniform in the ball or in one of radius (N,), clipped to the bounds."""
        offset = move(self._sample(streams, self.x.shape[1:]), like=self.x)
        return self.project(self.x + (self.eps if radius is None else column(radius, offset)) * offset)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        raise TypeError("a Ball is linf, l2 or l1")


class LinfBall(Ball):
    """max |point - x| <= eps. With the bounds it is a box, rounded inwards once, so a projection is one clip."""

    def __init__(self, x: Array, eps: float, bounds: tuple[float, float]):
        super().__init__(x, eps, bounds)
        xp, wide = array_module(x), x.astype(np.float64)
        low = xp.maximum(wide - eps, self.low).astype(x.dtype)
        high = xp.minimum(wide + eps, self.high).astype(x.dtype)
        self.low = xp.where(wide - low > eps, xp.nextafter(low, x), low)
        self.high = xp.where(high - wide > eps, xp.nextafter(high, x), high)

    @staticmethod
    def distance(perturbation: Array) -> Array:
        return flat(abs(perturbation.astype(np.float64))).max(axis=1)

    @staticmethod
    def steepest(g: Array) -> Array:
        return array_module(g).sign(g)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        return streams.uniform(shape, -1, 1)


class RoundBall(Ball):
    """The base of the l2 and l1 balls: project in float64, then shrink until the rounded point is inside."""

    def project(self, points: Array) -> Array:
        clipped = super().project(points)  # towards x, which is inside the bounds: no distance grows
        xp, x = array_module(points), self.x
        # Whoever sums up the squares in another order may get another last bit: that much room is left.
        # A budget so small that a distance loses digits is none.
        limit = self.eps * (1 - math.prod(x.shape[1:]) * 2.0**-52) if self.eps > 2.0**-1000 else 0.0
        perturbation = clipped.astype(np.float64) - x
        distance = self.distance(perturbation)
        outside = column(distance > limit, x)
        if not outside.any():
            return clipped
        perturbation = xp.where(outside, self._nearest(points, perturbation, distance, limit), perturbation)
        scale = xp.ones(len(x))
        for halvings in range(np.finfo(x.dtype).nmant + 1, -2, -1):  # the last leaves x
            rounded = xp.clip((x + column(scale, x) * perturbation).astype(x.dtype), self.low, self.high)
            over = self.distance(rounded.astype(np.float64) - x) > limit
            if not over.any():
                break
            scale = scale * (1 - over * 2.0**-halvings)
        return xp.where(outside, rounded, clipped)

    def _nearest(self, points: Array, perturbation: Array, distance: Array, limit: float) -> Array:
        """The nearest perturbation of norm `limit`, for points that are outside the ball after clipping to the bounds.

        perturbation, distance: those of the clipped points.
        """
        raise TypeError("a RoundBall is l2 or l1")


class L2Ball(RoundBall):
    """sqrt(sum (point - x)²) <= eps."""

    @staticmethod
    def distance(perturbation: Array) -> Array:
        xp, rows = array_module(perturbation), flat(perturbation.astype(np.float64))
        # Squares of tiny numbers would vanish, of huge ones overflow: these rows are scaled by a power of two.
        power = xp.frexp(xp.maximum(rows.max(axis=1), -rows.min(axis=1)))[1]
        power = xp.where(abs(power) > 400, xp.clip(power, -1000, 1000), 0)
        ones = xp.ones(len(rows))
        if power.any():
            rows = rows * xp.ldexp(ones, -power)[:, None]
        return xp.sqrt((rows**2).sum(axis=1)) * xp.ldexp(ones, power)

    @staticmethod
    def steepest(g: Array) -> Array:
        xp, rows = array_module(g), flat(g)
        g = g / column(_or_one(abs(rows).max(axis=1)), g)  # or the squares of a tiny g would vanish
        return g / column(_or_one(xp.sqrt((flat(g) ** 2).sum(axis=1))), g)

    def _nearest(self, points: Array, perturbation: Array, distance: Array, limit: float) -> Array:
        """The projection of the clipped points; there is no formula for the ball and the bounds together."""
        return perturbation * column(limit / _or_one(distance), perturbation)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        # A normal direction, and a radius of density proportional to r^(D - 1).
        direction = L2Ball.steepest(streams.normal(shape))
        return direction * column(streams.uniform(()) ** (1 / math.prod(shape)), direction)


class L1Ball(RoundBall):
    """sum |point - x| <= eps."""

    @staticmethod
    def distance(perturbation: Array) -> Array:
        return abs(flat(perturbation.astype(np.float64))).sum(axis=1)

    def step(self, points: Array, g: Array, size: float | Array) -> Array:
        """Move the pixel with the largest |g| up to its bound, then the next one, until the length `size` is used up.

        For a linear loss, this is the best step of that length within the bounds.
        """
        xp, wide = array_module(points), points.astype(np.float64)
        room = xp.where(g == 0, 0, xp.where(g > 0, self.high - wide, wide - self.low))
        moves = fill(abs(flat(g)), flat(room), flat(xp.ones_like(room)), xp.asarray(size, np.float64).reshape(-1, 1))
        return self.project(wide + xp.sign(g) * moves.reshape(g.shape))

    @staticmethod
    def steepest(g: Array) -> Array:
        """The sign of g at the (first) pixel with the largest |g|, and 0 elsewhere."""
        xp, rows = array_module(g), flat(g)
        largest = abs(rows).argmax(axis=1) if rows.size else xp.zeros(len(rows), np.int64)
        one_hot = largest[:, None] == xp.arange(rows.shape[1])
        return (one_hot * xp.sign(rows)).reshape(g.shape)

    def _nearest(self, points: Array, perturbation: Array, distance: Array, limit: float) -> Array:
        """Lower each |coordinate| by the same threshold, but not below 0 (Duchi et al. 2008), and keep the bounds.

        This is the nearest point within the ball and the bounds together: Croce and Hein 2021, arXiv:2103.01208,
        section 2. Projecting onto one after the other would waste budget at pixels that reach a bound.
        """
        xp, wide = array_module(points), self.x.astype(np.float64)
        signs = xp.sign(flat(perturbation))
        room = flat(xp.where(perturbation > 0, self.high - wide, wide - self.low))
        sizes = xp.minimum(flat(abs(points - wide)), room + 2.0**20 * limit)  # finite
        sizes = xp.where(signs == 0, 0, sizes)
        # sum(min(max(sizes - t, 0), room)) is linear between the t at which a pixel becomes 0, or leaves its bound.
        ends = xp.concatenate([sizes, xp.maximum(sizes - room, 0)], axis=1)
        order = xp.argsort(-ends, axis=1)
        ends, turns = xp.take_along_axis(ends, order, axis=1), xp.where(order < room.shape[1], 1.0, -1.0)
        total, slope = (turns * ends).cumsum(axis=1), turns.cumsum(axis=1)
        last = (xp.arange(len(ends)), (total - slope * ends <= limit).sum(axis=1) - 1)
        threshold = (total[last] - limit) / xp.maximum(slope[last], 1)
        lowered = xp.clip(sizes - threshold[:, None], 0, room) * signs
        return lowered.reshape(points.shape)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        # The spacings of uniform points are uniform on the simplex; the one left over makes it the solid ball.
        size = math.prod(shape)
        cuts = np.sort(streams.uniform((size,)), axis=1)
        signs = np.sign(streams.uniform((size,), -1, 1))
        return (np.diff(cuts, axis=1, prepend=0) * signs).reshape(-1, *shape)


def fill(worth: Array, room: Array, price: Array, budget: Array) -> Array:
    """The distance (N, D) that each pixel moves, if pixels move one after the other, the largest worth (N, D) first.

    Each moves as far as its room (N, D) allows, until the budget (N, 1) is spent. A move of 1 costs its price (N, D).
    """
    xp = array_module(room)
    order = xp.argsort(-worth, axis=1, kind="stable")  # of equal ones the first: on any machine
    price, room = (xp.take_along_axis(array, order, axis=1) for array in (price, room))
    spent = xp.pad((price * room).cumsum(axis=1)[:, :-1], ((0, 0), (1, 0)))  # before each
    moves = xp.minimum(xp.maximum(budget - spent, 0) / _or_one(price), room)
    return xp.take_along_axis(moves, xp.argsort(order, axis=1), axis=1)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def ball_class(norm: str) -> type[Ball]:
    """The ball of the norm "linf", "l2" or "l1"; ValueError for another name."""
    if norm not in BALLS:
        raise ValueError(f'norm must be "linf", "l2" or "l1", got {norm!r}')
    return BALLS[norm]


def _inward(bound: float, dtype: np.dtype, inward: float) -> Array:
    """The bound in the dtype of the data, rounded inwards: up for inward = inf, down for -inf."""
    rounded = np.asarray(bound, dtype)[()]  # a number: a GPU takes no array of the host
    outside = float(rounded) < bound if inward > 0 else float(rounded) > bound
    return np.nextafter(rounded, np.asarray(inward, dtype)) if outside else rounded


def flat(x: Array) -> Array:
    """(N, ...) -> (N, D)."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def column(values: Array, like: Array) -> Array:
    """(N,) -> (N, 1, ...), to broadcast against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _or_one(values: Array) -> Array:
    return values + (values == 0)
