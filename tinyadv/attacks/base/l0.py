"""The l0 ball: a few pixels may change, by as much as the bounds allow."""

from __future__ import annotations

import numpy as np

from tinyadv.attacks.base.ball import Ball, pixels
from tinyadv.backend import Array, array_module, move
from tinyadv.random import Streams


class L0Ball(Ball):
    """The number of pixels that differ from x <= eps. The channels of a pixel are changed together and count once.

    In (N, ..., H, W), all axes between N and H are channels. In (N, D), each number is a pixel.
    """

    def __init__(self, x: Array, eps: float, bounds: tuple[float, float]):
        super().__init__(x, eps, bounds)
        self.eps = min(float(eps), pixels(x).shape[2])

    @staticmethod
    def distance(perturbation: Array) -> Array:
        return (pixels(perturbation) != 0).any(axis=1).sum(axis=1).astype(np.float64)

    def rounded(self, points: Array, levels: Array) -> Array:
        """All but unchanged pixels: the smallest change of these counts as much as any."""
        changed = (pixels(points) != pixels(self.x)).any(axis=1, keepdims=True)
        return array_module(points).where(changed, pixels(levels), pixels(points)).reshape(points.shape)

    @staticmethod
    def steepest(g: Array) -> Array:
        """The sign of g at the (first) pixel with the largest sum of |g|, and 0 elsewhere."""
        return keep_best(array_module(g).sign(g), abs(pixels(g)).sum(axis=1), array_module(g).ones(len(g)))

    @staticmethod
    def shrink(perturbation: Array, radius: Array) -> Array:
        return keep_best(perturbation, (pixels(perturbation).astype(np.float64) ** 2).sum(axis=1), radius)

    def step(self, points: Array, g: Array, size: float | Array) -> Array:
        """Move the `size` pixels (rounded up) that gain the most to their bounds, and keep the eps most valuable ones.

        For a linear loss, this is the best step that moves so many pixels within the bounds. A perturbation is worth
        what the loss would lose without it, <g, point - x> of its pixel.
        """
        xp, wide, g = array_module(points), points.astype(np.float64), g.astype(np.float64)
        end = xp.where(g > 0, self.high, xp.where(g < 0, self.low, wide))
        gain = pixels(g * (end - wide)).sum(axis=1)
        moved = wide + keep_best(end - wide, gain, xp.ceil(xp.asarray(size, np.float64)) * xp.ones(len(gain)))
        worth = pixels(g * (moved - self.x)).sum(axis=1)
        return self._kept(self.project_to_bounds(moved), worth)

    def project(self, points: Array) -> Array:
        """Keep the eps pixels that would be furthest from the points if they stayed at x, within the bounds."""
        xp, clipped, wide = array_module(points), self.project_to_bounds(points), self.x.astype(np.float64)
        if self.eps >= pixels(clipped).shape[2]:  # all may change
            return clipped
        far = xp.clip(points.astype(np.float64), -1e100, 1e100)
        far = xp.where(far == far, far, wide)
        # |far - x|² - |far - clipped|²
        return self._kept(clipped, pixels((clipped - wide) * (2 * far - wide - clipped)).sum(axis=1))

    def _kept(self, points: Array, worth: Array) -> Array:
        """The points (N, ...) with the eps pixels of the largest worth (N, P), and x elsewhere, if they have more."""
        xp = array_module(points)
        outside = self.distance_to(points) > self.eps
        if not outside.any():
            return points
        # A pixel that has not moved is worth nothing, not even as much as one that should not have moved.
        worth = xp.where((pixels(points) != pixels(self.x)).any(axis=1), worth, -xp.inf)
        radius = xp.where(outside, self.eps, worth.shape[1])
        return xp.where(keep_best(xp.ones(points.shape, bool), worth, radius), points, self.x)

    @staticmethod
    def _sample(streams: Streams, shape: tuple[int, ...]) -> np.ndarray:
        raise TypeError("an L0Ball draws points, not offsets")

    def random(self, streams: Streams, radius: Array | None = None) -> Array:
        """eps random pixels, or radius (N,), with random values in the bounds, uniform in each channel."""
        xp, shape = array_module(self.x), self.x.shape[1:]
        count = pixels(self.x).shape[2]
        order, values = (move(streams.uniform(size), like=self.x) for size in ((count,), shape))
        points = self.low + values * (float(self.high) - float(self.low))
        radius = xp.full(len(order), self.eps) if radius is None else radius
        return self.project_to_bounds(xp.where(keep_best(xp.ones(points.shape, bool), order, radius), points, self.x))


def keep_best(values: Array, worth: Array, count: Array) -> Array:
    """The values (N, ...) of the first `count` (N,) pixels in falling order of worth (N, P), and 0 elsewhere."""
    xp = array_module(worth)
    ascending, count = -worth, xp.floor(count)[:, None]
    last = count.clip(1, worth.shape[1]).astype(int) - 1
    last = xp.take_along_axis(xp.sort(ascending, axis=1), last, axis=1)
    before, tied = ascending < last, ascending == last
    kept = before | (tied & (before.sum(axis=1, keepdims=True) + tied.cumsum(axis=1) <= count))  # of equals the first
    return (pixels(values) * kept[:, None]).reshape(values.shape)
