"""The result of an attack: for each example, in print, in a file, and as numbers for a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base import levels
from tinyadv.attacks.base.objectives import reached
from tinyadv.attacks.base.parameters import Parameters, UnknownAttack, describe, restore
from tinyadv.backend import VERSION, Array, is_array, to_host
from tinyadv.nn import archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.table import number, table
from tinyadv.spellings import no_attribute


@dataclass(frozen=True, eq=False)
class AttackResult:
    """The adversarial images, and a report on each of the N examples.

    attack: the attack with its parameters; norm: that of the distances; seed: of the random streams; seconds: the time
    that it took; version: of the library.
    x_adv: (N, ...), an array like x. The following are NumPy arrays (N,):
    y, target: int64, the true classes and the target classes; target is None without a target.
    success: bool, misclassified or, for a targeted attack, classified as the target.
    predictions_clean, predictions: int64, the model's classes at x and at x_adv; -1, no class, where a logit is NaN.
    distances: float64, |x_adv - x|.
    forwards, backwards: int64, the number of forward and backward passes of the example. The pass for
    predictions_clean counts only if the attack itself needs it.
    broken_by: str, for combined attacks, the name of the attack that broke the example; "" if none did, or if the clean
    image is a success already.
    table: for combined attacks, a row for each attack and one for all: the name; the number of right examples left
    after it (with a target, those that are not at the target); the number that it broke; seconds, forwards, backwards.
    warnings: from AutoAttack, the reasons not to trust the robust accuracy.
    """

    attack: Parameters | UnknownAttack
    x_adv: Array = field(repr=False)
    y: np.ndarray = field(repr=False)
    target: np.ndarray | None = field(repr=False)
    success: np.ndarray = field(repr=False)
    predictions_clean: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    distances: np.ndarray = field(repr=False)
    forwards: np.ndarray = field(repr=False)
    backwards: np.ndarray = field(repr=False)
    norm: str
    seed: int
    seconds: float = 0.0
    version: str = VERSION
    broken_by: np.ndarray | None = field(default=None, repr=False)
    table: tuple[tuple[str, int, int, float, int, int], ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()

    if not TYPE_CHECKING:
        __getattr__ = no_attribute

    @classmethod
    def blank(cls, attack: Parameters, x_adv: Array, y: Array, target: Array | None, norm: str,
              seed: int) -> AttackResult:
        """An empty result, to be filled by `put`: no successes, no costs, and predictions of -1."""
        success, distances, (before, after) = np.zeros(len(y), bool), np.zeros(len(y)), np.full((2, len(y)), -1)
        forwards, backwards = np.zeros((2, len(y)), np.int64)
        y, target = (None if classes is None else to_host(classes).astype(np.int64) for classes in (y, target))
        return cls(attack, x_adv, y, target, success, before, after, distances, forwards, backwards, norm, seed)

    def put(self, part: slice, found: dict[str, Array]) -> None:
        """Write the values for some of the examples into these fields."""
        for name, rows in found.items():
            getattr(self, name)[part] = rows

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, element by element."""
        if not isinstance(other, AttackResult):
            return NotImplemented
        return same_fields(self, other)

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    def reached(self, predictions: np.ndarray) -> np.ndarray:
        """(N,) bool: whether predictions (N,) are successes: wrong or, with a target, equal to it."""
        return reached(predictions, self.y, self.target)

    @property
    def robust(self) -> np.ndarray:
        """(N,) bool: whether the model is right at x and not wrong at x_adv; NaN logits are neither right nor wrong."""
        return (self.predictions_clean == self.y) & ~reached(self.predictions, self.y, None)

    def to_json(self) -> dict[str, Any]:
        """The numbers for one row of a table, for json.dumps; None for a mean over no examples.

        robust_accuracy counts the images that are right before and after; distances are those of the successes.
        """
        before, found = self.predictions_clean == self.y, self.distances[self.success]
        return {
            "attack": describe(self.attack), "norm": self.norm, "targeted": self.target is not None,
            "examples": len(self.y), "succeeded": int(self.success.sum()),
            "accuracy": _number(np.mean, before),
            "robust_accuracy": _number(np.mean, self.robust),
            "median_distance": _number(np.median, found), "largest_distance": _number(np.max, found),
            "forwards": _number(np.mean, self.forwards), "backwards": _number(np.mean, self.backwards),
            "seed": self.seed, "seconds": self.seconds, "version": self.version,
        }

    def summary(self) -> str:
        """A few lines: the attack, its successes and their distances, what it took, the table, the warnings."""
        row = self.to_json()
        rate = f" ({self.success.mean():.1%})" if len(self.y) else ""
        lines = [
            str(self.attack),
            f"{row['succeeded']} of {row['examples']} succeeded{rate}; accuracy {number(row['accuracy'])}, "
            f"robust accuracy {number(row['robust_accuracy'])}",
            f"{self.norm} distance where it did: median {number(row['median_distance'])}, "
            f"largest {number(row['largest_distance'])}",
            f"forward passes {number(row['forwards'])} and backward {number(row['backwards'])} per example, "
            f"{self.seconds:.1f} s; seed {self.seed}, tinyadv {self.version}",
        ]
        if self.table:
            head = ("attack", "left", "broken", "seconds", "forwards", "backwards")
            lines += table([head, *((name, left, broken, f"{seconds:.1f}", forwards, backwards)
                                    for name, left, broken, seconds, forwards, backwards in self.table)])
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n  ".join(lines)

    __str__ = summary

    def save_images(self, folder: str | Path, model: Callable | None = None) -> np.ndarray:
        """Write each image to a PNG of 8 bits, and return which of them succeed as they are read back: (N,) bool.

        folder: a new or an empty one. The file 00003-7-as-2.png holds image 3, of class 7, which is classified as 2.
        model: the one that was attacked. Rounding to 8 bits can undo an attack, and add up to half a level to each
            pixel, so the rounded images are shown to it again. Without a model the images must be on the 256 levels
            already, as those of `run(..., quantize=True)` are: then nothing changes.
        Raises ValueError for images that are not (N, C, H, W), C = 1 or 3, and for those that need a model.
        """
        attack, x = self.attack, to_host(self.x_adv)
        bounds = _bounds(attack)
        numbers = levels.to_levels(x, bounds)
        read, predictions = levels.from_levels(numbers, bounds, x.dtype), self.predictions
        if model is not None:
            predictions = driver.classes(driver.logits(model, read))
        elif (changed := (read != x).reshape(len(x), -1).any(axis=1)).any():
            raise ValueError(f"{changed.sum()} of {len(x)} images are not on the 256 levels of a PNG: give the model, "
                             "to see which of them succeed when rounded, or attack with run(..., quantize=True); in l0 "
                             "quantize the clean images, too")
        names = [f"{i:05}-{y}-as-{found}" for i, (y, found) in enumerate(zip(self.y, predictions, strict=True))]
        levels.write_pngs(folder, names, numbers)
        return self.reached(predictions)

    def save(self, path: str | Path) -> None:
        """Write all of it to an .npz file, which is whole or not there at all."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: to_host(value) for name, value in values.items() if is_array(value)}
        header = {name: describe(value) for name, value in values.items() if name not in arrays}
        archive.write(path, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> AttackResult:
        """The result saved at `path`, with NumPy arrays; an attack whose class is not defined is an UnknownAttack.

        Raises StateError if the file is damaged or something else.
        """
        header, arrays = archive.read(path, "an attack's result", "attack")
        try:
            values: dict[str, Any] = {name: restore(value) for name, value in header.items() if name != "format"}
            if twice := values.keys() & arrays.keys():
                raise ValueError(f"{', '.join(twice)} comes twice")
            result = cls(**values | arrays)
            result._check()
            return result
        except (RecursionError, TypeError, ValueError) as error:
            raise StateError(f"{path}: not an attack's result of tinyadv {VERSION}: {error}") from error

    def _check(self) -> None:
        """Raise ValueError unless all fields have the types that the class documents; images may have any shape."""
        kinds: dict[str, Any] = {"attack": Parameters | UnknownAttack, "norm": str, "seed": int, "seconds": int | float,
                                 "version": str, "table": tuple, "warnings": tuple}
        columns = {"y": "i", "target": "i", "success": "b", "predictions_clean": "i", "predictions": "i",
                   "distances": "f", "forwards": "i", "backwards": "i", "broken_by": "U"}
        n = len(self.x_adv) if is_array(self.x_adv) and self.x_adv.dtype.kind == "f" and self.x_adv.ndim else None
        wrong = ["x_adv"] if n is None else []
        wrong += [name for name, kind in kinds.items() if not isinstance(getattr(self, name), kind)]
        for name, kind in columns.items():
            value = getattr(self, name)
            fits = is_array(value) and value.dtype.kind == kind and value.shape == (n,)
            if not fits and not (value is None and name in ("target", "broken_by")):
                wrong.append(name)
        row = (str, int, int, int | float, int, int)
        if not all(isinstance(each, tuple) and len(each) == len(row) and all(map(isinstance, each, row))
                   for each in self.table) or not all(isinstance(text, str) for text in self.warnings):
            wrong.append("table or warnings")
        if wrong:
            raise ValueError(f"impossible values in {', '.join(wrong)}")


def _bounds(attack: Parameters | UnknownAttack) -> Any:
    """The bounds of the attack or of the first that it is made of; (0, 1) if neither has any."""
    own = attack.parameters if isinstance(attack, UnknownAttack) else vars(attack)
    if "bounds" in own:
        return own["bounds"]
    parts = (each for value in own.values() for each in (value if isinstance(value, tuple) else (value,)))
    return next((_bounds(each) for each in parts if isinstance(each, Parameters | UnknownAttack)), (0.0, 1.0))


def same_fields(one: Any, other: Any) -> bool:
    """Whether two dataclasses of one class have the same values in all fields, arrays by element; NaN is as NaN."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(np.array_equal(to_host(a), to_host(b), equal_nan=a.dtype.kind == b.dtype.kind == "f")
               if is_array(a) and is_array(b) else not is_array(a) and not is_array(b) and a == b for a, b in pairs)


def _number(of: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    return float(of(values)) if len(values) else None
