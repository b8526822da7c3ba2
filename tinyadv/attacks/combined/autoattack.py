"""AutoAttack: a fixed ensemble of attacks with nothing to tune, and warnings if its result cannot be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.arguments import are_probabilities
from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.result import AttackResult
from tinyadv.attacks.black_box.square import Square
from tinyadv.attacks.combined.multi import MultiAttack
from tinyadv.attacks.combined.standing import compared
from tinyadv.attacks.gradient.apgd import APGD
from tinyadv.attacks.minimum_norm.fab import FAB
from tinyadv.backend import Array, to_host
from tinyadv.random import Streams

VERSIONS = ("standard", "plus", "rand")
WITHOUT_GRADIENT = 0.05  # above this fraction of images there is a warning
BY_SQUARE = 0.002  # likewise; the number is the authors'


@dataclass(frozen=True)
class AutoAttack(MultiAttack):
    """Several strong attacks with fixed parameters: it gives the robust accuracy that papers compare.

    Croce and Hein 2020, arXiv:2003.01690. Each attack runs on the images that are left. The parameters are those of the
    authors: 100 steps; 5,000 queries, with the square sizes for 10,000; 9 target classes, or all if there are fewer.

    "standard": APGD on the cross entropy, APGD-T on the targeted DLR loss, FAB-T, and Square.
    "plus": APGD on the cross entropy and on the DLR loss, and FAB, 5 runs each; Square; APGD-T and FAB-T.
    "rand", for models with random outputs: APGD on both losses, each gradient a mean over 20 passes.
    For "l1" (arXiv:2103.01208) "standard" has 5 runs of APGD, 5 target classes for APGD-T, and no Square, which has no
    l1 form here. With fewer than four classes, the margin takes the place of the DLR losses that need more.

    For the robust accuracy, use `run(..., skip_misclassified=True)`. The result's `table` has a row for each attack,
    and `warnings` are the reasons not to trust the number. With `target=` every attack aims at that class.

    eps: the budget, in the units of the data; norm: "linf", "l2" or "l1"; version: "standard", "plus" or "rand".
    """

    attacks: tuple[Attack, ...] = field(init=False, repr=False, compare=False)
    bounds: tuple[float, float] = field(default=(0.0, 1.0), kw_only=True)
    eps: float
    norm: str = "linf"
    version: str = "standard"

    norms = ("linf", "l2", "l1")
    _steps, _queries, _classes, _passes = 100, 5000, 9, 20

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}; got {self.version!r}")
        if self.norm not in self.norms:
            raise ValueError(f"norm must be {' or '.join(self.norms)} for AutoAttack, got {self.norm!r}")
        object.__setattr__(self, "attacks", tuple(self._ensemble().values()))
        super().__post_init__()

    def _ensemble(self) -> dict[str, Attack]:
        sparse = self.norm == "l1"
        apgd = partial(APGD, self.eps, self._steps, self.norm, bounds=self.bounds)
        fab = partial(FAB, self.eps, self._steps, self.norm, bounds=self.bounds)
        fab_t = {"FAB-T": fab(target_classes=self._classes)}
        square = {} if sparse else {
            "Square": Square(self.eps, self._queries, self.norm, rescale_schedule=False, bounds=self.bounds)}
        if self.version == "standard":
            targeted = apgd(loss="dlr", target_classes=min(5, self._classes) if sparse else self._classes)
            return {"APGD-CE": apgd(restarts=5 if sparse else 1), "APGD-T": targeted, **fab_t, **square}
        if self.version == "plus":
            return {"APGD-CE": apgd(restarts=5), "APGD-DLR": apgd(restarts=5, loss="dlr"), "FAB": fab(restarts=5),
                    **square, "APGD-T": apgd(loss="dlr", target_classes=self._classes), **fab_t}
        return {"APGD-CE": apgd(eot=self._passes), "APGD-DLR": apgd(eot=self._passes, loss="dlr")}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._ensemble())

    with_eps, scaled = Attack.with_eps, Attack.scaled

    def run(self, model: Callable, x: Array, y: Array, **options: Any) -> AttackResult:
        """As in MultiAttack; `state=` names a file from which a killed run can be resumed."""
        result = super().run(model, x, y, **options)
        return replace(result, warnings=(*result.warnings, *self._doubts(result)))

    def _warnings(self, model: Callable, x: Array, y: Array, logits: Array, streams: Streams,
                  options: dict[str, Any]) -> tuple[str, ...]:
        if not len(x):
            return ()
        found = []
        shards = driver.sharding(options)
        right = np.flatnonzero(driver.classes(to_host(logits)) == to_host(y))
        again = driver.logits(model, x, seed=streams.spawn(0), **shards)  # with other draws
        moved, size = compared(to_host(again), to_host(logits))
        random = (change := moved.max()) > 1e-4 * size
        if random and self.version != "rand":
            found.append(f'the model\'s outputs are random, they change by {change:.3g}: version="rand" is for those')
        if not random and self.version == "rand":
            found.append('the model\'s outputs are not random: version="standard" is stronger')
        if logits.shape[1] < 4:
            found.append(f"there are {logits.shape[1]} classes, and the DLR loss needs 3, the targeted one 4: "
                         "the margin takes the place of losses that are undefined")
        if are_probabilities(logits):
            found.append("the model returns probabilities: attack its logits, without the softmax")
        slopes = to_host(driver.input_gradients(model, x[right], y[right], seed=streams[right], **shards))
        pixels = tuple(range(1, x.ndim))
        stuck = int(((slopes == 0) | (slopes != slopes)).all(axis=pixels).sum())
        if stuck > WITHOUT_GRADIENT * len(right):
            found.append(f"at {stuck} of {len(right)} right images the cross entropy's gradient is 0 or NaN: "
                         "white-box attacks are blind there")
        lost = int((~np.isfinite(slopes)).any(axis=pixels).sum())
        if lost:
            found.append(f"at {lost} of {len(right)} right images elements of the cross entropy's gradient are NaN or "
                         "infinite: attacks use 0 for NaN, and the largest finite element for infinity")
        return tuple(found)

    def _doubts(self, result: AttackResult) -> list[str]:
        """The warnings that follow from the outcome of the attacks."""
        found, broken = [], {row[0]: row[2] for row in result.table}
        for when, predictions in ("as they are", result.predictions_clean), ("once attacked", result.predictions):
            if lost := int((predictions < 0).sum()):
                found.append(f"{lost} of {len(predictions)} images have NaN among their logits {when}: "
                             "these count neither as right nor as a success")
        if broken.get("Square", 0) > max(1, BY_SQUARE * len(result.y)):
            found.append(f"Square, which sees no gradient, broke {broken['Square']} images that no attack before it "
                         "did: the gradients are likely masked")
        left = np.unique(result.y[(result.predictions_clean == result.y) & ~result.success])
        grey = self.norm == "linf" and result.target is None and 2 * self.eps >= self.bounds[1] - self.bounds[0]
        if grey and len(left) > 1:
            found.append(f"images of {len(left)} classes are left, though with this eps all can become the same grey"
                         " image: the attacks fail")
        return found
