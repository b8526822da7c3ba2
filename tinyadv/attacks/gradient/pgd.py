"""Projected gradient descent, and the basic iterative method that came before it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.parameters import check_step_size
from tinyadv.backend import Array


@dataclass(frozen=True)
class PGD(WhiteBox):
    """Steps of steepest ascent on the loss, each projected onto the ball, from a random point of the ball.

    x_0 uniform in the ball, x_{t+1} = project(x_t + step_size * steepest(grad of the loss at x_t)): Madry et al. 2018,
    arXiv:1706.06083, section 2.1. The best of x_0, ..., x_steps is returned.

    eps: the budget, in the units of the data; norm: "linf", "l2", "l1" or "l0".
    step_size: 2.5 * eps / steps unless given, so that the steps can cross the ball and still converge (their section
    5). steps: their number. random_start: False starts at the image itself. restarts: the number of runs, each from a
    new random point, on the examples that are not broken yet.
    loss: "cross_entropy", "margin" (that of Carlini and Wagner) or "dlr" (that of Croce and Hein).
    """

    eps: float
    step_size: float | None = None
    steps: int = 40
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1
    loss: str = "cross_entropy"

    _reach = 2.5  # how far the steps of the default size lead in all, in units of eps

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size, f"{self._reach} * eps / steps")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts need random_start=True: from the same point every run is the same")

    def perturb(self, batch: Batch) -> Array:
        ball, step_size = batch.ball, self.step_size or self._reach * self.eps / self.steps
        x = ball.random(batch.streams) if self.random_start else batch.x
        for _ in range(self.steps):
            g = batch.gradient(x, candidate=x is not batch.x)
            x = ball.step(x, g, step_size)
        return x


@dataclass(frozen=True)
class BIM(PGD):
    """The basic iterative method: PGD that starts at the image itself, so there is only one run.

    x_0 = x, x_{t+1} = clip(x_t + step_size * sign(grad of the loss at x_t)): Kurakin et al. 2017, arXiv:1607.02533,
    section 2.2; with target=least_likely_class(model, x) their iterative least-likely class method, section 2.3.

    step_size: 1.25 * eps / steps unless given. For eps=8/255 these are the paper's 10 steps of one grey level.
    """

    steps: int = 10
    random_start: bool = field(default=False, init=False, repr=False)
    restarts: int = field(default=1, init=False, repr=False)

    _reach = 1.25
