"""Training for a certificate: the loss is an upper bound of the loss of every image within the budget.

Interval bound propagation (IBP): Gowal et al. 2018, arXiv:1810.12715, with the short warm-up of Shi et al. 2021,
arXiv:2103.17268. The certificates themselves are in tinyadv/certify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.attacks import PGD
from tinyadv.attacks.base.parameters import check_bounds
from tinyadv.backend import Array, array_module
from tinyadv.certify import Interval, certified_accuracy, crown_worst
from tinyadv.data import Dataset
from tinyadv.nn import Module
from tinyadv.shapes import check_not_negative, check_within, is_number, to_count
from tinyadv.tensor import Tensor
from tinyadv.training.methods import Method, Scene, attacked
from tinyadv.training.update import Update

TOLERANCE = 0.5  # of the two regularisers: ratios above it cost nothing


@dataclass(frozen=True)
class Certified(Method):
    """The cross entropy of the worst logits within linf eps, as interval arithmetic bounds them.

    clean_weight * CE(f(x), y) + (1 - clean_weight) * CE(worst logits, y): Gowal et al. 2018, eq. 12. There clean_weight
    falls from 1 to 0.5; here it stays as it is. Shi et al. 2021 take 0, and let eps grow faster: give `fit` an
    eps_schedule, such as ramp(0.3). Train with an eps above the one to certify: 0.4 for 0.3 on MNIST.

    certify_at: the eps of the certified accuracy that `fit` measures on the validation set; eps unless given.
    warm_up: the weight of the regularisers of Shi et al. (eq. 7 and 9) while eps grows: the mean radius should not grow
    from layer to layer, and as many units be surely active as surely inactive. It falls to 0 as eps reaches its final
    value. The network should have batch normalisation, and weights of init="ibp".
    The statistics of batch normalisation are those of the clean images if there is a clean weight. Without one, they
    are those of the centres of the boxes, so that nothing but the boxes is computed: a step takes a third less time.
    """

    eps: float
    clean_weight: float = 0.0
    warm_up: float = 0.5
    certify_at: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eps", "warm_up"):
            check_not_negative(name, getattr(self, name))
        check_not_negative("certify_at", self.eps if self.certify_at is None else self.certify_at)
        check_within("clean_weight", self.clean_weight, 0, 1)
        check_bounds(self.bounds)
        if self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 for a certificate, got {self.label_smoothing!r}")

    def certified(self, model: Module, validation: Dataset) -> float | None:
        eps = self.eps if self.certify_at is None else self.certify_at
        return float(certified_accuracy(model, validation, eps, bounds=self.bounds))

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        inputs = self.inputs(scene, images, labels)
        return scene.update(inputs, labels, partial(self.bounded, scene.strength))

    def bounded(self, strength: float, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (n,) with that factor of eps, and the logits (n, K) at one of the points."""
        box = self.box(strength, *x)
        z = model(box)
        losses = self.mixed(self.worst(strength, z, labels), z.one, labels)
        if self.warm_up and strength < 1:
            losses = losses + self.warm_up * (1 - strength) * balance(z, box)
        return losses, z.one

    def box(self, strength: float, *x: Tensor) -> Interval:
        """The points within the budget. The last of the inputs flows along where the loss needs it."""
        value = x[-1] if self.clean_weight else None
        return Interval.around(x[0].data, self.reach * strength, self.bounds, value)

    @property
    def reach(self) -> float:
        """The radius of the boxes."""
        return self.eps

    def shown(self, strength: float, *x: Tensor) -> tuple[Tensor, ...]:
        return (self.box(strength, *x),)

    def worst(self, strength: float, z: Interval, labels: Array) -> Tensor:
        """The worst logits (n, K) of the box, with that factor of eps."""
        return z.worst(labels)

    def mixed(self, worst: Tensor, value: Tensor, labels: Array) -> Tensor:
        """The losses (n,), of the worst logits (n, K) and of those that flowed along."""
        losses = ops.cross_entropy(worst, labels, "none")
        if self.clean_weight:
            losses = (1 - self.clean_weight) * losses
            losses = losses + self.clean_weight * ops.cross_entropy(value, labels, "none")
        return losses


@dataclass(frozen=True)
class CROWNIBP(Certified):
    """While eps grows, mix linear bounds with the looser ones of interval arithmetic, whose weight rises to 1.

    Zhang et al. 2020, arXiv:1906.06316, eq. 8: beta * CROWN + (1 - beta) * IBP, where beta falls from 1 to 0 as eps
    rises to its final value. Until then a step costs several times a step of IBP, and more with more classes.
    """

    def worst(self, strength: float, z: Interval, labels: Array) -> Tensor:
        worst = z.worst(labels)
        return worst if strength == 1 else (1 - strength) * crown_worst(z, labels) + strength * worst


@dataclass(frozen=True)
class MTLIBP(Certified):
    """A weighted mean of two cross entropies: of the worst logits, and of attacked images instead of clean ones.

    De Palma et al. 2024, arXiv:2305.13991, eq. 7: their alpha is 1 - clean_weight. With few percent of the bound, it
    trades little clean accuracy for the certificate. The attack is theirs: one step of 10 eps from a random point.
    """

    clean_weight: float = 0.92

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        attack = PGD(self.eps, step_size=10 * self.eps or None, steps=1, bounds=self.bounds)
        return images, attacked(attack, scene, images, labels)


@dataclass(frozen=True)
class CCIBP(MTLIBP):
    """The cross entropy of a convex combination of the worst logits and those of attacked images.

    De Palma et al. 2024, eq. 6: their alpha is 1 - clean_weight.
    """

    clean_weight: float = 0.7

    def mixed(self, worst: Tensor, value: Tensor, labels: Array) -> Tensor:
        rows = array_module(labels).arange(len(labels))
        margins = value - value[rows, labels].reshape(-1, 1)
        return ops.cross_entropy((1 - self.clean_weight) * worst + self.clean_weight * margins, labels, "none")


@dataclass(frozen=True)
class SABR(Certified):
    """The bound of a small box around an adversarial image: Müller et al. 2023, arXiv:2210.04871, section 3.

    The image comes from PGD with `steps` steps within (1 - part) eps; the box around it has the radius part * eps, so
    it is within the budget. With part=1 this is IBP. clean_weight is that of the adversarial image, not the clean one.
    """

    part: float = 0.6
    steps: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.part) and 0 < self.part <= 1):
            raise ValueError(f"part must be a number in (0, 1], got {self.part!r}")
        object.__setattr__(self, "steps", to_count("steps", self.steps))

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        attack = PGD((1 - self.part) * self.eps, steps=self.steps, bounds=self.bounds)
        return (attacked(attack, scene, images, labels),)

    @property
    def reach(self) -> float:
        return self.part * self.eps


def balance(z: Interval, box: Interval) -> Tensor:
    """The regularisers of Shi et al. 2021, averaged over the ReLUs between the input box and the logits z: a scalar."""
    before = [each.origin.args[0] for each in z.steps() if each.origin and each.origin.operation is ops.relu]
    total: Any = 0.0  # a number lies in any memory
    for x in before:
        centre = x.centre
        active, inactive = x.low.data > 0, x.high.data < 0
        spread = (centre - centre.mean()) ** 2
        ratios = [box.radius.mean() / (x.radius.mean() + 1e-12)]
        for of_active, of_inactive in ((centre, -centre), (spread, spread)):
            a = (of_active * active.astype(x.dtype)).mean() + 1e-12
            b = (of_inactive * inactive.astype(x.dtype)).mean() + 1e-12
            ratios.append(ops.minimum(a / b, b / a))
        for ratio in ratios:
            total = total + ops.relu(TOLERANCE - ratio) * (1 / TOLERANCE)
    return total * (1 / max(1, len(before)))
