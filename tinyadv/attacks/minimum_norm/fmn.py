"""The fast minimum-norm attack, in four norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.ball import or_one
from tinyadv.attacks.base.balls import L2Ball, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import rounding
from tinyadv.attacks.minimum_norm.hyperplane import DUAL
from tinyadv.backend import Array, array_module
from tinyadv.nn.optim import cosine
from tinyadv.shapes import check_fraction, check_positive


@dataclass(frozen=True)
class FMN(WhiteBox):
    """Steps of gradient ascent on the margin, each projected onto a ball whose radius closes in on the boundary.

    Pintor, Roli, Brendel and Biggio 2021, arXiv:2102.12827, algorithm 1. With g the gradient of the margin m at
    x + delta, |.|* the dual norm, and alpha and gamma that fall along half a cosine, to a hundredth and a fiftieth:

        epsilon <- |delta| + s * |m| / |g|*                   until a point was adversarial
        epsilon <- min((1 - gamma) * epsilon, the best norm)  if x + delta is adversarial, else (1 + gamma) * epsilon
        delta   <- project(delta + alpha * g / |g|_2)         onto the ball of radius epsilon, in l2 onto its sphere;
                                                              then onto the bounds

    |m| / |g|* is the distance to the boundary of the linear model. In the paper s is 1, and many examples never get
    beyond the boundary; here it grows from 1 by a tenth with each step. In l0 epsilon is a number of pixels. It
    begins at 1 and changes by at least one. Until a point was adversarial, step k = 0, 1, ... adds 1 + floor(k / 10).

    steps: of each example, with one gradient each; norm: "l2", "linf", "l1" or "l0".
    lr: the first alpha, in units of the range of the data: 1 unless given, and 10 in linf, as in AttackBench (Cina et
    al. 2024, arXiv:2404.19460). gamma: the first relative change of the radius, in (0, 1).
    """

    steps: int = 100
    norm: str = "l2"
    lr: float | None = None
    gamma: float = 0.05

    minimum_norm = True
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("gamma", self.gamma)
        if self.lr is not None:
            check_positive("lr", self.lr)

    def perturb(self, batch: Batch) -> Array:
        xp, x, ball, (low, high) = array_module(batch.x), batch.x, batch.ball, self.bounds
        lr = (high - low) * (self.lr or (10 if self.norm == "linf" else 1))
        farthest = ball.farthest()
        epsilon, points, falling = xp.full(len(x), 1.0 if self.norm == "l0" else math.inf), x, cosine()
        for step in range(self.steps):
            share = falling(step / self.steps)
            alpha, gamma = lr * (0.01 + 0.99 * share), self.gamma * (0.02 + 0.98 * share)
            logits, lead, g = batch.evaluate(points)
            found, best = batch.succeeds(logits), xp.where(batch.succeeded, -batch.losses, farthest)
            down, up = (1 - gamma) * epsilon, (1 + gamma) * epsilon
            if self.norm == "l0":
                down, up = xp.minimum(epsilon - 1, xp.floor(down)), xp.maximum(epsilon + 1, xp.floor(up))
                near = epsilon + 1 + step // 10
            else:
                slope = DUAL[self.norm].distance(g)
                beyond = abs(lead) + 2 * rounding(logits)
                far = xp.where(slope > 0, beyond / or_one(slope), math.inf)
                near = ball.distance(points - x) + (1 + step / 10) * far
            up = xp.where(batch.succeeded, up, near)
            epsilon = xp.minimum(xp.where(found, xp.minimum(down, best), up), farthest)
            delta = points - x + (alpha * L2Ball.steepest(g)).astype(x.dtype)
            scaled = column(epsilon, x) * ball.steepest(delta) if self.norm == "l2" else ball.shrink(delta, epsilon)
            points = ball.project(x + scaled)
        return points
