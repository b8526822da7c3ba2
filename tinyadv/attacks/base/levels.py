"""Images of 8 bits: adversarial points on the 256 levels of a file, inside the budget all the same."""

from __future__ import annotations

import numpy as np

from tinyadv.attacks.base.balls import Ball, column
from tinyadv.backend import Array, array_module

STEPS = 255  # from low to high


def quantize(ball: Ball, points: Array) -> Array:
    """The points (N, ...) of a ball with every pixel on a level low + k (high - low) / 255, and still inside the ball.

    A pixel goes to its nearest level or, where that is outside, to the nearest between it and x. That cannot leave any
    ball, for no pixel gets further from x. Where the nearest levels together are too far ("l2", "l1"), it is done to
    those pixels of an image that rounding moves the most, by rising sixteenths of a level, until the image is inside.
    A pixel of x that is on no level stays as it is if the budget holds no level for it.
    """
    xp, x = array_module(points), ball.x
    low, step = ball.bounds[0], (ball.bounds[1] - ball.bounds[0]) / STEPS

    def level(number: Array) -> Array:
        return (low + number * (ball.bounds[1] - ball.bounds[0]) / STEPS).astype(x.dtype)

    number = xp.clip(xp.rint((points.astype(np.float64) - low) / step), 0, STEPS)
    nearest = level(number)
    first, last = xp.minimum(x, points), xp.maximum(x, points)
    towards = x
    for candidate in (level(number + xp.sign(x - points)), nearest):
        towards = xp.where((first <= candidate) & (candidate <= last), candidate, towards)
    moved = abs(nearest.astype(np.float64) - points)
    rounded = xp.where((ball.low <= nearest) & (nearest <= ball.high), nearest, towards)
    for sixteenths in range(7, -1, -1):
        outside = (ball.project(rounded) != rounded).any(axis=tuple(range(1, x.ndim)))
        if not outside.any():
            break
        rounded = xp.where(column(outside, x) & (moved > sixteenths / 16 * step), towards, rounded)
    return rounded
