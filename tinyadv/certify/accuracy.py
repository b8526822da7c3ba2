"""Certified accuracy: the fraction of images whose true class no point within the budget changes, rounding included."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import numpy as np

from tinyadv import driver, ops
from tinyadv.attacks import Attack
from tinyadv.attacks.base.arguments import check_images
from tinyadv.attacks.base.parameters import check_bounds
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.certify.abstract import Abstract
from tinyadv.certify.crown import crown_worst
from tinyadv.certify.interval import Interval
from tinyadv.certify.report import CertifiedReport
from tinyadv.certify.rounding import FLOAT32
from tinyadv.certify.zonotope import Zonotope
from tinyadv.data.loader import check_dataset
from tinyadv.nn import Module
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams, drawing_from
from tinyadv.shapes import is_number
from tinyadv.spellings import spelled
from tinyadv.tensor import no_grad

NEW_TERMS = 3000  # of a zonotope, besides those of the pixels: it bounds the memory


def by_intervals(model: Callable, box: Interval, labels: Array) -> Array:
    """(N, K): upper bounds of z_j - z_y over the box, by interval arithmetic (Gowal et al. 2018)."""
    return model(box).worst(labels).data


def by_zonotopes(model: Callable, box: Interval, labels: Array) -> Array:
    """The same by hybrid zonotopes (Mirman et al. 2018), one image after the other, where intervals do not suffice."""
    z = model(box)
    worst = z.worst(labels).data
    relus = sum(each.origin is not None and each.origin.operation is ops.relu for each in z.steps())
    for part, one in left_open(worst, box, 1):
        zonotope = Zonotope(one.low, one.high, roundoff=box.roundoff, terms=NEW_TERMS // max(1, relus))
        worst[part] = model(zonotope).worst(labels[part]).data
    return worst


def by_crown(model: Callable, box: Interval, labels: Array) -> Array:
    """The best of intervals and two linear bounds (Zhang et al. 2020), which are tried where intervals do not suffice.
    """
    worst = by_intervals(model, box, labels)
    for part, some in left_open(worst, box, 32):
        z = model(some)
        for flat in (False, True):
            worst[part] = worst[part].clip(None, crown_worst(z, labels[part], flat).data)
    return worst


def left_open(worst: Array, box: Interval, size: int) -> Iterator[tuple[list[int], Interval]]:
    """The images of which not all differences are known to be negative, at most `size` at a time, and their boxes."""
    images = to_host(((worst >= 0).sum(axis=1) > 1).nonzero()[0]).tolist()
    for start in range(0, len(images), size):
        part = images[start:start + size]
        yield part, Interval(box.low.data[part], box.high.data[part], roundoff=box.roundoff)


METHODS: dict[str, Callable[[Callable, Interval, Array], Array]] = {
    "ibp": by_intervals, "crown-ibp": by_crown, "zonotope": by_zonotopes}


@spelled
def certified_accuracy(model: Callable, dataset: Any, eps: float, *, method: str = "ibp", attack: Any = None,
                       bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0, batch_size: int | None = None,
                       workers: int | None = None) -> CertifiedReport:
    """Which images of the data set are certified within linf eps: `float(report)` is the certified accuracy.

    method: "ibp" (Gowal et al. 2018, arXiv:1810.12715), or one of two that are never worse, and slower for each image
    that intervals leave open: "crown-ibp" (Zhang et al. 2020, arXiv:1906.06316), which takes up to 2 K times as long
    for K classes, and "zonotope" (Mirman et al. 2018), a thousand times or more.
    attack: one that is run on the same images, to stand beside the certificate, with the same norm, eps and bounds; or
    a minimum-norm attack, whose successes count if they are within eps. seed: that of the attack.
    bounds: those of the data, which cut the budget; batch_size, workers: as in `evaluation.accuracy`.

    The bounds are computed in float64, and hold for the float32 network, rounding errors included: no float32 image
    within the budget is classified otherwise by the model's own forward pass. docs/certificates.md has the theorem, and
    what it does not cover. Raises TypeError for a model with an operation that has no rule, and ValueError for one that
    draws at inference or has one logit, and for images outside of the bounds.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if not (is_number(eps) and 0 <= eps < math.inf):
        raise ValueError(f"eps must be a number >= 0, in the units of the data; got {eps!r}")
    check_bounds(bounds)
    if attack is not None:
        _check_attack(attack, eps, bounds)
    check_dataset(dataset)
    check_images(dataset.images, bounds)
    certified, clean = np.zeros((2, len(dataset)), bool)
    started = time.perf_counter()

    def put(part: slice, found: tuple[Array, Array]) -> None:
        certified[part], clean[part] = map(to_host, found)

    driver.run(partial(_certify, eps, bounds, METHODS[method]), model, (dataset.images, dataset.labels), put,
               batch_size=batch_size, workers=workers)
    seconds, attacked = time.perf_counter() - started, None
    if attack is not None:
        result = attack.run(model, dataset.images, dataset.labels, seed=seed, skip_misclassified=True,
                            batch_size=batch_size, workers=workers)
        attacked = result.robust | clean & (result.distances > eps)
    return CertifiedReport(method, float(eps), "linf", dataset.name, certified, clean, attacked,
                           "" if attack is None else str(attack), seconds)


def _check_attack(attack: Any, eps: float, bounds: tuple[float, float]) -> None:
    if not isinstance(attack, Attack):
        raise TypeError(f"attack must be an attack, such as attacks.PGD(eps={eps!r}), got {attack!r}")
    own = eps if attack.minimum_norm else getattr(attack, "eps", None)
    if (attack.norm, own, attack.bounds) != ("linf", eps, bounds):
        raise ValueError(f"attack must have the budget of the certificate, linf eps={eps} and bounds={bounds}; got "
                         f"{attack}, in {attack.norm} and bounds={attack.bounds}")


def _certify(eps: float, bounds: tuple[float, float], worst: Callable, model: Callable, x: Array,
             labels: Array) -> tuple[Array, Array]:
    like = driver.memory_of(model, x)
    x, labels = move(x, like), move(labels, like)
    xp = array_module(x)
    with no_grad(), drawing_from(Undrawn()):
        z = worst(bounded(model), sound_box(x, eps, bounds), labels)
    z = xp.where(labels[:, None] == xp.arange(z.shape[1]), -1, z)
    right = driver.predict(model, arranged(x)) == labels
    return right & (z < 0).all(axis=1), right  # what overflows to NaN is not right


def bounded(model: Callable) -> Callable:
    """The model, with an error where it returns no bounds of its logits."""
    def bounds(box: Interval) -> Any:
        z = model(box)
        if not isinstance(z, Abstract):
            raise TypeError("the model must be made of operations of tinyadv, through which bounds flow, but it "
                            f"returned {type(z).__name__}: certify.Smoothing certifies the vote of any model")
        return z

    return bounds


class Undrawn(Streams):
    """Streams that no layer may draw from: the bounds of one draw would say nothing about the next."""

    def __init__(self) -> None:
        """There are no examples, and no seed: all that asks for them is an error."""

    def __getattr__(self, name: str) -> NoReturn:
        frame = sys._getframe(1)
        while frame.f_back and not isinstance(frame.f_locals.get("self"), Module):
            frame = frame.f_back
        layer = frame.f_locals.get("self")
        who = type(layer).__name__ if isinstance(layer, Module) else "the model"
        raise ValueError(f"{who} draws random numbers at inference: the bounds would be those of one draw alone; "
                         "certify.Smoothing certifies the vote of many")


def sound_box(x: Array, eps: float, bounds: tuple[float, float]) -> Interval:
    """The float64 interval that holds every point within eps of x and within the bounds, and float32's rounding."""
    xp, wide = array_module(x), arranged(x).astype(np.float64)
    low, high = (xp.nextafter(end, away) for end, away in ((wide - eps, -xp.inf), (wide + eps, xp.inf)))
    return Interval(low.clip(*bounds), high.clip(*bounds), roundoff=FLOAT32)
