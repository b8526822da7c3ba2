"""The l2 attack of Carlini and Wagner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin, rounding
from tinyadv.attacks.base.parameters import is_number
from tinyadv.backend import Array, array_module
from tinyadv.nn import Sequential
from tinyadv.nn.optim import Adam

SMOOTHING = 0.999999  # a pixel at a bound gets this value of tanh instead of 1, where it could not move
FARTHEST = math.atanh(SMOOTHING)  # the w of such a pixel


@dataclass(frozen=True)
class CarliniWagner(WhiteBox):
    """Minimise the squared distance plus c times the missing margin, with the smallest c that succeeds.

    Carlini and Wagner 2017, arXiv:1608.04644, section VI-A: minimise over w, by Adam,

        |x' - x|² + c * f(x'),   x' = (tanh(w) + 1) / 2 scaled to the bounds,   f(x') = max(0, kappa - margin(x'))

    The margin is the logit of the best other class minus that of y or, with `target=`, the logit of the target minus
    that of the best other class. A binary search finds c, for each example by itself. For each c, the search stops when
    a tenth of the steps lowers the best objective by less than 0.01%. But it does not stop before the steps are enough
    to move a pixel from a bound, where it is slow at first, to the middle of the range.

    The result is the nearest point with a margin above kappa, or x if none was found. An image that is misclassified
    from the start is returned unchanged, whatever its margin.

    kappa: the margin, in logits, >= 0; binary_search_steps: the number of values of c; steps: of Adam, for each c;
    lr: the step size of Adam, in w; initial_c: the first c, which is multiplied by ten until one succeeds.
    """

    kappa: float = 0.0
    binary_search_steps: int = 9
    steps: int = 1000
    lr: float = 0.01
    initial_c: float = 1e-2

    norm = "l2"
    minimum_norm = True
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.binary_search_steps) is not int or self.binary_search_steps < 1:
            raise ValueError(f"binary_search_steps must be an integer >= 1, got {self.binary_search_steps!r}")
        if not (is_number(self.kappa) and 0 <= self.kappa < math.inf):
            raise ValueError(f"kappa must be a number >= 0, in logits, got {self.kappa!r}")
        for name in ("lr", "initial_c"):
            value = getattr(self, name)
            if not (is_number(value) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a number above 0, got {value!r}")

    def perturb(self, batch: Batch) -> Array:
        xp, n = array_module(batch.x), len(batch.x)
        c, lower, upper = xp.full(n, float(self.initial_c)), xp.zeros(n), xp.full(n, xp.inf)
        for _ in range(self.binary_search_steps):
            points, found = self._minimise(batch, c)
            batch.consider(points)
            lower, upper = xp.where(found, lower, c), xp.where(found, c, upper)
            c = xp.where(upper < xp.inf, (lower + upper) / 2, 10 * c)
        return batch.best

    def _minimise(self, batch: Batch, c: Array) -> tuple[Array, Array]:
        """For c (n,): the nearest points (n, ...) with a margin above kappa, or x; and whether one was found, (n,)."""
        xp, n, (low, high) = array_module(batch.x), len(batch.x), self.bounds
        half = (high - low) / 2
        start = SMOOTHING * ((batch.x.astype(np.float64) - low) / half - 1)  # tanh(w) where w begins
        w = xp.arctanh(start)
        adam, first, second = Adam(Sequential(), self.lr), xp.zeros_like(w), xp.zeros_like(w)  # for its rule alone
        nearest, distance = batch.x.copy(), xp.full(n, xp.inf)
        rows, part, least, previous = xp.arange(n), batch, xp.full(n, xp.inf), xp.inf  # of the examples that are left
        for step in range(self.steps):
            t = xp.tanh(w)
            points = part.ball.project(low + half * (t + 1))
            logits, lead, slope = part.evaluate(points, partial(margin, y=part.y, target=part.target), candidate=False)
            length, least_lead = part.ball.distance(points - part.x), xp.maximum(self.kappa, rounding(logits))
            better = (lead > least_lead) & (length < distance[rows])
            nearest[rows[better]], distance[rows[better]] = points[better], length[better]

            short = column(lead <= least_lead, w)
            g = 2 * half * (t - start) - column(c, w) * xp.where(short, slope, 0)  # of the objective, in x'
            adam.steps += 1
            w -= adam.lr * adam.direction(g * half * (1 - t * t), first, second)

            least = xp.minimum(least, length**2 + c * xp.maximum(self.kappa - lead, 0))  # it goes up and down
            if step % math.ceil(self.steps / 10) == 0:
                left = (least <= 0.9999 * previous) | (step * self.lr < FARTHEST)
                batch[rows] = part
                running = rows, c, least, start, w, first, second
                rows, c, least, start, w, first, second = (array[left] for array in running)
                part, previous = batch[rows], least
                if not len(rows):
                    break
        batch[rows] = part
        return nearest, distance < xp.inf
