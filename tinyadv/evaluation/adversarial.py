"""Evaluation of finished adversarial images: whether they are valid, and the worst case over several attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyadv.attacks import AttackResult
from tinyadv.attacks.base.balls import ball_class
from tinyadv.attacks.base.parameters import check_bounds
from tinyadv.attacks.base.result import same_fields
from tinyadv.backend import Array, to_host
from tinyadv.evaluation.report import Check, Report
from tinyadv.nn.table import table
from tinyadv.shapes import check_not_negative


def validate(x_adv: Array, x: Array, *, eps: float, norm: str = "linf",
             bounds: tuple[float, float] = (0.0, 1.0)) -> Report:
    """Check that saved images x_adv are within the budget and the bounds around the clean ones x, both (N, ...).

    These are the checks of run_attack.py of the MNIST and CIFAR-10 challenges (Madry et al. 2018, arXiv:1706.06083),
    but without its tolerance: distances are computed in float64. eps and bounds are in the units of the data. Invalid
    images raise nothing; call `validate(...).require()` for a ValueError. Raises ValueError if eps is no number
    or bounds are not (low, high).
    """
    if isinstance(x_adv, AttackResult):
        raise TypeError("x_adv must be an array of images: give result.x_adv")
    check_not_negative("eps", eps)
    check_bounds(bounds)
    x_adv, x = np.asarray(to_host(x_adv)), np.asarray(to_host(x))
    checks = [
        Check("shape", x_adv.shape == x.shape, len(x_adv), f"images; of shape {x_adv.shape}, the clean ones {x.shape}"),
        Check("dtype", x_adv.dtype == x.dtype, x_adv.itemsize, f"bytes, {x_adv.dtype}; the clean ones {x.dtype}"),
    ]
    if x_adv.shape == x.shape:
        wide = x_adv.astype(np.float64)
        lost, beyond = int((~np.isfinite(wide)).sum()), int(((wide < bounds[0]) | (wide > bounds[1])).sum())
        distances = ball_class(norm).distance(wide - x)
        outside, largest = int((~(distances <= eps)).sum()), distances.max(initial=0)
        checks += [
            Check("finite", not lost, lost, "values are NaN or infinite"),
            Check("range", not beyond, beyond, f"values are outside {bounds}"),
            Check("budget", not outside, outside,
                  f"images are outside {norm} eps={eps:.6g}; the furthest is {largest:.6g} away, {largest - eps:+.1e}"),
        ]
    return Report("adversarial images", tuple(checks))


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The worst case over several attacks on the same images; prints as a table.

    rows: (attack, robust accuracy under it alone, robust accuracy under it and all attacks above it). accuracy: without
    an attack. robust: (N,) bool, whether an image is classified correctly before and after every attack.
    """

    rows: tuple[tuple[str, float, float], ...]
    accuracy: float
    robust: np.ndarray

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, element by element."""
        return same_fields(self, other) if isinstance(other, WorstCase) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    @property
    def robust_accuracy(self) -> float:
        """The fraction of images that every attack leaves correctly classified."""
        return float(self.robust.mean())

    def __str__(self) -> str:
        rows = [("no attack", self.accuracy, self.accuracy), *self.rows]
        cells = [(name, f"{alone:.4f}", f"{together:.4f}") for name, alone, together in rows]
        return "\n".join(table([("attack", "alone", "worst"), *cells]))

    __repr__ = __str__


def worst_case(results: Sequence[AttackResult]) -> WorstCase:
    """The accuracy if each image meets the attack that is worst for it.

    results: of attacks on the same model and images, with the same norm and target; ValueError if they are not.
    A minimum-norm attack counts as successful at any distance.
    """
    results = [] if isinstance(results, AttackResult) else list(results)
    if not all(isinstance(result, AttackResult) for result in results):
        raise TypeError(f"results must be AttackResults, got {type(results[0]).__name__}: of a dict, give its values()")
    if not results or not len(results[0].y):
        raise ValueError("results must hold at least one AttackResult, of at least one image")
    check_alike(results)
    first = results[0]
    right = first.predictions_clean == first.y
    robust, rows = right, []
    for result in results:
        alone = result.robust
        robust = robust & alone
        rows.append((str(result.attack), float(alone.mean()), float(robust.mean())))
    return WorstCase(tuple(rows), float(right.mean()), robust)


def check_alike(results: Sequence[AttackResult]) -> None:
    """ValueError unless the labels, targets, clean predictions and norms of all results are the same."""
    first = results[0]
    for result in results:
        for name in ("y", "target", "predictions_clean", "norm"):
            if not np.array_equal(getattr(result, name), getattr(first, name)):
                raise ValueError(f"results must be of the same model, images and norm, but their {name} differ: "
                                 f"see those of {result.attack} and {first.attack}")
