"""The state of a run of several attacks, in memory and in a file from which the run can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.balls import ball_class
from tinyadv.attacks.base.parameters import describe, held
from tinyadv.attacks.base.result import AttackResult
from tinyadv.backend import VERSION, Array, move, to_host
from tinyadv.nn import Module, archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.state import layer_classes, settings
from tinyadv.random import Streams


class Standing:
    """The worst case of each of N examples so far, and the work of each attack.

    result: the worst case so far, at first the clean image. reached (N,): whether the clean image is a success already.
    by (N,): the number of the attack that found it, counted from 1; 0 if none has run. tried (N,): the number of the
    last attack that has finished with the example.
    worth (N,): the value by which results are compared: the margin or, for minimum-norm attacks, minus the distance.
    rows (attacks, 5): after each attack, the number of right examples that are left; how many it broke; its seconds,
    forward passes and backward passes.
    """

    def __init__(self, result: AttackResult, logits: Array, attacks: int):
        """logits (N, K): the model's at the clean images."""
        self.result, self.logits = result, to_host(logits)
        result.predictions_clean[:] = result.predictions[:] = driver.classes(self.logits)
        result.success[:] = self.reached = result.reached(result.predictions)
        self.by, self.tried = np.zeros((2, len(self.logits)), np.int64)
        self.worth, self.rows = np.full(len(self.logits), -np.inf), np.zeros((attacks, 5))
        self.rows[:, 0] = self._left()
        self._path: Path | None = None
        self._run: dict[str, Any] = {}

    def unbroken(self, number: int) -> np.ndarray:
        """(N,) bool: whether no attack before attack `number` has broken the example."""
        return ~self.result.success | (self.by == 0) | (self.by >= number)

    def take(self, number: int, some: np.ndarray, found: AttackResult, worth: np.ndarray, seconds: float) -> None:
        """Take over the results of attack `number` for some examples (n,), where they are worse for the model."""
        result, before = self.result, self.result.success[some]
        worth = np.fmax(worth, -np.inf)  # NaN counts least
        better = (found.success & ~before) | ((found.success == before) & (worth > self.worth[some]))
        better |= self.by[some] == 0
        changed = some[better]
        result.x_adv[changed], self.worth[changed], self.by[changed] = found.x_adv[better], worth[better], number
        for name in ("success", "predictions", "distances"):
            getattr(result, name)[changed] = getattr(found, name)[better]
        result.forwards[some] += found.forwards
        result.backwards[some] += found.backwards
        self.tried[some] = number
        broken = (result.success[some] & ~before).sum()
        self.rows[number - 1, 1:] += broken, seconds, found.forwards.sum(), found.backwards.sum()
        self.rows[number - 1:, 0] = self._left()
        self._save()

    def table(self, names: tuple[str, ...]) -> tuple[tuple[str, int, int, float, int, int], ...]:
        """The rows with the names of the attacks, and one row for all; see AttackResult."""
        rows = np.vstack([self.rows, [self._left(), *self.rows[:, 1:].sum(axis=0)]]).tolist()
        return tuple((name, int(left), int(broken), seconds, int(forwards), int(backwards))
                     for name, (left, broken, seconds, forwards, backwards) in zip((*names, "all"), rows, strict=True))

    def _left(self) -> int:
        return int(((self.result.predictions_clean == self.result.y) & ~self.result.success).sum())

    def keep(self, path: Path, run: dict[str, Any], again: Array) -> None:
        """Load the state from the file, if it exists, and from now on write the file after every change.

        run: the description of this run, as from `identify`. again (N, K): logits of the same images, computed a second
        time to see how much they vary. Raises StateError, and loads nothing, if the file belongs to another run or has
        values that this run cannot have written.
        """
        self._path, self._run = path, run
        if not path.exists():
            self._save()  # raises an error now, and not in an hour, if the file cannot be written
            return
        header, arrays = archive.read(path, "the state of a run", "run")
        then, own = header["run"], self._arrays()
        if not isinstance(then, dict) or arrays.keys() != {"logits", *own}:
            raise StateError(f"{path}: not the state of a run, by what it holds: {', '.join(arrays)}")
        differing = [name for name, value in run.items() if then.get(name) != value]
        if "model" not in differing and not self._alike(arrays["logits"], to_host(again)):
            differing.append("model")
        if differing:
            raise StateError(f"{path}: the state of another run, which differs in {', '.join(differing)}: name another "
                             "file, or remove this one if that run is not to be finished")
        wrong = [name for name, array in own.items()
                 if (arrays[name].shape, arrays[name].dtype) != (array.shape, array.dtype)]
        if wrong := wrong or [name for name, fine in self._checks(arrays).items() if not fine]:
            raise StateError(f"{path}: the state of this run, but its {', '.join(wrong)} cannot be: remove the file")
        for name, array in own.items():
            array[...] = move(arrays[name], like=array)

    def _alike(self, before: np.ndarray, again: np.ndarray) -> bool:
        """Whether logits from a file are those of this model, up to their variation and rounding on other machines."""
        if before.shape != self.logits.shape or before.dtype.kind != "f":
            return False
        (varied, _), (moved, size) = compared(again, self.logits), compared(before, self.logits)
        return not (moved > 1e-3 * size + 5 * varied.max(initial=0)).any()

    def _checks(self, arrays: dict[str, np.ndarray]) -> dict[str, bool]:
        """{name: whether its values are possible}, for the arrays of a file, which have the right shapes and dtypes."""
        result, attack, x_adv, found = self.result, self.result.attack, arrays["x_adv"], arrays["distances"]
        low, high = attack.bounds  # type: ignore[union-attr]  # an attack of this run, so its class is known
        distances = ball_class(result.norm).distance(x_adv.astype(np.float64) - to_host(result.x_adv))
        eps = getattr(attack, "eps", np.inf)
        return {
            "x_adv": bool(((x_adv >= low) & (x_adv <= high)).all() and (distances <= eps).all()),
            "distances": bool((abs(distances - found) <= 1e-9 * distances).all()),
            "success": bool((~arrays["success"] | result.reached(arrays["predictions"])).all()),
            "by": bool((arrays["by"] >= 0).all() and (arrays["by"] <= arrays["tried"]).all()),
            "tried": bool((arrays["tried"] <= len(self.rows)).all()),
            "rows": bool((arrays["rows"] >= 0).all() and np.isfinite(arrays["rows"]).all()),
            "forwards": bool((arrays["forwards"] >= 0).all()), "backwards": bool((arrays["backwards"] >= 0).all()),
        }

    def _save(self) -> None:
        if self._path is not None:
            arrays = {name: to_host(array) for name, array in self._arrays().items()}
            archive.write(self._path, {"run": self._run}, {"logits": self.logits, **arrays})

    def _arrays(self) -> dict[str, Array]:
        names = ("x_adv", "success", "predictions", "distances", "forwards", "backwards")
        own = {"by": self.by, "tried": self.tried, "worth": self.worth, "rows": self.rows}
        return own | {name: getattr(self.result, name) for name in names}


def compared(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """|one - other| for logits (N, K), and the largest finite |other|.

    It is 0 where both are NaN or the same infinity, and infinite where only one of them is.
    """
    with np.errstate(invalid="ignore"):
        apart = np.where((one == other) | np.isnan(one) & np.isnan(other), 0, abs(one - other))
    return np.where(np.isnan(apart), np.inf, apart), float(abs(other[np.isfinite(other)]).max(initial=0))


def identify(attacks: tuple, model: Any, x: Array, y: Array, target: Array | None, streams: Streams,
             options: dict[str, Any]) -> dict[str, Any]:
    """All that a result depends on, apart from the model's logits, as JSON values: it identifies a run.

    The model's settings are there because gradients depend on them where logits do not: `gradient="zero"`, say.
    """
    layers = [settings(model, counts=False), layer_classes(model)] if isinstance(model, Module) else []
    return {
        "attacks": [describe(attacks), held(attacks)], "x": held(x), "y": held(y), "target": held(target),
        "seed": [streams.seed, held(streams.examples)], "version": VERSION,
        "options": {name: describe(options.get(name)) for name in ("skip_misclassified", "quantize", "batch_size")},
        "model": layers,
    }
