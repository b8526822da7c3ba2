"""The fast gradient sign method, its l2 and l1 forms, and the one-step target class method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyadv import driver
from tinyadv.attacks.base.attack import WhiteBox
from tinyadv.attacks.base.batch import Batch
from tinyadv.backend import Array, on_its_device


@dataclass(frozen=True)
class FGSM(WhiteBox):
    """One step of length eps in the direction of steepest ascent of the loss.

    x_adv = x + eps * steepest(grad of the loss at x), clipped to the bounds: the sign of the gradient for "linf"
    (Goodfellow et al. 2015, arXiv:1412.6572, section 4), the gradient over its norm for "l2" (the fast gradient
    method). For "l1" the pixel with the largest |gradient| moves to its bound, then the next, until eps is spent. With
    `target=` the step lowers the loss of the target class: the one-step target class method (Kurakin et al. 2017,
    arXiv:1611.01236, eq. 3).

    eps: the budget, in the units of the data, >= 0; norm: "linf", "l2", "l1" or "l0".
    """

    eps: float
    norm: str = "linf"

    def perturb(self, batch: Batch) -> Array:
        return batch.ball.step(batch.x, batch.gradient(batch.x, candidate=False), self.eps)


@on_its_device
def least_likely_class(model: Callable, x: Array, **options: Any) -> Array:
    """For every image the class of the lowest logit, (N,) integers: the hardest target (Kurakin et al. 2017).

    options: seed, batch_size, workers and executor, as for an attack.
    """
    return driver.logits(model, x, **options).argmin(axis=1)
