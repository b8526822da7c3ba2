"""The one file format for models, results, checkpoints and states: an .npz with arrays and a header.

The header is JSON text, in the entry HEADER. It lists the dtype and shape of every array, and has a SHA-256 of the
header and all arrays, so every change and loss is noticed. A file is checked completely before anything in it is used.
Nothing is unpickled, and nothing is decompressed before its size is known. np.load can read these files, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = 2  # 1 had no list of the arrays and no digest
HEADER = "__tinyadv__"
LONGEST_HEADER, LONGEST_TEXT = 1 << 24, 1 << 16  # bytes
EXPANSION = 4  # arrays may be at most so many times as large as their file; with trained weights it is 1.3
KINDS = "biufcU"  # of dtypes: booleans, numbers and strings


class StateError(ValueError):
    """A file cannot be used; the message says why."""


def write(path: str | Path, header: dict[str, Any], arrays: dict[str, np.ndarray], compress: bool = False) -> None:
    """Write the header and the arrays; an interrupted call leaves no partial file."""
    kinds = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    header = {**header, "format": FORMAT, "arrays": kinds}
    digest = hashlib.sha256(json.dumps(header).encode())
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with whole(path) as file, zipfile.ZipFile(file, "w", method) as archive:
        for name, array in arrays.items():  # not np.savez: it cannot write an array named "file"
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(_Hashed(entry, digest), array, allow_pickle=False)
        with archive.open(zipfile.ZipInfo(f"{HEADER}.npy"), "w") as entry:  # uncompressed: see `read`
            text = np.array(json.dumps(header | {"sha256": digest.hexdigest()}))
            np.lib.format.write_array(entry, text, allow_pickle=False)


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[BinaryIO]:
    """A temporary file to write to; it is renamed to `path` at the end of the block, or removed if the block fails."""
    path = Path(path).resolve()  # of a link, the file that it names
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | Path, kind: str, key: str, oldest: int = FORMAT) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a file that `write` has written; StateError for any other or damaged file.

    kind: what the file should be, for the error message. key: a name that its header must have. oldest: the oldest
    format that is accepted; from 2 on, files have a digest.
    """
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = _entries(archive, size := os.fstat(file.fileno()).st_size)
            file.seek(0)
            if file.read(2) != b"PK":
                raise ValueError("it does not begin as one")
            try:
                header = parse(str(_array(archive, entries.pop(HEADER), min(LONGEST_HEADER, size))))
                version, _ = header["format"], header[key]
            except (KeyError, TypeError, ValueError) as error:
                raise StateError(f"{path}: not {kind} of tinyadv: it has no valid header ({error})") from error
            if version not in range(oldest, FORMAT + 1):
                raise StateError(f"{path}: this file has format {version}, and this library reads {FORMAT} of {kind}: "
                                 f"{'update tinyadv' if version not in range(FORMAT) else 'write the file again'}")
            expected, digest = header.pop("sha256", None), hashlib.sha256(json.dumps(header).encode())
            listed = dict.fromkeys(entries) if version == 1 else header.pop("arrays")
            if listed.keys() != entries.keys():
                raise ValueError(f"it should hold {', '.join(listed)}, and holds {', '.join(entries)}")
            arrays = {name: _array(archive, entries[name], entries[name].file_size, digest, like)
                      for name, like in listed.items()}
            if version > 1 and digest.hexdigest() != expected:
                raise ValueError(f"its SHA-256 is {digest.hexdigest()}, and should be {expected}")
            return header, arrays
    except (FileNotFoundError, StateError):
        raise
    except Exception as error:  # the parsers of zip, deflate and npy raise many types of errors
        raise StateError(f"{path}: not a readable .npz file: {error}") from error


def parse(text: str, language: Callable[..., Any] = json.loads) -> dict[str, Any]:
    """The table in a text, in JSON or another language; ValueError if it is no table or has a name twice."""
    more = {"object_pairs_hook": _once} if language is json.loads else {}
    try:
        table = language(text, **more)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(table, dict):
        raise ValueError(f"it must be a table of names and values, and is {type(table).__name__}")
    return table


def read_text(path: Path, language: Callable[..., Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """The table in a text file, read by `language`, a loader of JSON or TOML; StateError unless it has these kinds.

    kinds: {name: kind}; a kind is a type, a dict of kinds for a table, (dict,) for one that may be empty, or a list
    with the one kind of its elements. Names that are not in kinds are allowed, too.
    """
    try:
        if path.stat().st_size > LONGEST_TEXT:
            raise ValueError(f"it has more than {LONGEST_TEXT:,} bytes")
        table = parse(path.read_text(encoding="utf-8"), language)
        _check(table, kinds, "")
    except FileNotFoundError:
        raise
    except (OSError, RecursionError, ValueError) as error:  # RecursionError: the repr of a deep table
        raise StateError(f"{path} cannot be used: {error}") from error
    return table


def _check(value: Any, kind: Any, name: str) -> None:
    """Raise ValueError unless the value has the kind; an int may stand for a float, but a bool is never a number."""
    kind = ({} if value == {} else kind[0]) if isinstance(kind, tuple) else kind
    if isinstance(kind, dict) and isinstance(value, dict):
        for key, own in kind.items():
            if key not in value:
                raise ValueError(f"{name}{key} is missing")
            _check(value[key], own, f"{name}{key}.")
    elif isinstance(kind, list) and isinstance(value, list):
        for number, each in enumerate(value):
            _check(each, kind[0], f"{name}{number}.")
    elif isinstance(kind, dict | list) or not isinstance(value, int | float if kind is float else kind) or (
            isinstance(value, bool) and kind is not bool):
        wanted = "a table" if isinstance(kind, dict) else "a list" if isinstance(kind, list) else kind.__name__
        raise ValueError(f"{name.removesuffix('.')} must be {wanted}, and is {value!r:.80}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError(f"a name comes twice, of {', '.join(name for name, _ in pairs)}")
    return table


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """{name: entry} of a file of that size; ValueError if a name occurs twice, or if they unpack to too much."""
    entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise ValueError("two of its entries have one name")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in entries.values()):
        raise ValueError("it is compressed in another way than deflate, the only method that is accepted")
    claimed = sum(info.file_size for info in entries.values())
    if claimed > EXPANSION * size or any(info.compress_size > size for info in entries.values()):
        raise ValueError(f"it claims to hold {claimed:,} bytes, more than {EXPANSION} times its own {size:,}")
    return entries


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, largest: int, digest: Any = None, like: Any = None) -> Any:
    """The array of an entry, which must be of the kind `like`; without a digest, the text of the header.

    Raises ValueError if it has another kind or size, before memory is allocated for it.
    """
    try:
        with archive.open(entry) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("it has another version of the npy format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.kind not in KINDS or not dtype.itemsize or (digest is None and shape):
                raise ValueError(f"it must contain numbers or text, and contains {dtype} {shape}")
            if entry.file_size > largest or entry.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
                raise ValueError(f"it has {entry.file_size:,} bytes, which is wrong for {dtype} {shape}")
            if like is not None and [dtype.str, list(shape)] != like:
                raise ValueError(f"it is {dtype.str} {shape}, and should be {like}")
            if digest is None:  # read_array would take three times the memory for a single string
                return np.frombuffer(file.read(), dtype)[0]
        with archive.open(entry) as file:
            return np.lib.format.read_array(_Hashed(file, digest), allow_pickle=False)
    except Exception as error:
        raise ValueError(f"its entry {entry.filename} is damaged: {error}") from error


class _Hashed:
    """A file that updates a digest with all bytes read or written."""

    def __init__(self, file: Any, digest: Any):
        self.file, self.digest = file, digest

    def read(self, size: int = -1, /) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)
