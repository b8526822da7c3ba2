"""Training that shapes the inside of a network: classes apart from each other, or trapdoors for attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.defenses.trapdoor import Trapdoors
from tinyadv.nn import Module
from tinyadv.nn.latent import TINY, latent, unit
from tinyadv.shapes import check_not_negative, is_number
from tinyadv.tensor import Tensor
from tinyadv.training.methods import Method, Scene
from tinyadv.training.update import Update


@dataclass(frozen=True)
class Contrastive(Method):
    """The cross entropy, and for pairs of images a loss on the distance d of their latent vectors.

    d² for two images of a class, max(0, margin - d)² for two of different classes: Hadsell, Chopra and LeCun 2006
    (CVPR), eq. 4, without their factors 1/2. Castro Ros, Ben Mansour and Bouskila (2020, "Adversarial Networks",
    eq. 5) take margin 2. All pairs of the batch, or of each part of it, count; the two kinds are averaged apart, as
    nine pairs of ten are unlike. The latent vectors are those of `nn.Latent`.

    weight: of the contrastive loss. normalize: whether the vectors are divided by their length first. Then no distance
    is more than 2, and ten classes cannot be 2 apart: take margin=1.
    """

    weight: float = 1.0
    margin: float = 2.0
    normalize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight", "margin"):
            check_not_negative(name, getattr(self, name))

    def losses(self, model: Callable, labels: Array, x: Tensor) -> tuple[Tensor, Tensor]:
        z, logits = latent(cast(Module, model), x)
        losses, _ = super().losses(lambda x: logits, labels, x)
        return losses + self.weight * contrast(z, labels, self.margin, self.normalize), logits


def contrast(z: Tensor, labels: Array, margin: float, normalize: bool = False) -> Tensor:
    """The mean of d² over the like pairs of latent vectors z (n, D), plus that of max(0, margin - d)² over the others.
    """
    if normalize:
        z = unit(z)
    difference = z.reshape(len(z), 1, -1) - z.reshape(1, len(z), -1)                # (n, n, D)
    squares = ops.sum(difference * difference, axis=2)
    xp, like = array_module(z.data), labels[:, None] == labels
    first = xp.arange(len(labels))[:, None] < xp.arange(len(labels))                # each pair once
    near = ops.relu(margin - ops.sqrt(squares + TINY)) ** 2
    return _mean(squares, first & like) + _mean(near, first & ~like)


def _mean(values: Tensor, chosen: Array) -> Tensor:
    return ops.sum(values * chosen.astype(values.dtype)) / float(max(1, int(chosen.sum())))


@dataclass(frozen=True)
class Trapped(Method):
    """Standard training on images of which a share is trapped: such an image gets a random class, and its trapdoor.

    Shan et al. 2020, arXiv:1904.08554, section 4.1. trapdoors: one for each class. The clean images keep the network
    accurate, the others teach it that a trapdoor means its class.
    """

    trapdoors: Trapdoors
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.trapdoors, Trapdoors):
            raise ValueError(f"trapdoors must be Trapdoors(...), got {self.trapdoors!r}")
        if not (is_number(self.share) and 0 <= self.share <= 1):
            raise ValueError(f"share must be in [0, 1], got {self.share!r}")

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        chance, choice = scene.streams.uniform((2,)).T
        trapped, goal = chance < self.share, (choice * self.trapdoors.classes).astype(labels.dtype)
        images, labels = images.copy(), np.where(trapped, goal, labels)
        images[trapped] = self.trapdoors.inject(images[trapped], labels[trapped])
        return scene.update(images, labels, self.losses)
