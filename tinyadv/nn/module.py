"""Module: an object whose attributes are parameters (Tensors), buffers (arrays) and further modules.

They are found by walking the attributes in the order in which they were set, also inside lists, tuples and
dicts. The name of each is the path to it, as in PyTorch: "conv1.weight", "0.bias", "blocks.1.conv2.weight".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyadv.backend import Array, device_of, is_array, move, to_device, to_host
from tinyadv.nn.table import table
from tinyadv.parallel import Setting
from tinyadv.random import Streams, drawing_from
from tinyadv.shapes import Shape, check_input
from tinyadv.spellings import check_keywords, no_attribute, spelled
from tinyadv.tensor import Tensor, no_grad

_modes: Setting[dict[Module, bool]] = Setting("modes", {})  # the modes of the modules within the blocks of `mode`
_watchers: Setting[tuple[Callable[[Module, Tensor], None], ...]] = Setting("watchers", ())


@contextmanager
def watching(watcher: Callable[[Module, Tensor], None]) -> Iterator[None]:
    """Within the block, in this thread: watcher(module, output) after each module, after those of blocks around it."""
    with _watchers.within((*_watchers.get(), watcher)):  # those around it where it is entered, not where it is made
        yield


class Module:
    """The base class of layers and models: a subclass sets its parts in __init__ and computes in `forward`."""

    _training = True  # the module's own flag, see `training`
    _frozen = False  # see `freeze`
    needs_whole_batch = False  # True if it draws without Random, counts calls or mixes without all_reduce
    input_shape: Shape | None = None  # of one example, for `summary()`
    forward: Callable[..., Tensor]
    _arguments: tuple[tuple, dict]

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        """Keeps the arguments, so that a saved model can be built again."""
        known = {} if cls.__init__ is object.__init__ else inspect.signature(cls.__init__).parameters
        if args and not known:
            raise TypeError(f"{cls.__name__} takes no arguments, got {', '.join(map(repr, args))}")
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
            check_keywords(cls.__name__, kwargs, known)
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    def __call__(self, x: Any) -> Tensor:
        check_input(x)
        with device_of(array_of(x)):  # for what a layer computes on arrays
            y = self.forward(x)
        for watcher in _watchers.get():
            watcher(self, y)
        return y

    if not TYPE_CHECKING:
        __getattr__ = no_attribute

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module, whose name is "", and of all modules below it; a shared one comes once."""
        seen = {self}
        yield prefix.rstrip("."), self
        for name, _, _, value in _parts(vars(self), prefix):
            if isinstance(value, Module):
                for below, module in value.named_modules(name + "."):
                    if module not in seen:
                        seen.add(module)
                        yield below, module

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) of every parameter; one that is shared comes once, under its first name."""
        seen: set[Tensor] = set()
        for name, _, _, value in _leaves(vars(self)):
            if isinstance(value, Tensor) and value not in seen:
                seen.add(value)
                yield name, value

    def parameters(self) -> list[Tensor]:
        """Every parameter, in order."""
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: array} of all parameters and buffers, as copies on the host."""
        return {name: np.array(to_host(array_of(value))) for name, _, _, value in _leaves(vars(self))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all parameters and buffers from {name: array}; the arrays are copied and cast to the model's dtypes.

        Raises ValueError that lists every missing, unexpected or mis-shaped name; the model is then unchanged.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"a state is a dict of arrays, such as model.state_dict(), got {type(state).__name__}: a "
                            "file of nn.save is loaded by nn.load(path, into=model)")
        leaves = {name: (owner, key, value) for name, owner, key, value in _leaves(vars(self))}
        arrays = {name: np.asarray(to_host(value)) for name, value in state.items()}
        wrong = [f"missing: {name} {array_of(leaves[name][2]).shape}" for name in leaves if name not in arrays]
        wrong += [f"unexpected: {name} {arrays[name].shape}" for name in arrays if name not in leaves]
        for name in leaves.keys() & arrays.keys():
            own, new = array_of(leaves[name][2]), arrays[name]
            if new.shape != own.shape:
                wrong.append(f"shape of {name}: the state has {new.shape}, the model {own.shape}")
            elif not np.can_cast(new.dtype, own.dtype, "same_kind"):
                wrong.append(f"dtype of {name}: the state has {new.dtype}, the model {own.dtype}")
        if wrong:
            raise ValueError(f"the state does not fit {type(self).__name__}:\n  " + "\n  ".join(sorted(wrong)))
        for name, (owner, key, value) in leaves.items():
            _put(owner, key, value, move(arrays[name].astype(array_of(value).dtype), like=array_of(value)))

    def to(self, device: str) -> Module:
        """Move all parameters and buffers to "cpu", "cuda" or "cuda:1"; returns self. Gradients are dropped."""
        for _, owner, key, value in _leaves(vars(self)):
            _put(owner, key, value, to_device(array_of(value), device))
        return self

    def cuda(self) -> Module:
        """The same as `to("cuda")`."""
        return self.to("cuda")

    def cpu(self) -> Module:
        """The same as `to("cpu")`."""
        return self.to("cpu")

    @property
    def training(self) -> bool:
        """Whether dropout drops and batch normalisation uses the batch; a value set within `mode` holds only there."""
        return not self._frozen and _modes.get().get(self, self._training)

    @training.setter
    def training(self, training: bool) -> None:
        modes = _modes.get()
        if self in modes:
            modes[self] = training
        else:
            self._training = training

    def train(self, mode: bool = True) -> Module:
        """Set this module and all below it to training mode or, with False, to evaluation mode; returns self."""
        return self._set("training", bool(mode))

    def eval(self) -> Module:
        """Set this module and all below it to evaluation mode; returns self."""
        return self._set("training", False)

    @contextmanager
    def mode(self, training: bool) -> Iterator[Module]:
        """Set the mode within a block, for this thread and those that the library starts there.

        The modules' own flags stay as they are, so other threads may use the model in another mode meanwhile.
        """
        with _modes.within({**_modes.get(), **{module: training for _, module in self.named_modules()}}):
            yield self

    def freeze(self) -> Module:
        """Keep this module and all below it as they are while `training.fit` trains the rest; returns self.

        A frozen module stays in evaluation mode, with its running statistics, and its parameters take no part in the
        updates: no gradient, no momentum, no weight decay. Attacks go through it as before.
        """
        return self._set("_frozen", True)

    def unfreeze(self) -> Module:
        """Undo `freeze`, for this module and all below it; returns self."""
        return self._set("_frozen", False)

    def frozen_parameters(self) -> set[Tensor]:
        """The parameters that a frozen module holds, this one or one below it."""
        return {value for _, module in self.named_modules() if module._frozen
                for *_, value in _parts(vars(module)) if isinstance(value, Tensor)}

    def _set(self, name: str, flag: bool) -> Module:
        for _, module in self.named_modules():
            setattr(module, name, flag)
        return self

    @spelled
    def summary(self, input_shape: Shape | None = None) -> None:
        """Print a table of the layers with their output shapes (N is the batch size) and numbers of parameters.

        input_shape: (C, H, W) of one image; needed unless the model has an `input_shape`, as those of tinyadv do.
        """
        shape = input_shape or self.input_shape
        if shape is None:
            raise ValueError(f"{type(self).__name__} does not know its input shape: call summary((C, H, W))")
        print(self._table(shape))

    def _table(self, input_shape: Shape) -> str:
        rows: list[tuple[str, str, str]] = []
        names = {m: name for name, m in self.named_modules() if len(list(m.named_modules())) == 1}

        def record(layer: Module, y: Tensor) -> None:
            if layer in names:
                shape, count = ", ".join(["N", *map(str, y.shape[1:])]), sum(p.size for p in layer.parameters())
                rows.append((f"{names[layer]} ({type(layer).__name__})".strip(), f"({shape})", f"{count:,}"))

        parameters = self.parameters()
        like = parameters[0].data if parameters else np.zeros(0, np.float32)
        with no_grad(), self.mode(training=False), watching(record), drawing_from(Streams(0, range(1)).of_pass(0)):
            self(Tensor(move(np.zeros((1, *input_shape), like.dtype), like)))
        lines = table([("Layer (type)", "Output shape", "Parameters"), *rows], "<<>")
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:], rule, f"Total parameters: {sum(p.size for p in parameters):,}"])

    def __repr__(self) -> str:
        settings = [f"{k}={v!r}" for k, v in vars(self).items() if isinstance(v, int | float | str | tuple | None)
                    and not k.startswith("_")]
        children = [f"  ({name}): {value!r}".replace("\n", "\n  ") for name, _, _, value in _parts(vars(self))
                    if isinstance(value, Module)]
        inside = ", ".join(settings) if not children else "\n" + "\n".join(children) + "\n"
        return f"{type(self).__name__}({inside})"


def _parts(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """(name, owner, key, value) of the modules, Tensors and arrays in a dict, list or tuple, at any depth."""
    for key, value in list(owner.items()) if isinstance(owner, dict) else enumerate(owner):
        if isinstance(value, Module | Tensor) or is_array(value):
            yield f"{prefix}{key}", owner, key, value
        elif isinstance(value, dict | list | tuple) and key != "_arguments":
            yield from _parts(value, f"{prefix}{key}.")


def _leaves(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """As _parts, but each module is replaced by its leaves."""
    for name, part_owner, key, value in _parts(owner, prefix):
        if isinstance(value, Module):
            yield from _leaves(vars(value), name + ".")
        elif isinstance(part_owner, tuple) and is_array(value):
            raise ValueError(f"the buffer {name} is in a tuple, where it cannot be replaced: use a list")
        else:
            yield name, part_owner, key, value


def array_of(leaf: Any) -> Array:
    """The array of a Tensor, or the array itself; for an abstract value, that of one point (certify/abstract.py)."""
    point = leaf.one if hasattr(type(leaf), "one") else leaf
    return point.data if isinstance(point, Tensor) else point


def _put(owner: Any, key: Any, leaf: Tensor | Array, array: Array) -> None:
    if isinstance(leaf, Tensor):
        leaf.data, leaf.grad = array, None
    else:
        owner[key] = array
