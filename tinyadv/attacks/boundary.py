"""The boundary attack: a walk along the boundary, which sees nothing of the model but its decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinyadv.attacks.attack import Attack
from tinyadv.attacks.batch import Batch
from tinyadv.attacks.norms import column
from tinyadv.backend import Array, array_module, is_array, move

TRIES, BISECTIONS = 100, 10  # random points until one is adversarial, and halvings of the way back from it
FIRST_STEP, CONVERGED = 0.01, 1e-7  # delta and epsilon at first, and an epsilon at which an example is done
EVERY = 10  # steps, in one of which the step along the sphere is tested by itself
TINY = 1e-300  # for the norm of nothing


@dataclass(frozen=True)
class BoundaryAttack(Attack):
    """From a point far away that is adversarial, nearer and nearer, by random steps that stay adversarial.

    Brendel et al. 2018, arXiv:1712.04248, algorithm 1 and section 2. A step leads along the sphere around the image,
    delta far in a random direction, then by epsilon towards the image, both relative to the distance; it is taken if
    the model's class there is adversarial. Each example adapts its own delta, so that half of the steps along the
    sphere stay adversarial, and epsilon, so that a quarter of the whole steps do: by a little after each of them,
    where the authors' code multiplies after many. Distances are l2, and all that it sees are the classes: the model
    may return an array, and one-hot decisions for logits.

    A step is a query, and each tenth one more. The start is a blend of the image and uniform noise: up to 100 are
    tried, more and more noisy, then ten queries bisect the way back. Where none is adversarial the attack fails, as a
    rule with `target=`: then pass `starts`.

    steps: at most; starts: images (M, ...) to begin from instead of noise, such as some of each class. An example tries
    the nearest first, with a query each, until one is adversarial.
    """

    steps: int = 5000
    starts: Array | None = field(default=None, repr=False, compare=False)

    norm = "l2"
    minimum_norm = True

    def perturb(self, batch: Batch) -> Array:
        xp = array_module(batch.x)
        self._start(batch)
        rows = batch.succeeded.nonzero()[0]
        if not len(rows):
            return batch.best
        rest = batch[rows]  # the examples that are left
        _bisect(rest)
        delta, epsilon = xp.full((2, len(rows)), FIRST_STEP)
        for step in range(self.steps):
            distance = _distance(rest, rest.best)
            points = _along_the_sphere(rest, distance, delta)
            if step % EVERY == 0:
                stays = rest.succeeds(rest.consider(points).argmax(axis=1))
                delta = xp.minimum(delta * xp.exp(0.4 * (stays - 0.5)), 1)
            # Towards x, to (1 - epsilon) times the distance: clipping has come part of the way.
            shorter = (1 - epsilon) * distance / xp.maximum(_distance(rest, points), TINY)
            rest.consider(rest.x + column(xp.minimum(shorter, 1), points) * (points - rest.x), iteration=True)
            taken = _distance(rest, rest.best) < distance
            epsilon = xp.minimum(epsilon * xp.exp(0.2 * (taken - 0.25)), 0.5)
            left = epsilon > CONVERGED
            if not left.all():
                batch[rows] = rest
                rows, delta, epsilon = rows[left], delta[left], epsilon[left]
                rest = batch[rows]
                if not len(rows):
                    break
        batch[rows] = rest
        return batch.best

    def _start(self, batch: Batch) -> None:
        """Show the batch blends with noise, or else the starts, to each example until one is adversarial."""
        order = None if self.starts is None else _nearest_first(self.starts, batch)
        for k in range(TRIES if order is None else len(order)):
            left = ~batch.succeeded
            if not left.any():
                break
            rest = batch[left]
            if order is None:
                noise = move(rest.streams.uniform(rest.x.shape[1:], *self.bounds), like=rest.x)
                points = rest.x + (k % 10 + 1) / 10 * (noise - rest.x)
            else:
                points = move(self.starts, like=rest.x)[order[k][left]]
            rest.consider(points, iteration=True)
            batch[left] = rest


def _nearest_first(starts: Array, batch: Batch) -> Array:
    """(M, n): for each example the indices of the starts (M, ...), in the order of their distances from it."""
    shape = batch.x.shape[1:]
    if not is_array(starts) or starts.dtype.kind != "f" or starts.shape[1:] != shape or not len(starts):
        what = f"{starts.dtype} of shape {starts.shape}" if is_array(starts) else type(starts).__name__
        raise ValueError(f"starts must be a floating-point array of images of shape {shape}, like x; got {what}")
    starts = move(starts, like=batch.x)
    return array_module(starts).stack([batch.ball.distance(batch.x - start) for start in starts]).argsort(axis=0)


def _bisect(batch: Batch) -> None:
    """Show the batch points on the way from its best ones to x, nearer and nearer to where they become adversarial."""
    xp, far = array_module(batch.x), batch.best - batch.x
    inside, outside = xp.zeros(len(far)), xp.ones(len(far))
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        found = batch.succeeds(batch.consider(batch.x + column(middle, far) * far, iteration=True).argmax(axis=1))
        inside, outside = xp.where(found, inside, middle), xp.where(found, middle, outside)


def _along_the_sphere(batch: Batch, distance: Array, delta: Array) -> Array:
    """From the best points (n, ...) a step of length delta * distance in a random direction orthogonal to that of x."""
    xp, axes = array_module(batch.x), tuple(range(1, batch.x.ndim))
    away = (batch.best.astype(np.float64) - batch.x) / column(distance, batch.x)
    eta = move(batch.streams.normal(batch.x.shape[1:]), like=batch.x)
    eta -= (eta * away).sum(axis=axes, keepdims=True) * away
    eta *= column(delta / xp.maximum(batch.ball.distance(eta), TINY), eta)
    points = batch.x + column(distance / (1 + delta**2) ** 0.5, eta) * (away + eta)  # back onto the sphere
    return points.clip(batch.ball.low, batch.ball.high)


def _distance(batch: Batch, points: Array) -> Array:
    return batch.ball.distance(points.astype(np.float64) - batch.x)
