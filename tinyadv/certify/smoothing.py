"""Randomised smoothing: Gaussian noise on the image gives a certificate in l2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from tinyadv.backend import Array
from tinyadv.certify.sampling import Sampled
from tinyadv.random import Streams
from tinyadv.shapes import check_positive, check_within
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Smoothing(Sampled):
    """The class that the base model gives most often to x + N(0, sigma² I), certified in l2.

    Cohen et al. 2019, arXiv:1902.02918, theorem 1: if the class has a share of at least p > 1/2, no image within
    the l2 distance sigma Φ^-1(p) has another class. sigma is in the units of the data; noisy images are not clipped.
    Train the base model with `augment`.
    """

    sigma: float

    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("sigma", self.sigma)
        object.__setattr__(self, "sigma", float(self.sigma))  # with a float32, the radius would be rounded to one

    def draw(self, shape: tuple[int, ...], streams: Streams) -> np.ndarray:
        return (self.sigma * streams.normal(shape)).astype(np.float32)

    def show(self, x: Tensor, drawn: Array) -> Tensor:
        return x + drawn

    def radius(self, share: float, shape: tuple[int, ...], other: float | None = None) -> float:
        check_within("share", share, 0, 1)
        top, second = (quantile(each) for each in (share, 1 - share if other is None else other))
        return max(0.0, self.sigma / 2 * (top - second))


def quantile(p: float) -> float:
    """Φ^-1(p), for p in [0, 1]."""
    return NormalDist().inv_cdf(p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)
