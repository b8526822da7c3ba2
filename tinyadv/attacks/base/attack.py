"""What all attacks share: a frozen dataclass of hyper-parameters, and the guarantees that hold for every attack.

    x_adv  = FGSM(eps=0.3)(model, x, y, seed=42)         # an array like x
    result = FGSM(eps=0.3).run(model, x, y, seed=42)     # the images and a report on each example

A subclass defines `perturb`, which takes a Batch and returns the last candidate points. It may pass more candidates to
the batch on the way; the best one of each example is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

from tinyadv import driver
from tinyadv.attacks.base import levels
from tinyadv.attacks.base.arguments import check_arguments, doubt_eps, whole_pixels
from tinyadv.attacks.base.balls import BALLS, ball_class
from tinyadv.attacks.base.batch import Batch, Step
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.base.parameters import Parameters, check_bounds
from tinyadv.attacks.base.result import AttackResult
from tinyadv.backend import Array, array_module, is_array, move, on_its_device, rows_of, to_host
from tinyadv.nn.table import progress_bar
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams
from tinyadv.shapes import is_number, to_count
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor

SHOWN_EVERY = 0.5  # seconds between two updates of the progress bar within a shard


@dataclass(frozen=True)
class Attack(Parameters):
    """The base class of all attacks. A call splits x into shards, attacks them on threads or by an executor, and
    keeps their order.

    bounds: the range of the data, in its own units.
    """

    _: KW_ONLY
    bounds: tuple[float, float] = (0.0, 1.0)

    # Defaults for attacks without these fields: the norm of the budget (`eps` is its radius), the loss to maximise, and
    # the number of runs; later runs attack only examples that are not broken yet, or, of minimum norm, all.
    norm = "linf"
    norms: ClassVar[tuple[str, ...]] = tuple(BALLS)  # those that the attack knows
    loss = "cross_entropy"
    restarts = eot = 1
    minimum_norm = False  # True if the attack has no budget and searches for the nearest misclassified point

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "norm" and isinstance(value, str) and value in BALLS:
                raise ValueError(f"{name} must not be a norm, got {value!r}: "
                                 f"write norm={value!r} in {type(self).__name__}(...)")
        ball_class(self.norm)
        if self.norm not in self.norms:
            raise ValueError(f"norm must be {' or '.join(self.norms)} for {type(self).__name__}, got {self.norm!r}")
        objective(self.loss)
        for name in ("steps", "queries", "restarts", "eot"):
            if name in vars(self):
                object.__setattr__(self, name, to_count(name, vars(self)[name]))
        check_bounds(self.bounds)
        eps, unit = getattr(self, "eps", 0), "pixels" if self.norm == "l0" else "the units of the data"
        if not (self.minimum_norm or (is_number(eps) and 0 <= eps < math.inf)):
            raise ValueError(f"eps must be a number >= 0, in {unit}, got {eps!r}")

    def perturb(self, batch: Batch) -> Array:
        """The last candidates for the batch, an array like batch.x: the one method that an attack must define."""
        raise TypeError(f"{type(self).__name__} defines no perturb(batch)")

    def with_eps(self, eps: float) -> Attack:
        """The same attack with another budget; ValueError if it has no budget."""
        self._budget()
        return replace(cast(Any, self), eps=eps)

    def scaled(self, factor: float) -> Attack:
        """The same attack with budget and step size times a factor; ValueError if it has no budget."""
        eps, step_size = factor * (budget := self._budget()), getattr(self, "step_size", None)
        eps = round(eps, 9) if self.norm == "l0" else eps  # 49 pixels times 1/49 are one
        scaled: Any = self.with_eps(whole_pixels(eps, self.norm, budget))
        return replace(scaled, step_size=factor * step_size or None) if step_size else scaled

    def _budget(self) -> float:
        if (eps := getattr(self, "eps", None)) is None:
            raise ValueError(f"attack must have an eps to vary, got {self}: give one that has it, as PGD(eps=0.1)")
        return eps

    @spelled
    def __call__(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, **options: Any) -> Array:
        """Only the adversarial images, an array like x; the arguments are those of `run`."""
        return self.run(model, x, y, _report=False, **options).x_adv

    @spelled
    @on_its_device
    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, workers: int | None = None, executor: Executor | None = None,
            batch_size: int | None = None, skip_misclassified: bool = False, quantize: bool = False,
            callback: Callable[[Step], None] | None = None, progress: bool = False,
            _report: bool = True) -> AttackResult:
        """Attack every image of x, and return the adversarial images with a report on each.

        model: any callable from a Tensor (N, C, H, W) to logits (N, K). They are a Tensor or, if the attack uses no
            gradients, may be an array. A Module runs in evaluation mode; if it is on a GPU, the data is moved there.
        x: (N, C, H, W) floats within the bounds; y: (N,) the true classes; target: (N,) the target classes, or one for
            all images. The model, x, y and target are not changed.
        seed: of the random streams, one for each example; or a Streams object, which is not advanced.
        workers: the number of threads (default: all usable cores); it changes no bit of the result.
        executor: any concurrent.futures.Executor, such as one of processes, of Dask or of MPI, in place of threads; it
            changes no bit. If it does not know its number of workers, pass that as `workers`. See docs/scale.md.
        batch_size: the number of examples in a shard; it changes only the rounding of sums and products.
        skip_misclassified: return images that the model gets wrong unchanged, without attacking them.
        quantize: return images on 256 levels from low to high, within the budget, which can be saved with 8 bits.
            Levels are rounded to floats, so write a budget of 8 levels as eps=8.01/255: with 8/255 half of them would
            be slightly too far. It takes one more forward pass. In l0, pixels that are left alone stay as they are.
        callback: called with a Step after every iteration of a shard, by one thread at a time, and not with an
            executor. progress: show a bar.
        Raises TypeError or ValueError for arguments that do not fit. An example that is not broken is no error.
        """
        started = time.perf_counter()
        if callback is not None and executor is not None:
            raise ValueError("callback must be None with an executor, whose steps are taken in other processes: leave "
                             "out the executor, or ask for progress=True")
        x, y, target, streams = check_arguments(x, y, target, seed, self.bounds)
        if not self.minimum_norm:
            doubt_eps(getattr(self, "eps", 0), self.norm, self.bounds)
        result = AttackResult.blank(self, array_module(x).empty_like(x), y, target, self.norm, streams.seed)
        bar = progress_bar(len(x), str(self), progress, leave=False)

        def put(part: slice, found: dict[str, Array]) -> None:
            result.put(part, found)
            if progress:
                bar.update(part.stop - part.start)
                bar.set_postfix_str(f"{result.success.sum() / bar.n:.1%} succeeded")

        report = None if executor is not None else _reports(callback, bar, str(self))
        work = partial(self.shard, skip_misclassified=skip_misclassified, quantize=quantize,
                       scored=_report or progress, report=report)
        with bar:
            driver.run(work, model, (x, y, target, streams), put, batch_size=batch_size, workers=workers,
                       executor=executor)
        return replace(result, seconds=time.perf_counter() - started)

    def shard(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, target: Array | None, streams: Streams, *,
              skip_misclassified: bool, quantize: bool, scored: bool, report: Callable[[Step], None] | None,
              ) -> dict[str, Array]:
        """Attack the examples of one shard, and return {field of AttackResult: values} for them.

        It depends on its arguments only, so it can run in another process. They are those of `run`, already checked.
        scored: whether all fields are needed, or only x_adv, which may be cheaper. report: called after every step.
        """
        like = driver.memory_of(model, x)
        images, labels = arranged(move(x, like)), move(y, like)
        goal = None if target is None else move(target, like)
        eps = math.inf if self.minimum_norm else getattr(self, "eps", math.inf)
        batch = Batch(model, ball_class(self.norm)(images, eps, self.bounds), objective(self.loss), labels, goal,
                      streams, report, self.minimum_norm, self.eot)
        self._search(batch, skip_misclassified, quantize, scored)
        found = batch.outcome()
        if scored and batch.clean is None:
            found["predictions_clean"] = to_host(driver.predict(model, images, streams))
        return {"x_adv": move(batch.best, x), **found}

    def _search(self, batch: Batch, skip_misclassified: bool, quantize: bool, score: bool) -> None:
        """Put the best points into the batch and, if `score` is true, their predictions."""
        if not (skip_misclassified or self.minimum_norm):
            self._attack(batch, quantize, score)
            return
        batch.look_at_clean()
        batch.keep_clean()
        wanted = batch.clean == batch.y if skip_misclassified else ~batch.succeeded
        if self.minimum_norm:
            wanted = wanted & ~batch.succeeded  # a success at x needs no perturbation
        left = rows_of(wanted)
        if len(left):
            rest = batch[left]
            if not self.minimum_norm:
                rest.best = None  # the clean image is no candidate
            self._attack(rest, quantize, score=True)
            batch[left] = rest

    def _perturbed(self, batch: Batch) -> Array:
        """What `perturb` returns: points like batch.x, which it must not change, since distances are taken from it."""
        before, last = batch.x.copy(), self.perturb(batch)
        if not is_array(last) or last.shape != before.shape:
            raise ValueError(f"{type(self).__name__}.perturb must return points of shape {before.shape}, got "
                             f"{getattr(last, 'shape', type(last).__name__)}")
        if (batch.x != before).any():
            raise ValueError(f"{type(self).__name__}.perturb must not write into batch.x: begin with batch.x.copy()")
        return last

    def _attack(self, batch: Batch, quantize: bool, score: bool) -> None:
        """All runs on a batch, the later ones on the examples that are not broken yet; then round the best points."""
        last = self._perturbed(batch)
        if batch.best is None and self.restarts == 1 and not score:
            batch.best = batch.ball.project(last)  # the only candidate
        else:
            batch.consider(last)
        for _ in range(self.restarts - 1):
            left = rows_of(~batch.succeeded | self.minimum_norm)  # there may be a nearer point
            if not len(left):
                break
            rest = batch[left]
            rest.consider(self._perturbed(rest))
            batch[left] = rest
        if quantize:
            points, batch.queries = levels.quantize(batch.ball, batch.best), math.inf  # they have been found in time
            batch.best = None
            if self.minimum_norm:
                batch.keep_clean()
            batch.consider(points)


@dataclass(frozen=True)
class WhiteBox(Attack):
    """The base class of attacks that follow gradients.

    eot: the number of forward passes over which each gradient is averaged, for models with random outputs: the
        expectation over transformation of Athalye, Engstrom, Ilyas and Kwok 2018, arXiv:1707.07397.
    """

    _: KW_ONLY
    eot: int = 1


def _reports(callback: Callable[[Step], None] | None, bar: Any, name: str) -> Callable[[Step], None] | None:
    """A function that passes each Step to the callback and, twice a second, to the bar; None if there is neither."""
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
                callback(replace(step, examples=step.examples.copy(), points=step.points.copy(),
                                 losses=step.losses.copy()))  # copies: the attack still needs what it made

    return report
