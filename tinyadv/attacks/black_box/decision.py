"""What attacks that use only the predicted classes share: queries, a start, the bisection to the boundary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tinyadv.attacks.base.arguments import check_images
from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.batch import Batch
from tinyadv.backend import Array, array_module, move, rows_of
from tinyadv.shapes import to_count

BLENDS, BISECTIONS = 10, 10  # the blends tried, each with more noise; and the halvings of the way back to the image
SHARE = 0.1  # if no blend is adversarial, pure noise is tried until this share of the queries is spent


@dataclass(frozen=True)
class DecisionAttack(Attack):
    """The base class of attacks that start at a far adversarial point and use only the predicted classes.

    The model may return an array, and one-hot rows instead of logits.

    The start is a blend of the image and uniform noise. Up to ten blends are tried, with more and more noise. Then ten
    queries bisect the way back to the image. Networks assign all noise of single pixels to one or two classes, so the
    same is tried with noise that is constant in squares of 2, 4, 8, ... pixels. The nearest start is used. If none was
    found, pure noise of all these kinds is tried in turn, until a tenth of the queries is spent. If there is still no
    start, the attack fails. With `target=` this is likely: then pass `starts`.

    queries: the largest number for each example, at least 2: the first is the image itself, the last is the result.
    starts: images (M, ...) to start from instead of noise, such as some of each class. An example tries the nearest
    first, with one query each, until one is adversarial.
    """

    queries: int = 10_000
    starts: Array | None = field(default=None, repr=False, compare=False)

    minimum_norm = True

    def __post_init__(self) -> None:
        super().__post_init__()
        to_count("queries", self.queries, 2)
        if self.starts is not None:
            check_images(self.starts, self.bounds, "starts")
            if not len(self.starts):
                raise ValueError("starts must be images to start from, or None for noise; got none")

    def perturb(self, batch: Batch) -> Array:
        self._start(batch)
        found = rows_of(batch.succeeded)
        if len(found):
            rest = batch[found]
            self.approach(rest)
            batch[found] = rest
        return batch.best

    def approach(self, batch: Batch) -> None:
        """Move the best point of each example, which is adversarial, nearer to x: the method that an attack defines."""
        raise TypeError(f"{type(self).__name__} defines no approach(batch)")

    def left(self, batch: Batch) -> Array:
        """(n,): the number of queries that are left for each example."""
        return move(self.queries - 1 - batch.forwards, like=batch.x)

    def ask(self, batch: Batch, points: Array, of: Array | None = None) -> Array:
        """(n,) bool: whether the points (n, ...) are adversarial. They become candidates, with one query each.

        An example without queries left, or one that is not marked in (n,) bool, gets False without a query.
        """
        marked = self.left(batch) > 0
        if of is not None:
            marked = marked & of
        asked = rows_of(marked)
        if len(asked) == len(points):
            return _ask(batch, points)
        found = marked.copy()
        if len(asked):
            part = batch[asked]
            found[asked] = _ask(part, points[asked])
            batch[asked] = part
        return found

    def bisect(self, batch: Batch, points: Array, halvings: int, of: Array | None = None) -> Array:
        """Move the adversarial points (n, ...) towards x by bisection, as near as they stay adversarial."""
        xp = array_module(points)
        inside, outside = xp.zeros(len(points)), xp.ones(len(points))
        for _ in range(halvings):
            middle = (inside + outside) / 2
            stays = self.ask(batch, batch.ball.nearer(points, middle), of)
            inside, outside = xp.where(stays, inside, middle), xp.where(stays, middle, outside)
        return batch.ball.nearer(points, outside)

    def _start(self, batch: Batch) -> None:
        """Find a start: among `starts` or else among blends with noise of every kind, then bisect towards x."""
        if self.starts is not None:
            starts = move(self.starts, like=batch.x)
            order = _nearest_first(starts, batch)
            self._first(batch, range(len(order)), lambda _, left, k: starts[order[k][left]])
            return
        grains = [2**k for k in range(max(1, (min(batch.x.shape[1:][-2:]) - 1).bit_length()))]
        for grain in grains:
            self._first(batch, range(BLENDS), partial(self._blend, grain))
        for grain in itertools.cycle(grains):
            left = rows_of(~batch.succeeded & (self.left(batch) >= (1 - SHARE) * self.queries))
            if not len(left):
                return
            rest = batch[left]
            self._first(rest, [BLENDS - 1], partial(self._blend, grain))
            batch[left] = rest

    def _first(self, batch: Batch, tries: Sequence[int], propose: Callable[[Batch, Array, int], Array]) -> None:
        """Test propose(rest, left, k) for each k in tries until one is adversarial, then bisect from it towards x.

        This happens for each example by itself. left: the rows of the examples without a start; rest: their batch.
        """
        points, found = batch.x.copy(), array_module(batch.x).zeros(len(batch.x), bool)
        for k in tries:
            left = rows_of(~found & (self.left(batch) > 0))
            if not len(left):
                break
            rest = batch[left]
            tried = propose(rest, left, k)
            points[left], found[left] = tried, _ask(rest, tried)
            batch[left] = rest
        self.bisect(batch, points, BISECTIONS, found)

    def _blend(self, side: int, batch: Batch, _: Array, k: int) -> Array:
        """The images blended with (k + 1) / 10 of uniform noise, which is constant in squares of `side` pixels."""
        noise = move(batch.streams.uniform(batch.x.shape[1:], *self.bounds), like=batch.x)
        for axis in range(1, noise.ndim)[-2:]:
            noise = noise.take(array_module(noise).arange(noise.shape[axis]) // side, axis=axis)
        return batch.x + (k + 1) / BLENDS * (noise - batch.x)


def _ask(batch: Batch, points: Array) -> Array:
    return batch.succeeds(batch.consider(points, iteration=True))


def _nearest_first(starts: Array, batch: Batch) -> Array:
    """(M, n): for each example the indices of the starts (M, ...), the nearest first."""
    shape = batch.x.shape[1:]
    if starts.shape[1:] != shape:
        raise ValueError(f"starts must be images of shape {shape}, like x; got {starts.shape[1:]}")
    return array_module(starts).stack([batch.ball.distance(batch.x - start) for start in starts]).argsort(axis=0)
