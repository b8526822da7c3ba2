"""Rectangles of images, one for each example, for attacks that change only these."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyadv.backend import Array, array_module
from tinyadv.ops.movement import arranged
from tinyadv.shapes import to_count


def check_sides(size: Any) -> tuple[int, int]:
    """The size (h, w) of a rectangle in pixels as two ints; ValueError unless both are integers of at least 1."""
    if not (isinstance(size, tuple | list) and len(size) == 2):
        raise ValueError(f"size must be (height, width) in pixels, such as (5, 5); got {size!r}")
    return to_count("size", size[0]), to_count("size", size[1])


def image_shape(x: Array) -> tuple[int, int, int]:
    """(C, H, W) of x (N, ..., H, W): all axes between N and H are channels. A vector is an image of one row."""
    axes = (1, *x.shape[1:])
    return math.prod(axes[:-2]), axes[-2], axes[-1]


def window(corner: Array, sides: tuple[int, int], shape: tuple[int, ...]) -> tuple[Array, ...]:
    """The index of a window (n, C, *sides) for each example; numbers (n, 2) in [0, 1) give its place."""
    xp = array_module(corner)
    places = [length - side + 1 for length, side in zip(shape[2:], sides, strict=True)]  # up to the border
    rows, columns = (xp.floor(corner[:, k, None] * places[k]).astype(np.int64) + xp.arange(sides[k]) for k in (0, 1))
    examples, channels = xp.arange(shape[0]), xp.arange(shape[1])
    return examples[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]


def pasted(x: Array, values: Array | float, there: tuple[Array, ...]) -> Array:
    """A copy of x (n, ...) with these values (n, C, h, w), or those that broadcast to it, in a window."""
    images = arranged(x.reshape(len(x), *image_shape(x)))
    images[there] = values
    return images.reshape(x.shape)
