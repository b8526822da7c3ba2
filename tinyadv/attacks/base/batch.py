"""One shard of examples under attack: it computes gradients for the attack, and keeps the best points."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.arguments import are_probabilities, check_range
from tinyadv.attacks.base.ball import Ball, column, usable
from tinyadv.attacks.base.objectives import Objective, reached, surely_reached
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.fused import better
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams
from tinyadv.shapes import check_per_example
from tinyadv.tensor import Tensor, gradients, no_grad, recording

BEST = ("best", "losses", "predictions", "succeeded")


@dataclass(frozen=True)
class Step:
    """The argument of a callback: one iteration of one shard.

    index: the number of the iteration, from 0; examples: (n,), the indices of the examples in x; points: (n, ...);
    losses: (n,), the attacker's objective at the points.
    """

    index: int
    examples: np.ndarray
    points: Array
    losses: Array


class Batch:
    """One shard of examples under attack: the argument of `perturb`. It keeps the best candidate of each example.

    x (n, ...), y (n,), target (n,) or None, streams: those of the examples. ball: the allowed points.

    The best candidate is one that succeeds, if there is one: it is misclassified, or classified as the target. Among
    several, the best has the highest loss or, if `nearest`, the smallest distance from x. If `nearest`, a candidate
    other than x succeeds only if other rounding of the logits could not change that.

    clean (n,): the predicted classes at x; None until they are known.
    best (n, ...), losses, predictions, succeeded (n,): the best candidates, the objective there, the predicted classes
    there, and whether they are successes; None before the first candidate.
    forwards, backwards (n,): the number of passes of each example. Random layers draw from (seed, i, this number).
    After `queries` passes, nothing is a success any more.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], ball: Ball, objective: Objective, y: Array,
                 target: Array | None, streams: Streams, report: Callable[[Step], None] | None, nearest: bool = False,
                 eot: int = 1, queries: float = math.inf):
        self.model, self.ball, self.x, self.y, self.target = model, ball, ball.x, y, target
        self.streams, self._objective, self._report, self._nearest = streams, objective, report, nearest
        self._eot, self.queries = eot, queries
        self.clean: Array = None
        self.best: Array = None
        self.losses: Array = None
        self.predictions: Array = None
        self.succeeded: Array = None
        self.forwards, self.backwards = np.zeros((2, len(self.x)), np.int64)
        self._iterations, self._checked = itertools.count(), False

    def __getitem__(self, index: Array) -> Batch:
        """A batch of some of the examples, whose rows are given, with their best candidates so far."""
        part, on_host = copy(self), to_host(index)
        part.ball = self.ball.around(arranged(self.x[index]))
        part.x = part.ball.x
        for name in ("y", "target", "clean", *BEST):
            value = getattr(self, name)
            setattr(part, name, None if value is None else value[index])
        for name in ("streams", "forwards", "backwards"):
            setattr(part, name, getattr(self, name)[on_host])
        return part

    def __setitem__(self, index: Array, part: Batch) -> None:
        """Copy the best candidates and the costs of a part."""
        for name in BEST:
            getattr(self, name)[index] = getattr(part, name)
        index = to_host(index)
        self.forwards[index], self.backwards[index] = part.forwards, part.backwards

    def within(self, eps: float) -> Batch:
        """The same examples with another budget; with eps = inf, which needs `clean`, the best is the nearest success.

        Passes and iterations of the new batch count for this one, too.
        """
        other = copy(self)
        other.ball, other._nearest = type(self.ball)(self.x, eps, self.ball.bounds), eps == math.inf
        for name in BEST:
            setattr(other, name, None)
        if other._nearest:
            other.keep_clean()
        return other

    @property
    def restarted(self) -> bool:
        """Whether this is a restart: an earlier run has taken gradients for these examples."""
        return bool(self.backwards.any())

    def outcome(self) -> dict[str, np.ndarray]:
        """{field of AttackResult: values} for the examples, on the host."""
        found = {"forwards": self.forwards, "backwards": self.backwards}
        if self.clean is not None:
            found["predictions_clean"] = to_host(self.clean)
        if self.predictions is not None:
            found |= {"predictions": to_host(self.predictions), "success": to_host(self.succeeded),
                      "distances": to_host(self.ball.distance_to(self.best))}
        return found

    def gradient(self, points: Array, candidate: bool = True) -> Array:
        """The gradient of the attack's objective at the points (n, ...), for each example by itself.

        The points become candidates and are projected first, which does not change points within the budget. Pass
        candidate=False for points that must not be returned, such as the clean images.
        """
        return self.evaluate(points, candidate=candidate)[2]

    def evaluate(self, points: Array, objective: Callable[[Tensor], Tensor] | None = None,
                 candidate: bool = True) -> tuple[Array, Array, Array]:
        """The logits (n, K) at the points, an objective of them (n,), and its gradient (n, ...); see `gradient`.

        By default it is the attack's objective. All three are means over `eot` passes; the last decides on success.
        """
        if candidate:
            points = self.ball.project(points)
        climbed = objective or (lambda logits: self._objective(logits, self.y, self.target))
        return self._mean(lambda last: self._slope(points, climbed, candidate and last))

    def _mean(self, one: Callable[[bool], tuple]) -> tuple:
        """The means of what each of the `eot` passes returns; one: a pass, with whether it is the last."""
        passes = [one(k == self._eot) for k in range(1, self._eot + 1)]
        return passes[0] if self._eot == 1 else tuple(sum(each) / self._eot for each in zip(*passes, strict=True))

    def _slope(self, points: Array, objective: Callable[[Tensor], Tensor], candidate: bool) -> tuple:
        x = Tensor(points)
        with recording(True):  # whatever the caller's no_grad()
            logits = self.logits(x, gradient=True)
            check_per_example(values := objective(logits), len(points), "an objective")
            g = usable(*gradients(values.sum(), [x]))
        self.backwards += 1
        if candidate:
            self._keep(points, values.data, logits.data)
        self._count(points, values.data)
        return logits.data, values.data, g

    def jacobian(self, points: Array, classes: Array) -> tuple[Array, list[Array]]:
        """The logits (n, K) at the points, and the gradients (n, ...) of m logits, from one forward pass.

        classes (n, m): the classes of these logits, for each example. The points become candidates, as in `gradient`.
        Each is a mean over `eot` forward passes, as in `evaluate`.
        """
        projected = self.ball.project(points)
        logits, *slopes = self._mean(lambda last: self._slopes(projected, classes, last))
        return logits, slopes

    def _slopes(self, points: Array, classes: Array, candidate: bool) -> tuple:
        x = Tensor(points)
        with recording(True):
            logits = self.logits(x, gradient=True)
            rows = array_module(classes).arange(len(classes))
            slopes = [usable(*gradients(logits[rows, k].sum(), [x], keep_graph=True)) for k in classes.T]
        self.backwards += len(slopes)
        losses = self._objective(logits, self.y, self.target).data
        if candidate:
            self._keep(points, losses, logits.data)
        self._count(points, losses)
        return (logits.data, *slopes)

    def consider(self, points: Array, iteration: bool = False) -> Array:
        """Project the points (n, ...) and make them candidates; returns the logits (n, K) there.

        iteration: whether this counts as an iteration, for which the callback is called, as for each gradient.
        """
        points = self.ball.project(points)
        with no_grad():
            logits = self.logits(Tensor(points))
            losses = self._objective(logits, self.y, self.target).data
        self._keep(points, losses, logits.data)
        if iteration:
            self._count(points, losses)
        return logits.data

    def ranking(self) -> Array:
        """(n, K): y, then the other classes in falling order of their logits at x. It also sets `clean`."""
        logits = self.look_at_clean().copy()
        logits[array_module(logits).arange(len(logits)), self.y] = math.inf
        return (-logits).argsort(axis=1)

    def look_at_clean(self) -> Array:
        """The logits (n, K) at x. It also sets `clean`."""
        with no_grad():
            return self.logits(Tensor(self.x)).data

    def keep_clean(self) -> None:
        """Make the clean images the best points so far; `clean` must be known."""
        self.best, self.losses, self.predictions = self.x.copy(), self.clean * 0.0, self.clean.copy()
        self.succeeded = reached(self.clean, self.y, self.target)  # as it is: no step has been taken

    def logits(self, points: Tensor, gradient: bool = False) -> Tensor:
        """The model's logits (n, K) at the points. The first call checks that y and target are classes of the model."""
        unseen = self.clean is None and points.data is self.x  # FGSM's first pass is at x itself: it needs no other
        logits = driver.call(self.model, points, self.streams.of_pass(self.forwards), gradient)
        if gradient and not self.backwards.any():
            driver.check_graph(logits, points)
            if are_probabilities(logits.data):
                warnings.warn("the model returns probabilities, whose gradients vanish where it is sure: let it return "
                              "logits, without the softmax", stacklevel=2)
        if not self._checked:
            check_range(logits.data, self.y, self.target)  # once: on a GPU, to ask means to wait
            self._checked = True
        if unseen:
            self.clean = driver.classes(logits.data)
        self.forwards += 1
        return logits

    def _count(self, points: Array, losses: Array) -> None:
        if self._report:
            self._report(Step(next(self._iterations), self.streams.examples, points, losses))

    def _keep(self, points: Array, losses: Array, logits: Array) -> None:
        xp = array_module(points)
        predictions = driver.classes(logits)
        now = self.succeeds(logits, predictions)
        if self.queries < math.inf:
            now = now & move(self.forwards + self.backwards <= self.queries, like=now)
        if self._nearest:
            losses = -self.ball.distance(points - self.x)
        losses = xp.fmax(losses, -math.inf)  # NaN is the worst loss
        if self.best is None:
            self.best, self.losses, self.predictions, self.succeeded = points, losses, predictions, now
            return
        ahead, self.losses, self.predictions, self.succeeded = better(
            now, losses, predictions, self.succeeded, self.losses, self.predictions)
        self.best = xp.where(column(ahead, points), points, self.best)

    def succeeds(self, logits: Array, predictions: Array = None) -> Array:
        """(n,) bool: whether points with these logits (n, K) are successes; predictions (n,): their classes."""
        if self._nearest:
            return surely_reached(logits, self.y, self.target)
        return reached(driver.classes(logits) if predictions is None else predictions, self.y, self.target)
