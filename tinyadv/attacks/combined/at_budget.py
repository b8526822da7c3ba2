"""Any attack as a search for the nearest misclassified point, within a number of passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.combined.composite import Composite
from tinyadv.backend import Array, array_module, move, rows_of, to_host
from tinyadv.shapes import to_count


@dataclass(frozen=True)
class AtBudget(Composite):
    """Run an attack until each example has had `queries` forward and backward passes, and keep the nearest success.

    The protocol of AttackBench (Cinà et al. 2024, arXiv:2404.19460): attacks of all kinds are compared at equal cost,
    by the nearest point that they have found. A minimum-norm attack runs as it is, and what it finds after the last
    pass does not count: choose its steps to fit. An attack with a budget begins with its own eps, which is doubled
    until it succeeds and then bisected, for each example by itself; its step size goes with eps. In l0 it begins with
    at least one pixel.

    attack: any attack that is not made of others; queries: the number of passes of each example, that of the clean
    image included. A run that has begun is finished, but what it finds after the last of these passes does not count.
    """

    attack: Attack
    queries: int = 2000

    minimum_norm = True

    def __post_init__(self) -> None:
        attack: Any = self.attack
        if not isinstance(attack, Attack) or isinstance(attack, Composite):
            raise ValueError(f"attack must be one that is not made of others, got {attack!r}")
        if not attack.minimum_norm and not getattr(attack, "eps", 0) > 0:
            raise ValueError(f"attack must be of minimum norm, or have an eps above 0 to vary, got {attack!r}")
        object.__setattr__(self, "queries", to_count("queries", self.queries))
        for name in ("norm", "bounds", "loss", "eot", *["restarts"] * attack.minimum_norm):
            object.__setattr__(self, name, getattr(attack, name))
        super().__post_init__()

    def perturb(self, batch: Batch) -> Array:
        batch.queries = self.queries
        if self.attack.minimum_norm:
            return self.attack.perturb(batch)
        attack: Any = self.attack
        xp = array_module(batch.x)
        eps = xp.full(len(batch.x), max(float(attack.eps), float(self.norm == "l0")))
        farthest = batch.ball.farthest()
        failed, broken = xp.zeros_like(eps), xp.full_like(eps, math.inf)
        while True:
            left = move(batch.forwards + batch.backwards < self.queries, like=eps)
            left = left & (broken - failed > (self.norm == "l0"))  # a number of pixels is whole
            if not left.any():
                return batch.best
            hit = xp.zeros_like(left)
            for value in sorted(set(to_host(eps[left]).tolist())):
                rows = rows_of(left & (eps == value))
                part = batch[rows]
                within = part.within(value)
                attack.scaled(value / attack.eps)._attack(within, quantize=False, score=True)
                if len(won := rows_of(within.succeeded)):
                    found = part[won]
                    found.queries = math.inf  # to see it again does not count
                    hit[rows[won]] = found.succeeds(found.consider(within.best[won]))  # for sure, as for any distance
                    part[won] = found
                batch[rows] = part
            failed, broken = xp.where(left & ~hit, eps, failed), xp.where(left & hit, eps, broken)
            eps = xp.where(broken < math.inf, (failed + broken) / 2, xp.minimum(2 * eps, farthest))
            if self.norm == "l0":
                eps = xp.floor(eps)
