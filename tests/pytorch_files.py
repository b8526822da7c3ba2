"""PyTorch's files, written and read without PyTorch: written by hand, and read by the pickle module of Python."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

CLASSES = {"<f4": "Float", "<f8": "Double", "<f2": "Half", "<i8": "Long", "<i4": "Int", "<i2": "Short", "|i1": "Char",
           "|u1": "Byte", "|b1": "Bool"}
BOMB = b"X\1\0\0\0aq\0" + b"h\0\x86q\0" * 22  # a pair of twice one pair of twice one ...: its repr has 20 MB
ORDERED = b"ccollections\nOrderedDict\n)R"


@dataclass
class Code:
    """Instructions of a pickle, as they are."""

    code: bytes


def pickled(value, storages, sixth=False):
    """The instructions that make an object; arrays become tensors, and their numbers storages, in the list given."""
    def again(*values):
        return b"".join(pickled(each, storages, sixth) for each in values)

    if isinstance(value, Code):
        return value.code
    if isinstance(value, dict):
        return ORDERED + b"(" + again(*(part for pair in value.items() for part in pair)) + b"u"
    if isinstance(value, tuple | list):
        return b"(" + again(*value) + (b"t" if isinstance(value, tuple) else b"l")
    if isinstance(value, np.ndarray):
        base = value if value.base is None else value.base
        key = next((k for k, each in enumerate(storages) if each is base), len(storages))
        storages[key:] = storages[key:] or [base]
        offset = (value.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // value.itemsize
        storage = ("storage", Code(f"ctorch\n{CLASSES[value.dtype.str]}Storage\n".encode()), str(key), "cpu", base.size)
        strides = tuple(stride // value.itemsize for stride in value.strides)
        arguments = (Code(again((*storage, None) if sixth else storage) + b"Q"), offset, value.shape, strides, False,
                     Code(ORDERED))
        return b"ctorch._utils\n_rebuild_tensor_v2\n" + again(arguments) + b"R"
    if isinstance(value, str):
        return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode() + b"q\x07h\x07h\x07"[:2]
    if isinstance(value, int) and not isinstance(value, bool) and -(1 << 31) <= value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    return pickle.dumps(value, 2)[2:-1]


def zip_file(value, extra=(), method=zipfile.ZIP_STORED):
    """A .pth in the zip format; extra: further entries, (name, bytes)."""
    storages = []
    entries = [("file/data.pkl", b"\x80\x02" + pickled(value, storages) + b"."), ("file/byteorder", b"little")]
    entries += [(f"file/data/{k}", array.tobytes()) for k, array in enumerate(storages)]
    return zipped([*entries, ("file/version", b"3\n"), *extra], method)


def zipped(entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def legacy_file(value, keys=None):
    """A .pth in the legacy format; keys: what stands for the list of storages."""
    storages = []
    code = pickled(value, storages, sixth=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    keys = [str(k) for k in range(len(storages))] if keys is None else keys
    parts += [b"\x80\x02" + each + b"." for each in (code, pickled(keys, []))]
    return b"".join([*parts, *(array.size.to_bytes(8, "little") + array.tobytes() for array in storages)])


def safetensors_file(state):
    header, buffer = {}, b""
    for name, array in state.items():
        dtype = {"f": "F", "i": "I", "u": "U"}.get(array.dtype.kind, "") + str(8 * array.itemsize)
        header[name] = {"dtype": "BOOL" if array.dtype == bool else dtype, "shape": list(array.shape),
                        "data_offsets": [len(buffer), len(buffer) + array.nbytes]}
        buffer += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + buffer


class Reference(pickle._Unpickler):
    """The pickle module, in Python, with only what a checkpoint needs; tensors as arrays."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: np.lib.stride_tricks.as_strided(
                storage[offset:], shape, [stride * storage.itemsize for stride in strides])
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name.removesuffix("Storage") in CLASSES.values():
            return next(dtype for dtype, each in CLASSES.items() if name == f"{each}Storage")
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, identity):
        return self.numbers(identity[1], identity[2], identity[4])


def reference(content):
    """{name: array} of a file, by other means than tinyadv's; any exception for a wrong one."""
    if content[:2] == b"PK":
        archive = zipfile.ZipFile(io.BytesIO(content))
        (root,) = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        reader = Reference(io.BytesIO(archive.read(f"{root}data.pkl")))
        reader.numbers = lambda dtype, key, size: np.frombuffer(archive.read(f"{root}data/{key}"), dtype, size)
        return unwrapped(reader.load())
    if content[:2] == b"\x80\x02":
        file = io.BytesIO(content)
        for _ in range(3):
            pickle._Unpickler(file).load()
        begin, sizes = file.tell(), {}
        probe = Reference(file)
        probe.numbers = lambda dtype, key, size: sizes.setdefault(key, np.zeros(size, dtype))
        probe.load()
        place, places = file.tell(), {}
        keys = Reference(file).load()
        place = file.tell()
        for key in keys:
            places[key] = place + 8
            place += 8 + sizes[key].nbytes
        reader = Reference(io.BytesIO(content[begin:]))
        reader.numbers = lambda dtype, key, size: np.frombuffer(content, dtype, size, places[key])
        return unwrapped(reader.load())
    length = int.from_bytes(content[:8], "little")
    header, buffer = json.loads(content[8:8 + length]), content[8 + length:]
    header.pop("__metadata__", None)
    dtypes = {"F": "<f", "I": "<i", "U": "<u"}
    return {name: np.frombuffer(buffer[slice(*entry["data_offsets"])], bool if entry["dtype"] == "BOOL" else (
        f"{dtypes[entry['dtype'][0]]}{int(entry['dtype'][1:]) // 8}")).reshape(entry["shape"])
        for name, entry in header.items()}


def unwrapped(value):
    for name in ("state_dict", "model_state_dict", "model", "net", "last"):
        if isinstance(value.get(name), dict):
            return value[name]
    return value
