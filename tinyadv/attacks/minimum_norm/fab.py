"""The fast adaptive boundary attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.ball import or_one
from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin_of, reached, rounding
from tinyadv.attacks.minimum_norm import hyperplane
from tinyadv.backend import Array, array_module, rows_of
from tinyadv.shapes import check_within, to_count

SEARCH_STEPS, BEYOND = 3, 1e-4  # of the final search: how often, and the margin it leaves, relative to that from x


@dataclass(frozen=True)
class FAB(WhiteBox):
    """Walk along the boundary to the point nearest to the image, by projections onto linearised boundaries.

    Croce and Hein 2020, arXiv:1907.02044, algorithm 1. Each step linearises the model and goes to its nearest boundary,
    by a weighted mean of two steps to that boundary, one from the point and one from the image. Both respect the
    bounds. A misclassified point is then moved back towards the image. The last search is on the line to the image.

    eps: None, or a budget. Without a budget this is a minimum-norm attack. With one, the search is the same, but it
    stops for an example when a step has found a point within eps, and only such a point is a success.
    steps: of each run; norm: "linf", "l2" or "l1".
    restarts: the number of runs, the first from x, the others from random points, at most half as far from x as the
    nearest point found and as eps.
    alpha_max: the largest weight of the step from x; eta: the length of a step, 1 leads exactly to the boundary; beta:
    the fraction of the perturbation that remains when a misclassified point is moved back.
    target_classes: None, or a number of runs, each with the boundary between y and one other class, in falling order of
    the logits at x (AutoAttack's FAB-T, arXiv:2003.01690). This costs one gradient a step, not one for each class. Any
    misclassification is a success. With `target=` the only boundary is between the target and the best other class.
    """

    eps: float | None = None
    steps: int = 100
    norm: str = "linf"
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    target_classes: int | None = None

    minimum_norm = True
    norms = ("linf", "l2", "l1")
    loss = "margin"

    def __post_init__(self) -> None:
        object.__setattr__(self, "minimum_norm", self.eps is None)
        super().__post_init__()
        for name, low, high in ("alpha_max", 0, 1), ("eta", 1, 2), ("beta", 0, 1):
            check_within(name, getattr(self, name), low, high)
        if self.target_classes is not None:
            object.__setattr__(self, "target_classes", to_count("target_classes", self.target_classes))

    def perturb(self, batch: Batch) -> Array:
        again = batch.restarted  # only the first run begins at x
        order = batch.ranking()
        if not self.minimum_norm:
            batch = batch.within(math.inf)
        runs, left = [order], array_module(order).arange(len(order))
        if self.target_classes and batch.target is None:  # y and the k-th
            runs = [order[:, : k + 1 : k] for k in range(1, min(self.target_classes + 1, order.shape[1]))]
        for classes in runs:
            part = batch[left]
            self._run(part, self._random_start(part) if again else part.x, classes[left])
            batch[left] = part
            left = rows_of(~self._done(batch))
            if not len(left):
                break
        found = rows_of(batch.succeeded)
        if len(found):
            part = batch[found]
            _final_search(part)
            batch[found] = part
        return batch.best

    def _run(self, batch: Batch, points: Array, classes: Array) -> None:
        """The loop over i of algorithm 1, from the points (n, ...); classes (n, m): y, and those of the boundaries."""
        xp = array_module(points)
        rows, part = xp.arange(len(points)), batch  # the examples that are left
        for _ in range(self.steps):
            points = self._step(part, points, classes)
            found = reached(driver.classes(part.consider(points)), part.y, part.target)
            if len(unsure := rows_of(found & ~part.succeeded)):  # too near the boundary: show a point beyond
                rest = part[unsure]
                rest.consider(rest.x + 2 * (points[unsure] - rest.x))
                part[unsure] = rest
            drawn_back = part.ball.project(part.x + self.beta * (points - part.x))
            points = xp.where(column(found, points), drawn_back, points)
            left = rows_of(~self._done(part))
            if len(left) < len(rows):
                batch[rows] = part
                rows, points, classes = rows[left], points[left], classes[left]
                part = batch[rows]
                if not len(rows):
                    return
        batch[rows] = part

    def _step(self, batch: Batch, points: Array, classes: Array) -> Array:
        """The step from x^(i), the points (n, ...), to x^(i+1); if there is no boundary, a short step back to x."""
        xp, x, ball = array_module(points), batch.x.astype(np.float64), batch.ball
        _, lead, slope = hyperplane.nearest(self.norm, hyperplane.boundaries(batch, points, classes, merged=True))
        lead_at_x = lead + (slope * (x - points)).sum(axis=tuple(range(1, x.ndim)))
        delta = hyperplane.way(self.norm, points, lead, slope, ball.low, ball.high)
        delta_orig = hyperplane.way(self.norm, x, lead_at_x, slope, ball.low, ball.high)
        far, near = ball.distance(delta), ball.distance(delta_orig)
        alpha = xp.where(far + near > 0, far / or_one(far + near), 1)
        here, there = points + self.eta * delta, x + self.eta * delta_orig
        return ball.project(here + column(xp.minimum(alpha, self.alpha_max), x) * (there - here))

    def _done(self, batch: Batch) -> Array:
        """(n,) bool: whether the nearest points found are within the budget; False if there is no budget."""
        return batch.succeeded & (batch.ball.distance_to(batch.best) <= (-1 if self.eps is None else self.eps))

    def _random_start(self, batch: Batch) -> Array:
        """Random points for a restart, within half the distance of the nearest point found, and half of eps."""
        xp = array_module(batch.x)
        radius = xp.where(batch.succeeded, batch.ball.distance_to(batch.best), batch.ball.farthest())
        return batch.ball.random(batch.streams, xp.minimum(radius, math.inf if self.eps is None else self.eps) / 2)


def _final_search(batch: Batch) -> None:
    """Search on the line from each best point to x for the point where the margin is 0, by three linear steps.

    The aim is slightly above 0: on the boundary itself, the class would depend on rounding.
    """
    def lead(points: Array) -> tuple[Array, Array]:
        logits = batch.consider(points)
        return margin_of(logits, batch.y, batch.target), rounding(logits)

    xp, near, far = array_module(batch.x), batch.x, batch.best
    (low, _), (high, doubt) = lead(near), lead(far)
    beyond = xp.maximum(BEYOND * (high - low), 2 * doubt)
    for _ in range(SEARCH_STEPS):
        rise = high - low
        share = xp.where(rise > 0, (high - beyond) / xp.where(rise > 0, rise, 1), 0)
        points = batch.ball.project(far + column(xp.clip(share, 0, 1), far) * (near - far))
        value, _ = lead(points)
        outside = value >= beyond
        near, far = (xp.where(column(which, points), points, old) for which, old in ((~outside, near), (outside, far)))
        low, high = xp.where(outside, low, value), xp.where(outside, value, high)
