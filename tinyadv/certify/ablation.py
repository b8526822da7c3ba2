"""Randomised ablation: a few pixels, all others hidden, give a certificate in l0, the number of changed pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyadv.backend import Array
from tinyadv.certify.binomial import clopper_pearson
from tinyadv.certify.hiding import hide
from tinyadv.certify.sampling import Sampled
from tinyadv.random import Streams
from tinyadv.shapes import check_within, to_count
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Ablation(Sampled):
    """The class that the base model gives most often to `keep` random pixels of x, certified in l0.

    Levine and Feizi 2020, arXiv:1911.09272, theorem 1: an image that differs in r of d pixels looks the same to the
    base model, unless one of these r is kept. So no share changes by more than the probability of that, Δ(r), and the
    class wins for that image, too, if it leads by more than 2 Δ(r). They bound the lead by 2 p - 1, from the share p of
    the class alone; the shares of all classes mostly prove more (Jia et al. 2022, arXiv:2011.07633). The base model
    gets 2 C channels (`certify.hidden`). The pixels of an image are drawn without replacement, those of different
    samples independently.
    """

    keep: int

    norm: ClassVar[str] = "l0"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", to_count("keep", self.keep))

    def draw(self, shape: tuple[int, ...], streams: Streams) -> np.ndarray:
        """(N, 1, H, W), float32: 1 at the pixels that are kept."""
        pixels = self._pixels(shape)
        order = streams.uniform((pixels,))  # the `keep` smallest of d random numbers: each set is as likely
        kept = np.zeros((len(streams), pixels), np.float32)
        np.put_along_axis(kept, np.argpartition(order, self.keep - 1, axis=1)[:, :self.keep], 1, axis=1)
        return kept.reshape(-1, 1, *shape[-2:])

    def show(self, x: Tensor, drawn: Array) -> Tensor:
        return hide(x, drawn)

    def shares(self, votes: np.ndarray, top: int) -> tuple[float, float]:
        if len(votes) <= 2:  # the bounds are of the same number
            return super().shares(votes, top)
        alpha, others = self.alpha / len(votes), int(np.delete(votes, top).max())  # all hold at once (Bonferroni)
        least = clopper_pearson(int(votes[top]), self.samples, alpha)
        return least, min(1 - clopper_pearson(self.samples - others, self.samples, alpha), 1 - least)

    def radius(self, share: float, shape: tuple[int, ...], other: float | None = None) -> float:
        check_within("share", share, 0, 1)
        pixels, radius, lead = self._pixels(shape), 0, share - (1 - share if other is None else other)
        while lead > 2 * met(radius + 1, pixels, self.keep):
            radius += 1
        return float(radius)

    def _pixels(self, shape: tuple[int, ...]) -> int:
        if self.keep > (pixels := shape[-2] * shape[-1]):
            raise ValueError(f"keep must be at most the {pixels} pixels of an image, got {self.keep}")
        return pixels


def met(changed: int, pixels: int, keep: int) -> float:
    """The probability that a sample keeps one or more of the changed pixels; exact but for the last rounding."""
    whole = math.comb(pixels, keep)
    return (whole - math.comb(pixels - changed, keep)) / whole
