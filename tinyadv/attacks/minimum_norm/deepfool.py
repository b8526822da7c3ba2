"""DeepFool: repeated steps to the nearest boundary of the linearised model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.balls import ball_class, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.minimum_norm import hyperplane
from tinyadv.backend import Array, array_module, rows_of
from tinyadv.shapes import check_not_negative, to_count


@dataclass(frozen=True)
class DeepFool(WhiteBox):
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
    norms = ("l2", "linf")
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("overshoot", self.overshoot)
        object.__setattr__(self, "candidates", to_count("candidates", self.candidates, 2))

    def perturb(self, batch: Batch) -> Array:
        xp, points = array_module(batch.x), batch.x
        rows, classes = xp.arange(len(points)), batch.ranking()[:, : self.candidates]
        total = xp.zeros_like(points, dtype=np.float64)  # the sum of all r_i
        for _ in range(self.steps):
            part = batch[rows]  # the examples that are left
            total = total + self._step(hyperplane.boundaries(part, points, classes))
            points = part.x + (1 + self.overshoot) * total
            part.consider(points)
            batch[rows] = part
            left = rows_of(~part.succeeded)
            if not len(left):
                break
            rows, classes, points, total = (array[left] for array in (rows, classes, points, total))
        return batch.best

    def _step(self, boundaries: list[tuple[Array, Array]]) -> Array:
        """r_i (n, ...), the step to the nearest boundary: lines 8 and 9. It is 0 if all slopes are 0 or not finite."""
        distance, _, w = hyperplane.nearest(self.norm, boundaries)
        xp = array_module(w)
        return column(xp.where(distance < xp.inf, distance + 1e-4, 0), w) * ball_class(self.norm).steepest(w)
