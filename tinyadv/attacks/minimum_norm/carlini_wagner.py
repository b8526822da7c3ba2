"""The l2 attack of Carlini and Wagner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin, rounding
from tinyadv.attacks.minimum_norm.penalty import PenaltyAttack
from tinyadv.backend import Array, array_module
from tinyadv.nn import Sequential
from tinyadv.nn.optim import Adam

SMOOTHING = 0.999999  # a pixel at a bound gets this value of tanh instead of 1, where it could not move
FARTHEST = math.atanh(SMOOTHING)  # the w of such a pixel


@dataclass(frozen=True)
class CarliniWagner(PenaltyAttack):
    """Minimise the squared distance plus c times the missing margin, with the smallest c that succeeds.

    Carlini and Wagner 2017, arXiv:1608.04644, section VI-A: minimise over w, by Adam,

        |x' - x|² + c * f(x'),   x' = (tanh(w) + 1) / 2 scaled to the bounds,   f(x') = max(0, kappa - margin(x'))

    The search for c is that of PenaltyAttack. For each c and each example by itself, it stops when a tenth of the steps
    lowers the best objective by less than 0.01%. But it does not stop before the steps are enough to move a pixel from
    a bound, where it is slow at first, to the middle of the range.

    kappa: the margin, in logits, >= 0; binary_search_steps: the number of values of c; steps: of Adam, for each c;
    lr: the step size of Adam, in w; initial_c: the first c, which is multiplied by ten until one succeeds.
    """

    norm = "l2"

    def begin(self, batch: Batch) -> list[Array]:
        xp, (low, high) = array_module(batch.x), self.bounds
        start = SMOOTHING * (2 * (batch.x.astype(np.float64) - low) / (high - low) - 1)  # tanh(w) where w begins
        w = xp.arctanh(start)
        return [start, w, xp.zeros_like(w), xp.zeros_like(w)]

    def advance(self, batch: Batch, c: Array, step: int, *state: Array) -> tuple[Array, Array, Array]:
        xp, (start, w, first, second), (low, high) = array_module(batch.x), state, self.bounds
        half, t = (high - low) / 2, xp.tanh(w)
        points = batch.ball.project(low + half * (t + 1))
        logits, lead, slope = batch.evaluate(points, partial(margin, y=batch.y, target=batch.target), candidate=False)
        short = column(lead <= xp.maximum(self.kappa, rounding(logits)), w)
        g = 2 * half * (t - start) - column(c, w) * xp.where(short, slope, 0)  # of the objective, in x'
        adam = Adam(Sequential(), self.lr)  # for its rule alone
        w -= adam.lr * adam.direction(g * half * (1 - t * t), step + 1, first, second)
        return points, logits, lead

    def cost(self, batch: Batch, perturbation: Array) -> Array:
        return batch.ball.distance(perturbation) ** 2

    def patient(self, step: int) -> bool:
        return step * self.lr < FARTHEST
