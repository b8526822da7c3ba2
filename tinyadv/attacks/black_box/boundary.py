"""The boundary attack: a random walk along the boundary, which uses only the predicted classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.black_box.decision import DecisionAttack
from tinyadv.backend import Array, array_module, move, rows_of

FIRST_STEP, CONVERGED = 0.01, 1e-7  # delta and epsilon at first, and an epsilon at which an example is done
SPHERE, STEP = 0.35, 0.25  # the shares of the steps along the sphere, and of the whole ones, that are to succeed
EVERY = 11  # queries, of which one is for a step along the sphere by itself
TINY = 1e-300  # for the norm of nothing


@dataclass(frozen=True)
class BoundaryAttack(DecisionAttack):
    """Start at a far adversarial point, and come nearer to the image by random steps that stay adversarial.

    Brendel et al. 2018, arXiv:1712.04248, algorithm 1 and section 2. A step has two parts: one of length delta in a
    random direction along the sphere around the image, and one of length epsilon towards the image. Both lengths are
    relative to the l2 distance. The step is taken if its end is adversarial. Each example adapts its delta and epsilon
    slightly after each step, so that 35% of the steps along the sphere and 25% of the whole steps stay adversarial. The
    authors' code adapts them after many steps. Every eleventh query tests a step along the sphere alone. The noise of
    every second step is smooth, which theirs never is.

    queries, starts: see DecisionAttack.
    """

    norm = "l2"

    def approach(self, batch: Batch) -> None:
        xp, rest, rows = array_module(batch.x), batch, array_module(batch.x).arange(len(batch.x))  # examples left
        delta, epsilon = xp.full((2, len(rows)), FIRST_STEP)
        for query in range(self.queries):
            distance = rest.ball.distance_to(rest.best)
            left = rows_of((distance > 0) & (epsilon > CONVERGED) & (self.left(rest) > 0))
            if len(left) < len(rows):
                batch[rows] = rest
                rows, delta, epsilon, distance = rows[left], delta[left], epsilon[left], distance[left]
                rest = batch[rows]
            if not len(rows):
                break
            points = _along_the_sphere(rest, distance, delta, smooth=query % 2 == 1)
            if query % EVERY == 0:
                delta = xp.minimum(delta * xp.exp(0.4 * (self.ask(rest, points) - SPHERE)), 1)
                continue
            # Towards x, to (1 - epsilon) times the distance: clipping has come part of the way.
            shorter = (1 - epsilon) * distance / xp.maximum(rest.ball.distance_to(points), TINY)
            self.ask(rest, rest.x + column(xp.minimum(shorter, 1), points) * (points - rest.x))
            taken = rest.ball.distance_to(rest.best) < distance
            epsilon = xp.minimum(epsilon * xp.exp(0.2 * (taken - STEP)), 0.5)
        batch[rows] = rest


def _along_the_sphere(batch: Batch, distance: Array, delta: Array, smooth: bool) -> Array:
    """A step from the best points (n, ...), of length delta * distance, in a random direction orthogonal to that to x.

    smooth: sum the noise over 3 x 3 pixels, because networks respond more to smooth changes.
    """
    xp, axes = array_module(batch.x), tuple(range(1, batch.x.ndim))
    away = (batch.best.astype(np.float64) - batch.x) / column(distance, batch.x)
    eta = move(batch.streams.normal(batch.x.shape[1:]), like=batch.x)
    for axis in axes[-2:] if smooth else ():
        eta = eta + xp.roll(eta, 1, axis) + xp.roll(eta, -1, axis)
    eta -= (eta * away).sum(axis=axes, keepdims=True) * away
    eta *= column(delta / xp.maximum(batch.ball.distance(eta), TINY), eta)
    points = batch.x + column(distance / (1 + delta**2) ** 0.5, eta) * (away + eta)  # back onto the sphere
    return points.clip(batch.ball.low, batch.ball.high)
