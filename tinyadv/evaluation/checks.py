"""Checks of an evaluation: signs of masked gradients, and of attacks that do not work.

Carlini et al. 2019, arXiv:1902.06705, section 3.1 and appendix; Athalye et al. 2018, arXiv:1802.00420, section 3.1;
Tramer et al. 2020, arXiv:2002.08347. A failed check does not mean that the model is weak. It means that its measured
robust accuracy cannot be trusted. If all checks pass, this is still no proof.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks import FGSM, PGD, Attack, Square
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset
from tinyadv.evaluation.accuracy import check, predictions
from tinyadv.evaluation.report import Check, Report
from tinyadv.spellings import spelled

SLACK = 0.05  # a comparison may fail by this fraction of the images, because attacks are random searches
DISAGREEMENT = 0.1  # at most this fraction of images may be broken from some random starts and not from others


@spelled
def sanity_checks(model: Callable, dataset: Dataset, *, eps: float, norm: str = "linf",
                  bounds: tuple[float, float] = (0.0, 1.0), steps: int = 20, seed: int = 0, **options: Any) -> Report:
    """Attack the images that the model gets right with several attacks, of which some must be stronger than others.

    All figures are fractions of these images, or differences of such fractions. eps, norm, bounds: those of the
    evaluation to check. steps: the number of PGD steps. options: those of `Attack.run`. It costs about 12 * steps
    gradients an image, and up to 10 * steps queries by Square. If any logits are NaN, there is one more check, which
    fails. Raises ValueError if eps is 0, a label is no class, or the model gets no image right.
    """
    check(dataset)
    if eps == 0:
        raise ValueError("eps must be above 0: without a budget there is nothing to check")
    shards = driver.sharding(options)
    predicted = predictions(model, dataset, "sanity_checks", **shards)
    right = dataset[predicted == dataset.labels]
    if not len(right):
        lost = (predicted < 0).sum()
        raise ValueError(f"the model gets none of the {len(dataset)} images of {dataset.name} right"
                         + f", and at {lost} its logits are NaN" * bool(lost) + ": nothing to attack")
    x, y = right.images, right.labels
    attacked = np.zeros(len(right), bool)  # whether an attack has moved the image to NaN logits

    def left(attack: Attack, seed: int = seed) -> np.ndarray:
        result = attack.run(model, x, y, seed=seed, **options)
        attacked[:] |= result.predictions < 0
        return ~result.success

    def pgd(eps: float = eps, steps: int = steps, norm: str = norm) -> PGD:
        return PGD(eps=eps, steps=steps, norm=norm, bounds=bounds)

    single, iterated = left(FGSM(eps=eps, norm=norm, bounds=bounds)).mean(), left(pgd())
    smaller, larger, longer = (left(attack).mean() for attack in (
        pgd().scaled(0.5), pgd(2 * eps), pgd(steps=5 * steps)))
    unbounded = left(pgd(bounds[1] - bounds[0], 2 * steps, "linf")).mean()
    starts = np.array([iterated, *(left(pgd(), seed + k) for k in (1, 2))])
    differing = (starts.any(axis=0) & ~starts.all(axis=0)).mean()
    robust = iterated.mean()
    rise = max(robust - smaller, larger - robust)
    checks = [
        _gradients(model, x, y, shards),
        Check("iterated beats single-step", robust <= single + SLACK, robust - single,
              f"PGD leaves {robust:.3f} right, FGSM {single:.3f}: many steps should break more images than one"),
        Check("a larger eps never helps", rise <= SLACK, rise,
              f"eps/2, eps and 2 eps leave {smaller:.3f}, {robust:.3f} and {larger:.3f} right"),
        Check("unbounded reaches zero", unbounded == 0, unbounded,
              "is the fraction of images still right with a budget that allows every image"),
        Check("more steps never help", longer <= robust + SLACK, longer - robust,
              f"{steps} steps leave {robust:.3f} right, {5 * steps} steps {longer:.3f}"),
        Check("random starts agree", differing <= DISAGREEMENT, differing,
              "is the fraction of images broken from some of three random starts, but not from all"),
    ]
    if norm in Square.norms:
        blind = left(Square(eps=eps, norm=norm, bounds=bounds, queries=10 * steps)).mean()
        checks.append(Check("white box beats black box", robust <= blind + SLACK, robust - blind,
                            f"PGD leaves {robust:.3f} right, Square, which sees no gradient, {blind:.3f}"))
    if lost := (predicted < 0).sum() + attacked.sum():
        checks.append(Check("logits are numbers", False, lost, "images have NaN logits, "
                            f"{(predicted < 0).sum()} of {len(dataset)} as they are, {attacked.sum()} of {len(right)} "
                            "after an attack; such a prediction is neither right nor a success"))
    checks = [Check(each.name, bool(each.passed), float(each.figure), each.explanation) for each in checks]
    return Report(f"{len(right)} images of {dataset.name}, {norm} eps={eps:.4g}", tuple(checks))


def _gradients(model: Callable, x: Array, y: np.ndarray, shards: dict[str, Any]) -> Check:
    """Check that the cross entropy has usable gradients, and not the same one for all images."""
    rows = to_host(driver.input_gradients(model, x, y, **shards)).reshape(len(x), -1)
    lost = ~np.isfinite(rows).all(axis=1)
    useless = (lost | (rows == 0).all(axis=1)).mean()
    if not useless and len(rows) > 1 and (rows == rows[0]).all():
        return Check("gradients", False, 1.0, "is the fraction of images with the same gradient")
    return Check("gradients", useless <= SLACK, useless,
                 "is the fraction of images whose gradient is 0 or has NaN or infinite elements"
                 + f"; {lost.sum()} images have such elements" * bool(lost.any()))
