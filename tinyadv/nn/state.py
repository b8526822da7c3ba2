"""Saving and loading models: one .npz file, its arrays beside a JSON header; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tinyadv.nn.module import Module

FORMAT = 1
HEADER = "__tinyadv__"  # the entry of the file that holds the header, as text


class StateError(ValueError):
    """A model file that cannot be used, and why."""


def save(model: Module, path: str | Path) -> None:
    """Write the model's state and how to build it: to a temporary name first, so that a file is whole or absent."""
    header = {"format": FORMAT, **built_from(model)}
    write_npz(path, {HEADER: np.array(json.dumps(header)), **model.state_dict()})


def built_from(model: Module) -> dict[str, Any]:
    """The name of the model's class and its arguments; these only if they are plain numbers and words."""
    args, kwargs = model._arguments
    try:
        text = json.dumps({"class": type(model).__name__, "args": args, "kwargs": kwargs})
    except TypeError:  # built from other modules, say: its state can be loaded into a model, but not the model built
        text = json.dumps({"class": type(model).__name__})
    return json.loads(text)


def load(path: str | Path, into: Module | None = None) -> Module:
    """The model saved at `path`: built anew from the file's header, or loaded into the given model.

    A class is looked for among the defined subclasses of Module, so loading a file imports and runs nothing.
    Raises StateError if the file is damaged, foreign or does not fit, and then nothing is half-loaded.
    """
    header, arrays = read_archive(path, "a model file", "class")
    name = str(header["class"])
    model = into if into is not None else _build(name, header, path)
    try:
        model.load_state_dict(arrays)
    except ValueError as error:
        raise StateError(f"{path}: a saved {name}: {error}") from error
    return model


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
        return build(*header["args"], **header["kwargs"])
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


def read_archive(path: str | Path, kind: str, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(header, arrays) of a file that holds both; StateError unless its header is of this format and has the key.

    kind: what the file should be, for the message.
    """
    arrays = read_npz(path)
    try:
        header = json.loads(str(arrays.pop(HEADER)))
        version, _ = header["format"], header[key]
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: not {kind} of tinyadv: it has no valid header ({error})") from error
    if version != FORMAT:
        raise StateError(f"{path}: this file has format {version}, this library reads format {FORMAT}: update tinyadv")
    return header, arrays


def write_npz(path: str | Path, arrays: dict[str, np.ndarray], compress: bool = False) -> None:
    """Write arrays to an .npz file that is either whole or not there at all."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with zipfile.ZipFile(file, "w", method) as archive:  # not np.savez: it cannot write an array named "file"
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, read and checked; StateError if it is damaged or no .npz file at all."""
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as file:
            if damaged := archive.testzip():  # an array is read only as far as its header says, so check it all
                raise ValueError(f"its entry {damaged} is damaged")
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # the parsers of zip, its compressors and npy each have their own, and more than one
        raise StateError(f"{path}: not a readable .npz file: {error}") from error
