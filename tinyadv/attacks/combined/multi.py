"""Several attacks as one: the worst case of each example."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.arguments import check_arguments
from tinyadv.attacks.base.attack import Attack
from tinyadv.attacks.base.objectives import margin_of
from tinyadv.attacks.base.result import AttackResult
from tinyadv.attacks.combined.composite import Composite
from tinyadv.attacks.combined.standing import Standing, identify
from tinyadv.backend import Array, on_its_device, to_host, usable_cores
from tinyadv.executors import width
from tinyadv.nn.lock import owned
from tinyadv.random import Streams
from tinyadv.ranks import ranks
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor

SHARDS = 2  # for each thread or worker, between two writes of the state


@dataclass(frozen=True)
class MultiAttack(Composite):
    """Run attacks one after the other, each on the examples that are not broken yet, and keep the worst case.

    The result for an example is a misclassified point if any attack found one, and otherwise the point with the largest
    margin. Minimum-norm attacks all run on all examples, and the nearest misclassified point is returned.

    The result's `broken_by` names the attack, and its `table` has a row for each. Each attack has its own random
    streams, so two equal attacks are two different runs. The first attack, if it is not made of others,
    runs as it would alone.

    attacks: with the same norm and bounds, and either the same eps or all of minimum norm.
    """

    attacks: tuple[Attack, ...]

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Raise TypeError for attacks that are not in a list."""
        if any(isinstance(each, Attack) for each in (*args[:1], options.get("attacks"))):
            raise TypeError("attacks must be a list of attacks, as in MultiAttack([PGD(eps=0.3), Square(eps=0.3)])")
        return super().__new__(cls, *args, **options)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))
        self._adopt(*self.attacks)
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the attacks in the report."""
        return tuple(map(str, self.attacks))

    def with_eps(self, eps: float) -> Attack:
        return replace(self, attacks=tuple(attack.with_eps(eps) for attack in self.attacks))

    def scaled(self, factor: float) -> Attack:
        return replace(self, attacks=tuple(attack.scaled(factor) for attack in self.attacks))

    @spelled
    @on_its_device
    def run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, *, target: Array | None = None,
            seed: int | Streams = 0, skip_misclassified: bool = False, state: str | Path | None = None,
            progress: bool = False, **options: Any) -> AttackResult:
        """As `run` of any attack; `forwards` and `backwards` are sums over all attacks.

        state: a file for the state of the run, written each time an attack has finished some shards. If the file of a
            killed run exists, this run goes on from it, and its result has the same bytes as that of an unbroken run.
            Streams given as seed begin anew.
            Raises StateError if the file belongs to a run with other images, labels, parameters or another model, and
            if its run is still running; ValueError within ranks.sharing.
        progress: print the attacks with all their parameters, and how many examples each has broken, to standard error.
        """
        if state is not None and ranks().size > 1:
            raise ValueError(f"state must be None while ranks share the work, got {str(state)!r}: they would write one "
                             "file together. Leave it out, or give an executor of MPI outside ranks.sharing")
        with nullcontext() if state is None else owned(state):
            return self._run(model, x, y, target, seed, skip_misclassified, state, progress, options)

    def _run(self, model: Callable[[Tensor], Tensor], x: Array, y: Array, target: Array | None, seed: int | Streams,
             skip_misclassified: bool, state: str | Path | None, progress: bool,
             options: dict[str, Any]) -> AttackResult:
        started = time.perf_counter()
        x, y, target, streams = check_arguments(x, y, target, seed, self.bounds)
        if state is not None:
            streams = Streams(streams.seed, streams.examples)  # as when the run goes on, whatever has been drawn
        options |= {"progress": progress, "_report": True}  # a call, too, has to know who is left
        logits = self._logits(model, x, y, target, streams, options)
        result = AttackResult.blank(self, x.copy(), y, target, self.norm, streams.seed)
        standing = Standing(result, logits, len(self.attacks))
        warnings = self._warnings(model, x, y, logits, streams, options)
        if state is not None:
            run = identify(self.attacks, model, x, y, target, streams,
                           options | {"skip_misclassified": skip_misclassified})
            standing.keep(Path(state), run, again=self._logits(model, x, y, target, streams, options))
            started -= standing.rows[:, 2].sum()

        def tell(*lines: str) -> None:
            if progress:
                print(*lines, sep="\n", file=sys.stderr)

        def worth(found: AttackResult, y: Array, target: Array | None, streams: Streams) -> np.ndarray:
            if self.minimum_norm:
                return -found.distances
            logits = self._logits(model, found.x_adv, y, target, streams, options)
            return to_host(margin_of(logits, y, target))

        tell(*map("{}: {!r}".format, self.names, self.attacks), *map("warning: {}".format, warnings))
        attacked = ~standing.reached if self.minimum_norm else np.ones(len(x), bool)
        if skip_misclassified:
            attacked &= result.predictions_clean == result.y
        for number, (name, attack) in enumerate(zip(self.names, self.attacks, strict=True), 1):
            index = np.flatnonzero(attacked & (self.minimum_norm | standing.unbroken(number)))
            as_alone = number == 1 and not isinstance(attack, Composite)  # whose own attacks would share later streams
            drawn = streams if as_alone else streams.spawn(number)
            for some, size in self._blocks(model, x, index, standing.tried[index] < number, state is None, options):
                began, classes, goal = time.perf_counter(), y[some], None if target is None else target[some]
                try:
                    found = attack.run(model, x[some], classes, target=goal, seed=drawn[some],
                                       **options | {"batch_size": size})
                except Exception as error:
                    error.add_note(f"in {name}, which had {len(some)} examples from x[{some[0]}] to x[{some[-1]}]")
                    raise
                margins = worth(found, classes, goal, streams[some])
                standing.take(number, some, found, margins, time.perf_counter() - began)
            tell("{}: {:.0f} left, {:.0f} broken, {:.1f} s".format(name, *standing.rows[number - 1]))
        by = np.where(result.success & ~standing.reached, standing.by, 0)
        return replace(result, broken_by=np.array(["", *self.names])[by], table=standing.table(self.names),
                       warnings=warnings, seconds=time.perf_counter() - started)

    def _blocks(self, model: Callable, x: Array, index: np.ndarray, left: np.ndarray, whole: bool,
                options: dict[str, Any]) -> list[tuple[np.ndarray, int]]:
        """The remaining indices in blocks (n,), and the size of their shards, which is the same as without blocks."""
        on_host = isinstance(driver.memory_of(model, x), np.ndarray)
        shards = driver.shards(len(index), options.get("batch_size"), math.prod(x.shape[1:]), on_host)
        size = shards[0].stop if shards else 1
        workers = width(options.get("workers"), options.get("executor")) or usable_cores()
        block = len(index) + 1 if whole else SHARDS * size * workers
        return [(index[left][start:start + block], size) for start in range(0, left.sum(), block)]

    def _warnings(self, model: Callable, x: Array, y: Array, logits: Array, streams: Streams,
                  options: dict[str, Any]) -> tuple[str, ...]:
        """Warnings about the model, before it is attacked. logits (N, K): those of x, with draws of the streams."""
        return ()
