"""Layers that draw random numbers, and where the numbers come from."""

from __future__ import annotations

import math

import numpy as np

from tinyadv import ops
from tinyadv.backend import move
from tinyadv.nn.module import Module, array_of
from tinyadv.ops.movement import arranged
from tinyadv.parallel import all_reduce, first_part, part_index
from tinyadv.random import Streams, check_seed, in_hand
from tinyadv.shapes import is_number
from tinyadv.tensor import Tensor


class Random(Module):
    """The base class of layers that draw random numbers, which nothing but a seed decides.

    seed: of what is drawn outside attacks and evaluations, as in training. Without one, `training.fit` gives the layer
    one that follows from the seed of the run, and elsewhere a fresh one is drawn. ValueError unless it is in
    [0, 2**64). calls: the number of those draws.
    """

    _unseeded = False

    def __init__(self, seed: int | None = None):
        self._unseeded = seed is None
        self.seed, self.calls = int(np.random.default_rng().integers(2**32)) if seed is None else check_seed(seed), 0

    def count(self) -> int:
        """The number of this call, from 0; a batch that is computed in parts makes one call.

        ValueError where nothing may be drawn, as while bounds are computed.
        """
        if (drawn := in_hand()) is not None:
            len(drawn)  # an error if these are streams that no layer may draw from
        (call,) = all_reduce(self.calls if part_index() == 0 else 0)  # another part may have counted on already
        if first_part():  # once for the whole batch
            self.calls += 1
        return call

    def streams(self, x: Tensor) -> Streams:
        """The random streams of the examples of x (N, ...).

        In attacks and evaluations they are those of the examples in hand: what example i draws depends on their seed,
        on i and on the number of its forward pass, and not on the batch or the threads. Elsewhere it depends on the
        layer's seed, the number of the call, the part of the batch, and the place in that part.
        """
        drawn = in_hand()
        if drawn is None:
            first = part_index() << 32
            return Streams(self.seed, range(first, first + len(x))).of_pass(self.count())
        if len(drawn) != len(x):
            raise ValueError(f"{type(self).__name__} must get the examples in hand, {len(drawn)}, got {len(x)}: "
                             "for several draws of each, call it once for each draw")
        return drawn


class Dropout(Random):
    """In training mode zeroes each element with probability p and scales the others by 1 / (1 - p).

    Srivastava et al. 2014. The mask of the n-th call depends only on (seed, n) and, where a batch is computed in
    parts, on the part. seed: see `Random`.
    """

    def __init__(self, p: float = 0.5, seed: int | None = None):
        if not (is_number(p) and 0 <= p < 1):
            raise ValueError(f"p must be a probability in [0, 1), got {p!r}")
        self.p = float(p)  # a number of NumPy would make float64 of float32
        super().__init__(seed)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        rng = np.random.default_rng((self.seed, self.count(), part_index()))
        mask = arranged(rng.random(x.shape, np.float32) >= self.p).astype(x.dtype) / (1 - self.p)
        return ops.multiply(x, move(mask, like=array_of(x)))


class GaussianNoise(Random):
    """Adds normal noise of standard deviation sigma to each element, in training mode.

    sigma: in the units of what the layer is given, which behind a convolution are not those of the images.
    at_test: whether it also adds noise in evaluation mode. Then it is a random defence: attack it with `eot=` (Athalye,
    Carlini and Wagner 2018, arXiv:1802.00420, section 4.2). Otherwise it is only a regulariser.
    seed: see `Random`.
    """

    def __init__(self, sigma: float, at_test: bool = False, seed: int | None = None):
        if not (is_number(sigma) and 0 <= sigma < math.inf):
            raise ValueError(f"sigma must be a number >= 0, in the units of the layer's input, got {sigma!r}")
        self.sigma, self.at_test = float(sigma), at_test
        super().__init__(seed)

    def forward(self, x: Tensor) -> Tensor:
        if self.sigma == 0 or not (self.training or self.at_test):
            return x
        noise = arranged(self.streams(x).normal(x.shape[1:])).astype(x.dtype) * self.sigma
        return ops.add(x, move(noise, like=array_of(x)))
