"""Sparse-RS: a random search over the pixels to change, and their colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.l0 import keep_best
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.base.window import image_shape
from tinyadv.backend import Array, array_module, move, rows_of
from tinyadv.shapes import check_fraction
from tinyadv.tensor import Tensor

# After so many of 10,000 queries, p is divided by this.
SCHEDULE = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))


@dataclass(frozen=True)
class SparseRS(Attack):
    """A random search: put some of the changed pixels elsewhere, in other colours, and keep it if the loss rises.

    Croce et al. 2022, arXiv:2006.12834, algorithm 1 with the l0 proposals of algorithm 2. There are always eps changed
    pixels, each in a colour whose channels are at the bounds. A query sets a part p of them back, and changes as many
    others. p falls on schedule. Each example has its own pixels.

    eps: the number of pixels; queries: the largest number for each example, including the start, plus one for the
    result; p_init: the part at first, in (0, 1), 0.3 as in the paper, which takes 0.1 with a target; loss: "margin" or
    "cross_entropy", the authors' choice with a target; rescale_schedule: True if p falls in proportion to `queries`,
    False for the schedule of 10,000 queries.
    """

    eps: float
    queries: int = 5000
    p_init: float = 0.3
    loss: str = "margin"
    rescale_schedule: bool = True

    norm = "l0"
    norms = ("l0",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("p_init", self.p_init)

    def perturb(self, batch: Batch) -> Array:
        xp, (channels, *sides) = array_module(batch.x), image_shape(batch.x)
        count = math.prod(sides)
        size = min(int(batch.ball.eps), count)
        rest, rows = batch, xp.arange(len(batch.x))  # the examples that are left
        order, corners = self._draw(rest, channels, count)
        chosen = _largest(order, size)  # (n, P): the pixels that are changed
        colours = corners  # (n, C, P)
        tried, values = (chosen, colours), xp.full(len(rows), -math.inf)
        for query in range(1, self.queries + 1):
            pixels = xp.where(tried[0][:, None], tried[1], rest.x.reshape(tried[1].shape))
            logits = rest.consider(pixels.reshape(rest.x.shape), iteration=True)
            now = objective(self.loss)(Tensor(logits), rest.y, rest.target).data
            better = now > values
            chosen, values = xp.where(better[:, None], tried[0], chosen), xp.where(better, now, values)
            colours = xp.where(column(better, colours), tried[1], colours)
            left = rows_of(~rest.succeeded)
            if len(left) < len(rows):
                batch[rows] = rest
                rows, chosen, colours, values = (array[left] for array in (rows, chosen, colours, values))
                rest = batch[rows]
                if not len(rows):
                    break
            moved = max(1, int(self._part(query) * size))
            order, corners = self._draw(rest, channels, count)
            stay = chosen & ~_largest(xp.where(chosen, order, -1), moved)
            # Those that were not changed before; the others only if there are too few.
            new = _largest(xp.where(stay, -1, xp.where(chosen, -order, 1 - order)), moved)
            tried = stay | new, xp.where(new[:, None], corners, colours)
        batch[rows] = rest
        return batch.best

    def _part(self, query: int) -> float:
        """p, the part of the pixels that a query puts elsewhere."""
        turn = query * 10_000 / self.queries if self.rescale_schedule else query
        return self.p_init / max((divisor for after, divisor in SCHEDULE if turn > after), default=1)

    def _draw(self, batch: Batch, channels: int, count: int) -> tuple[Array, Array]:
        """For each example a random order of the pixels (n, P), and a corner of the colours for each (n, C, P)."""
        numbers = move(batch.streams.uniform((1 + channels, count)), like=batch.x)
        xp, ball = array_module(numbers), batch.ball
        return numbers[:, 0], xp.where(numbers[:, 1:] < 0.5, ball.low, ball.high).astype(batch.x.dtype)


def _largest(worth: Array, count: int) -> Array:
    """(n, P) bool: the `count` pixels of the largest worth (n, P)."""
    xp = array_module(worth)
    return keep_best(xp.ones(worth.shape, bool), worth, xp.full(len(worth), count))
