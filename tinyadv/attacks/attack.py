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
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from tinyadv.attacks import driver, losses
from tinyadv.attacks.norms import Ball, ball_class
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.random import Streams
from tinyadv.tensor import Tensor, gradients, no_grad


@dataclass(frozen=True)
class Step:
    """What a callback sees of one iteration of one shard.

    index: of the iteration, from 0; examples: (n,) their indices in x; points: (n, ...); losses: (n,), the
    attacker's objective at the points.
    """

    index: int
    examples: np.ndarray
    points: Array
    losses: Array


@dataclass(frozen=True, eq=False)
class AttackResult:
    """x_adv, and for every example: whether the attack succeeded, the prediction at x_adv, and the distance.

    success: (N,) bool: misclassified or, for a targeted attack, classified as the target.
    predictions: (N,) int64, at x_adv; distances: (N,) float64, |x_adv - x| in the attack's norm.
    """

    attack: Attack
    x_adv: Array = field(repr=False)
    success: np.ndarray = field(repr=False)
    predictions: np.ndarray = field(repr=False)
    distances: np.ndarray = field(repr=False)
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

    # Fields of the attacks that have them: the budget's radius and norm, what is maximised, and how many runs there
    # are, of which the second and later ones take on only what is not broken yet.
    eps = math.inf
    norm = "linf"
    loss = "cross_entropy"
    restarts = 1

    def __post_init__(self) -> None:
        ball_class(self.norm)
        losses.objective(self.loss)
        for name in ("steps", "restarts"):
            count = getattr(self, name, 1)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {count!r}")
        if "eps" in self.__dataclass_fields__ and not (_is_number(self.eps) and 0 <= self.eps < math.inf):
            raise ValueError(f"eps must be a number >= 0, in the units of the data, got {self.eps!r}")
        low, high = self.bounds
        if not (_is_number(low) and _is_number(high) and -math.inf < low < high < math.inf):
            raise ValueError(f"bounds must be two numbers (low, high) with low < high, got {self.bounds!r}")

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
        callback: is called with a Step after every iteration of a shard. progress: show a bar.
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
            target = driver.check_classes(np.full(len(x), target) if np.ndim(target) == 0 else target, "target", x)
        like, streams = driver.memory_of(model, x), Streams(seed, range(len(x)))
        x_adv = array_module(x).empty_like(x)
        success, predictions, distances = np.zeros(len(x), bool), np.full(len(x), -1), np.zeros(len(x))
        lock, bar = threading.Lock(), _progress_bar(len(x), repr(self), progress)

        def report(step: Step) -> None:
            if callback:
                with lock:
                    callback(step)

        def work(part: slice) -> None:
            goal = None if target is None else move(target[part], like)
            images, labels = driver.batch_last(x[part], like), move(y[part], like)
            batch = Batch(self, model, images, labels, goal, streams[part], report)
            found = _search(batch, skip_misclassified, score or progress)
            x_adv[part] = move(found, like=x)
            if batch.predictions is not None:
                predictions[part] = to_host(batch.predictions)
                success[part] = to_host(batch.succeeded)
                distances[part] = to_host(batch.ball.distance(found.astype(np.float64) - batch.x))
            if progress:
                with lock:
                    bar.update(len(found))
                    bar.set_postfix_str(f"{success.sum() / bar.n:.1%} succeeded")

        with bar:
            driver.run(model, len(x), work, batch_size=batch_size, workers=workers, like=like)
        return AttackResult(self, x_adv, success, predictions, distances, seed, time.perf_counter() - started)


class Batch:
    """One shard of examples under attack: what `perturb` sees, and where its best candidates are kept.

    x (n, ...), y (n,), target (n,) or None, streams: of the examples; ball: the points that may be returned.
    Of the candidates, the best is misclassified (as the target, if there is one) if any is, and then of highest loss.
    best (n, ...), losses (n,), predictions (n,): the best candidates, the objective and the model's classes there;
    None before the first.
    """

    def __init__(self, attack: Attack, model: Callable[[Tensor], Tensor], x: Array, y: Array, target: Array | None,
                 streams: Streams, report: Callable[[Step], None]):
        self.attack, self.model, self.x, self.y, self.target = attack, model, x, y, target
        self.streams, self._report = streams, report
        self.ball: Ball = ball_class(attack.norm)(x, attack.eps, attack.bounds)
        self._objective = losses.objective(attack.loss)
        self.best: Array = None
        self.losses: Array = None
        self.predictions: Array = None
        self._iterations = 0

    @property
    def succeeded(self) -> Array:
        """(n,) bool: whether the best candidate is misclassified or, with a target, classified as that."""
        return self._succeeds(self.predictions)

    def __getitem__(self, index: Array) -> Batch:
        """A batch of some of the examples, with their best candidates so far."""
        target = None if self.target is None else self.target[index]
        part = Batch(self.attack, self.model, driver.batch_last(self.x[index], self.x), self.y[index], target,
                     self.streams[to_host(index)], self._report)
        if self.best is not None:
            part.best, part.losses, part.predictions = self.best[index], self.losses[index], self.predictions[index]
        return part

    def __setitem__(self, index: Array, part: Batch) -> None:
        """Take over the best candidates of a part."""
        self.best = self.best.copy()  # it may be an array that the attack goes on with
        self.best[index], self.losses[index], self.predictions[index] = part.best, part.losses, part.predictions

    def gradient(self, points: Array, candidate: bool = True) -> Array:
        """The gradient of the attack's objective at the points (n, ...), each example's own; the points are candidates.

        A point that is not meant to be returned, such as the clean image, is no candidate.
        """
        x = Tensor(points)
        logits = driver.check_logits(self.model(x), points)
        objective = self._objective(logits, self.y, self.target)
        (g,) = gradients(objective.sum(), [x])
        if candidate:
            self._keep(points, objective.data, logits.data)
        self._report(Step(self._iterations, self.streams.examples, points, objective.data))
        self._iterations += 1
        return g

    def consider(self, points: Array) -> None:
        """Make the points (n, ...) candidates."""
        with no_grad():
            logits = driver.check_logits(self.model(Tensor(points)), points)
            self._keep(points, self._objective(logits, self.y, self.target).data, logits.data)

    def _keep(self, points: Array, losses: Array, logits: Array) -> None:
        where = array_module(points).where
        predictions = logits.argmax(axis=1)
        losses = where(losses == losses, losses, -math.inf)  # a loss that is no number is the worst
        if self.best is None:
            self.best, self.losses, self.predictions = points, losses, predictions
            return
        now, before = self._succeeds(predictions), self.succeeded
        better = (now & ~before) | ((now == before) & (losses > self.losses))
        self.best = where(better.reshape(-1, *[1] * (points.ndim - 1)), points, self.best)
        self.losses = where(better, losses, self.losses)
        self.predictions = where(better, predictions, self.predictions)

    def _succeeds(self, predictions: Array) -> Array:
        return predictions != self.y if self.target is None else predictions == self.target


def _search(batch: Batch, skip_misclassified: bool, score: bool) -> Array:
    """The best points (n, ...) for a batch, and in it its predictions there, unless nobody needs them."""
    attack = batch.attack
    if skip_misclassified:
        predictions = driver.forward(batch.model, batch.x).data.argmax(axis=1)
        right = predictions == batch.y
        rest = batch[right]
        if right.any():
            _search(rest, False, True)
        batch.best, batch.losses, batch.predictions = batch.x.copy(), predictions * 0.0, predictions
        if right.any():
            batch[right] = rest
        return batch.ball.project(batch.best)
    last = attack.perturb(batch)
    if batch.best is None and attack.restarts == 1 and not score:
        return batch.ball.project(last)  # the only candidate
    batch.consider(last)
    for _ in range(attack.restarts - 1):
        left = ~batch.succeeded
        if not left.any():
            break
        rest = batch[left]
        rest.consider(attack.perturb(rest))
        batch[left] = rest
    return batch.ball.project(batch.best)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _progress_bar(total: int, name: str, enabled: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit="image", disable=not enabled, leave=False)
