"""HopSkipJump: gradients at the boundary, estimated from predicted classes alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.balls import L2Ball, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.black_box.decision import DecisionAttack
from tinyadv.backend import Array, array_module, move, rows_of
from tinyadv.shapes import to_count

FIRST_DELTA = 0.1  # of the range of the data, as in the authors' code
HALVINGS = 10  # of a step that is not adversarial; after that it is as short as delta, or shorter


@dataclass(frozen=True)
class HopSkipJump(DecisionAttack):
    """Steps along an estimated gradient at the boundary, each followed by a bisection back to the boundary.

    Chen, Jordan and Wainwright 2020, arXiv:1904.02144. A round starts at a point x_t on the boundary, at a distance r
    from x. d is the number of values of an image.

    1. The model classifies B_t = B_0 sqrt(t) points at a distance delta_t = r / d from x_t, in random directions u_b:
       phi_b is 1 if the point is adversarial, else -1. The estimate of the gradient is the mean of
       (phi_b - mean(phi)) u_b, scaled to length 1 for "l2", and its sign for "linf".
    2. The step along it has the length xi = r / sqrt(t), which is halved until its end is adversarial.
    3. From there a bisection towards x, up to a fraction theta, finds x_(t+1).

    For "l2" the bisection is on the line to x, with theta = d**-1.5; for "linf" it bisects the limit to which all
    changes are clipped, with theta = d**-2. The first delta is a tenth of the range of the data. The last round has
    fewer directions, so that queries are left for its step. The result is the nearest adversarial point tested.

    norm: "l2" or "linf"; initial_directions: B_0; queries, starts: see DecisionAttack.
    """

    norm: str = "l2"
    initial_directions: int = 100

    norms = ("l2", "linf")

    def __post_init__(self) -> None:
        super().__post_init__()
        to_count("initial_directions", self.initial_directions)

    def approach(self, batch: Batch) -> None:
        xp, d = array_module(batch.x), math.prod(batch.x.shape[1:])
        halvings = math.ceil((1.5 if self.norm == "l2" else 2) * math.log2(d))  # of the way to x, to theta of it
        rows, rest, points = xp.arange(len(batch.x)), batch, batch.best.astype(np.float64)  # the examples that are left
        for t in itertools.count(1):
            r = rest.ball.distance_to(points)
            spare = self.left(rest) - HALVINGS - halvings  # queries for directions
            left = rows_of((spare > 0) & (r > 0))
            if len(left) < len(rows):
                batch[rows] = rest
                rows, points, r, spare = (array[left] for array in (rows, points, r, spare))
                rest = batch[rows]
            if not len(rows):
                break
            delta = r / d if t > 1 else xp.full(len(r), FIRST_DELTA * (self.bounds[1] - self.bounds[0]))
            count = xp.minimum(int(self.initial_directions * math.sqrt(t)), spare)
            direction = rest.ball.steepest(self._gradient(rest, points, delta, count))
            points, moved = self._step(rest, points, r / math.sqrt(t), direction)
            points = self.bisect(rest, points, halvings, moved)
        batch[rows] = rest

    def _gradient(self, batch: Batch, points: Array, delta: Array, count: Array) -> Array:
        """The estimated gradient (n, ...) at boundary points, from count (n,) points at a distance of delta (n,)."""
        xp = array_module(points)
        decided, drift, phis = xp.zeros_like(points), xp.zeros_like(points), xp.zeros(len(points))
        for b in range(int(count.max())):
            u = L2Ball.steepest(move(batch.streams.normal(points.shape[1:]), like=points))
            there = (points + column(delta, u) * u).clip(batch.ball.low, batch.ball.high)
            phi = xp.where(b < count, 2.0 * self.ask(batch, there, b < count) - 1, 0)
            u = (there - points) / column(delta, u)  # where the bounds have left it
            decided += column(phi, u) * u
            drift += column(b < count, u) * u
            phis += phi
        mean = phis / count
        return decided - column(xp.where(abs(mean) < 1, mean, 0), points) * drift  # no baseline if all decide alike

    def _step(self, batch: Batch, points: Array, xi: Array, direction: Array) -> tuple[Array, Array]:
        """The adversarial ends of steps of length xi (n,), xi / 2, ...; and whether there is one, (n,) bool."""
        xp = array_module(points)
        moved = xp.zeros(len(points), bool)
        for k in range(HALVINGS):
            there = (points + column(xi / 2**k, points) * direction).clip(batch.ball.low, batch.ball.high)
            now = self.ask(batch, there, ~moved)
            points, moved = xp.where(column(now, points), there, points), moved | now
            if moved.all():
                break
        return points, moved
