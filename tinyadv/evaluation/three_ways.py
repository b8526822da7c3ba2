"""A defence under three attacks: one ignores it, one goes through it, one has no gradients. Only the minimum counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyadv.attacks import Attack, Square
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset
from tinyadv.driver import sharding, streams_of
from tinyadv.evaluation.accuracy import check, predict
from tinyadv.nn.table import percent, table
from tinyadv.spellings import spelled


@dataclass(frozen=True)
class ThreeWays:
    """Accuracies, as fractions of the images; it prints as a table.

    clean: without an attack. ignored: under the images that the attack makes on the undefended model. through: under
    the attack on the defended model. without_gradients: under the black-box attack on the defended model.
    undefended: (clean, under the attack), of the model without the defence.
    attack, black_box: the attacks; count: the number of images.
    """

    clean: float
    ignored: float
    through: float
    without_gradients: float
    undefended: tuple[float, float]
    attack: Attack
    black_box: Attack
    count: int

    @property
    def robustness(self) -> float:
        """The robust accuracy: the least of all, because an attacker chooses."""
        return min(self.clean, self.ignored, self.through, self.without_gradients)

    def __str__(self) -> str:
        clean, attacked = self.undefended
        rows = [("clean", clean, self.clean), ("the attack that ignores the defence", attacked, self.ignored),
                ("the attack through the defence", None, self.through),
                (f"without gradients: {self.black_box}", None, self.without_gradients),
                ("robustness: the least", attacked, self.robustness)]
        head = (f"{self.attack}, {self.count} images", "undefended", "defended")
        return "\n".join(table([head, *((name, percent(first), percent(second)) for name, first, second in rows)]))

    __repr__ = __str__


@spelled
def three_ways(undefended: Callable, defended: Callable, attack: Attack, dataset: Dataset, *,
               black_box: Attack | None = None, seed: int = 0, **options: Any) -> ThreeWays:
    """Attack a defended model three ways, each with the same budget: the table in which a defence is reported.

    Carlini et al. 2019, arXiv:1902.06705, sections 4 and 5; Athalye et al. 2018, arXiv:1802.00420, section 3.1.

    undefended: the model without the defence; defended: with it, as in nn.Sequential(defence, undefended). attack: one
    that uses gradients, with a budget; for a random defence, one with `eot=`. black_box: an attack without gradients,
    by default Square of the attack's eps, norm and bounds; of a minimum-norm attack, such as HopSkipJump, the points
    within eps count. options: those of `Attack.run`, without `state`.
    An image counts as robust if the model is right before and after the attack. Random defences judge the finished
    images with draws that no attack has seen, lest a lucky draw count as a success. An image that a detector flags
    counts as broken, so TrapdoorDetector needs a count of its own, as in examples/trapdoors_mnist.py.
    Raises ValueError for a minimum-norm attack, for a black_box with another or a larger budget, and if there is no
    black_box and no Square of that budget.
    """
    check(dataset, attack)
    if not isinstance(black_box, Attack | None):
        raise TypeError(f"black_box must be an attack, such as attacks.Square(eps=0.3), got {black_box!r}")
    if attack.minimum_norm:
        raise ValueError(f"attack must have a budget, got {attack}, a minimum-norm attack, which always succeeds")
    if options.get("state") is not None:
        raise ValueError("state must be the file of one run, and these are three: leave it out")
    if black_box is None:
        if not hasattr(attack, "eps") or attack.norm not in ("linf", "l2"):
            raise ValueError(f"black_box must be given for {attack}: by default it is Square, which needs eps, and "
                             'norm "linf" or "l2"')
        black_box = Square(attack.eps, norm=attack.norm, bounds=attack.bounds)
    eps = getattr(attack, "eps", np.inf)  # patches have a size instead
    own = eps if black_box.minimum_norm else getattr(black_box, "eps", np.inf)
    if (black_box.norm, black_box.bounds) != (attack.norm, attack.bounds) or own > eps:
        raise ValueError(f"black_box must have the budget of {attack}, in {attack.norm} with bounds={attack.bounds}; "
                         f"got {black_box}, in {black_box.norm} with bounds={black_box.bounds}")
    x, y = dataset.images, dataset.labels
    shards = sharding(options)
    fresh = streams_of(x, seed).spawn(1)

    def right(model: Callable, images: Array, seed: Any = fresh) -> np.ndarray:
        return predict(model, images, seed=seed, **shards) == to_host(y)

    def made(model: Callable, attack: Attack, skip: bool = True) -> Array:
        result = attack.run(model, x, y, seed=seed, skip_misclassified=skip, **options)
        if attack.minimum_norm:
            far = np.flatnonzero(result.distances > eps)
            result.x_adv[far] = x[far]
        return result.x_adv

    before, clean = right(undefended, x, seed), right(defended, x, seed)
    transferred = made(undefended, attack, skip=False)  # the defended model may be right where this one is wrong
    ignored, through, blind = (float((clean & right(defended, images)).mean())
                               for images in (transferred, made(defended, attack), made(defended, black_box)))
    first = float(before.mean()), float((before & right(undefended, transferred)).mean())
    return ThreeWays(float(clean.mean()), ignored, through, blind, first, attack, black_box, len(x))
