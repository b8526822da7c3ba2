"""Auto-PGD, which adapts its step size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.balls import Ball, L1Ball, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import Objective, objective
from tinyadv.backend import Array, array_module, rows_of
from tinyadv.shapes import is_number, to_count


@dataclass(frozen=True)
class APGD(WhiteBox):
    """PGD that halves its step size when the loss stops rising, and then goes back to the best point.

    "linf", "l2": Croce and Hein 2020, arXiv:2003.01690, algorithm 1. The steps have momentum and start at 2 * eps.

    "l1": Croce and Hein 2021, arXiv:2103.01208. The steps start at eps and follow the signs of the largest |gradients|.
    The sparser the best perturbation is, the fewer pixels they move. The ball has 3 times eps for 30% of the steps,
    twice eps for 30%, and eps for 40%; each part starts from the best point of the one before.

    Each run starts at a random point.

    eps: the budget, in the units of the data; norm: "linf", "l2" or "l1"; steps: their N_iter.
    rho: the step size is kept if at least this fraction of the steps raised the loss; no effect for "l1".
    restarts: the number of runs, each from a new random point, on the examples that are not broken yet.
    loss: "cross_entropy", "margin" or "dlr", which with `target=` is the loss of their targeted attack.
    target_classes: None, or a number of runs, each towards another class, in falling order of the logits at x, on the
    examples that are not broken yet (with "dlr" this is their APGD-T). Any misclassification is a success.
    """

    eps: float
    steps: int = 100
    norm: str = "linf"
    rho: float = 0.75
    restarts: int = 1
    loss: str = "cross_entropy"
    target_classes: int | None = None

    norms = ("linf", "l2", "l1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.rho) and 0 <= self.rho <= 1):
            raise ValueError(f"rho must be a number in [0, 1], got {self.rho!r}: the paper's is 0.75")
        if self.target_classes is not None:
            object.__setattr__(self, "target_classes", to_count("target_classes", self.target_classes))

    def perturb(self, batch: Batch) -> Array:
        if self.target_classes is None or batch.target is not None:
            return self._climb(batch, batch.target)
        aims = batch.ranking().T[1:self.target_classes + 1]  # (classes, n)
        batch.consider(self._climb(batch, aims[0]))
        for aim in aims[1:]:
            left = rows_of(~batch.succeeded)
            if len(left):
                rest = batch[left]
                rest.consider(self._climb(rest, aim[left]))
                batch[left] = rest
        return batch.best

    def _climb(self, batch: Batch, target: Array | None) -> Array:
        """One run; target (n,): the target classes, or None."""
        start, wide = None, 3 * self.steps // 10 if self.norm == "l1" else 0
        for times, steps in (3, wide), (2, wide), (1, self.steps - 2 * wide):
            if steps:
                ball = batch.ball if times == 1 else type(batch.ball)(batch.x, times * self.eps, self.bounds)
                start = ball.random(batch.streams) if start is None else ball.project(start)
                way = _Way(batch, ball, start, objective(self.loss), target)
                (self._sparsely if self.norm == "l1" else self._with_momentum)(way, steps)
                start = way.x_max
        return way.x

    def _with_momentum(self, way: _Way, steps: int) -> None:
        """Algorithm 1 of 2020. A checkpoint resets x^(w_j), as in the authors' code, not the point after it."""
        xp, ball, w = array_module(way.x), way.ball, checkpoints(steps)
        eta = xp.full(len(way.x), 2 * ball.eps)
        rises, halved = xp.zeros(len(eta), int), xp.zeros(len(eta), bool)
        before, last, f_max_last = way.x, 0, xp.full(len(eta), math.nan)
        for k in range(steps):
            f = way.f
            way.look()
            rises = rises + (way.f > f)
            if k in w:
                halved = (rises < self.rho * (k - last)) | (~halved & (way.f_max == f_max_last))  # conditions 1 and 2
                eta = xp.where(halved, eta / 2, eta)
                way.go_back(halved)
                rises, last, f_max_last = 0 * rises, k, way.f_max
            alpha = 0.75 if k else 1.0  # the weight of the new step, the rest is that of the last one
            z = ball.step(way.x, way.g, eta)
            before, way.x = way.x, ball.project(way.x + alpha * (z - way.x) + (1 - alpha) * (way.x - before))

    @staticmethod
    def _sparsely(way: _Way, steps: int) -> None:
        """The l1-APGD of 2021: k pixels move at a time, and the step size is reset when k falls."""
        xp, ball = array_module(way.x), way.ball
        eta, changed = xp.full(len(way.x), 1.5 * ball.eps), xp.zeros(len(way.x))  # at once divided by 1.5: eps
        for i in range(steps):
            way.look()
            if i % max(1, steps // 25) == 0:
                changed_before, changed = changed, ball.distance(way.x_max != ball.x)  # how many pixels
                sparser = changed < 0.95 * changed_before
                eta = xp.where(sparser, ball.eps, xp.maximum(eta / 1.5, ball.eps / 10))
                k = xp.maximum(xp.ceil(changed / 1.5), 1).astype(int)
                way.go_back(sparser)
            way.x = ball.project(way.x + column(eta, way.x) * L1Ball.sparse_steepest(way.g, k))


class _Way:
    """The present point x of each example, its objective f and gradient g, and the best so far: x_max, f_max, g_max."""

    def __init__(self, batch: Batch, ball: Ball, x: Array, objective: Objective, target: Array | None):
        xp, self.batch, self.ball = array_module(x), batch, ball
        self.objective = lambda logits: objective(logits, batch.y, target)
        self.x, self.g = self.x_max, self.g_max = x, xp.zeros_like(x)  # (n, ...)
        self.f, self.f_max = xp.full(len(x), math.inf), xp.full(len(x), -math.inf)  # (n,)

    def look(self) -> None:
        """Compute the objective and its gradient at x."""
        where = array_module(self.x).where
        _, f, self.g = self.batch.evaluate(self.x, self.objective, candidate=self.ball is self.batch.ball)
        self.f = where(f == f, f, -math.inf)  # NaN is the worst objective
        better = self.f > self.f_max
        self.f_max = where(better, self.f, self.f_max)
        self.x_max = where(column(better, self.x), self.x, self.x_max)
        self.g_max = where(column(better, self.g), self.g, self.g_max)

    def go_back(self, these: Array) -> None:
        """Go back to the best point, for the examples marked in (n,) bool."""
        where = array_module(self.x).where
        self.f = where(these, self.f_max, self.f)
        self.x = where(column(these, self.x), self.x_max, self.x)
        self.g = where(column(these, self.g), self.g_max, self.g)


def checkpoints(steps: int) -> set[int]:
    """The w_j = ceil(p_j * steps), with p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    percents = [0, 22]  # whole numbers, lest ceil(0.7 * 100) become 71
    while percents[-1] < 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    return {-(-percent * steps // 100) for percent in percents}
