"""Training for votes: random versions of an image should not only be classified well, but alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array
from tinyadv.certify.sampling import Sampled
from tinyadv.shapes import check_not_negative
from tinyadv.tensor import Tensor
from tinyadv.training.methods import Method, Scene


@dataclass(frozen=True)
class Consistent(Method):
    """The cross entropy of two random versions of each image, and what keeps their predictions together.

    weight * (KL(m || p) + KL(m || q)) / 2 + entropy * H(m), where p and q are the predicted distributions at the two
    versions, m = (p + q) / 2 and H is the entropy: Jeong and Shin 2020, arXiv:2006.04062. The radius of a vote
    grows with its lead, so images on which the versions disagree cost more than others gain. In the authors'
    results for smoothing on MNIST, weight is 10 for sigma 0.25, and 5 for 0.5. A step costs two to
    three times as much as one of standard training.

    votes: how images vary, such as certify.Smoothing(0.5). This method varies the images itself: `fit` gets no
    augment=votes.augment, which would vary them twice. Other augmentation comes first.
    """

    votes: Sampled
    weight: float = 5.0
    entropy: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.votes, Sampled):
            raise ValueError(f"votes must be a certificate by votes, such as Smoothing(0.5); got {self.votes!r}")
        object.__setattr__(self, "votes", self.votes.variation)  # the numbers of samples have no part in training
        for name in ("weight", "entropy"):
            check_not_negative(name, getattr(self, name))

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return tuple(self.votes.vary(images, scene.streams) for _ in range(2))

    def losses(self, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        (first, one), (second, other) = (super(Consistent, self).losses(model, labels, each) for each in x)
        mean = (ops.softmax(one) + ops.softmax(other)) / 2
        entropy = -ops.sum(mean * ops.log(mean + np.finfo(mean.dtype).tiny), axis=1)
        apart = -ops.sum(mean * (ops.log_softmax(one) + ops.log_softmax(other)), axis=1) / 2 - entropy
        return (first + second) / 2 + self.weight * apart + self.entropy * entropy, one
