"""Saving and loading models, in files of archive.py; and what tells one model from another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from tinyadv.backend import is_array, to_host
from tinyadv.nn import init
from tinyadv.nn.archive import StateError, read, write
from tinyadv.nn.module import Module
from tinyadv.tensor import Tensor


def save(model: Module, path: str | Path) -> None:
    """Write the model's state and how to build it; the file is whole or not there at all."""
    if not isinstance(model, Module):
        raise TypeError(f"save(model, path) takes a Module first, got {type(model).__name__}")
    write(path, built_from(model) | {"layers": _layers(model)}, model.state_dict())


def built_from(model: Module) -> dict[str, Any]:
    """The name of the model's class and its arguments; these only if they are plain numbers and words."""
    name, (args, kwargs) = type(model).__name__, model._arguments
    try:
        return {"class": name, "args": [_plain(each) for each in args],
                "kwargs": {key: _plain(each) for key, each in kwargs.items()}}
    except TypeError:  # built from other modules, say: its state can be loaded into a model, but not the model built
        return {"class": name}


def settings(model: Module, counts: bool = True) -> dict[str, dict[str, str]]:
    """{layer: {attribute: recipe}}: what a model computes with beside its layers and arrays.

    Not among it are the seeds of dropouts and how often they have drawn, which change from run to run; nor, unless
    `counts`, the integers of classes outside of tinyadv, which may count in them.
    """
    left_out, no_setting = {*vars(Module), "forward", "seed", "calls"}, (Module, Tensor, dict, list)
    return {name: {key: recipe(value) for key, value in vars(module).items()
                   if key[:1] != "_" and key not in left_out and not isinstance(value, no_setting)
                   and not is_array(value) and (counts or _ours(module) or not isinstance(value, int | np.integer))}
            for name, module in model.named_modules()}


def _ours(module: Module) -> bool:
    return type(module).__module__.startswith(__name__.partition(".")[0] + ".")


def layer_classes(model: Module) -> dict[str, str]:
    """{layer: the name of its class}."""
    return {name: type(module).__name__ for name, module in model.named_modules()}


def _layers(model: Module) -> dict[str, Any]:
    """{layer: its class and, if it is one of tinyadv, its settings}: others may write down there what they like."""
    own, kinds = settings(model), layer_classes(model)
    return {name: {"class": kinds[name]} | (own[name] if _ours(module) else {})
            for name, module in model.named_modules()}


def recipe(value: Any, around: tuple = ()) -> str:
    """A number, word or array as text; of a function its name, and what is in its closure and defaults.

    So are the fields of dataclasses and the arguments of partial functions told. Of other objects the class is, and no
    code. around: the functions that it was found in, which are not told again.
    """
    if any(value is each for each in around):
        return type(value).__name__
    around = (*around, value)
    if isinstance(value, tuple):
        return f"({', '.join(recipe(each, around) for each in value)})"
    if isinstance(value, partial):
        return recipe((value.func, *value.args, *value.keywords.items()), around)
    if isinstance(value, MethodType):
        return recipe((value.__func__, value.__self__), around)
    if is_dataclass(value) and not isinstance(value, type):
        return recipe((type(value).__name__, *((own.name, getattr(value, own.name)) for own in fields(value))), around)
    if is_array(value):
        return digest(value)
    if not isinstance(value, FunctionType):
        value = value.item() if isinstance(value, np.generic) else value
        return repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    cells = zip(value.__code__.co_freevars, (cell.cell_contents for cell in value.__closure__ or ()), strict=True)
    defaults = enumerate(value.__defaults__ or ()), (value.__kwdefaults__ or {}).items()
    inside = [f"{name}={recipe(own, around)}" for name, own in chain(cells, *defaults)
              if not any(own is each for each in around)]
    return f"{value.__qualname__}({', '.join(inside)})".replace(".<locals>", "")


def digest(array: Any) -> str:
    """SHA-256 of an array on any device: of its dtype, shape and elements."""
    host = to_host(array)
    return hashlib.sha256(f"{host.dtype}{host.shape}".encode() + host.tobytes()).hexdigest()


def _plain(value: Any) -> Any:
    """A JSON value from which `_given` makes the same again; TypeError if there is none."""
    if type(value) is tuple:
        return {"tuple": [_plain(each) for each in value]}
    if type(value) is list:
        return [_plain(each) for each in value]
    if type(value) is dict and all(isinstance(key, str) for key in value) and value.keys() != {"tuple"}:
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is neither a number nor a word, nor made of them")


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_given(value["tuple"])) if value.keys() == {"tuple"} else {k: _given(v) for k, v in value.items()}
    return [_given(each) for each in value] if isinstance(value, list) else value


def rebuilt(build: Callable[..., Module], header: dict[str, Any]) -> Module:
    """The class or function called with the arguments that `built_from` wrote."""
    return build(*_given(header["args"]), **{name: _given(value) for name, value in header["kwargs"].items()})


def load(path: str | Path, into: Module | None = None) -> Module:
    """The model saved at `path`: built anew from the file's header, or loaded into the given model.

    Of a checkpoint of `training.fit` it is the model as it was in the last step: not the average of its weights, nor
    those of the best epoch.
    A class is looked for among the defined subclasses of Module, so a file can run no code but their constructors.
    Raises StateError if the file is damaged, foreign or does not fit, or if a layer was changed after the saved model
    was built, so that the arguments would build another; and then nothing is half-loaded.
    """
    if isinstance(path, Module):
        raise TypeError("load takes the path first: nn.load(path, into=model)")
    header, arrays = _saved(path)
    name = str(header["class"])
    if into is None:
        with init.at_most(sum(array.size for array in arrays.values())):
            model = _build(name, header, path)
        _check_layers(header, model, path)
    else:
        model = into
    try:
        model.load_state_dict(arrays)
    except ValueError as error:
        raise StateError(f"{path}: a saved {name}: {error}") from error
    return model


def _check_layers(header: dict[str, Any], model: Module, path: str | Path) -> None:
    """StateError if a layer of tinyadv was changed before it was saved; files of older versions do not tell."""
    now, then = _layers(model), header.get("layers")
    if then is None:
        return
    told = [] if isinstance(then, dict) and list(then) == list(now) else ["it had other layers"]
    for name, own in now.items() if not told else ():
        was = then[name] if isinstance(then[name], dict) else {"class": None}
        was = {key: was[key] for key in own if key in was}  # a later version may know more settings
        if any(own[key] != value for key, value in was.items()):
            told.append(f"{name or 'the model'} was {was}, not {own}")
    if told:
        raise StateError(f"{path}: the saved {header['class']} was changed after it was built: {told[0]}; build and "
                         "change the model, and call load(path, into=model)")


def _saved(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `built_from` has written, and the arrays of a model, from its file or a checkpoint."""
    try:
        return read(path, "a model file", "class", oldest=1)
    except StateError as error:
        if Path(path).suffix in (".pt", ".pth", ".safetensors"):
            raise StateError(f"{path}: a file of PyTorch, which holds arrays and no model: build the model and call "
                             f"model.load_state_dict(nn.load_pytorch({str(path)!r}))") from error
        with suppress(KeyError, StateError, TypeError):
            header, arrays = read(path, "a training checkpoint", "training")
            told = header["training"]
            built, own = told["model"], "model/"
            layers = {name: {"class": kind, **told[f"layer {name}"]} for key, kind in told.items()
                      if (name := key.removeprefix("class of layer ")) != key}
            return {"class": built["class"], **built, **({"layers": layers} if layers else {})}, {
                name.removeprefix(own): array for name, array in arrays.items() if name.startswith(own)}
        raise


def _build(name: str, header: dict, path: str | Path) -> Module:
    found = defined_subclasses(Module, name)
    why = ""
    if len(found) != 1:
        why = f"is defined more than once, as {' and '.join(found)}" if found else "is not defined here"
    elif not {"args", "kwargs"} <= header.keys():
        why = "was not built from plain numbers and words"
    if why:
        raise StateError(f"{path}: the class {name} {why}: build the model and call load(path, into=model)")
    (build,) = found.values()
    try:
        return rebuilt(build, header)
    except Exception as error:  # whatever the class makes of a foreign file's arguments
        raise StateError(f"{path}: {name} cannot be built from this file: {error}") from error


def defined_subclasses(base: type, name: str) -> dict[str, type]:
    """{full name: class} of the subclasses of a class, and of these, that have that name."""
    found: dict[str, type] = {}
    todo: list[type] = [base]
    while todo:
        subclasses: list[type] = todo.pop().__subclasses__()
        found |= {f"{c.__module__}.{c.__qualname__}": c for c in subclasses if c.__name__ == name}
        todo += subclasses
    return found
