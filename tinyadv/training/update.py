"""One update of the weights on one batch, computed in parts on threads."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyadv import driver, ops
from tinyadv.attacks.base.arguments import are_probabilities, warn
from tinyadv.backend import Array, array_module, device_of, move, to_host
from tinyadv.nn import Module
from tinyadv.nn.optim import Optimizer
from tinyadv.ops.loss import check_labels
from tinyadv.ops.movement import arranged
from tinyadv.parallel import single_threaded_blas, together
from tinyadv.shapes import check_per_example
from tinyadv.tensor import Tensor, gradients, recording

PARTS = 4  # a batch is split into at most so many, on any number of cores: so sums always have the same order
FEWEST = 16  # images in a part, about: a thread for fewer costs more than it saves

# (model, labels (n,), *images (n, C, H, W)) -> losses (n,), and the logits whose predictions are counted.
Losses = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Update:
    """The result of one update.

    loss: the mean over the batch; hits: the number of correct predictions; both before the update.
    slope: the gradient of the mean loss with respect to the (first) images, on their device; None unless asked for.
    """

    loss: float
    hits: int
    slope: Array | None = None


def cross_entropy(model: Callable, labels: Array, x: Tensor) -> tuple[Tensor, Tensor]:
    """The losses of standard training."""
    logits = model(x)
    return ops.cross_entropy(logits, labels, "none"), logits


@contextmanager
def updates(model: Module, optimizer: Optimizer, clip_norm: float | None = None) -> Iterator[Callable[..., Update]]:
    """Within the block, a function (images, labels, losses=cross_entropy, slope=False) -> Update: one optimiser step.

    images: an array (N, C, H, W), or a tuple of such arrays, which are the inputs of `losses`. labels: (N,) integers.
    clip_norm: the largest l2 norm of the gradient of the mean loss; a longer gradient is scaled down to it.

    A batch is split into up to four parts. Their gradients are computed on threads and summed in a fixed order, so the
    result does not depend on the number of cores. Batch normalisation sums its statistics over all parts
    (`parallel.all_reduce`). A batch stays whole on a GPU, and for a model with a module that sets `needs_whole_batch`;
    then BLAS uses the cores. If the loss is NaN or infinite, the weights do not change; an infinite gradient of
    a finite loss spoils them, and the next loss shows it. A frozen module (`Module.freeze`) gets no gradient and never
    changes.
    """
    frozen = model.frozen_parameters()
    parameters = [p for p in optimizer.parameters if p not in frozen]
    whole = not all(isinstance(p.data, np.ndarray) for p in optimizer.parameters)
    whole = whole or any(module.needs_whole_batch for _, module in model.named_modules())

    def update(images: Any, labels: Array, losses: Losses = cross_entropy, slope: bool = False) -> Update:
        several = images if isinstance(images, tuple) else (images,)
        like, count, given = driver.memory_of(model, several[0]), len(labels), labels
        labels = move(labels, like)

        def gradient(part: slice) -> tuple[float, int, bool, list[Array], list[Array]]:
            inputs = [Tensor(arranged(move(each[part], like))) for each in several]
            with recording(True):  # whatever the caller's no_grad()
                values, logits = losses(model, labels[part], *inputs)
                check_labels(given[part], logits.shape[1], "labels")
                check_per_example(values, len(logits), "losses")
                loss = (values * (1 / count)).sum()
                hits = (driver.classes(logits.data) == labels[part]).sum()
                doubtful = optimizer.steps == 0 and are_probabilities(logits.data)
                found = gradients(loss, [*parameters, inputs[0]] if slope else parameters)
            value, right = _numbers(loss.data, hits)
            return value, int(right), doubtful, found[:len(parameters)], found[len(parameters):]

        if whole:
            results = [gradient(slice(0, count))]
        else:
            most = min(PARTS, count // FEWEST, len(driver.shards(count, None, several[0][0].size)))
            parts = driver.shards(count, -(-count // max(1, most)))
            results = together(pool, gradient, parts)
        losses_of, hits_of, doubts, shares, slopes = zip(*results, strict=True)
        if all(doubts):
            warn("the model returns probabilities, of which the loss takes another softmax: let it return logits, "
                 "without the softmax")
        loss, totals = sum(losses_of), [functools.reduce(operator.add, each) for each in zip(*shares, strict=True)]
        if clip_norm is not None and totals:
            norm = math.sqrt(sum(_numbers(*((g.astype(np.float64) ** 2).sum() for g in totals))))
            totals = [g * min(1.0, clip_norm / max(norm, 1e-12)) for g in totals]
        if math.isfinite(loss):  # else the weights stay as they are
            optimizer.zero_grad()  # so that the step passes over what is frozen
            for parameter, g in zip(parameters, totals, strict=True):
                parameter.grad = g
            optimizer.step()
        whole_slope = move(array_module(like).concatenate([each[0] for each in slopes]), several[0]) if slope else None
        return Update(loss, sum(hits_of), whole_slope)

    there = device_of(*(p.data for p in optimizer.parameters)) if whole else single_threaded_blas()
    with ThreadPoolExecutor(PARTS) as pool, there:
        yield update


def _numbers(*values: Array) -> list[float]:
    """Arrays of one number each as numbers, for all of which a GPU is asked once."""
    return to_host(array_module(*values).stack([value.astype(np.float64, copy=False) for value in values])).tolist()
