"""The training loop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from tinyadv import driver, evaluation
from tinyadv.attacks import Attack
from tinyadv.attacks.base.arguments import warn
from tinyadv.backend import array_module, device_of, move
from tinyadv.data import Dataset, batches
from tinyadv.executors import Stopped, stopping
from tinyadv.nn import Module, Random
from tinyadv.nn.lock import owned
from tinyadv.nn.optim import Optimizer, Schedule
from tinyadv.nn.table import progress_bar
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams, check_seed
from tinyadv.ranks import ranks, told
from tinyadv.shapes import check_not_negative
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor
from tinyadv.training.arguments import check_augmented, check_fit
from tinyadv.training.average import SHOWN, averaged_state, follow
from tinyadv.training.checkpoint import Interrupted, State, check_ranks, described, interruptible
from tinyadv.training.history import Epoch, History
from tinyadv.training.methods import Adversarial, Method, Scene, Standard
from tinyadv.training.update import Update, updates

COLLAPSE = 0.2  # a larger fall of the robust accuracy is a collapse, no fluctuation: Wong et al. 2020, arXiv:2001.03994
WATCHED = 1000  # at most so many training images take the place of a missing validation set


class CatastrophicOverfitting(UserWarning):
    """The robust accuracy has collapsed under an attack other than the one trained with; training has stopped."""


@told
@spelled
def fit(model: Module, train: Dataset, *, epochs: int, optimizer: Optimizer, attack: Attack | None = None,
        method: Method | None = None, batch_size: int = 32, seed: int = 0, schedule: Schedule | None = None,
        eps_schedule: Schedule | None = None, augment: Callable[[np.ndarray, Streams], np.ndarray] | None = None,
        clip_norm: float | None = None, average: float | None = None, validation: Dataset | None = None,
        validation_attack: Attack | None = None, checkpoint: str | Path | None = None, minutes: float = 10,
        resume: bool = False, extend: Collection[str] = (), progress: bool = False) -> History:
    """Train the model in place, and return the history.

    attack: adversarial training with this attack (Madry et al.), short for method=Adversarial(attack). method: another
        method, such as TRADES(eps=0.3). Without either: standard training.
    optimizer: of the parameters of this model, all or some. schedule: a function from progress in [0, 1] to the factor
        of its learning rate. eps_schedule: likewise, the factor of the attack's budget and step size; `ramp(0.2)` lets
        the budget grow.
    seed: of all random numbers, but for those of layers that have a seed of their own. The order of the images differs
        from epoch to epoch.
    augment: a function (images, streams) -> images, as in data.augment. clip_norm: the largest l2 norm of a gradient.
    average: the decay of an exponential moving average of the weights, such as 0.999; in the k-th step, it is at most
        (1 + k) / (10 + k), as in TensorFlow. The averaged weights are measured after each epoch, and the model has them
        in the end. The statistics of batch normalisation are estimated again for them, on 2,000 training images, which
        are attacked if the method attacks.
    validation: held-out images; the accuracy on them is measured after each epoch. With validation_attack, so is the
        robust accuracy, and the model ends with the weights of the epoch where it was highest. `Fast` has a validation
        attack of its own, and measures it on training images if there is no validation set.
    checkpoint: a file for the state of training. It is written before the first step, after each epoch, every
        `minutes` minutes, and after Ctrl-C, which then raises Interrupted. Only one run at a time may use the file. Of
        several ranks (`tinyadv.ranks.sharing`), the first one writes it, and Ctrl-C ends them all without writing.
    resume: go on from that file, if it exists, to exactly the weights of a run without a break. All other arguments
        must be the same; of functions and objects in a method, the names and arrays are. extend: those that may differ,
        "epochs" or "lr"; ("epochs",) trains a finished run further. progress: show a progress bar for each epoch.
    The model is in training mode during the run, and then again in the mode it had before.
    Raises TypeError or ValueError for arguments that do not fit, FloatingPointError if the loss is NaN or infinite.
    """
    if attack is not None and method is not None:
        raise ValueError("attack is short for method=Adversarial(attack): give only one of the two, got "
                         f"{attack} and {method}")
    path = None if checkpoint is None else Path(checkpoint)
    method = method or (Standard() if attack is None else Adversarial(attack))
    check_fit(model=model, train=train, epochs=epochs, batch_size=batch_size, optimizer=optimizer, method=method,
              functions=(schedule, eps_schedule, augment), clip_norm=clip_norm, average=average, validation=validation,
              validation_attack=validation_attack, path=path, minutes=minutes, resume=resume, extend=extend)
    run = _Run(
        model=model, train=train, epochs=int(epochs), optimizer=optimizer, method=method, batch_size=int(batch_size),
        seed=check_seed(seed), schedule=schedule, eps_schedule=eps_schedule, augment=augment, clip_norm=clip_norm,
        average=average, validation=validation, validation_attack=validation_attack or method.watch, path=path,
        interval=60 * minutes, progress=progress)
    with (device_of(*(p.data for p in model.parameters())),
          owned(path) if path is not None and ranks().number == 0 else nullcontext()):
        return run.all(resume, extend)


@dataclass
class _Run:
    """One call of `fit`, whose arguments are its first fields."""

    model: Module
    train: Dataset
    epochs: int
    optimizer: Optimizer
    method: Method
    batch_size: int
    seed: int
    schedule: Schedule | None
    eps_schedule: Schedule | None
    augment: Callable[[np.ndarray, Streams], np.ndarray] | None
    clip_norm: float | None
    average: float | None
    validation: Dataset | None
    validation_attack: Attack | None
    path: Path | None
    interval: float
    progress: bool
    state: State = field(default_factory=State)

    def all(self, resume: bool, extend: Collection[str]) -> History:
        alone = ranks().size == 1
        for number, (_, module) in enumerate(self.model.named_modules()):
            if isinstance(module, Random) and module._unseeded:
                module.seed, module.calls = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]), 0
        self.base_rate, self.settings = self.optimizer.lr, described(vars(self)) if self.path or not alone else {}
        if resume and self.path and self.path.exists():
            self.state = State.load(self.path, self.model, self.optimizer, self.settings, extend)
        elif self.average:
            self.state.average = {name: p.data.copy() for name, p in self.model.named_parameters()}
        check_ranks(self.model, self.settings, self.state)
        try:
            with interruptible(self.path is not None and alone) as self.interrupt, stopping(self.interrupt):
                self.save()  # so an unwritable folder or a full disk is found now, not after an epoch
                while self.state.epoch < self.epochs:
                    self.epoch()
                    self.judge()
                    self.save()
        except Stopped:  # within an attack, which changes nothing: the state is that before this step
            self.save()
        finally:
            self.optimizer.lr = self.base_rate
        if self.epochs and (self.state.best or self.average):
            self.model.load_state_dict(self.state.best or self.averaged())
        return self.state.history

    def epoch(self) -> None:
        """The remaining batches of the epoch."""
        state, started = self.state, time.perf_counter() - self.state.seconds
        bar = progress_bar(len(self.train), f"{self.train.name}, epoch {state.epoch + 1}/{self.epochs}",
                           self.progress and ranks().number == 0)
        recent: deque[float] = deque(maxlen=5)
        todo = batches(self.train, self.batch_size, seed=self.seed, epoch=state.epoch)
        with self.model.mode(training=True), updates(self.model, self.optimizer, self.clip_norm) as update, bar:
            bar.update(min(state.step * self.batch_size, len(self.train)))
            for images, labels in islice(todo, state.step, None):
                done = self.step(update, images, labels)
                state.step += 1
                recent.append(done.loss)
                if not math.isfinite(done.loss):
                    seen, _ = self.drawn(images, state.epoch, state.step - 1)
                    whole = array_module(seen).isfinite(seen).all()
                    raise FloatingPointError(
                        f"the loss became {done.loss} in epoch {state.epoch + 1}, step {state.step}, at learning rate "
                        f"{self.optimizer.lr:g}; the last losses were {', '.join(f'{loss:.4g}' for loss in recent)}: "
                        + ("try a lower rate, or clip_norm=1" if whole else "the images contain NaN or infinity"))
                state.loss_sum, state.hits = state.loss_sum + done.loss * len(labels), state.hits + done.hits
                state.seconds = time.perf_counter() - started
                bar.update(len(labels))
                bar.set_postfix(loss=f"{done.loss:.4f}", refresh=False)
                if self.interrupt.is_set() or time.monotonic() > self.saved + self.interval:
                    self.save()

    def step(self, update: Callable[..., Update], images: np.ndarray, labels: np.ndarray) -> Update:
        """One step of the method, with the learning rate and budget of the schedules; then update the averages."""
        state = self.state
        progress = (state.epoch + state.step * self.batch_size / len(self.train)) / self.epochs
        factor = float(self.schedule(progress)) if self.schedule else 1.0
        check_not_negative("the factor of the schedule", factor)
        state.rate = self.optimizer.lr = float(self.base_rate * factor)
        state.strength = float(self.eps_schedule(progress)) if self.eps_schedule else 1.0
        if not 0 <= state.strength <= 1:
            raise ValueError(f"eps_schedule must give factors in [0, 1], got {state.strength} at {progress:.0%}")
        images, streams = self.drawn(images, state.epoch, state.step)
        done = self.method.step(Scene(self.model, update, streams, state.strength, state.memory), images, labels)
        if self.average:  # the decay grows, so that the first weights are soon forgotten
            count = state.epoch * -(-len(self.train) // self.batch_size) + state.step + 1  # the steps of this run
            follow(state.average, self.model, min(self.average, (1 + count) / (10 + count)))
        return done

    def drawn(self, images: np.ndarray, *key: int) -> tuple[np.ndarray, Streams]:
        """The images as `augment` changes them, and the streams of a step, both drawn from (seed, *key)."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=key).generate_state(2, np.uint64)
        streams, others = (Streams(int(each), range(len(images))) for each in seeds)
        return check_augmented(self.augment(images, others), images) if self.augment else images, streams

    def averaged(self) -> dict[str, np.ndarray]:
        """The state_dict with the averaged weights, if there are any."""
        def shown() -> Iterator[tuple[Tensor, ...]]:
            state, epoch = self.state, min(self.state.epoch, self.epochs - 1)  # in the end that of the last epoch again
            todo = batches(self.train, self.batch_size, seed=self.seed, epoch=epoch)
            for number, (images, labels) in enumerate(islice(todo, -(-SHOWN // self.batch_size))):
                images, streams = self.drawn(images, epoch, number, 1)
                scene = Scene(self.model, Update, streams, state.strength, state.memory)  # inputs need no update
                inputs = self.method.inputs(scene, images, labels)
                like = driver.memory_of(self.model, images)
                yield self.method.shown(state.strength, *(Tensor(arranged(move(x, like))) for x in inputs))

        return averaged_state(self.model, self.state.average, shown())

    def judge(self) -> None:
        """Measure the model at the end of an epoch, and append an Epoch to the history."""
        state, count = self.state, len(self.train)
        live, clean, robust, certified, best = self.model.state_dict(), None, None, None, 0.0
        if self.validation or self.validation_attack:
            self.model.load_state_dict(self.averaged())
            try:
                if self.validation:
                    clean = evaluation.accuracy(self.model, self.validation)
                    certified = self.method.certified(self.model, self.validation)
                if self.validation_attack:
                    robust = evaluation.robust_accuracy(self.model, self.validation_attack,
                                                        self.validation or self.train[:WATCHED], seed=self.seed)
                    best = max((each.robust or 0.0 for each in state.history), default=0.0)
                    if robust >= best:
                        state.best = self.model.state_dict()
            finally:
                self.model.load_state_dict(live)
        budget = None if self.method.budget is None else float(self.method.budget * state.strength)
        state.history.epochs.append(Epoch(state.epoch + 1, state.loss_sum / count, state.hits / count, clean,
                                          state.rate, state.seconds, robust, budget, certified))
        state.epoch, state.step, state.loss_sum, state.hits, state.seconds = state.epoch + 1, 0, 0.0, 0, 0.0
        if self.method.watch and robust is not None and robust < best - COLLAPSE:
            warn(f"the accuracy under {self.validation_attack} fell from {best:.1%} to {robust:.1%} in epoch "
                 f"{state.epoch}: training stops, with the weights of the better epoch", CatastrophicOverfitting)
            state.collapsed, state.epoch = state.epoch, self.epochs

    def save(self) -> None:
        """Write the checkpoint, if there is one; after Ctrl-C, raise Interrupted."""
        self.saved = time.monotonic()
        begun = self.state.epoch or self.state.step  # before the first step, the error about the loss says more
        if begun and not all(array_module(p.data).isfinite(p.data).all() for p in self.model.parameters()):
            raise FloatingPointError(f"a weight became NaN or infinite after {self.state.epoch} epochs and "
                                     f"{self.state.step} steps: try a lower rate, or clip_norm=1")
        if self.path and ranks().number == 0:
            self.state.save(self.path, self.model, self.optimizer, self.settings)
        if self.interrupt.is_set():
            raise Interrupted(f"stopped after {self.state.epoch} epochs and {self.state.step} steps; the same call "
                              f"with checkpoint={str(self.path)!r}, resume=True goes on from there")
