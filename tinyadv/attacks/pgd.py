"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from tinyadv.attacks.attack import Attack, is_number
from tinyadv.attacks.batch import Batch
from tinyadv.backend import Array


@dataclass(frozen=True)
class PGD(Attack):
    """Steps of steepest ascent on the loss, each projected back into the ball; from a random point in it.

    x_0 uniform in the ball, x_{t+1} = project(x_t + step_size * steepest(grad of the loss at x_t)): Madry et al. 2018,
    arXiv:1706.06083, section 2.1. The best of x_0, ..., x_steps is returned.

    eps: the budget, in the units of the data; norm: "linf", "l2" or "l1".
    step_size: 2.5 * eps / steps unless given, which can cross the ball and leaves time to settle (their section 5).
    restarts: runs from new random points, each on the examples that no earlier one has broken.
    loss: "cross_entropy" or "margin" (that of Carlini and Wagner).
    """

    eps: float
    step_size: float | None = None
    steps: int = 40
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None and not (is_number(self.step_size) and self.step_size > 0):
            raise ValueError(f"step_size must be a number above 0, or None (2.5 * eps / steps); got {self.step_size!r}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts need random_start=True: from the same point every run is the same")

    def perturb(self, batch: Batch) -> Array:
        ball, step_size = batch.ball, self.step_size or 2.5 * self.eps / self.steps
        x = ball.random(batch.streams) if self.random_start else batch.x
        for _ in range(self.steps):
            g = batch.gradient(x, candidate=x is not batch.x)
            x = ball.project(x + step_size * ball.steepest(g))
        return x
