"""A patch: the attack may change one small rectangle of an image, as much as it likes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.base.parameters import check_step_size
from tinyadv.attacks.base.window import check_sides, image_shape, pasted, window
from tinyadv.backend import Array, array_module, move, rows_of
from tinyadv.shapes import to_count
from tinyadv.tensor import Tensor

RANKED = 10  # the places that places="all" attacks, the best one first


@dataclass(frozen=True)
class Patch(WhiteBox):
    """Any change within one rectangle of each image, and none outside of it: x' = (1 - m) x + m p, m = 1 inside.

    Steps along the sign of the gradient inside the rectangle, from uniform random values (Chiang et al. 2020,
    arXiv:2003.06693). There is no eps: p may have all values within the bounds. The rectangle is the same in all
    channels. Each of its (H - h + 1)(W - w + 1) places can be drawn, the last row and column included.

    size: (h, w) of the rectangle, in pixels; a side longer than the image's is cut to that.
    steps: the gradients for each place; step_size: 1.25 * (high - low) / steps unless given.
    places: "random", one for each image and restart; or "all". Then the first run goes on with the images that a random
        place leaves unbroken: a grey patch at every place, one query each, ranks the places, and the best ten are
        attacked from there. So "all" breaks each image that "random" breaks. Or (row, column) of the upper left pixel.
    loss: "margin"; "lavan", the logit of the target minus that of y (Karmon et al. 2018, arXiv:1801.02608), which is
        the margin if there is no target; or "cross_entropy", as for `universal_patch`.
    """

    size: tuple[int, int] = (5, 5)
    step_size: float | None = None
    steps: int = 40
    places: str | tuple[int, int] = "random"
    restarts: int = 1
    loss: str = "margin"

    norm, norms = "l0", ("l0",)  # distances are the numbers of pixels that have changed

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "size", check_sides(self.size))
        check_step_size(self.step_size, "1.25 * (high - low) / steps")
        if isinstance(self.places, tuple) and len(self.places) == 2:
            object.__setattr__(self, "places", tuple(to_count("places", place, 0) for place in self.places))
        elif not (isinstance(self.places, str) and self.places in ("random", "all")):
            raise ValueError(f'places must be "random" or "all", or a pixel (row, column), got {self.places!r}')

    def perturb(self, batch: Batch) -> Array:
        first, (channels, *image), (low, high) = batch.best is None, image_shape(batch.x), self.bounds
        sides = min(self.size[0], image[0]), min(self.size[1], image[1])
        counts = [n - side + 1 for n, side in zip(image, sides, strict=True)]
        corners, start = batch.streams.uniform((2,)), batch.streams.uniform((channels, *sides), low, high)
        if isinstance(self.places, tuple):
            if any(place >= count for place, count in zip(self.places, counts, strict=True)):
                raise ValueError(f"places must be below {tuple(counts)}, where the patch fits, got {self.places}")
            corners[:] = (np.array(self.places) + 0.5) / counts
        last = self._climb(batch, sides, *(move(array, like=batch.x) for array in (corners, start)))
        if self.places == "all" and first:  # a later run would rank them in the same way
            batch.consider(last)
            left = rows_of(~batch.succeeded)
            if len(left):
                rest = batch[left]
                self._best_places(rest, sides, counts)
                batch[left] = rest
            last = batch.best
        return last

    def _climb(self, batch: Batch, sides: tuple[int, int], corners: Array, patch: Array | float) -> Array:
        """The last points (n, ...) of the steps from a patch (n, C, *sides) with its corner (n, 2)."""
        xp, shape, (low, high) = array_module(batch.x), (len(batch.x), *image_shape(batch.x)), self.bounds
        there, step_size = window(corners, sides, shape), self.step_size or 1.25 * (high - low) / self.steps
        for _ in range(self.steps):
            slope = xp.sign(batch.gradient(pasted(batch.x, patch, there)).reshape(shape)[there])
            patch = xp.clip(patch + step_size * slope, low, high)
        return pasted(batch.x, patch, there)

    def _best_places(self, batch: Batch, sides: tuple[int, int], places: list[int]) -> None:
        """Attack the examples at their best-ranked places in turn, until they are broken."""
        xp, shape, grey = array_module(batch.x), (len(batch.x), *image_shape(batch.x)), sum(self.bounds) / 2
        corners = move((np.indices(places).reshape(2, -1).T + 0.5) / places, like=batch.x)
        values: list[Array] = []
        for corner in corners:
            there = window(xp.broadcast_to(corner, (len(batch.x), 2)), sides, shape)
            logits = batch.consider(pasted(batch.x, grey, there), iteration=True)
            found = objective(self.loss)(Tensor(logits), batch.y, batch.target).data
            values.append(xp.where(found == found, found, -math.inf))  # NaN is the worst loss
        ranking = xp.argsort(-xp.stack(values, axis=1), axis=1, kind="stable")
        for rank in range(min(RANKED, len(corners))):
            left = rows_of(~batch.succeeded)
            if not len(left):
                break
            rest = batch[left]
            rest.consider(self._climb(rest, sides, corners[ranking[left, rank]], grey))
            batch[left] = rest
