"""Primal-dual gradient descent, with and without a proximal step for the norm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.balls import L2Ball, column, far_start, flat
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.minimum_norm.hyperplane import DUAL
from tinyadv.backend import Array, array_module
from tinyadv.nn import Sequential
from tinyadv.nn.optim import Adam
from tinyadv.shapes import check_positive

FIRST, LARGEST = math.log(100), math.log(1e6)  # the log of the weight of the loss, relative to that of the norm
PROXIMAL_STEPS, CONVERGED = 5, 0.01  # and the relative change after which they end


@dataclass(frozen=True)
class PDPGD(WhiteBox):
    """Descend on the norm plus a weighted loss, and ascend on the weight while the point is not adversarial.

    Matyasko and Chau 2021, arXiv:2106.01538. The Lagrangian of "minimise |delta| such that the margin m is positive" is

        L = w_0 * |delta| + w_1 * log(1 + exp(-m)),   (w_0, w_1) = softmax(0, l)

    Dual: l falls by a step at an adversarial point and rises at another; w is a moving average. Primal: a step of Adam
    on the loss, then the proximal operator of the norm in Adam's metric, which makes pixels exactly 0 in l1: up to five
    steps of proximal Adam (Yun, Lozano and Yang 2019, arXiv:1910.10094). By Moreau's identity the proximal operator of
    mu * |.| takes away the projection onto the dual norm's ball of radius mu.

    steps: of each example, with one gradient each; few are needed for a first success, 500 to converge. norm: "linf",
    "l2" or "l1", in the units of the data. lr: the first step size of Adam, in units of the range of the data; it falls
    to a hundredth.
    restarts: the number of runs. The first begins at x; the others, as in the authors' code, at x plus uniform noise of
    up to half the range, from where they come to other parts of the boundary.
    """

    steps: int = 500
    norm: str = "linf"
    lr: float = 0.1
    restarts: int = 1

    minimum_norm = True
    norms = ("linf", "l2", "l1")
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("lr", self.lr)

    def perturb(self, batch: Batch) -> Array:
        xp, x, (low, high) = array_module(batch.x), batch.x.astype(np.float64), self.bounds
        log_weight = xp.full(len(x), FIRST)
        weight = _sigmoid(log_weight)
        adam, first, second = Adam(Sequential(), self.lr), xp.zeros_like(x), xp.zeros_like(x)  # for its rule alone
        points = far_start(batch.ball, batch.streams) if batch.restarted else batch.x
        for step in range(self.steps):
            logits, lead, g = batch.evaluate(points)
            loss_slope = -g * column(_sigmoid(-lead), x)
            delta, rate = points - x, (high - low) * self.lr * 0.01 ** (step / self.steps)
            moved = delta - rate * adam.direction(self._slope(delta, loss_slope, weight), step + 1, first, second)
            moved = batch.ball.project_to_bounds(x + moved) - x
            metric = xp.sqrt(second / (1 - adam.betas[1] ** (step + 1))) + adam.eps
            points = batch.ball.project(x + self._nearer(batch, moved, metric, rate * (1 - weight) / weight))
            dual_step = 0.1 * (1 - 0.9 * step / max(1, self.steps - 1))
            log_weight = log_weight + dual_step * xp.where(batch.succeeds(logits), -1, 1)
            log_weight = log_weight.clip(-LARGEST, LARGEST)
            weight = 0.9 * weight + 0.1 * _sigmoid(log_weight)
        return points

    def _slope(self, delta: Array, loss_slope: Array, weight: Array) -> Array:
        """What Adam descends along, (n, ...): the slope of the loss."""
        return loss_slope

    def _nearer(self, batch: Batch, moved: Array, metric: Array, mu: Array) -> Array:
        """Proximal Adam: the perturbations (n, ...) that minimise mu * |.| + |. - moved|² / 2 in the metric."""
        xp, x = array_module(moved), batch.x.astype(np.float64)
        largest = flat(metric).max(axis=1)
        metric, mu = metric / column(largest, metric), mu / largest
        now, left = moved, xp.ones(len(moved), bool)
        for _ in range(PROXIMAL_STEPS):
            z = now - metric * (now - moved)
            z = z - DUAL[self.norm].shrink(z, mu)
            z = xp.where(column(left, z), batch.ball.project_to_bounds(x + z) - x, now)
            left = left & (L2Ball.distance(z - now) >= CONVERGED * L2Ball.distance(z))
            now = z
            if not left.any():
                break
        return now


@dataclass(frozen=True)
class PDGD(PDPGD):
    """PDPGD without a proximal step: Adam descends on the l2 norm and the loss together.

    Matyasko and Chau 2021, arXiv:2106.01538, as for PDPGD.

    steps, lr, restarts: as of PDPGD.
    """

    norm: str = field(default="l2", init=False, repr=False)

    def _slope(self, delta: Array, loss_slope: Array, weight: Array) -> Array:
        return column(1 - weight, delta) * L2Ball.steepest(delta) + column(weight, delta) * loss_slope

    def _nearer(self, batch: Batch, moved: Array, metric: Array, mu: Array) -> Array:
        return moved


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + array_module(values).exp(-values.astype(np.float64).clip(-700, 700)))
