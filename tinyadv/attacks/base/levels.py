"""Images of 8 bits: adversarial points on the 256 levels of an image file, still within the budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyadv.attacks.base.balls import Ball, column
from tinyadv.backend import Array, array_module

STEPS = 255  # from low to high


def to_levels(points: Array, bounds: tuple[float, float]) -> Array:
    """The nearest levels of the points (N, ...), as numbers from 0 to 255 in float64."""
    xp, low, step = array_module(points), bounds[0], (bounds[1] - bounds[0]) / STEPS
    return xp.clip(xp.rint((points.astype(np.float64) - low) / step), 0, STEPS)


def from_levels(numbers: Array, bounds: tuple[float, float], dtype: np.dtype) -> Array:
    """The pixel values, in the dtype, for levels from 0 to 255."""
    return (bounds[0] + numbers * (bounds[1] - bounds[0]) / STEPS).astype(dtype)


def write_pngs(folder: str | Path, names: list[str], numbers: np.ndarray) -> None:
    """Write a PNG for each name, from levels (N, C, H, W) of 0 to 255, C = 1 or 3, into a new or empty folder."""
    from PIL import Image

    if numbers.ndim != 4 or numbers.shape[1] not in (1, 3):
        raise ValueError(f"a PNG has images (N, C, H, W), C = 1 or 3, and these are of shape {numbers.shape}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"folder must be new or empty, and {folder} holds files: name another one")
    for name, image in zip(names, numbers.astype(np.uint8).transpose(0, 2, 3, 1), strict=True):
        Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image).save(folder / f"{name}.png")


def quantize(ball: Ball, points: Array) -> Array:
    """Move every pixel of the points (N, ...) onto a level low + k (high - low) / 255, and stay inside the ball.

    A pixel goes to its nearest level. If that is outside the ball, it goes to the nearest level between it and x, which
    is always inside, because no pixel moves away from x. In "l2" and "l1", all nearest levels together may be outside.
    Then the pixels that rounding moves most go to the level towards x instead: first a few and then more, by sixteenths
    of a level, until the image is inside. A pixel of x that is on no level stays unchanged if no level is within the
    budget. In "l0", every pixel that the attack has not changed stays unchanged.
    """
    xp, x, step = array_module(points), ball.x, (ball.bounds[1] - ball.bounds[0]) / STEPS
    number = to_levels(points, ball.bounds)
    nearest = ball.rounded(points, from_levels(number, ball.bounds, x.dtype))
    first, last = xp.minimum(x, points), xp.maximum(x, points)
    towards = x
    for candidate in (from_levels(number + xp.sign(x - points), ball.bounds, x.dtype), nearest):
        towards = xp.where((first <= candidate) & (candidate <= last), candidate, towards)
    moved = abs(nearest.astype(np.float64) - points)
    rounded = xp.where((ball.low <= nearest) & (nearest <= ball.high), nearest, towards)
    for sixteenths in range(7, -1, -1):
        outside = (ball.project(rounded) != rounded).any(axis=tuple(range(1, x.ndim)))
        if not outside.any():
            break
        rounded = xp.where(column(outside, x) & (moved > sixteenths / 16 * step), towards, rounded)
    return rounded
