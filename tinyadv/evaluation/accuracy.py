"""Accuracy, clean and under attack, as a fraction in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from tinyadv.attacks import Attack
from tinyadv.attacks.base.arguments import check_target, whole_pixels
from tinyadv.backend import Array
from tinyadv.data import Dataset
from tinyadv.data.loader import check_dataset
from tinyadv.driver import classes, logits
from tinyadv.ops.loss import check_labels
from tinyadv.random import Streams
from tinyadv.spellings import spelled


def predict(model: Callable, images: Any, *, seed: int | Streams = 0, batch_size: int | None = None,
            workers: int | None = None, executor: Executor | None = None) -> Array:
    """The predicted class of each image (N, C, H, W), with the model in evaluation mode: (N,) int64, -1 for NaN.

    They are an array where the images are. seed: of what random layers draw, for each image by itself; or a Streams
    object. executor: see `Attack.run`.
    """
    return classes(logits(model, images, seed=seed, batch_size=batch_size, workers=workers, executor=executor))


@spelled
def accuracy(model: Callable, dataset: Dataset, **options: Any) -> float:
    """The fraction of the images that the model classifies correctly; options are those of `predict`.

    Raises ValueError for labels that are no class of the model.
    """
    check(dataset)
    return float((predictions(model, dataset, "accuracy", **options) == dataset.labels).mean())


def predictions(model: Callable, dataset: Dataset, operation: str, **options: Any) -> np.ndarray:
    """As `predict`, for a data set; ValueError, which names the operation, for labels that are no class."""
    found = logits(model, dataset.images, **options)
    predicted = classes(found)
    check_labels(dataset.labels, found.shape[1], operation)
    return predicted


@spelled
def robust_accuracy(model: Callable, attack: Attack, dataset: Dataset, *, seed: int = 0, **options: Any) -> float:
    """The fraction of the images that the model classifies correctly before and after the attack.

    options: those of `Attack.run`, such as workers, executor, batch_size or progress.
    """
    check(dataset, attack)
    result = attack.run(model, dataset.images, dataset.labels, seed=seed, skip_misclassified=True, **options)
    return float(result.robust.mean())


@spelled
def epsilon_curve(model: Callable, attack: Attack, dataset: Dataset, epsilons: Sequence[float], *, seed: int = 0,
                  target: Any = None, return_images: bool = False, **options: Any) -> Any:
    """{eps: robust accuracy} for each eps, in the order given; all else is as in `robust_accuracy`.

    An adversarial image within one budget is also within every larger one. So the budgets are tried from the smallest
    up, each only on the images that are still classified correctly, and the curve never rises.
    attack: one that has an eps, or is made of such attacks. Raises ValueError for others, before anything runs.
    return_images: return a pair: this dict, and {eps: images like dataset.images}. An image that the model gets wrong
        without an attack stays unchanged; for one that a smaller eps has broken, the image of that eps is returned.
    """
    check(dataset, attack)
    epsilons = _listed(epsilons)
    if attack.minimum_norm:
        raise ValueError(f"attack must have an eps to vary, got {attack}, a minimum-norm attack: use security_curve, "
                         "which needs only one run of it")
    if "state" in options and len(epsilons) > 1:
        raise ValueError("state must be the file of one run, and each eps is one: call epsilon_curve for one eps at a "
                         "time, each with a file of its own")
    if target is not None:
        target = check_target(target, "target", dataset.images)
    largest = max(map(float, epsilons), default=0.0)
    attacks = {float(eps): attack.with_eps(whole_pixels(float(eps), attack.norm, largest))
               for eps in epsilons}  # all checked before the first runs
    robust, x_adv = np.arange(len(dataset)), dataset.images.copy()
    curve: dict[float, float] = {}
    found: dict[float, np.ndarray] = {}
    for eps in sorted(attacks):
        left, goal = dataset[robust], None if target is None else target[robust]
        result = attacks[eps].run(model, left.images, left.labels, target=goal, seed=Streams(seed, robust),
                                  skip_misclassified=True, **options)
        x_adv[robust] = result.x_adv
        robust = robust[result.robust]
        curve[eps] = len(robust) / len(dataset)
        if return_images:
            found[eps] = x_adv.copy()
    curve = {eps: curve[eps] for eps in attacks}
    return (curve, {eps: found[eps] for eps in attacks}) if return_images else curve


@spelled
def security_curve(model: Callable, attack: Attack, dataset: Dataset, epsilons: Sequence[float], *, seed: int = 0,
                   **options: Any) -> dict[float, float]:
    """{eps: robust accuracy} for each eps, from one run of a minimum-norm attack.

    The security evaluation curve of Biggio and Roli (2018, arXiv:1712.03141): an image counts at eps if it is
    classified correctly and its adversarial image, if one was found, is further away than eps. options: those of
    `Attack.run`. Raises ValueError for an attack with a fixed budget, and for an eps that is not a number >= 0.
    """
    check(dataset, attack)
    epsilons = _listed(epsilons)
    if not attack.minimum_norm:
        raise ValueError(f"attack must be a minimum-norm attack, got {attack}, whose budget is fixed: "
                         "use epsilon_curve, which runs it once for each eps")
    if not all(eps >= 0 for eps in epsilons):
        raise ValueError(f"epsilons must be numbers >= 0, in the units of the data, got {epsilons}")
    result = attack.run(model, dataset.images, dataset.labels, seed=seed, skip_misclassified=True, **options)
    right = result.predictions_clean == dataset.labels
    return {float(eps): float((result.robust | right & (result.distances > eps)).mean()) for eps in epsilons}


def _listed(epsilons: Any) -> list[float]:
    if np.isscalar(epsilons):
        raise TypeError(f"epsilons must be a list of budgets, such as [0.1, 0.2], got {epsilons!r}")
    return list(epsilons)


def check(dataset: Any, attack: Any = None) -> None:
    """Raise TypeError or ValueError unless the arguments are what they should be, and there are images."""
    if isinstance(dataset, Attack):
        raise TypeError(f"dataset must be a data.Dataset, got {type(dataset).__name__}: the attack comes before it")
    check_dataset(dataset)
    if attack is not None and not isinstance(attack, Attack):
        raise TypeError(f"attack must be an attack, such as attacks.FGSM(eps=0.3), got {attack!r}")
