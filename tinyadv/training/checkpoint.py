"""The state of a training run in one file, from which it goes on to the very same weights."""

from __future__ import annotations

import json
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tinyadv.backend import move, to_host
from tinyadv.data import Dataset
from tinyadv.nn import Module
from tinyadv.nn.optim import Optimizer
from tinyadv.nn.state import FORMAT, HEADER, StateError, read_archive, write_npz
from tinyadv.training.history import Epoch, History


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a training run that has a checkpoint: it was written after the step, and the message says where."""


@dataclass
class State:
    """Where a run stands, besides its model and optimiser.

    epoch, step: what comes next, both from 0; loss_sum, hits, seconds: of the epoch so far; rate, strength: the
    learning rate and the factor of the budget in the last step. best: the state_dict of the epoch of the highest robust
    accuracy; average: of the averaged weights; memory: the method's own. Empty where there is no such thing.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    hits: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    strength: float = 1.0
    history: History = field(default_factory=History)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    average: dict[str, np.ndarray] = field(default_factory=dict)
    memory: dict[str, np.ndarray] = field(default_factory=dict)

    _NUMBERS = ("epoch", "step", "loss_sum", "hits", "seconds", "rate", "strength")
    _ARRAYS = ("best", "average", "memory")

    def save(self, path: Path, model: Module, optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
        """Write everything, atomically; settings: what a run that goes on must have in common with this one."""
        groups = {"model": model.state_dict(), **{name: getattr(self, name) for name in self._ARRAYS}}
        arrays = {f"{group}/{name}": to_host(array) for group, own in groups.items() for name, array in own.items()}
        for index, moments in enumerate(optimizer.state):
            arrays |= {f"optimizer/{index}.{number}": to_host(array) for number, array in enumerate(moments)}
        header = {
            "format": FORMAT, "training": dict(settings), "steps": optimizer.steps, "dropouts": _dropouts(model),
            "history": [asdict(epoch) for epoch in self.history],
            **{name: getattr(self, name) for name in self._NUMBERS},
        }
        write_npz(path, {HEADER: np.array(json.dumps(header)), **arrays})

    @classmethod
    def load(cls, path: Path, model: Module, optimizer: Optimizer, settings: Mapping[str, Any]) -> State:
        """The state at path, to which model and optimizer are set; StateError where the file or the settings differ."""
        header, arrays = read_archive(path, "a training checkpoint", "training")
        then = header["training"]
        other = [f"{name}: then {then.get(name)!r}, now {value!r}" for name, value in settings.items()
                 if then.get(name) != value]
        if other:
            raise StateError(f"{path}: a checkpoint of another run, which cannot be resumed as this one:\n  "
                             + "\n  ".join(other))
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("model", "optimizer", *cls._ARRAYS)}
        for name, array in arrays.items():
            group, _, own = name.partition("/")
            groups[group][own] = array
        moments = groups.pop("optimizer")
        like = {f"{i}.{k}": p.data for i, p in enumerate(optimizer.parameters) for k in range(optimizer.moments)}
        if {name: each.shape for name, each in moments.items()} != {name: each.shape for name, each in like.items()}:
            raise StateError(f"{path}: a checkpoint of another optimiser, which does not fit {optimizer}")
        try:
            model.load_state_dict(groups.pop("model"))
        except ValueError as error:
            raise StateError(f"{path}: a checkpoint of another model: {error}") from error
        for name, array in moments.items():
            index, number = map(int, name.split("."))
            optimizer.state[index][number] = move(array, like=like[name])
        optimizer.steps = header["steps"]
        for name, module in model.named_modules():
            vars(module).update(header["dropouts"].get(name, {}))
        values: dict[str, Any] = {name: header[name] for name in cls._NUMBERS} | groups
        return cls(history=History([Epoch(**epoch) for epoch in header["history"]]), **values)


def _dropouts(model: Module) -> dict[str, dict[str, int]]:
    """What the next mask of each dropout depends on: its seed, and how often it has been called in training."""
    keys = {"seed", "calls"}
    return {name: {key: vars(module)[key] for key in sorted(keys)} for name, module in model.named_modules()
            if keys <= vars(module).keys()}


def fingerprint(dataset: Dataset) -> str:
    """The name and the size of a data set, and checksums of its images and labels."""
    images, labels = (zlib.crc32(each.tobytes()) for each in (dataset.images, dataset.labels))
    return f"{dataset!r}, CRC {images:08x} and {labels:08x}"


@contextmanager
def interruptible(enabled: bool) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C within the block sets, in place of stopping the program; a second one stops it."""
    event = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
