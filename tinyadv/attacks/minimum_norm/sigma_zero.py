"""The sigma-zero attack: few pixels, by gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.ball import column, pixels
from tinyadv.attacks.base.balls import LinfBall, far_start
from tinyadv.attacks.base.batch import Batch
from tinyadv.backend import Array, array_module
from tinyadv.nn import Sequential
from tinyadv.nn.optim import Adam, cosine
from tinyadv.shapes import check_positive

FIRST_THRESHOLD, THRESHOLD_STEP = 0.3, 0.01  # tau, in units of the range; and how it changes, relative to the step size


@dataclass(frozen=True)
class SigmaZero(WhiteBox):
    """Descend on the missing margin plus a smooth count of the changed pixels, and undo the small changes.

    Cinà et al. 2024, arXiv:2402.01879, algorithm 1: with m the margin, P pixels, and s_p the squared length of the
    change of pixel p, minimise over delta, by Adam on gradients of linf norm 1,

        max(0, -m) + (1 / P) * sum_p s_p / (s_p + sigma)

    After each step, pixels that changed by less than tau are set back. tau grows at an adversarial point and shrinks at
    another. The channels of a pixel count once here; in the paper, each is counted by itself.

    steps: of each example, with one gradient each. lr: the first step size, in units of the range of the data; it falls
    to a tenth along half a cosine. sigma: how exact the count is, in squared units of the range.
    restarts: the number of runs. The first begins at x; the others, which are not in the paper, at x plus uniform noise
    of up to half the range. On a robust network, restarts find perturbations of fewer pixels.
    """

    steps: int = 1000
    lr: float = 1.0
    sigma: float = 1e-3
    restarts: int = 1

    norm = "l0"
    minimum_norm = True
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("lr", self.lr)
        check_positive("sigma", self.sigma)

    def perturb(self, batch: Batch) -> Array:
        xp, x, scale = array_module(batch.x), batch.x.astype(np.float64), self.bounds[1] - self.bounds[0]
        adam, first, second = Adam(Sequential(), self.lr), xp.zeros_like(x), xp.zeros_like(x)  # for its rule alone
        threshold, falling = xp.full(len(x), FIRST_THRESHOLD), cosine()
        points = far_start(batch.ball, batch.streams) if batch.restarted else batch.x
        for step in range(self.steps):
            logits, lead, g = batch.evaluate(points)
            delta = (points - x) / scale
            squares = (pixels(delta) ** 2).sum(axis=1, keepdims=True)
            count = pixels(delta) * self.sigma / (squares + self.sigma) ** 2 * (2 / squares.shape[2])
            slope = count.reshape(x.shape) - xp.where(column(lead < 0, x), scale * g, 0)
            slope = slope / column(xp.maximum(LinfBall.distance(slope), 1e-12), x)
            delta = delta - adam.lr * adam.direction(slope, step + 1, first, second)
            delta = batch.ball.project_to_bounds(x + scale * delta) - x
            adam.lr = self.lr * (0.1 + 0.9 * falling(step / self.steps))
            change = THRESHOLD_STEP * adam.lr * xp.where(batch.succeeds(logits), 1, -1)
            threshold = (threshold + change).clip(0, 1)
            kept = abs(pixels(delta)).max(axis=1, keepdims=True) >= scale * threshold[:, None, None]
            points = batch.ball.project(x + (pixels(delta) * kept).reshape(x.shape))
        return points
