"""Weights from PyTorch's files, without PyTorch: .pth in both of its formats, and .safetensors."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinyadv.nn.archive import StateError
from tinyadv.nn.pickled import DTYPES, Storage, Stored, shown, unpickle
from tinyadv.nn.safetensors import read_numbers, read_safetensors

LONGEST_PICKLE = 1 << 22  # bytes; one of ResNet-50 has 50,000
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last")  # where a checkpoint keeps its weights
WRAPPED = ("_orig_mod.", "module.", "_orig_mod.")  # torch.compile may be around DataParallel, or in it
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two objects of the legacy format
BFLOAT16 = "torch BFloat16Storage"
COUNTED = re.compile(r"(?<![^.])running_var$")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def load_pytorch(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of the weights in a .pth file of PyTorch or in a .safetensors file.

    `model.load_state_dict(nn.load_pytorch(path))` sets them. The arrays are read-only and may share memory.

    A .pth is what `torch.save` writes, as a zip archive (since PyTorch 1.6) or in the legacy format before. It may
    hold the weights under "state_dict", "model_state_dict", "model", "net" or "last". Nothing that the file says is
    ever run: it is read by a parser that knows tensors and nothing else. Numbers in bfloat16 become float32.

    Names are adapted: where all have it, a leading "module." (of DataParallel and AveragedModel, with the `n_averaged`
    beside it) or "_orig_mod." (of torch.compile) is removed; the old names of DenseNet ("norm.1") become the new ones
    ("norm1"); and the `num_batches_tracked` that files before PyTorch 0.4.1 lack are added as 0.

    Raises FileNotFoundError, and StateError for every file that is damaged, of another kind, or holds other objects.
    """
    try:
        with Path(path).open("rb") as file:
            return read_weights(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # the parsers of zip, JSON and pickles each have their own, and more than one
        raise StateError(f"{path}: not a readable checkpoint, in .pth or .safetensors: {error}") from error


def read_weights(file: BinaryIO) -> dict[str, np.ndarray]:
    """The same of an open file; its errors are those of the parsers."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        return _named(_from_zip(file, size))
    if start == b"\x80\x02\x8a\x0a":  # an instruction for a number of ten bytes: MAGIC
        return _named(_from_legacy(file, size))
    return _named(read_safetensors(file, size))


def _from_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """A folder of entries that are not compressed: data.pkl, the pickle, and data/KEY, the storages."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("two of its entries have one name")
        if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size
               for info in entries.values()) or sum(info.file_size for info in entries.values()) > size:
            raise ValueError("its entries are compressed, or larger than the file: PyTorch writes none like that")
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"it has {len(roots)} entries data.pkl, and a checkpoint of PyTorch has one; a file of "
                             "nn.save is read by nn.load(path)")
        (root,) = roots
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are not in little-endian order")
        if entries[f"{root}data.pkl"].file_size > LONGEST_PICKLE:
            raise ValueError(f"its pickle has more than {LONGEST_PICKLE:,} bytes")

        def numbers(storage: Storage) -> np.ndarray:
            entry, dtype = entries.get(f"{root}data/{storage.key}"), np.dtype(DTYPES[storage.kind])
            if entry is None or entry.file_size != storage.size * dtype.itemsize:
                raise ValueError(f"it has no storage {storage.key} of {storage.size:,} numbers of {dtype}")
            with archive.open(entry) as data:
                read = read_numbers(data, dtype, storage.size, storage.kind == BFLOAT16)
                data.read()  # nothing is left, but this checks the checksum of an entry without numbers, too
            return read

        return _arrays(_state(unpickle(io.BytesIO(archive.read(f"{root}data.pkl")), size)), numbers)


def _from_legacy(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Five pickles: MAGIC, PROTOCOL, a description, the object, the list of storages; then these with their sizes."""
    head = io.BytesIO(file.read(min(size, LONGEST_PICKLE)))
    magic, protocol, system, value, keys = (unpickle(head, size) for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL) or system["little_endian"] is not True:
        raise ValueError("it is of another version of the legacy format")
    kinds = {stored.storage.key: stored.storage for stored in _tensors(value)}
    places: dict[str, int] = {}
    place = head.tell()
    del head  # its memory is for the numbers
    for key in keys:
        if not isinstance(key, str) or key in places or key not in kinds:
            raise ValueError(f"it has a storage {shown(key)} twice, or one that no tensor is in")
        file.seek(place)
        if int.from_bytes(file.read(8), "little") != kinds[key].size:
            raise ValueError(f"the storage {key} has not the {kinds[key].size:,} numbers that its tensors say")
        places[key] = place + 8
        place += 8 + kinds[key].size * np.dtype(DTYPES[kinds[key].kind]).itemsize
    if place != size:
        raise ValueError(f"it has {size:,} bytes, and its tensors need {place:,}")

    def numbers(storage: Storage) -> np.ndarray:
        file.seek(places[storage.key])
        return read_numbers(file, np.dtype(DTYPES[storage.kind]), storage.size, storage.kind == BFLOAT16)

    return _arrays(_state(value), numbers)


def _tensors(value: Any) -> list[Stored]:
    """All tensors in an object, at any depth."""
    found, todo, seen = [], [value], set()
    while todo:
        value = todo.pop()
        if isinstance(value, Stored):
            found.append(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
    return found


def _state(value: Any) -> dict[str, Stored]:
    """The table of tensors in what a checkpoint holds; ValueError where there is none."""
    if isinstance(value, dict):
        value = next((value[name] for name in WRAPPERS if isinstance(value.get(name), dict)), value)
    if not isinstance(value, dict) or not value:
        raise ValueError(f"it holds {type(value).__name__}, and not a state_dict, a table of tensors")
    for name, stored in value.items():
        if not (isinstance(name, str) and isinstance(stored, Stored)):
            raise ValueError(f"it holds {name!r:.80}, {type(stored).__name__}, where a state_dict has tensors only")
    return value


def _arrays(state: dict[str, Stored], numbers: Callable[[Storage], np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as views of their storages, each of which is read once."""
    storages: dict[str, tuple[Storage, np.ndarray]] = {}
    arrays = {}
    for name, stored in state.items():
        if stored.storage.key not in storages:
            storages[stored.storage.key] = stored.storage, numbers(stored.storage)
        storage, read = storages[stored.storage.key]
        if storage != stored.storage:
            raise ValueError(f"two tensors say different things of the storage {storage.key}")
        strides = [stride * read.itemsize for stride in stored.strides]
        arrays[name] = np.lib.stride_tricks.as_strided(read[stored.offset:], stored.shape, strides, writeable=False)
    return arrays


def _named(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under the names that PyTorch's networks have today."""
    for prefix in WRAPPED:
        weights = {name: array for name, array in arrays.items() if name != "n_averaged"}
        if weights and all(name.startswith(prefix) for name in weights):
            arrays = {name.removeprefix(prefix): array for name, array in weights.items()}
    renamed = {OLD_DENSENET.sub(r"\1\2.", name): array for name, array in arrays.items()}
    if len(renamed) < len(arrays):
        raise ValueError("two of its tensors have one name")
    found: dict[str, np.ndarray] = {}
    for name, array in renamed.items():
        found[name] = array
        array.flags.writeable = False
        counter = COUNTED.sub("num_batches_tracked", name)
        if counter not in renamed:
            found[counter] = np.zeros((), np.int64)
    return found
