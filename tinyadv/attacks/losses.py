"""What an attack maximises: one number per example, from the logits (N, K)."""

from __future__ import annotations

from collections.abc import Callable

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.tensor import Tensor

Objective = Callable[[Tensor, Array, Array | None], Tensor]


def cross_entropy(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """The cross entropy of the labels y (N,), to leave them; or minus that of the target (N,), to reach it."""
    if target is None:
        return ops.cross_entropy(logits, y, "none")
    return -ops.cross_entropy(logits, target, "none")


def margin(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """How far the best other logit is above that of y, or the target's above the best other.

    Carlini and Wagner 2017, arXiv:1608.04644, the f of section IV without its lower limit. It is positive just where
    the attack has succeeded.
    """
    xp = array_module(logits.data)
    rows, own, others = xp.arange(len(logits)), y if target is None else target, logits.data.copy()
    others[rows, own] = -xp.inf
    lead = logits[rows, others.argmax(axis=1)] - logits[rows, own]
    return lead if target is None else -lead


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy, "margin": margin}


def objective(loss: str) -> Objective:
    """The objective of that name; ValueError lists the names there are."""
    if loss not in OBJECTIVES:
        raise ValueError(f"loss must be one of {', '.join(OBJECTIVES)}; got {loss!r}")
    return OBJECTIVES[loss]
