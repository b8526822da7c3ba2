"""Losses from logits, and the softmax. `reduction` is "mean", "sum" or "none" (a loss per example)."""

from functools import partial

import numpy as np

from tinyadv.backend import array_module, to_host, wide
from tinyadv.fused import less_logs
from tinyadv.ops.reduce import logsumexp_parts
from tinyadv.shapes import check_ndim
from tinyadv.tensor import op

REDUCTIONS = ("mean", "sum", "none")


@op
def softmax(x, axis=-1):
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    y = array_module(x).exp(_log_softmax(x, axis)).astype(x.dtype, copy=False)
    return y, lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True, dtype=wide(x)))


@op
def log_softmax(x, axis=-1):
    """log(softmax(x)) along an axis, accurate where the softmax is tiny."""
    xp = array_module(x)
    y = _log_softmax(x, axis)
    value = y.astype(x.dtype, copy=False)
    return value, lambda g: g - xp.exp(y) * g.sum(axis=axis, keepdims=True, dtype=wide(x))


@op
def cross_entropy(logits, targets, reduction="mean"):
    """-sum(p * log_softmax(logits)): the cross entropy of the logits (N, K) against the targets.

    targets: class indices (N,), integers in [0, K), or probabilities p (N, K).
    Returns a scalar, or (N,) for reduction "none". ValueError for other shapes, labels or reductions.
    """
    xp = array_module(logits)
    check_ndim(logits.shape, 2, "cross_entropy", "logits of shape (N, K)")
    targets, (n, classes) = xp.asarray(targets), logits.shape
    log_p = _log_softmax(logits, 1)  # (N, K)
    if targets.shape == (n,) and targets.dtype.kind in "iu":
        if xp is np:  # a GPU would have to be waited for: there the loss of a label that is no class is infinite
            check_labels(targets, classes, "cross_entropy")
        own = targets[:, None] == xp.arange(classes)
        losses = -xp.where(own, log_p, -xp.inf).max(axis=1)
    elif targets.shape == (n, classes) and targets.dtype.kind == "f":
        losses = -(targets * xp.where(targets != 0, log_p, 0)).sum(axis=1)  # 0 * -inf counts as 0
    else:
        raise ValueError(
            f"cross_entropy: targets must be integer labels of shape ({n},) or probabilities of shape "
            f"({n}, {classes}), to match the logits; got {targets.dtype} of shape {targets.shape}"
        )

    def logits_vjp(g):
        slope = xp.exp(log_p)
        if targets.ndim == 1:  # p - 1 at the label, as minus the sum of the others: exact also where p rounds to 1
            slope -= own * slope
            slope -= own * slope.sum(axis=1, keepdims=True)
        else:
            slope = slope * targets.sum(axis=1, keepdims=True) - targets
        return slope * spread(g)[..., None]

    value, spread = _reduce(losses, reduction, logits.dtype, "cross_entropy")
    return value, logits_vjp, lambda g: -log_p * spread(g)[..., None]


@partial(op, operands=2)
def mse_loss(x, y, reduction="mean"):
    """(x - y)²: its mean, its sum, or, for "none", the element-wise squares."""
    difference = x - y
    dtype, difference = difference.dtype, difference.astype(wide(difference), copy=False)
    value, spread = _reduce(difference * difference, reduction, dtype, "mse_loss")
    return value, lambda g: 2 * difference * spread(g), lambda g: -2 * difference * spread(g)


def check_labels(labels, classes: int, operation: str) -> None:
    """ValueError unless every label is a class index in [0, classes)."""
    labels = to_host(labels)
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(
            f"{operation}: labels must lie in [0, {classes}), the classes of the logits; "
            f"got labels from {int(labels.min())} to {int(labels.max())}"
        )


def _log_softmax(x, axis):
    top, rest = logsumexp_parts(x, axis)
    return less_logs(x, top, rest)  # wide; beside a large top, top + rest would round the digits of rest away


def _reduce(losses, reduction: str, dtype, operation: str):
    """The reduced losses, of that dtype, and a function that spreads the upstream gradient back over them."""
    if reduction == "none":
        return losses.astype(dtype, copy=False), lambda g: g
    if reduction not in REDUCTIONS:
        raise ValueError(f'{operation}: reduction must be "mean", "sum" or "none", got {reduction!r}')
    scale = 1 / max(losses.size, 1) if reduction == "mean" else 1.0
    return (losses.sum() * scale).astype(dtype, copy=False), lambda g: g * scale
