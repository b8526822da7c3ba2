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
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from tinyadv.attacks import driver, levels, losses
from tinyadv.attacks.batch import Batch, Step
from tinyadv.attacks.norms import ball_class
from tinyadv.attacks.parameters import Parameters
from tinyadv.attacks.result import AttackResult, host_copy
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.ops.movement import batch_last
from tinyadv.random import Streams
from tinyadv.tensor import Tensor, no_grad


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
        ball_class(self.norm)
        losses.objective(self.loss)
        for name in ("steps", "queries", "restarts"):
            count = getattr(self, name, 1)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {count!r}")
        eps, bounds = getattr(self, "eps", 0), self.bounds
        if not (is_number(eps) and 0 <= eps < math.inf):
            raise ValueError(f"eps must be a number >= 0, in the units of the data, got {eps!r}")
        if not (isinstance(bounds, tuple) and len(bounds) == 2 and all(map(is_number, bounds))
                and -math.inf < bounds[0] < bounds[1] < math.inf):
            raise ValueError(f"bounds must be a tuple (low, high) of numbers with low < high, got {bounds!r}")

    def perturb(self, batch: Batch) -> Array:
        """The last candidates for the batch, (n, ...) like batch.x: the one method that an attack defines."""
        raise TypeError(f"{type(self).__name__} defines no perturb(batch)")

    def __call__(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, **options: Any) -> Array:
        """The adversarial images alone, an array like x; arguments and options are those of `run`."""
        return self.run(model, x, y, _report=False, **options).x_adv

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
        y, target, streams = self._check(x, y, target, seed)
        eps = getattr(self, "eps", math.inf)  # an attack that minimises the distance has no budget
        like = driver.memory_of(model, x)
        x_adv = array_module(x).empty_like(x)
        success, distances, (before, predictions) = np.zeros(len(x), bool), np.zeros(len(x)), np.full((2, len(x)), -1)
        forwards, backwards = np.zeros((2, len(x)), np.int64)
        lock, bar = threading.Lock(), driver.progress_bar(len(x), str(self), progress, leave=False)

        def report(step: Step) -> None:
            if callback:
                with lock:
                    callback(replace(step, points=step.points.copy()))  # a copy: the points may yet be returned

        def work(part: slice) -> None:
            goal = None if target is None else move(target[part], like)
            images, labels = batch_last(move(x[part], like)), move(y[part], like)
            ball = ball_class(self.norm)(images, eps, self.bounds)
            batch = Batch(model, ball, losses.objective(self.loss), labels, goal, streams[part], report,
                          self.minimum_norm)
            self._search(batch, skip_misclassified, quantize, _report or progress)
            x_adv[part], forwards[part], backwards[part] = move(batch.best, x), batch.forwards, batch.backwards
            if _report:
                before[part] = to_host(driver.predict(model, images) if batch.clean is None else batch.clean)
            if batch.predictions is not None:
                predictions[part] = to_host(batch.predictions)
                success[part] = to_host(batch.succeeded)
                distances[part] = to_host(batch.ball.distance(batch.best.astype(np.float64) - batch.x))
            if progress:
                with lock:
                    bar.update(len(images))
                    bar.set_postfix_str(f"{success.sum() / bar.n:.1%} succeeded")

        with bar:
            driver.run(model, x, work, batch_size=batch_size, workers=workers, like=like)
        return AttackResult(self, x_adv, host_copy(y), host_copy(target), success, before, predictions, distances,
                            forwards, backwards, self.norm, streams.seed, time.perf_counter() - started)

    def _check(self, x: Array, y: Array, target: Array | None,
               seed: int | Streams) -> tuple[Array, Array | None, Streams]:
        """y and target as arrays where x is, and the streams; ValueError for what does not fit."""
        driver.check_images(x, self.bounds)
        y = driver.check_classes(y, "y", x)
        if target is not None:
            target = driver.check_classes(np.full(len(x), target) if np.isscalar(target) else target, "target", x)
        streams = seed if isinstance(seed, Streams) else Streams(seed, range(len(x)))
        if len(streams) != len(x):
            raise ValueError(f"seed must be an integer, or Streams of {len(x)} examples as x has; got {streams!r}")
        return y, target, streams

    def _search(self, batch: Batch, skip_misclassified: bool, quantize: bool, score: bool) -> None:
        """Leave the best points in the batch, and its predictions there unless nobody needs them to be scored."""
        if not (skip_misclassified or self.minimum_norm):
            self._attack(batch, quantize, score)
            return
        with no_grad():
            batch.clean = batch.logits(Tensor(batch.x)).data.argmax(axis=1)
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
            left = ~batch.succeeded
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


@dataclass(frozen=True)
class Composite(Attack):
    """The base of attacks that run other attacks, of one threat model, which is theirs as well."""

    bounds: tuple[float, float] = field(init=False, repr=False, compare=False)

    def _adopt(self, *attacks: Attack) -> None:
        """Take over norm, bounds and eps (and its absence) of attacks; ValueError where they differ."""
        if not attacks or not all(isinstance(attack, Attack) for attack in attacks):
            raise ValueError(f"{type(self).__name__} is made of attacks, got {attacks!r}")
        for name in ("norm", "bounds", "minimum_norm", "eps"):
            value, *others = dict.fromkeys(getattr(attack, name, None) for attack in attacks)
            if others:
                raise ValueError(f"attacks must be of one threat model, got {name} {value!r} and {others[0]!r}: "
                                 "run them apart, and compare their results")
            if value is not None:
                object.__setattr__(self, name, value)


def is_number(value: Any) -> bool:
    """Whether the value is a real number, not a truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
