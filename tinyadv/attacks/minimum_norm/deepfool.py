"""DeepFool: repeated steps to the nearest boundary of the linearised model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.balls import L1Ball, L2Ball, ball_class, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin
from tinyadv.attacks.base.parameters import is_number
from tinyadv.backend import Array, array_module
from tinyadv.tensor import Tensor, no_grad

DUAL = {"l2": L2Ball.distance, "linf": L1Ball.distance}  # the norm of a slope, for that of a perturbation


@dataclass(frozen=True)
class DeepFool(Attack):
    """Linearise the model at each point and step to its nearest boundary, until the class changes.

    Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2 and, for "linf", eqs. 10 to 12. As in the authors' code,
    the overshoot scales the sum of all steps so far, and each step goes 1e-4 beyond the boundary, because ever smaller
    steps might never cross it. With `target=` the only boundary is that between the target and the best other class.

    steps: the largest number of steps; norm: "l2" or "linf"; overshoot: a fraction of the perturbation; candidates: the
    number of classes whose boundaries are compared, y included: those with the highest logits at x.
    """

    steps: int = 50
    norm: str = "l2"
    overshoot: float = 0.02
    candidates: int = 10

    minimum_norm = True
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in DUAL:
            raise ValueError(f'norm must be "l2" or "linf", got {self.norm!r}')
        if not (is_number(self.overshoot) and 0 <= self.overshoot < np.inf):
            raise ValueError(f"overshoot must be a number >= 0, got {self.overshoot!r}")
        if type(self.candidates) is not int or self.candidates < 2:
            raise ValueError(f"candidates must be an integer >= 2, got {self.candidates!r}")

    def perturb(self, batch: Batch) -> Array:
        xp, points = array_module(batch.x), batch.x
        rows, classes = xp.arange(len(points)), self._classes(batch)
        total = xp.zeros_like(points, dtype=np.float64)  # the sum of all r_i
        for _ in range(self.steps):
            part = batch[rows]  # the examples that are left
            total = total + self._step(points, self._boundaries(part, points, classes))
            points = part.x + (1 + self.overshoot) * total
            part.consider(points)
            batch[rows] = part
            left = ~part.succeeded
            if not left.any():
                break
            rows, classes, points, total = (array[left] for array in (rows, classes, points, total))
        return batch.best

    def _classes(self, batch: Batch) -> Array:
        """(n, m): y, and the other classes with the highest logits at x, in falling order."""
        with no_grad():
            logits = batch.logits(Tensor(batch.x)).data.copy()
        xp = array_module(logits)
        logits[xp.arange(len(logits)), batch.y] = xp.inf
        return (-logits).argsort(axis=1)[:, : self.candidates]

    def _boundaries(self, batch: Batch, points: Array, classes: Array) -> list[tuple[Array, Array]]:
        """For each class k other than y, its lead f_k - f_y (n,) and the gradient of that, w_k (n, ...)."""
        if batch.target is not None:
            _, lead, slope = batch.evaluate(points, partial(margin, y=batch.y, target=batch.target))
            return [(lead, slope)]
        logits, slopes = batch.jacobian(points, classes)
        f = array_module(logits).take_along_axis(logits, classes, axis=1)
        return [(f[:, k] - f[:, 0], slopes[k] - slopes[0]) for k in range(1, len(slopes))]

    def _step(self, points: Array, boundaries: list[tuple[Array, Array]]) -> Array:
        """r_i (n, ...), the step to the nearest boundary: lines 8 and 9. It is 0 if all slopes are 0 or not finite."""
        xp, ball = array_module(points), ball_class(self.norm)
        distance, w = xp.full(len(points), xp.inf), xp.zeros_like(points)
        for lead, slope in boundaries:
            size = DUAL[self.norm](slope)
            usable = (size > 0) & (size < xp.inf)
            candidate = xp.where(usable, abs(lead) / xp.where(usable, size, 1), xp.inf)
            nearer = candidate < distance
            distance = xp.where(nearer, candidate, distance)
            w = xp.where(column(nearer, slope), slope, w)
        return column(xp.where(distance < xp.inf, distance + 1e-4, 0), w) * ball.steepest(w)
