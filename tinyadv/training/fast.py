"""Adversarial training at the cost of standard training, or little more."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyadv.attacks import PGD, Attack, Batch
from tinyadv.attacks.base.balls import ball_class
from tinyadv.backend import Array
from tinyadv.training.methods import Adversarial, Method, Scene
from tinyadv.training.update import Update


@dataclass(frozen=True)
class Fast(Adversarial):
    """Adversarial training with one step of 1.25 eps from a random point: Wong et al. 2020, arXiv:2001.03994.

    Its robustness may vanish within an epoch, while the accuracy under its own attack rises to 100% (catastrophic
    overfitting). `fit` therefore measures the accuracy under PGD of ten steps after every epoch, unless it is given
    another validation_attack, and stops where it has collapsed.
    """

    attack: Attack = field(init=False, repr=False)
    eps: float = 0.3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", _OneStep(eps=self.eps, steps=1, norm=self.norm, bounds=self.bounds))
        super().__post_init__()

    @property
    def watch(self) -> Attack | None:
        return PGD(eps=self.eps, steps=10, norm=self.norm, bounds=self.bounds)


@dataclass(frozen=True)
class _OneStep(PGD):
    """PGD of a single step of 1.25 eps, where the random point that it starts from is no candidate."""

    _reach = 1.25

    def perturb(self, batch: Batch) -> Array:
        x = batch.ball.random(batch.streams)
        return batch.ball.step(x, batch.gradient(x, candidate=False), self._reach * self.eps)


@dataclass(frozen=True)
class Free(Method):
    """Each batch is seen `replays` times, and one gradient serves both the weights and the perturbation.

    Shafahi et al. 2019, arXiv:1904.12843, algorithm 1. The perturbation goes on from batch to batch, kept inside the
    ball but not the bounds. An epoch costs as much as `replays` of standard training: train for as many fewer.
    """

    eps: float
    replays: int = 8
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        PGD(eps=self.eps, steps=self.replays, norm=self.norm, bounds=self.bounds)  # ValueError where one does not fit

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        kind, eps = ball_class(self.norm), self.eps * scene.strength
        valid, free = kind(images, eps, self.bounds), kind(np.zeros_like(images), eps, (-np.inf, np.inf))
        delta = scene.memory.get("perturbation", images[:0])
        own, rest = np.concatenate([delta[:len(images)], np.zeros_like(images[len(delta):])]), delta[len(images):]
        for _ in range(self.replays):
            update = scene.update(valid.project(images + own), labels, self.losses, slope=True)
            own = free.step(own, update.slope, eps)
        scene.memory["perturbation"] = np.concatenate([own, rest])
        return update
