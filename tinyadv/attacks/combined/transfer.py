"""Transfer attacks: adversarial images of one model, used on another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.arguments import check_arguments
from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.balls import ball_class
from tinyadv.attacks.base.result import AttackResult
from tinyadv.attacks.combined.composite import Composite
from tinyadv.backend import Array, on_its_device, to_host
from tinyadv.random import Streams
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Transfer(Composite):
    """Make adversarial images for a surrogate, and test them on the model: a black-box attack without queries.

    Papernot et al. 2016, arXiv:1605.07277. The model sees each adversarial image once, and `forwards` counts only this
    pass. The file of a result has only the name of the surrogate's class. So a loaded result describes the attack,
    but cannot run it.

    surrogate: a model for the same images and classes; attack: any attack.
    """

    surrogate: Callable[[Tensor], Tensor]
    attack: Attack

    def __post_init__(self) -> None:
        if not callable(self.surrogate) or isinstance(self.surrogate, Attack):
            raise ValueError(f"surrogate must be a model, got {self.surrogate!r}")
        self._adopt(self.attack)
        super().__post_init__()

    def with_eps(self, eps: float) -> Transfer:
        return replace(self, attack=self.attack.with_eps(eps))

    def scaled(self, factor: float) -> Transfer:
        return replace(self, attack=self.attack.scaled(factor))

    @spelled
    @on_its_device
    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, skip_misclassified: bool = False, **options: Any) -> AttackResult:
        """As `run` of any attack; skip_misclassified skips the images that the model, not the surrogate, gets wrong."""
        started = time.perf_counter()
        x, y, target, streams = check_arguments(x, y, target, seed, self.bounds)

        def predict(images: Array) -> np.ndarray:
            return to_host(driver.classes(self._logits(model, images, y, target, streams, options)))

        result = AttackResult.blank(self, x.copy(), y, target, self.norm, streams.seed)
        result.predictions_clean[:] = predict(x)
        right = result.predictions_clean == result.y
        left = np.flatnonzero(right) if skip_misclassified else np.arange(len(x))
        goal = None if target is None else target[left]
        made = self.attack.run(self.surrogate, x[left], y[left], target=goal, seed=streams[left], **options)
        result.x_adv[left] = made.x_adv
        result.predictions[:] = predict(result.x_adv)
        result.success[:] = result.reached(result.predictions)
        result.distances[:] = to_host(ball_class(self.norm).distance(result.x_adv.astype(np.float64) - x))
        result.forwards[:] = 1
        return replace(result, seconds=time.perf_counter() - started)
