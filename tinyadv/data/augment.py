"""Data augmentation: random changes that keep the label. Each is a function (images, streams) -> images.

    training.fit(model, train, augment=augment.chain(augment.crop(4), augment.flip()), ...)
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from tinyadv.random import Streams

Augmentation = Callable[[np.ndarray, Streams], np.ndarray]


def crop(padding: int) -> Augmentation:
    """Shift each image (N, C, H, W) by up to `padding` pixels along both axes, with zeros from outside."""
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding must be an integer >= 0, got {padding!r}")

    def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
        padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        down, right = streams.uniform((2,), 0, 2 * padding + 1).astype(int).T
        return windows[np.arange(len(images)), :, down, right]  # (N, C, H, W)

    return apply


def flip() -> Augmentation:
    """Mirror each image (N, C, H, W) left to right with probability 1/2. Not for digits: a mirrored 2 is no 2."""
    def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
        return np.where(streams.uniform((1, 1, 1)) < 0.5, images[..., ::-1], images)

    return apply


def chain(*augmentations: Augmentation) -> Augmentation:
    """Apply the augmentations one after the other."""
    return lambda images, streams: functools.reduce(lambda x, change: change(x, streams), augmentations, images)
