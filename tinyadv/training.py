"""Training: one loop over seeded batches."""

from __future__ import annotations

import functools
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyadv import evaluation, ops
from tinyadv.attacks import driver
from tinyadv.backend import Array, move
from tinyadv.data import Dataset, batches
from tinyadv.nn import Module
from tinyadv.nn.optim import Optimizer, Schedule
from tinyadv.ops.movement import batch_last
from tinyadv.parallel import single_threaded_blas, together
from tinyadv.tensor import Tensor, gradients, recording

PARTS = 4  # at most, of a batch; on any number of cores, so that the sums are always made in the same order
FEWEST = 16  # images in a part, about: fewer are not worth a thread


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: means over its batches, as they were trained on, and accuracy on held-out images."""

    epoch: int
    loss: float
    accuracy: float
    validation: float | None
    lr: float
    seconds: float


class History(Sequence[Epoch]):
    """The epochs of a training run; prints as a table."""

    def __init__(self, epochs: Sequence[Epoch] = ()):
        self.epochs = list(epochs)

    def __getitem__(self, index: Any) -> Any:
        return self.epochs[index]

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        lines = ["epoch    loss  accuracy  validation       lr  seconds"]
        for e in self.epochs:
            validation = "-" if e.validation is None else f"{e.validation:.2%}"
            figures = f"{e.epoch:5}  {e.loss:6.4f}  {e.accuracy:8.2%}  {validation:>10}"
            lines.append(f"{figures}  {e.lr:7.2g}  {e.seconds:7.1f}")
        return "\n".join(lines)


def fit(model: Module, train: Dataset, *, epochs: int, optimizer: Optimizer, batch_size: int = 32, seed: int = 0,
        schedule: Schedule | None = None, validation: Dataset | None = None, progress: bool = False) -> History:
    """Minimise the cross entropy of the model on the training set, in place; returns the history.

    optimizer: of this model's parameters; schedule: progress in [0, 1] -> factor of the optimiser's rate.
    seed: of the order of the images, which differs from epoch to epoch. validation: a set whose accuracy is measured
    after each epoch. progress: show a bar for each epoch. The model is in training mode meanwhile, and as before after.
    Raises ValueError for arguments that do not fit, FloatingPointError as soon as the loss is not a number.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be an integer >= 0, got {epochs!r}")
    if not {id(p) for p in optimizer.parameters} & {id(p) for p in model.parameters()}:
        raise ValueError(f"optimizer must hold the parameters of this model, and {optimizer} holds none of them")
    if not len(train):
        raise ValueError(f"training needs at least one image, and {train.name} has none")
    base_rate, history = optimizer.lr, History()
    try:
        for epoch in range(epochs):
            started, loss_sum, correct = time.perf_counter(), 0.0, 0
            name = f"{train.name}, epoch {epoch + 1}/{epochs}"
            bar = driver.progress_bar(len(train), name, progress)
            with model.mode(training=True), updates(model, optimizer) as update, bar:
                for index, (images, labels) in enumerate(batches(train, batch_size, seed=seed, epoch=epoch)):
                    if schedule:
                        optimizer.lr = base_rate * schedule((epoch + index * batch_size / len(train)) / epochs)
                    loss, hits = update(images, labels)
                    if not math.isfinite(loss):
                        raise FloatingPointError(f"the loss became {loss} in epoch {epoch + 1}, step {index + 1}, at "
                                                 f"learning rate {optimizer.lr:g}: try a lower one")
                    loss_sum, correct = loss_sum + loss * len(labels), correct + hits
                    bar.update(len(labels))
                    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            seconds = time.perf_counter() - started
            held_out = None if validation is None else evaluation.accuracy(model, validation)
            mean_loss, mean_accuracy = loss_sum / len(train), correct / len(train)
            history.epochs.append(Epoch(epoch + 1, mean_loss, mean_accuracy, held_out, optimizer.lr, seconds))
    finally:
        optimizer.lr = base_rate
    return history


@contextmanager
def updates(model: Module, optimizer: Optimizer) -> Iterator[Callable[[np.ndarray, np.ndarray], tuple[float, int]]]:
    """A function (images, labels) -> (loss, hits): one update on one batch, its loss and correct predictions before it.

    A batch is split into up to four parts, whose gradients are computed on threads and summed in order, so that the
    result does not depend on the number of cores; batch normalisation makes them meet (`parallel.all_reduce`). A batch
    stays whole on a GPU, and for a model with a module that says `needs_whole_batch`: then BLAS has the cores.
    """
    parameters = optimizer.parameters
    whole = not all(isinstance(p.data, np.ndarray) for p in parameters)
    whole = whole or any(module.needs_whole_batch for _, module in model.named_modules())

    def update(images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        like, count = driver.memory_of(model, images), len(labels)
        labels = move(labels, like)

        def gradient(part: slice) -> tuple[float, int, list[Array]]:
            with recording(True):  # whatever the caller's no_grad()
                logits = model(Tensor(batch_last(move(images[part], like))))
                loss = ops.cross_entropy(logits, labels[part], reduction="sum") * (1 / count)
                hits = int((logits.data.argmax(axis=1) == labels[part]).sum())
                return loss.item(), hits, gradients(loss, parameters)

        if whole:
            results = [gradient(slice(0, count))]
        else:
            most = min(PARTS, count // FEWEST, len(driver.shards(count, None, images[0].size)))
            parts = driver.shards(count, -(-count // max(1, most)))
            results = together(pool, gradient, parts)
        loss = sum(part_loss for part_loss, _, _ in results)
        if math.isfinite(loss):  # else the weights stay as they are
            for parameter, *shares in zip(parameters, *(grads for _, _, grads in results), strict=True):
                parameter.grad = functools.reduce(operator.add, shares)
            optimizer.step()
        return loss, sum(hits for _, hits, _ in results)

    with ThreadPoolExecutor(PARTS) as pool, nullcontext() if whole else single_threaded_blas:
        yield update
