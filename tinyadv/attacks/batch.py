"""One shard of examples under attack: the gradients an attack asks for, and the best of the points it shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyadv.attacks import driver
from tinyadv.attacks.losses import Objective
from tinyadv.attacks.norms import Ball
from tinyadv.backend import Array, array_module, to_host
from tinyadv.ops.loss import check_labels
from tinyadv.ops.movement import batch_last
from tinyadv.random import Streams
from tinyadv.tensor import Tensor, gradients, no_grad, recording


@dataclass(frozen=True)
class Step:
    """What a callback sees of one iteration of one shard.

    index: of the iteration, from 0; examples: (n,) their indices in x; points: (n, ...); losses: (n,), the
    attacker's objective at the points.
    """

    index: int
    examples: np.ndarray
    points: Array
    losses: Array


class Batch:
    """One shard of examples under attack: what `perturb` sees, and where its best candidates are kept.

    x (n, ...), y (n,), target (n,) or None, streams: of the examples; ball: the points that may be returned.
    Of the candidates, the best is misclassified (as the target, if there is one) if any is, and then of highest loss.
    best (n, ...), losses (n,), predictions (n,): the best candidates, the objective and the model's classes there;
    None before the first.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], ball: Ball, objective: Objective, y: Array,
                 target: Array | None, streams: Streams, report: Callable[[Step], None]):
        self.model, self.ball, self.x, self.y, self.target = model, ball, ball.x, y, target
        self.streams, self._objective, self._report = streams, objective, report
        self.best: Array = None
        self.losses: Array = None
        self.predictions: Array = None
        self._iterations = 0

    @property
    def succeeded(self) -> Array:
        """(n,) bool: whether the best candidate is misclassified or, with a target, classified as that."""
        return self._succeeds(self.predictions)

    def __getitem__(self, index: Array) -> Batch:
        """A batch of some of the examples, with their best candidates so far."""
        target = None if self.target is None else self.target[index]
        ball = self.ball.around(batch_last(self.x[index]))
        part = Batch(self.model, ball, self._objective, self.y[index], target, self.streams[to_host(index)],
                     self._report)
        if self.best is not None:
            part.best, part.losses, part.predictions = self.best[index], self.losses[index], self.predictions[index]
        return part

    def __setitem__(self, index: Array, part: Batch) -> None:
        """Take over the best candidates of a part."""
        self.best[index], self.losses[index], self.predictions[index] = part.best, part.losses, part.predictions

    def gradient(self, points: Array, candidate: bool = True) -> Array:
        """The gradient of the attack's objective at the points (n, ...), each example's own; the points are candidates.

        A point that is not meant to be returned, such as the clean image, is no candidate. One that is gets projected
        first, which changes nothing inside the budget.
        """
        if candidate:
            points = self.ball.project(points)
        x = Tensor(points)
        with recording(True):  # whatever the caller's no_grad()
            logits = self.logits(x)
            objective = self._objective(logits, self.y, self.target)
            (g,) = gradients(objective.sum(), [x])
        if candidate:
            self._keep(points, objective.data, logits.data)
        self._report(Step(self._iterations, self.streams.examples, points, objective.data))
        self._iterations += 1
        return g

    def consider(self, points: Array) -> None:
        """Make the points (n, ...), projected into the budget, candidates."""
        points = self.ball.project(points)
        with no_grad():
            logits = self.logits(Tensor(points))
            self._keep(points, self._objective(logits, self.y, self.target).data, logits.data)

    def logits(self, points: Tensor) -> Tensor:
        """The model's logits (n, K) at the points, checked, as are the classes against them."""
        logits = driver.check_logits(self.model(points), points.data)
        for name, classes in (("y", self.y), ("target", self.target)):
            if classes is not None:
                check_labels(classes, logits.shape[1], name)
        return logits

    def _keep(self, points: Array, losses: Array, logits: Array) -> None:
        where = array_module(points).where
        predictions = logits.argmax(axis=1)
        losses = where(losses == losses, losses, -math.inf)  # a loss that is no number is the worst
        if self.best is None:
            self.best, self.losses, self.predictions = points, losses, predictions
            return
        now, before = self._succeeds(predictions), self.succeeded
        better = (now & ~before) | ((now == before) & (losses > self.losses))
        self.best = where(better.reshape(-1, *[1] * (points.ndim - 1)), points, self.best)
        self.losses = where(better, losses, self.losses)
        self.predictions = where(better, predictions, self.predictions)

    def _succeeds(self, predictions: Array) -> Array:
        return predictions != self.y if self.target is None else predictions == self.target
