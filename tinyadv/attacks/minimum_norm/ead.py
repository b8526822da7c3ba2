"""The elastic-net attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.balls import L1Ball, L2Ball, LinfBall, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin, rounding
from tinyadv.attacks.minimum_norm.penalty import PenaltyAttack
from tinyadv.backend import Array, array_module
from tinyadv.shapes import check_positive
from tinyadv.tensor import Tensor, no_grad


@dataclass(frozen=True)
class EAD(PenaltyAttack):
    """Minimise the squared l2 distance plus beta times the l1 distance plus c times the missing margin.

    Chen et al. 2018, arXiv:1709.04114, algorithm 1 (FISTA, Beck and Teboulle 2009). With f the sum without its l1 part:

        x_{k+1} = shrink(y_k - alpha * grad f(y_k)),   y_{k+1} = x_{k+1} + k / (k + 3) * (x_{k+1} - x_k)

    shrink moves every pixel by beta towards x, but not beyond it, and to the bounds. So most pixels stay as they are.
    The gradients are taken at y, which may lie beyond the bounds.
    Of all points with a margin above kappa, the nearest in l1 is kept. A step has one gradient and one more forward
    pass. The search for c is that of PenaltyAttack. EAD always takes all steps, because the objective goes up and down:
    to stop when it did not fall for a tenth of the steps gave points that were a fifth further away.

    kappa: the margin, in logits, >= 0; binary_search_steps: the number of values of c; steps: for each c; lr: the first
    alpha, which falls to 0 with the square root of the steps that are left; initial_c: the first c, which is multiplied
    by ten until one succeeds; beta: the weight of the l1 distance. Lengths are in the units of the data.
    """

    initial_c: float = 1e-3
    beta: float = 0.01

    norm = "l1"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("beta", self.beta)

    def begin(self, batch: Batch) -> list[Array]:
        return [batch.x.astype(np.float64), batch.x.astype(np.float64)]

    def advance(self, batch: Batch, c: Array, step: int, *state: Array) -> tuple[Array, Array, Array]:
        xp, (x, y), x0 = array_module(batch.x), state, batch.x.astype(np.float64)
        logits, lead, slope = batch.evaluate(y.astype(batch.x.dtype), candidate=False)
        short = column(lead <= xp.maximum(self.kappa, rounding(logits)), x)
        g = 2 * (y - x0) - column(c, x) * xp.where(short, slope, 0)
        moved = y - self.lr * (1 - step / self.steps) ** 0.5 * g - x0
        points = batch.ball.project(x0 + moved - LinfBall.shrink(moved, xp.full(len(x), self.beta)))
        y[...] = points + step / (step + 3) * (points - x)
        x[...] = points
        with no_grad():
            now = batch.logits(Tensor(points))
        return points, now.data, margin(now, batch.y, batch.target).data

    def cost(self, batch: Batch, perturbation: Array) -> Array:
        return L2Ball.distance(perturbation) ** 2 + self.beta * L1Ball.distance(perturbation)
