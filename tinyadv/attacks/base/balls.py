"""The balls that limit a perturbation. All code that depends on the norm is here and in `l0.py`.

A ball is the set of points within eps of x and within the bounds of the data. It has methods for projection, random
points, distance and steepest ascent. The budget is exact: each returned point satisfies |point - x| <= eps, computed in
float64, without a tolerance.
"""

from __future__ import annotations

import math

import numpy as np

from tinyadv.attacks.base.ball import Ball, column, fill, flat, or_one
from tinyadv.attacks.base.l0 import L0Ball
from tinyadv.backend import Array, array_module, surely_none, wide
from tinyadv.random import Streams

__all__ = [
    "BALLS", "Ball", "L0Ball", "L1Ball", "L2Ball", "LinfBall", "ball_class", "column", "far_start", "fill", "flat",
]


class LinfBall(Ball):
    """max |point - x| <= eps. With the bounds it is a box, rounded inwards once, so a projection is one clip."""

    def __init__(self, x: Array, eps: float, bounds: tuple[float, float]):
        super().__init__(x, eps, bounds)
        xp, wide = array_module(x), x.astype(np.float64)
        low = xp.maximum(wide - eps, self.low).astype(x.dtype)
        high = xp.minimum(wide + eps, self.high).astype(x.dtype)
        self.low = xp.where(_farther(wide, low, eps), xp.nextafter(low, x), low)
        self.high = xp.where(_farther(high, wide, eps), xp.nextafter(high, x), high)

    @staticmethod
    def distance(perturbation: Array) -> Array:
        return flat(abs(perturbation.astype(np.float64))).max(axis=1)

    def nearer(self, points: Array, fraction: Array) -> Array:
        """As of any ball, but only what is beyond the new distance moves: each change is clipped to it."""
        far = points.astype(np.float64) - self.x
        limit = column(fraction * self.distance(far), far)
        return self.x + far.clip(-limit, limit)

    @staticmethod
    def steepest(g: Array) -> Array:
        return array_module(g).sign(g)

    @staticmethod
    def shrink(perturbation: Array, radius: Array) -> Array:
        limit = column(radius, perturbation).astype(perturbation.dtype)
        return array_module(perturbation).clip(perturbation, -limit, limit)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        return streams.uniform(shape, -1, 1)


def _farther(a: Array, b: Array, eps: float) -> Array:
    """Whether a - b is more than eps, exactly. If the rounded difference is eps, what it has lost decides.

    The loss is that of Knuth's sum of two numbers (The Art of Computer Programming, volume 2, section 4.2.2).
    """
    d = a - b
    t = a - d
    return (d > eps) | ((d == eps) & ((a - (d + t)) + (t - b) > 0))


class RoundBall(Ball):
    """The base of the l2 and l1 balls: project in float64, then shrink until the rounded point is inside."""

    def project(self, points: Array) -> Array:
        clipped = self.project_to_bounds(points)  # towards x, which is inside the bounds: no distance grows
        xp, x = array_module(points), self.x
        # A sum of the squares in another order may differ in the last bits, so leave that much room.
        # A budget so small that distances lose digits counts as 0.
        limit = self.eps * (1 - math.prod(x.shape[1:]) * 2.0**-52) if self.eps > 2.0**-1000 else 0.0
        perturbation = clipped.astype(np.float64) - x
        distance = self.distance(perturbation)
        outside = column(distance > limit, x)
        if surely_none(outside):
            return clipped
        perturbation = xp.where(outside, self._nearest(points, perturbation, distance, limit), perturbation)
        scale = xp.ones(len(x))
        for halvings in range(np.finfo(x.dtype).nmant + 1, -2, -1):  # the last leaves x
            rounded = xp.clip((x + column(scale, x) * perturbation).astype(x.dtype), self.low, self.high)
            over = self.distance_to(rounded) > limit
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
        if not surely_none(power):
            rows = rows * xp.ldexp(ones, -power)[:, None]
        return xp.sqrt((rows**2).sum(axis=1)) * xp.ldexp(ones, power)

    @staticmethod
    def steepest(g: Array) -> Array:
        xp, rows = array_module(g), flat(g)
        g = g / column(or_one(abs(rows).max(axis=1)), g)  # or the squares of a tiny g would vanish
        length = xp.sqrt((flat(g).astype(wide(g), copy=False) ** 2).sum(axis=1))
        return g / column(or_one(length).astype(g.dtype, copy=False), g)

    @staticmethod
    def shrink(perturbation: Array, radius: Array) -> Array:
        distance = L2Ball.distance(perturbation)
        scale = array_module(distance).minimum(radius / or_one(distance), 1)
        return perturbation * column(scale, perturbation).astype(perturbation.dtype)

    def _nearest(self, points: Array, perturbation: Array, distance: Array, limit: float) -> Array:
        """The projection of the clipped points; there is no formula for the ball and the bounds together."""
        return perturbation * column(limit / or_one(distance), perturbation)

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

    @staticmethod
    def sparse_steepest(g: Array, k: Array) -> Array:
        """A direction of norm 1: the signs of g at the k (N,) largest |g| of each example, ties included."""
        xp, rows = array_module(g), flat(g)
        kth = xp.sort(abs(rows), axis=1)[xp.arange(len(g)), rows.shape[1] - k]
        signs = xp.sign(rows) * (abs(rows) >= kth[:, None])
        return (signs / xp.maximum((signs != 0).sum(axis=1), 1)[:, None]).reshape(g.shape)

    @staticmethod
    def shrink(perturbation: Array, radius: Array) -> Array:
        """Lower each |coordinate| by the same threshold, but not below 0 (Duchi et al. 2008)."""
        xp, rows = array_module(perturbation), flat(perturbation)
        sizes = abs(rows).astype(np.float64)
        falling = xp.flip(xp.sort(sizes, axis=1), axis=1)
        excess = falling.cumsum(axis=1) - radius[:, None]
        count = xp.arange(1, rows.shape[1] + 1)
        last = xp.maximum((falling * count > excess).sum(axis=1), 1) - 1  # the largest so many stay above 0
        threshold = xp.maximum(excess[xp.arange(len(rows)), last] / (last + 1), 0)
        lowered = xp.maximum(sizes - threshold[:, None], 0).astype(rows.dtype)
        return (xp.sign(rows) * lowered).reshape(perturbation.shape)

    def _nearest(self, points: Array, perturbation: Array, distance: Array, limit: float) -> Array:
        """As `shrink`, but keep the bounds.

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


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball, "l0": L0Ball}


def far_start(ball: Ball, streams: Streams) -> Array:
    """For restarts: the ball's x (N, ...) plus uniform noise of up to half the range, within the bounds."""
    low, high = ball.bounds
    return LinfBall(ball.x, (high - low) / 2, ball.bounds).random(streams)


def ball_class(norm: str) -> type[Ball]:
    """The ball of the norm "linf", "l2", "l1" or "l0"; ValueError for another name."""
    if norm not in BALLS:
        raise ValueError(f'norm must be "linf", "l2", "l1" or "l0", got {norm!r}')
    return BALLS[norm]
