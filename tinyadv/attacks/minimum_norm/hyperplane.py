"""The linearised model: its nearest decision boundary, and the shortest step to it within the bounds.

A boundary is a hyperplane: all z with lead + <slope, z - x> = 0, where lead and slope are those at x.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tinyadv.attacks.base.ball import before, or_one
from tinyadv.attacks.base.balls import Ball, L1Ball, L2Ball, LinfBall, column, fill, flat
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import margin
from tinyadv.backend import Array, array_module

DUAL: dict[str, type[Ball]] = {"linf": L1Ball, "l2": L2Ball, "l1": LinfBall}  # of the dual norm, that of slopes
NEGLIGIBLE = 1e-150  # of the largest slope: what is smaller could not be divided by, nor squared


def boundaries(batch: Batch, points: Array, classes: Array, *, merged: bool = False) -> list[tuple[Array, Array]]:
    """At the points (n, ...), for each class k after the first, the lead f_k - f_y (n,) and its gradient (n, ...).

    classes (n, m): those of each example, y first. With a target, the only boundary is that between the target and the
    best other class. The points are candidates. merged: for two classes, compute only the gradient of the lead, not one
    for each of the two logits.
    """
    if batch.target is not None:
        return [batch.evaluate(points, partial(margin, y=batch.y, target=batch.target))[1:]]
    if merged and classes.shape[1] == 2:
        rows = array_module(classes).arange(len(classes))
        return [batch.evaluate(points, lambda f: f[rows, classes[:, 1]] - f[rows, classes[:, 0]])[1:]]
    logits, slopes = batch.jacobian(points, classes)
    f = array_module(logits).take_along_axis(logits, classes, axis=1)
    return [(f[:, k] - f[:, 0], slopes[k] - slopes[0]) for k in range(1, len(slopes))]


def nearest(norm: str, boundaries: list[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
    """The distance, lead and slope of the nearest of the boundaries (lead (n,), slope (n, ...)), ignoring the bounds.

    The distance is inf, and lead and slope are 0, if no boundary has a finite slope other than 0.
    """
    xp, (lead, slope) = array_module(boundaries[0][0]), boundaries[0]
    distance, f, w = xp.full(len(lead), xp.inf), xp.zeros(len(lead)), xp.zeros_like(slope)
    for lead, slope in boundaries:
        size = DUAL[norm].distance(slope)
        usable = (size > 0) & (size < xp.inf)
        candidate = xp.where(usable, abs(lead) / xp.where(usable, size, 1), xp.inf)
        nearer = candidate < distance
        distance, f = xp.where(nearer, candidate, distance), xp.where(nearer, lead, f)
        w = xp.where(column(nearer, slope), slope, w)
    return distance, f, w


def way(norm: str, x: Array, lead: Array, slope: Array, low: Array, high: Array) -> Array:
    """The perturbations of x (n, ...) of smallest norm that reach the hyperplane within the bounds, in float64.

    If the bounds do not reach it, the smallest perturbation that comes as near as possible. Croce and Hein 2020,
    arXiv:1907.02044: each pixel i moves by length_i >= 0 in the one direction that helps, at most up to its bound, and
    sum |slope_i| length_i must be |lead|.
    """
    xp, shape = array_module(x), x.shape
    toward, wide = -column(xp.sign(lead), x) * slope, x.astype(np.float64)
    w = abs(flat(slope.astype(np.float64)))
    largest = w.max(axis=1, keepdims=True)
    w = w / or_one(largest)
    w = xp.where(w > NEGLIGIBLE, w, 0)
    room = flat(xp.where(toward > 0, high - wide, wide - low)) * (w > 0)
    need = abs(lead.astype(np.float64)) / or_one(largest)[:, 0]
    length = fill(w, room, w, need[:, None]) if norm == "l1" else _together(w, room, need, w if norm == "l2" else w > 0)
    return xp.sign(toward) * length.reshape(shape)


def _together(w: Array, room: Array, need: Array, pace: Array) -> Array:
    """(n, D): min(t * pace, room), with the t for which <w, .> equals the need; the room if there is no such t."""
    xp = array_module(w)
    ends = room / or_one(pace)  # when a pixel is at its bound
    order = ends.argsort(axis=1)
    end, full, speed = (xp.take_along_axis(array, order, axis=1) for array in (ends, w * room, w * pace))
    full, speed = before(full), xp.flip(xp.flip(speed, axis=1).cumsum(axis=1), axis=1)  # of those at a bound; the rest
    passed = (full + speed * end < need[:, None]).sum(axis=1)
    last = (xp.arange(len(w)), xp.minimum(passed, w.shape[1] - 1))
    t = (need - full[last]) / or_one(speed[last])
    t = xp.where(passed < w.shape[1], t, end[:, -1])[:, None]
    return xp.where(ends <= t, room, t * pace)
