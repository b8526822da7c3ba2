"""Accuracy, clean and under attack, as a fraction of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from tinyadv.attacks import Attack
from tinyadv.attacks.driver import logits
from tinyadv.data import Dataset


def predict(model: Callable, images: Any, *, batch_size: int | None = None, workers: int | None = None) -> np.ndarray:
    """The class of the highest logit of each image (N, C, H, W): (N,) int64, the model in evaluation mode."""
    return logits(model, images, batch_size=batch_size, workers=workers).argmax(axis=1)


def accuracy(model: Callable, dataset: Dataset, **options: Any) -> float:
    """The fraction of the images that the model classifies correctly; options are those of `predict`."""
    _check_not_empty(dataset)
    return float((predict(model, dataset.images, **options) == dataset.labels).mean())


def robust_accuracy(model: Callable, attack: Attack, dataset: Dataset, *, seed: int = 0, **options: Any) -> float:
    """The fraction of the images that the model classifies correctly before and after the attack.

    options: those of `Attack.run`, such as workers, batch_size or progress.
    """
    _check_not_empty(dataset)
    result = attack.run(model, dataset.images, dataset.labels, seed=seed, skip_misclassified=True, **options)
    return float((result.predictions == dataset.labels).mean())


def epsilon_curve(model: Callable, attack: Attack, dataset: Dataset, epsilons: Sequence[float], *, seed: int = 0,
                  **options: Any) -> dict[float, float]:
    """{eps: robust accuracy} of the attack with each eps in turn; all else is as in `robust_accuracy`."""
    if "eps" not in type(attack).__dataclass_fields__:
        raise ValueError(f"attack must have an eps to vary, got {attack}")
    attacks = [replace(cast(Any, attack), eps=float(eps)) for eps in epsilons]  # all checked before the first runs
    return {each.eps: robust_accuracy(model, each, dataset, seed=seed, **options) for each in attacks}


def _check_not_empty(dataset: Dataset) -> None:
    if not len(dataset):
        raise ValueError(f"an accuracy needs at least one image, and {dataset.name} has none")
