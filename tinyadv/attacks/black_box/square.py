"""The Square attack: a random search that uses only the model's logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.balls import column
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.base.window import image_shape, window
from tinyadv.backend import Array, array_module, move, rows_of
from tinyadv.ops.movement import arranged
from tinyadv.shapes import is_number
from tinyadv.tensor import Tensor

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of p, after so many of 10,000 queries
BLOCK = 100  # queries for which an example draws its random numbers at once: a draw for each would take too long


@dataclass(frozen=True)
class Square(Attack):
    """A random search: change a random square as much as the budget allows, and keep the change if the loss rises.

    Andriushchenko et al. 2020, arXiv:1912.00049: algorithm 1, with the squares of algorithm 2 for "linf" and of
    algorithm 3 for "l2". Each example has its own squares, which may reach the last row and column. If the image is too
    small for a square, it is a rectangle. A vector is an image of one row. In (N, ..., H, W), all axes between N and H
    are channels. A square that would change nothing gets the opposite sign.

    eps: the budget; queries: the largest number of queries for each example, including the start, plus one for the
    result; norm: "linf" or "l2"; p_init: the fraction of the pixels in the first squares, in (0, 1]; loss: "margin" or
    "cross_entropy", the authors' choice with a target; rescale_schedule: True if the squares shrink in proportion to
    `queries`, as in the paper, so that also a short search ends with small squares; False for the schedule of 10,000
    queries, as in AutoAttack.
    """

    eps: float
    queries: int = 5000
    norm: str = "linf"
    p_init: float = 0.8
    loss: str = "margin"
    rescale_schedule: bool = True

    norms = ("linf", "l2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.p_init) and 0 < self.p_init <= 1):
            raise ValueError(f"p_init must be a number in (0, 1], got {self.p_init!r}")

    def perturb(self, batch: Batch) -> Array:
        xp, shape = array_module(batch.x), image_shape(batch.x)
        start, propose = (_stripes, _square) if self.norm == "linf" else (_tiles, _two_squares)
        rest, rows = batch, xp.arange(len(batch.x))  # the examples that are left
        best = points = rest.ball.project(start(rest, shape).reshape(rest.x.shape))
        values = xp.full(len(rows), -math.inf)
        for query in range(1, self.queries + 1):
            if query % BLOCK == 1:
                numbers = move(rest.streams.uniform((BLOCK, 5 + shape[0])), like=rest.x)
            now = objective(self.loss)(Tensor(rest.consider(points, iteration=True)), rest.y, rest.target).data
            better = now > values
            best, values = xp.where(column(better, best), points, best), xp.where(better, now, values)
            left = rows_of(~rest.succeeded)
            if len(left) < len(rows):
                batch[rows] = rest
                rows, best, values, numbers = (array[left] for array in (rows, best, values, numbers))
                rest = batch[rows]
                if not len(rows):
                    break
            points = propose(rest, best.reshape(-1, *shape), numbers[:, query % BLOCK], self._sides(query, *shape[1:]))
            points = rest.ball.project(points.reshape(rest.x.shape))
        batch[rows] = rest
        return batch.best

    def _sides(self, query: int, height: int, width: int) -> tuple[int, int]:
        """The sides of the squares, which have a part p of all pixels; p is halved on schedule. For l2 they are odd."""
        turn = query * 10_000 / self.queries if self.rescale_schedule else query
        side = round(math.sqrt(self.p_init / 2 ** sum(turn > halving for halving in HALVINGS) * height * width))
        side = max(1, side) if self.norm == "linf" else max(3, side) | 1
        return min(side, height), min(side, width)


def _stripes(batch: Batch, shape: tuple[int, int, int]) -> Array:
    """The start for linf: each column of each channel at +eps or at -eps."""
    up = move(batch.streams.uniform((shape[0], 1, shape[2])), like=batch.x) < 0.5
    return array_module(up).where(up, *(end.reshape(-1, *shape) for end in (batch.ball.high, batch.ball.low)))


def _square(batch: Batch, best: Array, numbers: Array, sides: tuple[int, int]) -> Array:
    """Algorithm 2: a square at +eps or -eps in each channel; if it is so already, with the opposite sign."""
    xp, square = array_module(best), window(numbers[:, :2], sides, best.shape)
    low, high = (end.reshape(best.shape)[square] for end in (batch.ball.low, batch.ball.high))
    up, points = numbers[:, 5:, None, None] < 0.5, arranged(best)
    idle = (xp.where(up, high, low) == best[square]).all(axis=(1, 2, 3), keepdims=True)
    points[square] = xp.where(up != idle, high, low)
    return points


def _tiles(batch: Batch, shape: tuple[int, int, int]) -> Array:
    """The start for l2: a grid of bumps, five by five if the image is large enough."""
    (channels, height, width), a, b = shape, max(1, shape[1] // 5), max(1, shape[2] // 5)
    nu = array_module(batch.x).zeros((len(batch.x), *shape))
    for top in range(height % a // 2, height - a + 1, a):
        for left in range(width % b // 2, width - b + 1, b):
            nu[:, :, top:top + a, left:left + b] = _bumps(move(batch.streams.uniform((1 + channels,)), nu), (a, b))
    return batch.x.reshape(nu.shape) + batch.ball.eps * batch.ball.steepest(nu)


def _two_squares(batch: Batch, best: Array, numbers: Array, sides: tuple[int, int]) -> Array:
    """Algorithm 3: add a bump to the first square, with the budget of two squares and the unused budget."""

    def norm(values: Array) -> Array:
        return (values * values).sum(axis=(2, 3), keepdims=True) ** 0.5  # (n, C, 1, 1)

    xp, x = array_module(best), batch.x.reshape(best.shape)
    nu = best.astype(np.float64) - x  # line 1
    first, second = (window(numbers[:, k:k + 2], sides, best.shape) for k in (0, 2))  # lines 2 and 3
    unused = xp.maximum(batch.ball.eps * batch.ball.eps - (nu * nu).sum(axis=(1, 2, 3), keepdims=True), 0)  # line 4
    there, nu[first] = nu[first], 0  # so that what the squares share counts once
    available = norm(there) ** 2 + norm(nu[second]) ** 2 + unused / best.shape[1]  # line 8
    nu[second] = 0
    bump = _bumps(numbers[:, 4:], sides) + there / xp.maximum(norm(there), 1e-300)  # line 7
    nu[first] = bump / xp.maximum(norm(bump), 1e-300) * available**0.5  # line 9
    return x + nu


def _bumps(numbers: Array, sides: tuple[int, int]) -> Array:
    """eta of eq. 2, (n, C, *sides); numbers (n, 1 + C) choose its orientation, and the sign in each channel."""
    upright, lying = (move(eta, like=numbers) for eta in (_eta(*sides), _eta(*sides[::-1]).T))
    where, first = array_module(numbers).where, numbers[:, :, None, None] < 0.5
    return where(first[:, :1], upright, lying) * where(first[:, 1:], 1, -1)


def _eta(height: int, width: int) -> np.ndarray:
    """A positive bump above a negative one; each decays from its centre, as sums of 1/k² in the maximum norm."""
    halves = []
    for sign, rows in (1, height // 2), (-1, height - height // 2):
        distance = np.maximum(abs(np.arange(rows) - rows // 2)[:, None], abs(np.arange(width) - width // 2))
        falling = (1 / np.arange(max(rows, width) // 2 + 1, 0, -1.0) ** 2).cumsum()[::-1]
        halves.append(sign * falling[distance] / np.linalg.norm(falling[distance]))
    return np.concatenate(halves) / math.hypot(*map(np.linalg.norm, halves))
