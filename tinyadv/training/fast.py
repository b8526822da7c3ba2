"""Adversarial training that costs little more than standard training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyadv.attacks import PGD, Attack, Batch
from tinyadv.attacks.base.balls import ball_class
from tinyadv.backend import Array, array_module
from tinyadv.shapes import to_count
from tinyadv.training.methods import Adversarial, Method, Scene, attacked
from tinyadv.training.update import Update


@dataclass(frozen=True)
class Fast(Adversarial):
    """Adversarial training with one step of 1.25 eps from a random point: Wong et al. 2020, arXiv:2001.03994.

    Its robustness can vanish within an epoch, while the accuracy under its own attack rises to 100%. This is called
    catastrophic overfitting. So `fit` measures the accuracy under PGD with ten steps after each epoch, and stops when
    it has collapsed. A validation_attack of your own takes the place of this PGD.

    eps, norm: the budget, in the units of the data; bounds: those of the data.
    """

    attack: Attack = field(init=False, repr=False)
    eps: float = 0.3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    # In units of eps: the radius of the random start, the length of the step, the radius of the final projection.
    _noise, _step, _within = 1.0, 1.25, 1.0

    def __post_init__(self) -> None:
        PGD(eps=self.eps, norm=self.norm, bounds=self.bounds)  # checks them, before eps is multiplied
        object.__setattr__(self, "attack", _OneStep(
            eps=self._within * self.eps, step_size=self._step * self.eps or None, steps=1, norm=self.norm,
            bounds=self.bounds, start=self._noise / self._within))
        super().__post_init__()

    @property
    def budget(self) -> float | None:
        return self.eps

    @property
    def watch(self) -> Attack | None:
        return PGD(eps=self.eps, steps=10, norm=self.norm, bounds=self.bounds)


@dataclass(frozen=True)
class NFGSM(Fast):
    """Adversarial training with one step of eps from a point of strong noise: de Jorge et al. 2022, arXiv:2202.01181.

    In N-FGSM the noise is uniform within 2 eps. The result is clipped to the bounds, but not to the ball, so the images
    lie up to 3 eps away. The paper reports no catastrophic overfitting for budgets at which `Fast` has it.
    """

    _noise, _step, _within = 2.0, 1.0, 3.0


@dataclass(frozen=True)
class _OneStep(PGD):
    """PGD with a single step, from a random point within `start` times eps. The start itself is never returned."""

    start: float = 1.0

    def perturb(self, batch: Batch) -> Array:
        radius = array_module(batch.x).full(len(batch.x), self.start * self.eps, batch.x.dtype)
        x = batch.ball.random(batch.streams, radius)
        return batch.ball.step(x, batch.gradient(x, candidate=False), self.step_size or 0.0)  # 0: of eps 0


@dataclass(frozen=True)
class Free(Method):
    """Train on each batch `replays` times in a row; each gradient updates both the weights and the perturbation.

    Shafahi et al. 2019, arXiv:1904.12843, algorithm 1. The perturbation is kept from one batch to the next. It is
    projected onto the ball, but not onto the bounds, so l0 is an error: its steps go to the bounds. An epoch costs as
    much as `replays` epochs of standard training, so divide the number of epochs by `replays`.

    eps, norm: the budget, in the units of the data; bounds: those of the data.
    """

    eps: float
    replays: int = 8
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        to_count("replays", self.replays)
        self._attack()  # checks the others
        if self.norm == "l0":
            raise ValueError("norm must not be l0, for perturbations that have no bounds: take Fast or Adversarial")

    def _attack(self) -> PGD:
        return PGD(eps=self.eps, steps=self.replays, norm=self.norm, bounds=self.bounds)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return (attacked(self._attack(), scene, images, labels),)  # for the statistics of averaged weights

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        kind, eps = ball_class(self.norm), self.eps * scene.strength
        valid, free = kind(images, eps, self.bounds), kind(np.zeros_like(images), eps, (-np.inf, np.inf))
        delta = scene.memory.get("perturbation", images[:0])
        rest = delta[len(images):]  # of a batch that is smaller than the one before
        own = np.concatenate([delta[:len(images)], np.zeros_like(images[len(delta):])])
        for _ in range(self.replays):
            update = scene.update(valid.project(images + own), labels, self.losses, slope=True)
            own = free.step(own, update.slope, eps)
        scene.memory["perturbation"] = np.concatenate([own, rest])
        return update
