"""What all attacks share: a frozen dataclass of hyper-parameters, and the guarantees that hold for every attack.

    x_adv  = FGSM(eps=0.3)(model, x, y, seed=42)         # an array like x
    result = FGSM(eps=0.3).run(model, x, y, seed=42)     # and what became of each example

A subclass writes `perturb`, which turns one Batch into its last candidate. It may show the batch further
candidates on the way; the best one is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, cast

from tinyadv import driver
from tinyadv.attacks.base import levels
from tinyadv.attacks.base.arguments import check_arguments, doubt_eps
from tinyadv.attacks.base.balls import BALLS, ball_class
from tinyadv.attacks.base.batch import Batch, Step
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.base.parameters import Parameters, check_bounds, is_number, to_count
from tinyadv.attacks.base.result import AttackResult
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.ops.movement import batch_last
from tinyadv.random import Streams
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor

SHOWN_EVERY = 0.5  # seconds, in which a progress bar tells of the steps within a shard


@dataclass(frozen=True)
class Attack(Parameters):
    """The base of all attacks. A call splits x into shards, perturbs each on a thread, and returns them in order.

    bounds: the range of the data, in its own units.
    """

    _: KW_ONLY
    bounds: tuple[float, float] = (0.0, 1.0)

    # Fields of the attacks that have them: the norm of the budget (its radius is `eps`), what is maximised, and how
    # many runs there are, of which the second and later ones take on only what is not broken yet.
    norm = "linf"
    loss = "cross_entropy"
    restarts = 1
    minimum_norm = False  # whether the attack has no budget, and looks for the nearest point that is misclassified

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "norm" and isinstance(value, str) and value in BALLS:
                raise ValueError(f"{name} must not be a norm, got {value!r}: "
                                 f"write norm={value!r} in {type(self).__name__}(...)")
        ball_class(self.norm)
        objective(self.loss)
        for name in ("steps", "queries", "restarts", "eot"):
            if name in vars(self):
                object.__setattr__(self, name, to_count(name, vars(self)[name]))
        check_bounds(self.bounds)
        eps = getattr(self, "eps", 0)
        if not (self.minimum_norm or (is_number(eps) and 0 <= eps < math.inf)):
            raise ValueError(f"eps must be a number >= 0, in the units of the data, got {eps!r}")

    def perturb(self, batch: Batch) -> Array:
        """The last candidates for the batch, (n, ...) like batch.x: the one method that an attack defines."""
        raise TypeError(f"{type(self).__name__} defines no perturb(batch)")

    def with_eps(self, eps: float) -> Attack:
        """The same attack with another budget; ValueError if it has none."""
        if not hasattr(self, "eps"):
            raise ValueError(f"attack must have an eps to vary, got {self}")
        return replace(cast(Any, self), eps=eps)

    def scaled(self, factor: float) -> Attack:
        """The same attack, its budget and the length of its steps times a factor; ValueError if it has no budget."""
        scaled: Any = self.with_eps(factor * getattr(self, "eps", math.nan))
        step_size = getattr(scaled, "step_size", None)
        return replace(scaled, step_size=factor * step_size or None) if step_size else scaled

    @spelled
    def __call__(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, **options: Any) -> Array:
        """The adversarial images alone, an array like x; arguments and options are those of `run`."""
        return self.run(model, x, y, _report=False, **options).x_adv

    @spelled
    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, workers: int | None = None, batch_size: int | None = None,
            skip_misclassified: bool = False, quantize: bool = False, callback: Callable[[Step], None] | None = None,
            progress: bool = False, _report: bool = True) -> AttackResult:
        """Attack every image of x and report what became of each.

        model: any callable from a Tensor (N, C, H, W) to logits (N, K): a Tensor or, for an attack that needs no
            gradient, an array. A Module runs in evaluation mode and, if it lies on a GPU, gets its data there.
        x: (N, C, H, W) floats inside the bounds; y: (N,) the true classes; target: (N,) the classes to reach, or
            one for all. Nothing of model, x, y and target is changed.
        seed: of the random streams, one for each example; or these Streams themselves.
        workers: threads (default: all usable cores); batch_size: examples in a shard. The first changes no bit of
            the result, the second none beyond the rounding of matrix products.
        skip_misclassified: return the images that the model gets wrong as they are, without spending a step.
        quantize: return images of 8 bits, that can be saved as such: on 256 levels from low to high, inside the budget.
            Levels are rounded, too, so give a budget of 8 of them as eps=8.01/255: with 8/255 half are a hair too far.
        callback: is called with a Step after every iteration of a shard, by one thread at a time. progress: show a bar.
        Raises ValueError for arguments that do not fit; an attack that fails on an example is no exception.
        """
        started = time.perf_counter()
        y, target, streams = check_arguments(x, y, target, seed, self.bounds)
        if not self.minimum_norm:
            doubt_eps(getattr(self, "eps", 0), self.norm, self.bounds)
        result = AttackResult.blank(self, array_module(x).empty_like(x), y, target, self.norm, streams.seed)
        bar = driver.progress_bar(len(x), str(self), progress, leave=False)

        def put(part: slice, found: dict[str, Array]) -> None:
            result.put(part, found)
            if progress:
                bar.update(part.stop - part.start)
                bar.set_postfix_str(f"{result.success.sum() / bar.n:.1%} succeeded")

        work = partial(self.shard, model, skip_misclassified=skip_misclassified, quantize=quantize,
                       scored=_report or progress, report=_reports(callback, bar, str(self)))
        with bar:
            driver.run(work, model, (x, y, target, streams), put, batch_size=batch_size, workers=workers)
        return replace(result, seconds=time.perf_counter() - started)

    def shard(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, target: Array | None, streams: Streams, *,
              skip_misclassified: bool, quantize: bool, scored: bool, report: Callable[[Step], None] | None,
              ) -> dict[str, Array]:
        """Attack the examples of one shard; returns what an AttackResult says of them, by the names of its fields.

        A function of values: it may run in another process. The arguments are those of `run`, checked.
        scored: whether all fields are asked for, or x_adv alone, which may be cheaper. report: hears of every step.
        """
        like = driver.memory_of(model, x)
        images, labels = batch_last(move(x, like)), move(y, like)
        goal = None if target is None else move(target, like)
        eps = math.inf if self.minimum_norm else getattr(self, "eps", math.inf)
        batch = Batch(model, ball_class(self.norm)(images, eps, self.bounds), objective(self.loss), labels, goal,
                      streams, report, self.minimum_norm)
        self._search(batch, skip_misclassified, quantize, scored)
        found = batch.outcome()
        if scored and batch.clean is None:
            found["predictions_clean"] = to_host(driver.predict(model, images))
        return {"x_adv": move(batch.best, x), **found}

    def _search(self, batch: Batch, skip_misclassified: bool, quantize: bool, score: bool) -> None:
        """Leave the best points in the batch, and its predictions there unless nobody needs them to be scored."""
        if not (skip_misclassified or self.minimum_norm):
            self._attack(batch, quantize, score)
            return
        batch.look_at_clean()
        batch.keep_clean()
        left = batch.clean == batch.y if skip_misclassified else ~batch.succeeded
        if self.minimum_norm:
            left = left & ~batch.succeeded  # an image that is misclassified as it is needs no perturbation
        if left.any():
            rest = batch[left]
            if not self.minimum_norm:
                rest.best = None  # the clean image is no candidate
            self._attack(rest, quantize, score=True)
            batch[left] = rest

    def _attack(self, batch: Batch, quantize: bool, score: bool) -> None:
        """All runs on a batch, the second and later ones on what is not broken yet; then its best points rounded."""
        last = self.perturb(batch)
        if batch.best is None and self.restarts == 1 and not score:
            batch.best = batch.ball.project(last)  # the only candidate
        else:
            batch.consider(last)
        for _ in range(self.restarts - 1):
            left = ~batch.succeeded | self.minimum_norm  # there may be a nearer point
            if not left.any():
                break
            rest = batch[left]
            rest.consider(self.perturb(rest))
            batch[left] = rest
        if quantize:
            points = levels.quantize(batch.ball, batch.best)
            batch.best = None
            if self.minimum_norm:
                batch.keep_clean()
            batch.consider(points)


def _reports(callback: Callable[[Step], None] | None, bar: Any, name: str) -> Callable[[Step], None] | None:
    """What hears of every step: the callback, and the bar every so often; None if there is neither."""
    if callback is None and bar.disable:
        return None
    lock, shown = threading.Lock(), time.monotonic()

    def report(step: Step) -> None:
        nonlocal shown
        with lock:
            if not bar.disable and time.monotonic() >= shown + SHOWN_EVERY:
                shown = time.monotonic()
                bar.set_description_str(f"{name}, step {step.index + 1:,}: ")
            if callback is not None:
                callback(replace(step, points=step.points.copy()))  # a copy: the points may yet be returned

    return report
