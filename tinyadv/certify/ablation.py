"""Randomised ablation: a few pixels, all others hidden, give a certificate in l0, the number of changed pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tinyadv.attacks.base.parameters import to_count
from tinyadv.backend import Array
from tinyadv.certify.hiding import hide
from tinyadv.certify.sampling import Sampled
from tinyadv.random import Streams
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Ablation(Sampled):
    """The class that the base model gives most often to `keep` random pixels of x, certified in l0.

    Levine and Feizi 2020, arXiv:1911.09272, theorem 1: an image that differs in r of d pixels looks the same to the
    base model, unless one of these r is kept; if the class has a share of at least p, and p less the probability of
    that is above 1/2, it wins for that image, too. The base model gets 2 C channels (`certify.hidden`). The pixels of
    an image are drawn without replacement, those of different samples independently.
    """

    keep: int

    norm: ClassVar[str] = "l0"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", to_count("keep", self.keep))

    def draw(self, shape: tuple[int, ...], streams: Streams) -> np.ndarray:
        """(N, 1, H, W), float32: 1 at the pixels that are kept."""
        pixels = shape[-2] * shape[-1]
        if self.keep > pixels:
            raise ValueError(f"keep must be at most the {pixels} pixels of an image, got {self.keep}")
        order = streams.uniform((pixels,))  # the `keep` smallest of d random numbers: each set is as likely
        kept = np.zeros((len(streams), pixels), np.float32)
        np.put_along_axis(kept, np.argpartition(order, self.keep - 1, axis=1)[:, :self.keep], 1, axis=1)
        return kept.reshape(-1, 1, *shape[-2:])

    def show(self, x: Tensor, drawn: Array) -> Tensor:
        return hide(x, drawn)

    def radius(self, share: float, shape: tuple[int, ...]) -> float:
        pixels, radius = shape[-2] * shape[-1], 0
        while share - met(radius + 1, pixels, self.keep) > 0.5:
            radius += 1
        return float(radius)


def met(changed: int, pixels: int, keep: int) -> float:
    """The probability that a sample keeps one or more of the changed pixels; exact but for the last rounding."""
    whole = math.comb(pixels, keep)
    return (whole - math.comb(pixels - changed, keep)) / whole
