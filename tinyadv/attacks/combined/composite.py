"""What attacks made of other attacks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyadv import driver
from tinyadv.attacks.base.arguments import check_range
from tinyadv.attacks.base.attack import Attack
from tinyadv.backend import Array
from tinyadv.random import Streams


@dataclass(frozen=True)
class Composite(Attack):
    """The base class of attacks that run other attacks; all have the same norm, bounds and budget."""

    bounds: tuple[float, float] = field(init=False, repr=False, compare=False)

    def _adopt(self, *attacks: Attack) -> None:
        """Take norm, bounds and eps (or none) from the attacks; ValueError if they differ."""
        if not attacks or not all(isinstance(attack, Attack) for attack in attacks):
            raise ValueError(f"{type(self).__name__} is made of attacks, got {attacks!r}")
        for name in ("norm", "bounds", "minimum_norm", "eps"):
            value, *others = dict.fromkeys(getattr(attack, name, None) for attack in attacks)
            if others:
                raise ValueError(f"attacks must be of one threat model, got {name} {value!r} and {others[0]!r}: "
                                 "run them apart, and compare their results")
            if value is not None:
                object.__setattr__(self, name, value)

    def _logits(self, model: Callable, x: Array, y: Array, target: Array | None, streams: Streams,
                options: dict[str, Any]) -> Array:
        """The logits (N, K) of the images x (N, ...), in the same shards as the attacks; y and target are checked."""
        logits = driver.logits(model, x, seed=streams, **driver.sharding(options))
        check_range(logits, y, target)
        return logits
