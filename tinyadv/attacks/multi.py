"""Several attacks as one: the worst case of each example."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyadv.attacks import driver, losses
from tinyadv.attacks.attack import Attack, Composite
from tinyadv.attacks.result import AttackResult
from tinyadv.backend import Array, to_host
from tinyadv.random import Streams
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class MultiAttack(Composite):
    """Attacks one after the other, each on the examples that none before has broken; and the worst case of each.

    The point that is returned is a misclassified one if any attack has found one, and otherwise that of the largest
    margin. Attacks of minimum norm all run on all examples, and the nearest misclassified point is returned.
    The result's `broken_by` names the attack. They draw from the same streams, one after the other: two equal attacks
    are two different runs, and the first is the run that it would be alone.

    attacks: of one threat model: the same norm and bounds, and the same eps or all of minimum norm.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))
        self._adopt(*self.attacks)
        super().__post_init__()

    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, skip_misclassified: bool = False, **options: Any) -> AttackResult:
        """As of any attack; `forwards` and `backwards` are those of all attacks."""
        started = time.perf_counter()
        y, target, streams = self._check(x, y, target, seed)
        options["_report"] = True  # a call, too, has to know who is left
        shards = {name: options.get(name) for name in ("workers", "batch_size")}

        def worth(result: AttackResult, y: Array, target: Array | None) -> np.ndarray:
            if self.minimum_norm:
                return -result.distances
            return to_host(losses.margin(Tensor(driver.logits(model, result.x_adv, **shards)), y, target).data)

        worst = self.attacks[0].run(model, x, y, target=target, seed=streams, skip_misclassified=skip_misclassified,
                                    **options)
        value, by = worth(worst, y, target), np.ones(len(x), int)
        reached = worst.reached(worst.predictions_clean)
        for number, attack in enumerate(self.attacks[1:], 2):
            left = ~(reached if self.minimum_norm else worst.success)
            if skip_misclassified:
                left &= worst.predictions_clean == worst.y
            index = np.flatnonzero(left)
            if not len(index):
                break
            classes, goal = y[index], None if target is None else target[index]
            found = attack.run(model, x[index], classes, target=goal, seed=streams[index], **options)
            new, now, before = worth(found, classes, goal), found.success, worst.success[index]
            better = (now & ~before) | ((now == before) & (new > value[index]))
            changed = index[better]
            worst.x_adv[changed], value[changed], by[changed] = found.x_adv[better], new[better], number
            for name in ("success", "predictions", "distances"):
                getattr(worst, name)[changed] = getattr(found, name)[better]
            worst.forwards[index] += found.forwards
            worst.backwards[index] += found.backwards
        names = np.array(["", *map(str, self.attacks)])
        return replace(worst, attack=self, broken_by=names[np.where(worst.success & ~reached, by, 0)],
                       seconds=time.perf_counter() - started)
