"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.ball import or_one
from tinyadv.attacks.base.balls import L1Ball, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.parameters import check_step_size
from tinyadv.backend import Array
from tinyadv.shapes import check_not_negative


@dataclass(frozen=True)
class MIFGSM(WhiteBox):
    """Steps along a running sum of normalised gradients, the momentum: Dong et al. 2018, arXiv:1710.06081.

    It starts at the image itself, with g_0 = 0 (algorithm 1): g_{t+1} = decay * g_t + grad / |grad|_1 (eq. 6), and
    x_{t+1} = project(x_t + step_size * steepest(g_{t+1})), which is the sign for "linf" (eq. 7). The sum makes the
    direction steadier, so that the images transfer better to other models.

    eps: the budget, in the units of the data; norm: "linf", "l2", "l1" or "l0".
    step_size: eps / steps unless given, as in the paper; decay: its mu, 0 for no momentum.
    loss: "cross_entropy", "margin" or "dlr".
    """

    eps: float
    step_size: float | None = None
    steps: int = 10
    decay: float = 1.0
    norm: str = "linf"
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size, "eps / steps")
        check_not_negative("decay", self.decay)

    def perturb(self, batch: Batch) -> Array:
        ball, step_size = batch.ball, self.step_size or self.eps / self.steps
        x, g = batch.x, 0.0
        for _ in range(self.steps):
            grad = batch.gradient(x, candidate=x is not batch.x)
            g = self.decay * g + grad / column(or_one(L1Ball.distance(grad)), grad)  # a gradient of 0 adds 0
            x = ball.step(x, g, step_size)
        return x
