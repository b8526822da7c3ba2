"""The losses that attacks maximise: one number for each example, from the logits (N, K)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.tensor import Tensor

ULPS = 32
Objective = Callable[[Tensor, Array, Array | None], Tensor]


def cross_entropy(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """The cross entropy of the labels y (N,) or, with a target (N,), minus the cross entropy of the target."""
    if target is None:
        return ops.cross_entropy(logits, y, "none")
    return -ops.cross_entropy(logits, target, "none")


def margin(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """The best other logit minus that of y or, with a target, the target's logit minus the best other.

    Carlini and Wagner 2017, arXiv:1608.04644: the f of their l2 attack, with the opposite sign and without its limit.
    Positive, it means success; negative, none; at 0 two logits are equal, and the first of them is predicted.
    """
    xp = array_module(logits.data)
    rows, own, others = xp.arange(len(logits)), y if target is None else target, logits.data.copy()
    others[rows, own] = -xp.inf
    lead = logits[rows, others.argmax(axis=1)] - logits[rows, own]
    return lead if target is None else -lead


def margin_of(logits: Array, y: Array, target: Array | None) -> Array:
    """The margin (N,) as an array, of logits (N, K) that are an array."""
    return margin(Tensor(logits), y, target).data


def lavan(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """The target's logit minus that of y; without a target, the margin. Karmon et al. 2018, arXiv:1801.02608.

    The logits, and not the probabilities: those saturate.
    """
    if target is None:
        return margin(logits, y, None)
    rows = array_module(logits.data).arange(len(logits))
    return logits[rows, target] - logits[rows, y]


def dlr(logits: Tensor, y: Array, target: Array | None) -> Tensor:
    """The margin divided by the spread of the highest logits, so that scaling the logits does not change it.

    Croce and Hein 2020, arXiv:2003.01690. With z_(k) the k-th highest logit: (max of the others - z_y) / (z_(1) -
    z_(3)); with a target t, (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2). These need three and four classes; with fewer
    classes it is the margin.
    """
    if logits.shape[1] < (3 if target is None else 4):
        return margin(logits, y, target)
    rows = array_module(logits.data).arange(len(logits))
    order = logits.data.argsort(axis=1)
    highest, third = logits[rows, order[:, -1]], logits[rows, order[:, -3]]
    if target is None:
        lead, spread = margin(logits, y, None), highest - third
    else:
        lead = lavan(logits, y, target)
        spread = highest - (third + logits[rows, order[:, -4]]) / 2
    return lead / (spread + (spread.data == 0).astype(spread.dtype))  # logits that are all the same have no spread


def reached(classes: Array, y: Array, target: Array | None) -> Array:
    """(N,) bool: whether these classes are successes: not y or, with a target, the target; -1 (NaN) never is one."""
    return (classes >= 0) & (classes != y) if target is None else classes == target


def surely_reached(logits: Array, y: Array, target: Array | None) -> Array:
    """(N,) bool: whether logits (N, K) are successes that other rounding could not change: see `rounding`."""
    return margin_of(logits, y, target) > rounding(logits)


def rounding(logits: Array) -> Array:
    """(N,): the largest rounding error of logits (N, K): some ulps of the largest logit of each example.

    With another batch size, library or machine, a matrix product sums in another order. In float32 this changes the
    logits of our networks by up to 20 ulps, and those of trained ones by up to 9.
    """
    xp = array_module(logits)
    return ULPS * float(np.finfo(logits.dtype).eps) * xp.where(xp.isfinite(logits), abs(logits), 0).max(axis=1)


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr,
                                    "lavan": lavan}


def objective(loss: str) -> Objective:
    """The objective of that name; ValueError lists all names."""
    if not isinstance(loss, str) or loss not in OBJECTIVES:
        own = ". For a loss of your own, write an attack: see docs/extending.md" if callable(loss) else ""
        raise ValueError(f"loss must be one of {', '.join(OBJECTIVES)}; got {loss!r}{own}")
    return OBJECTIVES[loss]
