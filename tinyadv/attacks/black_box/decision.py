"""What the attacks share that see nothing of the model but its decisions: queries, a start, the way to the boundary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.balls import Ball, LinfBall, column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.parameters import to_count
from tinyadv.backend import Array, array_module, is_array, move

BLENDS, BISECTIONS = 10, 10  # more and more noisy, until one is adversarial; and halvings of the way back from it
SHARE = 0.1  # of the queries, until which noise alone is tried where no blend was adversarial


@dataclass(frozen=True)
class DecisionAttack(Attack):
    """The base of attacks that go from a far point that is adversarial towards the image, by the model's classes alone.

    All that they see are the classes: the model may return an array, and one-hot decisions for logits. They start from
    a blend of the image and uniform noise: up to ten are tried, more and more noisy, then ten queries bisect the way
    back. A network takes all noise of single pixels for one or two classes, so the same is tried with noise of squares
    of 2, 4, 8, ... pixels, and the nearest of these starts is taken. Where there is none yet, noise alone follows, of
    each of these grains in turn, until a tenth of the queries is spent. Where there is none then the attack fails, as
    it may with `target=`: pass `starts`.

    queries: of each example at most so many: the first is the image itself, the last the result, so 2 or more;
    starts: images (M, ...) to begin from instead of noise, such as some of each class. An example tries the nearest
    first, with a query each, until one is adversarial.
    """

    queries: int = 10_000
    starts: Array | None = field(default=None, repr=False, compare=False)

    minimum_norm = True

    def __post_init__(self) -> None:
        super().__post_init__()
        to_count("queries", self.queries, 2)

    def perturb(self, batch: Batch) -> Array:
        self._start(batch)
        found = batch.succeeded
        if found.any():
            rest = batch[found]
            self.approach(rest)
            batch[found] = rest
        return batch.best

    def approach(self, batch: Batch) -> None:
        """Ask for points nearer and nearer, where the best of each example is adversarial: what an attack defines."""
        raise TypeError(f"{type(self).__name__} defines no approach(batch)")

    def left(self, batch: Batch) -> Array:
        """(n,): the queries that are left of each example."""
        return move(self.queries - 1 - batch.forwards, like=batch.x)

    def ask(self, batch: Batch, points: Array, of: Array | None = None) -> Array:
        """(n,) bool: whether the points (n, ...) are adversarial. They are candidates, and a query for each example.

        False, without a query, for an example that has none left or is not among those asked for: of (n,) bool.
        """
        asked = self.left(batch) > 0
        if of is not None:
            asked = asked & of
        if asked.all():
            return _ask(batch, points)
        found = asked.copy()
        if asked.any():
            part = batch[asked]
            found[asked] = _ask(part, points[asked])
            batch[asked] = part
        return found

    def bisect(self, batch: Batch, points: Array, halvings: int, of: Array | None = None) -> Array:
        """The adversarial points (n, ...) as near to x as they just stay adversarial, by halving the way there."""
        xp = array_module(points)
        inside, outside = xp.zeros(len(points)), xp.ones(len(points))
        for _ in range(halvings):
            middle = (inside + outside) / 2
            stays = self.ask(batch, nearer(batch.ball, points, middle), of)
            inside, outside = xp.where(stays, inside, middle), xp.where(stays, middle, outside)
        return nearer(batch.ball, points, outside)

    def _start(self, batch: Batch) -> None:
        """Ask for the starts or else, with noise of every grain, for blends, and on the way back from them."""
        if self.starts is not None:
            starts, order = move(self.starts, like=batch.x), _nearest_first(self.starts, batch)
            self._first(batch, range(len(order)), lambda _, left, k: starts[order[k][left]])
            return
        grains = [2**k for k in range(max(1, (min(batch.x.shape[1:][-2:]) - 1).bit_length()))]
        for grain in grains:
            self._first(batch, range(BLENDS), partial(self._blend, grain))
        for grain in itertools.cycle(grains):
            left = ~batch.succeeded & (self.left(batch) >= (1 - SHARE) * self.queries)
            if not left.any():
                return
            rest = batch[left]
            self._first(rest, [BLENDS - 1], partial(self._blend, grain))
            batch[left] = rest

    def _first(self, batch: Batch, tries: Sequence[int], propose: Callable[[Batch, Array, int], Array]) -> None:
        """Ask for propose(rest, left, k), for each k of tries, until one is adversarial; then on the way back from it.

        Each example by itself. left (n,) bool: those that are still without; rest: the batch of them.
        """
        points, found = batch.x.copy(), array_module(batch.x).zeros(len(batch.x), bool)
        for k in tries:
            left = ~found & (self.left(batch) > 0)
            if not left.any():
                break
            rest = batch[left]
            tried = propose(rest, left, k)
            points[left], found[left] = tried, _ask(rest, tried)
            batch[left] = rest
        self.bisect(batch, points, BISECTIONS, found)

    def _blend(self, side: int, batch: Batch, _: Array, k: int) -> Array:
        """The images with (k + 1) / 10 of uniform noise, which is the same all over a square of `side` pixels."""
        noise = move(batch.streams.uniform(batch.x.shape[1:], *self.bounds), like=batch.x)
        for axis in range(1, noise.ndim)[-2:]:
            noise = noise.take(array_module(noise).arange(noise.shape[axis]) // side, axis=axis)
        return batch.x + (k + 1) / BLENDS * (noise - batch.x)


def nearer(ball: Ball, points: Array, fraction: Array) -> Array:
    """The nearest to the points (n, ...) of those at most a fraction (n,) of their distance from x; in float64."""
    far = points.astype(np.float64) - ball.x
    if isinstance(ball, LinfBall):
        limit = column(fraction * ball.distance(far), far)
        return ball.x + far.clip(-limit, limit)
    return ball.x + column(fraction, far) * far


def _ask(batch: Batch, points: Array) -> Array:
    return batch.succeeds(batch.consider(points, iteration=True))


def _nearest_first(starts: Array, batch: Batch) -> Array:
    """(M, n): for each example the indices of the starts (M, ...), in the order of their distances from it."""
    shape = batch.x.shape[1:]
    if not is_array(starts) or starts.dtype.kind != "f" or starts.shape[1:] != shape or not len(starts):
        what = f"{starts.dtype} of shape {starts.shape}" if is_array(starts) else type(starts).__name__
        raise ValueError(f"starts must be a floating-point array of images of shape {shape}, like x; got {what}")
    starts = move(starts, like=batch.x)
    return array_module(starts).stack([batch.ball.distance(batch.x - start) for start in starts]).argsort(axis=0)
