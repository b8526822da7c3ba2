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
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any

import numpy as np

from tinyadv.attacks import driver, losses
from tinyadv.attacks.batch import Batch, Step
from tinyadv.attacks.norms import ball_class
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.ops.movement import batch_last
from tinyadv.random import Streams
from tinyadv.tensor import Tensor, no_grad


@dataclass(frozen=True, eq=False)
class AttackResult:
    """x_adv, and for every example: whether the attack succeeded, the prediction at x_adv, and the distance.

    success: (N,) bool: misclassified or, for a targeted attack, classified as the target.
    predictions: (N,) int64, at x_adv; distances: (N,) float64, |x_adv - x| in the attack's norm.
    forwards, backwards: (N,) int64, how often the model has seen the example, and given a gradient for it.
    """

    attack: Attack
    x_adv: Array = field(repr=False)
    success: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    distances: np.ndarray = field(repr=False)
    forwards: np.ndarray = field(repr=False)
    backwards: np.ndarray = field(repr=False)
    seed: int
    seconds: float

    def summary(self) -> str:
        """One line: the attack, its successes, the median distance of these, and the time."""
        median = np.median(self.distances[self.success]) if self.success.any() else math.nan
        return (f"{self.attack}: {self.success.sum()} of {len(self.success)} succeeded, median distance {median:.4g}, "
                f"seed {self.seed}, {self.seconds:.1f} s")


@dataclass(frozen=True)
class Attack:
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
        for name in ("steps", "restarts"):
            count = getattr(self, name, 1)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {count!r}")
        eps, bounds = getattr(self, "eps", 0), self.bounds
        if not (is_number(eps) and 0 <= eps < math.inf):
            raise ValueError(f"eps must be a number >= 0, in the units of the data, got {eps!r}")
        if not (isinstance(bounds, tuple) and len(bounds) == 2 and all(map(is_number, bounds))
                and -math.inf < bounds[0] < bounds[1] < math.inf):
            raise ValueError(f"bounds must be a tuple (low, high) of numbers with low < high, got {bounds!r}")

    def __str__(self) -> str:
        """As its repr, but without the fields that have their default values."""
        settings = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(settings)})"

    def perturb(self, batch: Batch) -> Array:
        """The last candidates for the batch, (n, ...) like batch.x: the one method that an attack defines."""
        raise TypeError(f"{type(self).__name__} defines no perturb(batch)")

    def __call__(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, **options: Any) -> Array:
        """The adversarial images alone, an array like x; arguments and options are those of `run`."""
        return self._run(model, x, y, score=False, **options).x_adv

    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int = 0, workers: int | None = None, batch_size: int | None = None,
            skip_misclassified: bool = False, callback: Callable[[Step], None] | None = None,
            progress: bool = False) -> AttackResult:
        """Attack every image of x and report what became of each.

        model: any callable from a Tensor (N, C, H, W) to logits (N, K); a Module runs in evaluation mode and,
            if it lies on a GPU, gets its data there.
        x: (N, C, H, W) floats inside the bounds; y: (N,) the true classes; target: (N,) the classes to reach, or
            one for all. Nothing of model, x, y and target is changed.
        seed: of the random streams, one for each example.
        workers: threads (default: all usable cores); batch_size: examples in a shard. The first changes no bit of
            the result, the second none beyond the rounding of matrix products.
        skip_misclassified: return the images that the model gets wrong as they are, without spending a step.
        callback: is called with a Step after every iteration of a shard, by one thread at a time. progress: show a bar.
        Raises ValueError for arguments that do not fit; an attack that fails on an example is no exception.
        """
        return self._run(model, x, y, score=True, target=target, seed=seed, workers=workers, batch_size=batch_size,
                         skip_misclassified=skip_misclassified, callback=callback, progress=progress)

    def _run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, score: bool, target: Array | None = None,
             seed: int = 0, workers: int | None = None, batch_size: int | None = None, skip_misclassified: bool = False,
             callback: Callable[[Step], None] | None = None, progress: bool = False) -> AttackResult:
        started = time.perf_counter()
        driver.check_images(x, self.bounds)
        y = driver.check_classes(y, "y", x)
        if target is not None:
            target = driver.check_classes(np.full(len(x), target) if np.isscalar(target) else target, "target", x)
        eps = getattr(self, "eps", math.inf)  # an attack that minimises the distance has no budget
        like, streams = driver.memory_of(model, x), Streams(seed, range(len(x)))
        x_adv = array_module(x).empty_like(x)
        success, predictions, distances = np.zeros(len(x), bool), np.full(len(x), -1), np.zeros(len(x))
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
            found = self._search(batch, skip_misclassified, score or progress)
            x_adv[part], forwards[part], backwards[part] = move(found, like=x), batch.forwards, batch.backwards
            if batch.predictions is not None:
                predictions[part] = to_host(batch.predictions)
                success[part] = to_host(batch.succeeded)
                distances[part] = to_host(batch.ball.distance(found.astype(np.float64) - batch.x))
            if progress:
                with lock:
                    bar.update(len(found))
                    bar.set_postfix_str(f"{success.sum() / bar.n:.1%} succeeded")

        with bar:
            driver.run(model, x, work, batch_size=batch_size, workers=workers, like=like)
        seconds = time.perf_counter() - started
        return AttackResult(self, x_adv, success, predictions, distances, forwards, backwards, seed, seconds)

    def _search(self, batch: Batch, skip_misclassified: bool, score: bool) -> Array:
        """The best points (n, ...) for a batch, and in it its predictions there, unless nobody needs them."""
        if skip_misclassified:
            with no_grad():
                predictions = batch.logits(Tensor(batch.x)).data.argmax(axis=1)
            right = predictions == batch.y
            rest = batch[right]  # before the clean images are kept: they are no candidates
            batch.best, batch.losses, batch.predictions = batch.x.copy(), predictions * 0.0, predictions
            if right.any():
                self._search(rest, skip_misclassified=False, score=True)
                batch[right] = rest
            return batch.best
        if self.minimum_norm:
            batch.consider(batch.x)  # an image that is misclassified as it is needs no perturbation
            left = ~batch.succeeded
            if left.any():
                rest = batch[left]
                rest.consider(self.perturb(rest))
                batch[left] = rest
            return batch.best
        last = self.perturb(batch)
        if batch.best is None and self.restarts == 1 and not score:
            return batch.ball.project(last)  # the only candidate
        batch.consider(last)
        for _ in range(self.restarts - 1):
            left = ~batch.succeeded
            if not left.any():
                break
            rest = batch[left]
            rest.consider(self.perturb(rest))
            batch[left] = rest
        return batch.best


def is_number(value: Any) -> bool:
    """Whether the value is a real number, not a truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
