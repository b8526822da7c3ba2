"""The attack of Brendel and Bethge: along the decision boundary, to the point nearest to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.ball import flat, or_one
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import rounding
from tinyadv.attacks.black_box.decision import DecisionAttack
from tinyadv.backend import Array, array_module, rows_of
from tinyadv.shapes import check_positive

MOMENTUM, HALVINGS, OVERSHOOT = 0.8, 20, 0.1  # of the boundary's direction; of the radius; relative to the margin
SPAN = 30.0  # pixels with a slope below a thirtieth of the largest one need not be pushed to their bounds
ROUNDS, BISECTIONS, NEAR = 8, 16, 0.05  # of the two searches in a step; and how near to the boundary is on it


@dataclass(frozen=True)
class BrendelBethge(WhiteBox, DecisionAttack):
    """Start at a far adversarial point and walk along the boundary, each step to the nearest point of a trust region.

    Brendel et al. 2019, arXiv:1907.01003. With b a moving mean of the gradient of the margin m, a step solves

        minimise |x - (x_t + d)|   such that   <b, d> = c,   |d|_2 <= r,   x_t + d within the bounds

    where c leads to a margin of a tenth of |m|, but of more than rounding could undo. The mean begins at 0, so the
    first steps go up to five times as far beyond the boundary, which finds other parts of it. If the region does not
    reach the boundary, the step goes towards it as far as it can. r is lr times the number of values of an image, in
    units of the range of the data, and is halved after each twentieth of the steps.

    queries, starts: see DecisionAttack; queries limits the forward passes.
    steps: of each example, with one gradient each; norm: "l2", "linf" or "l1"; lr: the first radius, as above. The
    paper's is 0.001, but in the authors' implementation the radius grows with the batch.
    """

    steps: int = 1000
    norm: str = "l2"
    lr: float = 0.01

    norms = ("l2", "linf", "l1")
    loss = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("lr", self.lr)

    def approach(self, batch: Batch) -> None:
        xp, x = array_module(batch.x), flat(batch.x.astype(np.float64))
        low, high, scale = float(batch.ball.low.min()), float(batch.ball.high.max()), self.bounds[1] - self.bounds[0]
        points, b, rest, rows = batch.best, xp.zeros_like(x), batch, xp.arange(len(x))  # of the examples that are left
        for step in range(self.steps):
            left = rows_of(goes_on := self.left(rest) > self.eot)
            if len(left) < len(rows):
                self.ask(rest, points, ~goes_on)  # the last points of those that end here
                batch[rows] = rest
                rows, x, points, b = (array[left] for array in (rows, x, points, b))
                rest = batch[rows]
                if not len(rows):
                    return
            logits, lead, g = rest.evaluate(points)
            b = MOMENTUM * b + (1 - MOMENTUM) * flat(g.astype(np.float64))
            c = xp.maximum(OVERSHOOT * abs(lead), 4 * rounding(logits)).astype(np.float64) - lead
            radius = self.lr * x.shape[1] * scale * 0.5 ** (step * HALVINGS // self.steps)
            here = flat(points.astype(np.float64))
            d = best_step(self.norm, x - here, b, c, radius, (low - here, high - here), scale)
            points = rest.ball.project((here + d).reshape(points.shape))
        rest.consider(points)
        batch[rows] = rest


def best_step(norm: str, u: Array, b: Array, c: Array, radius: float, box: tuple[Array, Array], scale: float) -> Array:
    """The d (n, D) nearest to u (n, D) in the norm, with <b, d> = c (n,), |d|_2 <= radius, and d in the box.

    By the multipliers of the first two constraints, d is a clipped function of t * b and q. <b, d> grows with t, and
    |d|_2 falls with q, so two nested searches find them. In linf q is the largest |u - d|. Where no q fulfils all, d is
    the shortest step to the hyperplane, or as far as it gets within the radius. scale: the range of the data.
    """
    xp, (low, high) = array_module(u), box
    size = or_one(abs(b).max(axis=1, keepdims=True))
    b, c = b / size, (c / size[:, 0])[:, None]

    def shortest(push: Array, low: Array = low, high: Array = high) -> tuple[Array, Array]:
        return push.clip(low, high), (low < push) & (push < high)

    def step(push: Array, q: Array) -> tuple[Array, Array]:
        """d, and where it moves with the push."""
        if norm == "linf":
            return shortest(push, xp.maximum(low, u - q), xp.minimum(high, u + q))
        pulled = u / (1 + q) + push if norm == "l2" else u.clip(push - 1 / q, push + 1 / q)
        d, free = shortest(pulled)
        return d, free & (d != u) if norm == "l1" else free

    d, t = _onto(shortest, b, c, xp.zeros_like(c), SPAN * scale)
    best = d * xp.minimum(1, radius / or_one(_length(d)))
    unit = {"l2": _length(u) / radius, "l1": 1 / radius, "linf": 1}[norm]
    if norm == "linf":
        largest = abs(u).max(axis=1, keepdims=True)
        least, most = xp.maximum(largest - radius, 0), largest + radius
    else:  # powers of two
        least, most = xp.full((len(u), 1), -20.0), xp.full((len(u), 1), 20.0)
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        d, now = _onto(partial(step, q=middle if norm == "linf" else unit * 2**middle), b, c, t, SPAN * scale)
        missed = abs((b * d).sum(axis=1, keepdims=True) - c)
        fine = (missed <= NEAR * abs(c) + 1e-6 * radius * _length(b)) & (_length(d) <= radius)
        best, t = xp.where(fine, d, best), xp.where(fine, now, t)
        least, most = xp.where(fine, least, middle), xp.where(fine, middle, most)
    return best


def _onto(step: Callable[[Array], tuple[Array, Array]], b: Array, c: Array, t: Array,
          end: float) -> tuple[Array, Array]:
    """The step(t * b) (n, D) whose product with b is c (n, 1), and t between -end and end.

    By Newton's method or, where it would leave the interval that is left, by its chord.
    """
    xp = array_module(b)

    def beyond(t: Array) -> tuple[Array, Array, Array]:
        d, free = step(t * b)
        return d, (b * d).sum(axis=1, keepdims=True) - c, (free * b * b).sum(axis=1, keepdims=True)

    lower, upper = xp.zeros_like(c) - end, xp.zeros_like(c) + end
    below, above = beyond(lower)[1], beyond(upper)[1]
    for _ in range(ROUNDS):
        _, value, rise = beyond(t)
        lower, below = xp.where(value < 0, t, lower), xp.where(value < 0, value, below)
        upper, above = xp.where(value > 0, t, upper), xp.where(value > 0, value, above)
        steep, gap = rise > 1e-12, above - below  # the largest of b is 1
        newton = t - value / xp.where(steep, rise, 1)
        chord = xp.where(gap > 1e-12, (lower * above - upper * below) / xp.where(gap > 1e-12, gap, 1), t)
        t = xp.where(steep & (lower < newton) & (newton < upper), newton, chord)
    return step(t * b)[0], t


def _length(d: Array) -> Array:
    return array_module(d).sqrt((d * d).sum(axis=1, keepdims=True))
