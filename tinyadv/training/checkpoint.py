"""The state of a training run in one file. A resumed run ends with exactly the weights of an unbroken one."""

from __future__ import annotations

import re
import signal
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from tinyadv.attacks.base.parameters import held
from tinyadv.backend import to_host
from tinyadv.data import Dataset
from tinyadv.nn import Module, archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.optim import Optimizer
from tinyadv.nn.state import built_from, layer_classes, recipe, settings
from tinyadv.ranks import ranks
from tinyadv.shapes import is_number
from tinyadv.training.history import Epoch, History

EXTENDABLE = ("epochs", "lr")  # the settings that may differ when a run is resumed
LATER = ("optimizer holds",)  # those that older checkpoints do not tell


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a training run with a checkpoint, which has been written; the message says how to go on."""


@dataclass
class State:
    """The state of a run, apart from its model and optimiser.

    epoch, step: those that come next, counted from 0. collapsed: the epoch in which the robust accuracy collapsed,
    or 0. loss_sum, hits, seconds: sums over the epoch so far. rate, strength: the learning rate and the factor of
    the budget in the last step. best: the state_dict of the epoch with the highest robust accuracy; average: the
    averaged parameters; memory: arrays of the method. These three are empty if they are not used.
    """

    epoch: int = 0
    step: int = 0
    collapsed: int = 0
    loss_sum: float = 0.0
    hits: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    strength: float = 1.0
    history: History = field(default_factory=History)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    average: dict[str, np.ndarray] = field(default_factory=dict)
    memory: dict[str, np.ndarray] = field(default_factory=dict)

    _NUMBERS = ("epoch", "step", "collapsed", "loss_sum", "hits", "seconds", "rate", "strength")
    _COUNTS = ("epoch", "step", "collapsed", "hits")
    _ARRAYS = ("best", "average", "memory")

    def save(self, path: Path, model: Module, optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
        """Write everything, atomically. settings: those that a resumed run must have, too."""
        groups = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                  **{name: getattr(self, name) for name in self._ARRAYS}}
        arrays = {f"{group}/{name}": to_host(array) for group, own in groups.items() for name, array in own.items()}
        header = {
            "training": dict(settings), "dropouts": random_layers(model),
            "history": [asdict(epoch) for epoch in self.history],
            **{name: getattr(self, name) for name in self._NUMBERS},
        }
        archive.write(path, header, arrays)

    @classmethod
    def load(cls, path: Path, model: Module, optimizer: Optimizer, settings: Mapping[str, Any],
             extend: Collection[str] = ()) -> State:
        """Read the file, set the model and the optimiser to it, and return the rest as a State.

        extend: the names of settings that may differ. Raises StateError, and sets nothing, if anything does not fit.
        """
        header, arrays = archive.read(path, "a training checkpoint", "training")
        if not isinstance(then := header["training"], dict):
            raise StateError(f"{path}: not a training checkpoint, because its settings are not a table")
        other = {name: f"{name}: then {then.get(name)!r}, now {value!r}" for name, value in settings.items()
                 if _nowhere(then.get(name)) != value and name not in extend and (name in then or name not in LATER)}
        if other:
            remedy = "" if other.keys() - set(EXTENDABLE) else f"\nextend={tuple(other)} goes on from it"
            raise StateError(f"{path}: a checkpoint of another run, which differs from this one:\n  "
                             + "\n  ".join(other.values()) + remedy)
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in ("model", "optimizer", *cls._ARRAYS)}
        before = model.state_dict(), optimizer.state_dict()
        try:
            for name, array in arrays.items():
                group, _, own = name.partition("/")
                groups[group][own] = array
            values: dict[str, Any] = {**header, **groups}
            state = cls(history=History([Epoch(**epoch) for epoch in header["history"]]),
                        **{name: values[name] for name in (*cls._NUMBERS, *cls._ARRAYS)})
            state._check(groups["model"], model)
            if state.collapsed and then["epochs"] != settings["epochs"]:
                raise ValueError(f"it stopped after epoch {state.collapsed}, as the robust accuracy had collapsed, and "
                                 "cannot be extended: train anew, with another method or rate")
            if (state.epoch, state.step) > (int(settings["epochs"]), 0):
                raise ValueError(f"it has gone on to {state.epoch} epochs and {state.step} steps, further than epochs="
                                 f"{settings['epochs']}: ask for {state.epoch + (state.step > 0)} or more")
            kept = header["dropouts"]
            if {name: own.keys() for name, own in kept.items()} != {
                    name: own.keys() for name, own in random_layers(model).items()} or not all(
                    _is_count(value) for own in kept.values() for value in own.values()):
                raise ValueError(f"it has other random layers: {kept}")
            optimizer.load_state_dict(groups["optimizer"])
            model.load_state_dict(groups["model"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            model.load_state_dict(before[0])
            optimizer.load_state_dict(before[1])
            raise StateError(f"{path}: a checkpoint that does not fit this model and optimiser: {error}") from error
        set_random_layers(model, kept)
        return state

    def _check(self, weights: Mapping[str, np.ndarray], model: Module) -> None:
        """Raise ValueError if a number is impossible, or if best or average does not match the weights."""
        kinds = {name: (array.shape, array.dtype) for name, array in weights.items()}
        best, average = ({name: (array.shape, array.dtype) for name, array in own.items()}
                         for own in (self.best, self.average))
        parameters = {name: kinds.get(name) for name, _ in model.named_parameters()}
        wrong = [name for name in self._NUMBERS if not (_is_count if name in self._COUNTS else is_number)(
            getattr(self, name))]
        wrong += [name for name, own, like in (("best", best, kinds), ("average", average, parameters))
                  if own and own != like]
        wrong += ["history" for epoch in self.history if not (_is_count(epoch.epoch) and all(
            is_number(value) or value is None for value in asdict(epoch).values()))]
        if wrong:
            raise ValueError(f"impossible values in {', '.join(dict.fromkeys(wrong))}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def random_layers(model: Module) -> dict[str, dict[str, int]]:
    """What the next numbers of each random layer depend on: its seed, and how often it has drawn."""
    keys = ("calls", "seed")  # of nn.Random, and of layers of one's own that draw likewise
    return {name: {key: int(vars(module)[key]) for key in keys} for name, module in model.named_modules()
            if all(isinstance(vars(module).get(key), int | np.integer) for key in keys)}


def set_random_layers(model: Module, counts: Mapping[str, Mapping[str, int]]) -> None:
    """The inverse of `random_layers`."""
    modules = dict(model.named_modules())
    for name, own in counts.items():
        vars(modules[name]).update(own)


def described(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run must have, too, as JSON values. run: the arguments of `fit`."""
    model, optimizer = run["model"], run["optimizer"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = {f"layer {name}": own for name, own in settings(model).items()} | {
        f"class of layer {name}": kind for name, kind in layer_classes(model).items()}
    return {
        "model": built_from(model), **layers, "frozen": [name for name, m in model.named_modules() if m._frozen],
        "lr": float(optimizer.lr),
        "optimizer": repr(optimizer).replace(f"lr={optimizer.lr!r}, ", ""),
        "optimizer holds": [names.get(id(parameter), "another") for parameter in optimizer.parameters],
        "data": fingerprint(run["train"]), "validation": run["validation"] and fingerprint(run["validation"]),
        "augment": run["augment"] and recipe(run["augment"]),
        **{name: _nowhere(repr(run[name])) for name in (
            "epochs", "method", "batch_size", "seed", "clip_norm", "average", "validation_attack")},
        **{f"{name} holds": _nowhere(held(run[name], model)) or None for name in ("method", "validation_attack")},
        **{name: factor and [float(factor(k / 100)) for k in range(101)]
           for name in ("schedule", "eps_schedule") for factor in [run[name]]},
    }


def _nowhere(told: Any) -> Any:
    """A text, or each of a list, without the addresses of objects in memory, which differ from process to process."""
    if isinstance(told, list):
        return [_nowhere(each) for each in told]
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", told) if isinstance(told, str) else told


def check_ranks(model: Module, settings: Mapping[str, Any], state: State) -> None:
    """ValueError unless all ranks that share the training begin it from the same point. It returns on all at once."""
    digests = {name: held(array) for name, array in model.state_dict().items()}
    own = {**settings, "weights": digests, "dropouts": random_layers(model), "epoch": state.epoch, "step": state.step}
    for number, others in enumerate(ranks().exchange([own])):
        if differing := [name for name, value in own.items() if others[name] != value]:
            raise ValueError(f"all ranks must train the same, but rank {number} differs from rank {ranks().number} in "
                             f"{', '.join(differing)}: build models and data with seeds, and with the same on each")


def fingerprint(dataset: Dataset) -> str:
    """The name and size of a data set, and checksums of its images and labels, as text."""
    images, labels = (zlib.crc32(each.tobytes()) for each in (dataset.images, dataset.labels))
    return f"{dataset!r}, CRC {images:08x} and {labels:08x}"


@contextmanager
def interruptible(enabled: bool) -> Iterator[threading.Event]:
    """Within the block, the first Ctrl-C sets this event instead of stopping the program; a second one stops it."""
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
