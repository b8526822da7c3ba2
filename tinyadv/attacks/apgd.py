"""Auto-PGD, which finds its own step sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyadv.attacks import losses
from tinyadv.attacks.attack import Attack, is_number
from tinyadv.attacks.batch import Batch
from tinyadv.attacks.norms import column
from tinyadv.backend import Array, array_module


@dataclass(frozen=True)
class APGD(Attack):
    """PGD that sets its step size by the losses on its way, and goes back to the best point where it lowers it.

    For "linf" and "l2" Croce and Hein 2020, arXiv:2003.01690, algorithm 1: steps with momentum, of 2 * eps at first and
    halved where too few of them raised the loss. For "l1" Croce and Hein 2021, arXiv:2103.01208: steps of eps at first
    along the signs of the largest |gradients|, of which there are the fewer, the sparser the best perturbation is.
    Each run starts from a random point of the ball.

    eps: the budget, in the units of the data; norm: "linf", "l2" or "l1"; steps: their N_iter.
    rho: the step stays as it is while at least this share of the steps raise the loss; without effect for "l1".
    restarts: runs from new random points, each on the examples that no earlier one has broken.
    loss: "cross_entropy", "margin" or "dlr", which with `target=` is the loss of their targeted attack.
    """

    eps: float
    steps: int = 100
    norm: str = "linf"
    rho: float = 0.75
    restarts: int = 1
    loss: str = "cross_entropy"

    _alpha = 0.75  # the weight of the new step, the rest is that of the last one

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.rho) and 0 <= self.rho <= 1):
            raise ValueError(f"rho must be a number in [0, 1], got {self.rho!r}: the paper's is 0.75")

    def perturb(self, batch: Batch) -> Array:
        way = _Way(batch, losses.objective(self.loss))
        return self._sparsely(way, batch) if self.norm == "l1" else self._with_momentum(way, batch)

    def _with_momentum(self, way: _Way, batch: Batch) -> Array:
        """Algorithm 1 of 2020, for all examples at once. A checkpoint resets x^(w_j), as the authors' code does.

        (In print it is the point after that, which has cost a gradient by then.)
        """
        xp, ball, w = array_module(batch.x), batch.ball, checkpoints(self.steps)
        eta = xp.full(len(batch.x), 2 * self.eps, batch.x.dtype)
        rises, halved = xp.zeros(len(eta), int), xp.zeros(len(eta), bool)
        before, last, f_max_last = way.x, 0, xp.full(len(eta), math.nan)
        for k in range(self.steps):
            f = way.f
            way.look()
            rises = rises + (way.f > f)
            if k in w:
                too_few = rises < self.rho * (k - last)  # condition 1
                no_progress = ~halved & (way.f_max == f_max_last)  # condition 2
                halved = too_few | no_progress
                eta = xp.where(halved, eta / 2, eta)
                way.go_back(halved)
                rises, last, f_max_last = 0 * rises, k, way.f_max
            alpha = self._alpha if k else 1.0
            z = ball.project(way.x + column(eta, way.x) * ball.steepest(way.g))
            before, way.x = way.x, ball.project(way.x + alpha * (z - way.x) + (1 - alpha) * (way.x - before))
        return way.x

    def _sparsely(self, way: _Way, batch: Batch) -> Array:
        """The l1-APGD of 2021 at a single eps: k pixels move at a time, and the step starts anew when k has fallen."""
        xp, x = array_module(batch.x), batch.x
        size, period = math.prod(x.shape[1:]), -(-4 * self.steps // 100)
        eta, changed = xp.full(len(x), self.eps, x.dtype), xp.full(len(x), size)
        k = xp.full(len(x), -(-size // 5))
        for i in range(self.steps):
            way.look()
            if i and i % period == 0:
                changed_before, changed = changed, (way.x_max != x).reshape(len(x), size).sum(axis=1)
                sparser = changed < 0.95 * changed_before
                eta = xp.where(sparser, self.eps, xp.maximum(eta / 1.5, self.eps / 10)).astype(x.dtype)
                k = xp.maximum(-(-2 * changed // 3), 1)  # changed / 1.5
                way.go_back(sparser)
            way.x = batch.ball.project(way.x + column(eta, x) * sparse_steepest(way.g, k))
        return way.x


class _Way:
    """Where every example is, and the point of the highest objective on its way: x_max, f_max and g_max, as x, f, g."""

    def __init__(self, batch: Batch, objective: losses.Objective):
        xp, self.batch, self.objective = array_module(batch.x), batch, objective
        self.x = self.x_max = batch.ball.random(batch.streams)  # (n, ...)
        self.f, self.f_max = xp.full(len(self.x), math.inf), xp.full(len(self.x), -math.inf)  # (n,)
        self.g = self.g_max = xp.zeros_like(self.x)  # (n, ...)

    def look(self) -> None:
        """The objective and its gradient at x."""
        where, batch = array_module(self.x).where, self.batch
        _, f, self.g = batch.evaluate(self.x, lambda logits: self.objective(logits, batch.y, batch.target))
        self.f = where(f == f, f, -math.inf)  # an objective that is no number is the worst
        better = self.f > self.f_max
        self.f_max = where(better, self.f, self.f_max)
        self.x_max = where(column(better, self.x), self.x, self.x_max)
        self.g_max = where(column(better, self.g), self.g, self.g_max)

    def go_back(self, these: Array) -> None:
        """To the best point, where (n,) these."""
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


def sparse_steepest(g: Array, k: Array) -> Array:
    """Of l1 norm 1, the signs of the k (n,) largest |g| (n, ...) of each example, and of those that equal the k-th."""
    xp, rows = array_module(g), g.reshape(len(g), -1)
    kth = xp.sort(abs(rows), axis=1)[xp.arange(len(g)), rows.shape[1] - k]
    signs = xp.sign(rows) * (abs(rows) >= kth[:, None])
    return (signs / xp.maximum((signs != 0).sum(axis=1), 1)[:, None]).reshape(g.shape)
