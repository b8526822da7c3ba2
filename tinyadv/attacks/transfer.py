"""Attacks on a model through another one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyadv.attacks import driver
from tinyadv.attacks.attack import Attack, Composite
from tinyadv.attacks.norms import ball_class
from tinyadv.attacks.result import AttackResult, host_copy
from tinyadv.backend import Array, to_host
from tinyadv.random import Streams
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Transfer(Composite):
    """Examples that are crafted on a surrogate, and tried on the model: a black-box attack without queries.

    Papernot et al. 2016, arXiv:1605.07277. The model sees each example once, when it is scored, and that alone is
    counted in `forwards`.

    surrogate: a model for the same images and classes; attack: any.
    """

    surrogate: Callable[[Tensor], Tensor]
    attack: Attack

    def __post_init__(self) -> None:
        if not callable(self.surrogate) or isinstance(self.surrogate, Attack):
            raise ValueError(f"surrogate must be a model, got {self.surrogate!r}")
        self._adopt(self.attack)
        super().__post_init__()

    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, skip_misclassified: bool = False, **options: Any) -> AttackResult:
        """As of any attack; what is skipped is what the model, and not the surrogate, gets wrong."""
        started = time.perf_counter()
        y, target, streams = self._check(x, y, target, seed)
        shards = {name: options.get(name) for name in ("workers", "batch_size")}

        def predict(images: Array) -> np.ndarray:
            return to_host(driver.logits(model, images, **shards).argmax(axis=1))

        clean = predict(x)
        left = np.flatnonzero(clean == to_host(y)) if skip_misclassified else np.arange(len(x))
        goal = None if target is None else target[left]
        made = self.attack.run(self.surrogate, x[left], y[left], target=goal, seed=streams[left], **options)
        x_adv = x.copy()
        x_adv[left] = made.x_adv
        distances = ball_class(self.norm).distance(x_adv.astype(np.float64) - x)
        seen, none = np.ones(len(x), np.int64), np.zeros(len(x), np.int64)
        result = AttackResult(self, x_adv, host_copy(y), host_copy(target), none > 0, clean, predict(x_adv),
                              to_host(distances), seen, none, self.norm, streams.seed, time.perf_counter() - started)
        return replace(result, success=result.reached(result.predictions))
