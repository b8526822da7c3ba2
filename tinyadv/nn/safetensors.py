"""Files of tensors in the format safetensors: a header in JSON, then the numbers. Its specification is the README of
github.com/huggingface/safetensors: 8 bytes for the header's length N, N bytes of JSON, {name: {"dtype", "shape",
"data_offsets"}}, and a buffer that the offsets cover without holes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from tinyadv.nn.archive import LONGEST_HEADER, parse, whole
from tinyadv.nn.module import Module
from tinyadv.nn.pickled import MOST_AXES, are_counts

DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BF16"}
METADATA = "__metadata__"  # words of the writer, and no tensor
BLOCK = 1 << 16  # numbers in bfloat16 that are read at a time


def save_safetensors(state: Module | Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write a model's state, or {name: array}, so that `safetensors.torch.load_file(path)` reads it in PyTorch.

    The file is whole or not there at all. ValueError for an array of another dtype than numbers and truth values, and
    for one with the name "__metadata__".
    """
    if not isinstance(state, Module | Mapping):
        raise TypeError(f"save_safetensors takes (state, path), a model or arrays first; got {type(state).__name__}")
    arrays = {name: np.asarray(array) for name, array in
              (state.state_dict() if isinstance(state, Module) else state).items()}
    if wrong := [f"{name}: {array.dtype}" for name, array in arrays.items()
                 if array.dtype.newbyteorder("<") not in NAMES]:
        raise ValueError(f"safetensors holds {', '.join(map(str, NAMES))}; got {', '.join(wrong)}")
    if others := [name for name in arrays if not isinstance(name, str)]:
        raise ValueError(f"the names of a state must be words, got {others[0]!r}")
    if METADATA in arrays:
        raise ValueError(f"state has an array {METADATA}, a name that safetensors keeps for other things: rename it")
    header, begin = {}, 0
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each is aligned
    for name in order:
        array, end = arrays[name], begin + arrays[name].nbytes
        header[name] = {"dtype": NAMES[array.dtype.newbyteorder("<")], "shape": list(array.shape),
                        "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(arrays[name].astype(arrays[name].dtype.newbyteorder("<"), order="C", copy=False).data)


def read_safetensors(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """{name: array} of a file of that size, those in bfloat16 as float32; ValueError for a wrong one."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, size - 8):
        raise ValueError(f"its header should have {length:,} bytes, and the file has {size:,}")
    text = file.read(length).decode()
    if text[:1] != "{":
        raise ValueError("its header does not begin as one")
    table = parse(text)
    words = table.pop(METADATA, {})
    if not (isinstance(words, dict) and all(isinstance(each, str) for each in words.values())):
        raise ValueError(f"{METADATA} is no table of words")
    found: list[tuple[int, int, str, np.dtype, tuple[int, ...]]] = []
    for name, entry in table.items():
        if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
                and isinstance(entry["shape"], list) and isinstance(entry["data_offsets"], list)):
            raise ValueError(f"{name} is not described by its dtype, shape and data_offsets")
        dtype, shape, (begin, end) = DTYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if dtype is None:
            raise ValueError(f"{name} is of {entry['dtype']!r:.40}, and this library reads {', '.join(DTYPES)}")
        if len(shape) > MOST_AXES or not are_counts([*shape, begin, end]):
            raise ValueError(f"{name} has a shape or a place that is not made of at most {MOST_AXES} whole numbers")
        if end - begin != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"{name} has {end - begin:,} bytes, which is wrong for {entry['dtype']} {tuple(shape)}")
        found.append((begin, end, name, np.dtype(dtype), tuple(shape)))
    found.sort()
    ends = [0, *(end for _, end, *_ in found)]
    if [begin for begin, *_ in found] != ends[:-1] or ends[-1] != size - 8 - length:
        raise ValueError("its tensors leave a hole, lie on one another, or do not fill the file")
    arrays = {name: read_numbers(file, dtype, math.prod(shape), table[name]["dtype"] == "BF16").reshape(shape)
              for *_, name, dtype, shape in found}
    return {name: arrays[name] for name in table}


def read_numbers(file: IO[bytes], dtype: np.dtype, count: int, bfloat16: bool) -> np.ndarray:
    """The file's next numbers; those in bfloat16 are the upper halves of float32, and widened without a copy of all."""
    if not bfloat16:
        return np.frombuffer(file.read(count * dtype.itemsize), dtype)
    numbers = np.zeros(count, "<f4")
    halves = numbers.view("<u2")[1::2]
    for begin in range(0, count, BLOCK):
        block = halves[begin : begin + BLOCK]
        block[:] = np.frombuffer(file.read(2 * len(block)), "<u2")
    return numbers
