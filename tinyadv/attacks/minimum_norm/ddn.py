"""The decoupled direction and norm attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.balls import L2Ball, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.nn.optim import cosine
from tinyadv.shapes import check_fraction


@dataclass(frozen=True)
class DDN(WhiteBox):
    """Steps of gradient ascent, each scaled to a norm that shrinks at a misclassified point and grows at others.

    Rony et al. 2019, arXiv:1811.09600, algorithm 1. With g the gradient of the loss at x + delta, of l2 norm 1:

        epsilon <- (1 - gamma) * epsilon  if x + delta is adversarial, else (1 + gamma) * epsilon
        delta <- delta + alpha * g,   delta <- epsilon * delta / |delta|,   clipped to the bounds

    alpha falls from 1 to 0.01 along half a cosine, and epsilon begins at 1, both in units of the range of the data.
    Where the gradient is 0, g is a random direction. epsilon is at most the largest distance from x that a point within
    the bounds has. With more than two classes it may end beyond the nearest boundary, even of a linear model, as
    published: the cross entropy leads away from y, towards a mixture of the other classes.

    steps: of each example, with one gradient each; gamma: the relative change of the norm, in (0, 1).
    """

    steps: int = 100
    gamma: float = 0.05

    norm = "l2"
    minimum_norm = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("gamma", self.gamma)

    def perturb(self, batch: Batch) -> Array:
        xp, x, ball, (low, high) = array_module(batch.x), batch.x, batch.ball, self.bounds
        epsilon = xp.full(len(x), float(high - low))
        farthest = ball.farthest()
        points, falling = x, cosine()
        for step in range(self.steps):
            logits, _, g = batch.evaluate(points)
            alpha = (high - low) * (0.01 + 0.99 * falling(step / self.steps))
            delta = points.astype(np.float64) - x + alpha * _direction(batch, g)
            epsilon = xp.minimum(epsilon * (1 + self.gamma * xp.where(batch.succeeds(logits), -1, 1)), farthest)
            points = ball.project(x + column(epsilon, delta) * ball.steepest(delta))
        return points


def _direction(batch: Batch, g: Array) -> Array:
    """g (n, ...) of l2 norm 1, in float64; a random direction where g is 0."""
    lost = ~g.any(axis=tuple(range(1, g.ndim)))
    g = g.astype(np.float64)
    if lost.any():
        g[lost] = move(batch.streams[to_host(lost)].normal(g.shape[1:]), like=g)
    return L2Ball.steepest(g)
