"""Data augmentation: random changes that keep the label. Each is a function (images, streams) -> images.

    training.fit(model, train, augment=augment.chain(augment.crop(4), augment.flip()), ...)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv.random import Streams
from tinyadv.shapes import check_equal, check_ndim, to_count

Augmentation = Callable[[np.ndarray, Streams], np.ndarray]


def crop(padding: int) -> Augmentation:
    """Shift each image (N, C, H, W) by up to `padding` pixels along both axes, with zeros from outside."""
    return _shifts(to_count("padding", padding, 0), "constant")


def translate(pixels: int) -> Augmentation:
    """Shift each image (N, C, H, W) by up to `pixels` along both axes; what comes in from outside mirrors the image."""
    return _shifts(to_count("pixels", pixels, 0), "reflect")


def cutout(size: int) -> Augmentation:
    """Set a square of `size` pixels a side to 0, at a random centre: it may reach beyond the edge.

    DeVries and Taylor 2017, arXiv:1708.04552.
    """
    size = to_count("size", size, 0)

    def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
        _check(images, streams)

        def inside(length: int, start: np.ndarray) -> np.ndarray:  # (N, length)
            pixel = np.arange(length)
            return (pixel >= start[:, None]) & (pixel < start[:, None] + size)

        height, width = images.shape[2:]
        centre = np.floor(streams.uniform((2,)) * (height, width)).astype(int) - size // 2
        rows, columns = inside(height, centre[:, 0]), inside(width, centre[:, 1])
        return np.where((rows[:, :, None] & columns[:, None])[:, None], np.zeros_like(images[:1]), images)

    return apply


def flip() -> Augmentation:
    """Mirror each image (N, C, H, W) left to right with probability 1/2. Not for digits: a mirrored 2 is no 2."""
    def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
        _check(images, streams)
        return np.where(streams.uniform((1, 1, 1)) < 0.5, images[..., ::-1], images)

    return apply


def chain(*augmentations: Augmentation) -> Augmentation:
    """Apply the augmentations one after the other."""
    if not all(map(callable, augmentations)):
        raise TypeError(f"chain takes augmentations one by one, as in chain(flip(), crop(4)); got {augmentations!r}")
    return lambda images, streams: functools.reduce(lambda x, change: change(x, streams), augmentations, images)


def _shifts(most: int, mode: Any) -> Augmentation:
    """A shift by up to `most` pixels along both axes; `mode` says, as in np.pad, what comes in from outside."""
    def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
        _check(images, streams)
        padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        down, right = streams.uniform((2,), 0, 2 * most + 1).astype(int).T
        return windows[np.arange(len(images)), :, down, right]  # (N, C, H, W)

    return apply


def _check(images: np.ndarray, streams: Streams) -> None:
    check_ndim(images.shape, 4, "augment", "images of shape (N, C, H, W)")
    check_equal(len(images), len(streams), "augment", "the number of images", "that of streams")
