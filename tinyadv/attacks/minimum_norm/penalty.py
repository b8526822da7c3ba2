"""What attacks on a distance plus c times the missing margin share: the search for the smallest c that succeeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import rounding
from tinyadv.backend import Array, array_module, rows_of
from tinyadv.shapes import check_positive, is_number, to_count


@dataclass(frozen=True)
class PenaltyAttack(WhiteBox):
    """The base class of attacks that minimise cost(x' - x) + c * max(0, kappa - margin(x')), for several c.

    The margin is the logit of the best other class minus that of y or, with `target=`, the logit of the target minus
    that of the best other class. A binary search finds c, for each example by itself: it is multiplied by ten until one
    succeeds, and then bisected.

    The result is the nearest point with a margin above kappa, or x if none was found. An image that is misclassified
    from the start is returned unchanged, whatever its margin. `quantize=True` may take a little of the margin away.

    kappa: the margin, in logits, >= 0; binary_search_steps: the number of values of c; steps: for each c; lr: the step
    size; initial_c: the first c.
    """

    kappa: float = 0.0
    binary_search_steps: int = 9
    steps: int = 1000
    lr: float = 0.01
    initial_c: float = 1e-2

    minimum_norm = True
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "binary_search_steps", to_count("binary_search_steps", self.binary_search_steps))
        if not (is_number(self.kappa) and 0 <= self.kappa < math.inf):
            raise ValueError(f"kappa must be a number >= 0, in logits, got {self.kappa!r}")
        check_positive("lr", self.lr)
        check_positive("initial_c", self.initial_c)

    def begin(self, batch: Batch) -> list[Array]:
        """The state of the search at x: arrays with one row for each example."""
        raise TypeError(f"{type(self).__name__} defines no begin(batch)")

    def advance(self, batch: Batch, c: Array, step: int, *state: Array) -> tuple[Array, Array, Array]:
        """One step, which updates the state in place: the points (n, ...), and the logits and margins there."""
        raise TypeError(f"{type(self).__name__} defines no advance(batch, c, step, *state)")

    def cost(self, batch: Batch, perturbation: Array) -> Array:
        """What is minimised beside the missing margin, (n,)."""
        raise TypeError(f"{type(self).__name__} defines no cost(batch, perturbation)")

    def patient(self, step: int) -> bool:
        """Whether to go on with examples whose objective a tenth of the steps has lowered by less than 0.01%."""
        return True

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
        xp, n = array_module(batch.x), len(batch.x)
        nearest, distance = batch.x.copy(), xp.full(n, xp.inf)
        rows, part, least, previous = xp.arange(n), batch, xp.full(n, xp.inf), xp.inf  # of the examples that are left
        state = self.begin(batch)
        for step in range(self.steps):
            points, logits, lead = self.advance(part, c, step, *state)
            length = part.ball.distance(points - part.x)
            better = rows_of((lead > xp.maximum(self.kappa, rounding(logits))) & (length < distance[rows]))
            nearest[rows[better]], distance[rows[better]] = points[better], length[better]
            objective = self.cost(part, points - part.x) + c * xp.maximum(self.kappa - lead, 0)
            least = xp.minimum(least, objective)  # it goes up and down
            if step % math.ceil(self.steps / 10) == 0:
                left = rows_of((least <= 0.9999 * previous) | self.patient(step))
                batch[rows] = part
                rows, c, least, *state = (array[left] for array in (rows, c, least, *state))
                part, previous = batch[rows], least
                if not len(rows):
                    break
        batch[rows] = part
        return nearest, distance < xp.inf
