"""An attack as a value: it prints as its name and parameters, and is written to files and read back."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tinyadv import spellings
from tinyadv.backend import is_array
from tinyadv.nn import Module
from tinyadv.nn.state import defined_subclasses, digest
from tinyadv.shapes import is_number


@dataclass(frozen=True)
class Parameters:
    """The base class of Attack: a frozen dataclass whose fields are the parameters."""

    if not TYPE_CHECKING:
        __getattr__ = spellings.no_attribute

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise TypeError for an unknown parameter or a model; the error says what to write instead."""
        own = sorted((f for f in fields(cls) if f.init), key=lambda f: bool(f.kw_only))
        spellings.check_keywords(cls.__name__, kwargs, [f.name for f in own])
        if args and isinstance(args[0], Module) and str(own[0].type).startswith(("float", "int", "str", "tuple")):
            raise TypeError(f"{cls.__name__} takes no model: {spellings.ARGUMENTS['model']}")
        if cls.__setattr__ is not _refuse:  # the one that dataclasses writes does not say what to do
            cls.__setattr__ = _refuse  # type: ignore[assignment]
        return super().__new__(cls)

    def __str__(self) -> str:
        """Like repr, but without fields that have their default values."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.repr and getattr(self, f.name) != f.default}
        return _call(type(self).__name__, values)


def _refuse(self: Parameters, name: str, value: Any) -> NoReturn:
    if "__dataclass_params__" not in vars(type(self)) and name not in {field.name for field in fields(self)}:
        raise FrozenInstanceError(f"the parameters of an attack are the fields of a dataclass: write @dataclass("
                                  f"frozen=True) above {type(self).__name__}, and {name} in its body, not in __init__")
    raise FrozenInstanceError(f"an attack never changes: make another by dataclasses.replace(attack, {name}={value!r})")


@dataclass(frozen=True)
class UnknownAttack:
    """An attack from a file whose class is not defined here, or does not take these parameters."""

    name: str
    parameters: dict[str, Any]

    def __str__(self) -> str:
        return _call(self.name, self.parameters)


def describe(value: Any) -> Any:
    """An attack or a parameter as a JSON value; a model is described by the name of its class."""
    if isinstance(value, UnknownAttack):
        return {"class": value.name, "parameters": {name: describe(own) for name, own in value.parameters.items()}}
    if isinstance(value, Parameters):
        own = {f.name: describe(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class": type(value).__name__, "parameters": own}
    if isinstance(value, tuple | list):
        return [describe(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else _short(value)


def held(value: Any, known: Module | None = None) -> list[str]:
    """The digests of the arrays, and the settings and arrays of the modules, that are in a value and its attributes.

    `describe` has only their names. known: a module that is left out. Of other objects only arrays count that are their
    own attributes; of a function, the name is all that is known.
    """
    if is_array(value):
        return [digest(value)]
    if isinstance(value, Module):
        return [] if value is known else [repr(value), *held(list(value.state_dict().values()))]
    if isinstance(value, tuple | list):
        return [each for own in value for each in held(own, known)]
    if isinstance(value, dict):
        return held(list(value.values()), known)
    own = getattr(value, "__dict__", {}).values()
    return held([each for each in own if is_array(each) or is_dataclass(value)], known)


def restore(description: Any) -> Any:
    """The attack or parameter from the JSON value of `describe`.

    It is an UnknownAttack if the class is not defined or does not take these parameters. Raises ValueError for a value
    that `describe` cannot have made.
    """
    if isinstance(description, list):
        return tuple(map(restore, description))
    if not isinstance(description, dict):
        return description
    name, parameters = description.get("class"), description.get("parameters")
    if not isinstance(name, str) or not isinstance(parameters, dict) or len(description) != 2:
        raise ValueError(f"an attack is described by its class and its parameters, not by {', '.join(description)}")
    parameters = {key: restore(own) for key, own in parameters.items()}
    classes = list(defined_subclasses(Parameters, name).values())
    if len(classes) == 1:
        with suppress(Exception):  # another version's, with a model among them, or whatever the class makes of it
            return classes[0](**parameters)
    return UnknownAttack(name, parameters)


def check_step_size(step_size: Any, otherwise: str) -> None:
    """Raise ValueError unless the step size is a finite number above 0, or None, which stands for `otherwise`."""
    if step_size is not None and not (is_number(step_size) and 0 < step_size < math.inf):
        raise ValueError(f"step_size must be a number above 0, or None ({otherwise}); got {step_size!r}")


def check_bounds(bounds: Any) -> None:
    """Raise ValueError unless the bounds are a tuple (low, high) of finite numbers with low < high."""
    if not (isinstance(bounds, tuple) and len(bounds) == 2 and all(map(is_number, bounds))
            and -math.inf < bounds[0] < bounds[1] < math.inf and float(bounds[1]) - float(bounds[0]) < math.inf):
        raise ValueError(f"bounds must be a tuple (low, high) of numbers with low < high, got {bounds!r}")


def _call(name: str, values: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={_short(value)}' for key, value in values.items())})"


def _short(value: Any) -> str:
    """Attacks without default values, functions and models by name, arrays by dtype and shape; the rest by repr."""
    if isinstance(value, Parameters | UnknownAttack):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    if is_array(value):
        return f"array({value.dtype}, {value.shape})"
    return getattr(value, "__name__", type(value).__name__) if callable(value) else repr(value)
