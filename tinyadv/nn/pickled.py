"""The pickles inside PyTorch's checkpoints, read by an interpreter that knows tensors and nothing else.

A pickle is a program for a small machine with a stack. `pickletools` of the standard library splits it into
instructions and runs none. This file runs those that build numbers, words, lists, tables and tensors. The functions
that such a program may name are the words in FUNCTIONS; to call one means to make a record of a tensor. So nothing
that a file says is ever imported or run.
"""

from __future__ import annotations

import math
import pickletools
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

FUNCTIONS = ("collections OrderedDict", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2",
             "torch._utils _rebuild_parameter")
DTYPES = {  # of the storages, by their class; the numbers of a BFloat16Storage are the upper halves of float32
    f"torch {name}Storage": dtype for name, dtype in {
        "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "<u2", "Long": "<i8", "Int": "<i4", "Short": "<i2",
        "Char": "|i1", "Byte": "|u1", "Bool": "|b1"}.items()
}
SPARE = 1 << 23  # bytes that the objects of a pickle may take beside twice the size of the file
MOST_AXES = 64  # of a NumPy array


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: its name there, the class of its numbers, and how many there are."""

    key: str
    kind: str
    size: int

    def __post_init__(self) -> None:
        if not (isinstance(self.key, str) and self.kind in DTYPES and are_counts([self.size])):
            raise ValueError(f"it has a storage {shown(self.key)} of {shown(self.size)} numbers, {shown(self.kind)}")


@dataclass(frozen=True)
class Stored:
    """A tensor: where it begins in its storage, its shape, and its strides, all in numbers and not in bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """ValueError where it would reach beyond its storage, or have more numbers than that."""
        if not (isinstance(self.storage, Storage) and isinstance(self.shape, tuple) and isinstance(self.strides, tuple)
                and len(self.shape) == len(self.strides) <= MOST_AXES
                and are_counts([self.offset, *self.shape, *self.strides])):
            raise ValueError("it has a tensor that is not made of a storage, an offset, a shape and strides")
        last = self.offset + sum(stride * (length - 1) for stride, length in zip(self.strides, self.shape, strict=True))
        if math.prod(self.shape) > self.storage.size or (last >= self.storage.size and 0 not in self.shape):
            raise ValueError(f"it has a tensor of shape {self.shape} in a storage of {self.storage.size} numbers")


def unpickle(file: BinaryIO, size: int) -> Any:
    """The object of the pickle at the file's position, tensors as Stored; size: of the whole file.

    ValueError for a program that asks for anything else, or for much more memory than a checkpoint of that size.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks below each mark
    memo: dict[Any, Any] = {}
    left = SPARE + 2 * size
    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" if argument in range(6):
                continue
            case "STOP":
                return stack.pop()
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case ("BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "BINSTRING"
                  | "SHORT_BINSTRING"):
                stack.append(argument)
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"T": tuple, "L": list, "D": dict}[opcode.name[6]]())
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE" | "LIST":
                values, stack = stack, marked.pop()
                stack.append(tuple(values) if opcode.name == "TUPLE" else values)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(values)))
            case "APPEND":
                _own(stack[-2], list).append(stack.pop())
            case "APPENDS":
                values, stack = stack, marked.pop()
                _own(stack[-1], list).extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS" | "DICT":
                values, stack = stack, marked.pop()
                if opcode.name == "DICT":
                    stack.append({})
                _set(stack[-1], values)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                if argument not in FUNCTIONS and argument not in DTYPES:
                    raise ValueError(f"it asks for {argument!r:.80}, which is no tensor: save the state_dict alone, as "
                                     "in torch.save(model.state_dict(), path)")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":  # to give a long list to one more call takes a few bytes, and long to read
                arguments, function = stack.pop(), stack.pop()
                left -= 256 * sum(len(pairs) for pairs in _own(arguments, tuple)[:1] if isinstance(pairs, list))
                stack.append(_call(_own(function, _Name), arguments))
            case "BUILD":  # the attributes of a state_dict: the versions of its modules
                stack.pop()
                _own(stack[-1], dict)
            case _:
                raise ValueError(f"its pickle has an instruction {opcode.name}, which no checkpoint of tensors needs")
        left -= sys.getsizeof(stack[-1]) if stack else 64
        if left < 0:
            raise ValueError("its pickle asks for more memory than a checkpoint of its size")
    raise ValueError("its pickle has no end")


class _Name(str):
    """The name of a function or of a class, as opposed to other words."""

    __slots__ = ()


def _call(function: _Name, arguments: tuple) -> Any:
    match function:
        case "collections OrderedDict" if len(arguments) <= 1:  # empty, or as Python 2 makes it, from a list of pairs
            table: dict[Any, Any] = {}
            for pair in _own(arguments[0], list) if arguments else []:
                key, value = _own(pair, list)
                _set(table, [key, value])
            return table
        case "torch._utils _rebuild_parameter" if arguments and isinstance(arguments[0], Stored):
            return arguments[0]
        case "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2" if len(arguments) >= 4:
            if any(arguments[6:]):  # as of torch's views with the sign changed, which is not in the numbers
                raise ValueError("it has a tensor with marks beside its numbers: save tensor.resolve_neg()")
            return Stored(*arguments[:4])
    raise ValueError(f"it calls {function} with {len(arguments)} arguments that make no tensor")


def _storage(identity: Any) -> Storage:
    """("storage", class, key, device, size); the legacy format has a sixth, None."""
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"
            and identity[5:] in ((), (None,)) and isinstance(identity[1], _Name)):
        raise ValueError("it refers to a part of the file that is not a whole storage")
    return Storage(identity[2], identity[1], identity[4])


def _set(table: Any, pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str | int):
            raise ValueError(f"it has a table with a key that is neither a word nor a number, but {shown(key)}")
        if isinstance(key, int) and abs(key) >= sys.hash_info.modulus:  # many of them may have one hash
            raise ValueError(f"it has a table with the key {shown(key)}, and no checkpoint has such large ones")
        _own(table, dict)[key] = value


def _own(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its pickle is damaged: it has {type(value).__name__} where {kind.__name__} must be")
    return value


def are_counts(values: list[Any]) -> bool:
    """Whether they are whole numbers, none of them negative or too large for NumPy."""
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 for value in values)


def shown(value: Any) -> str:
    """For messages. A few bytes make a tuple whose repr, hash and comparison take hours, so these are never asked."""
    return f"{value!r:.40}" if isinstance(value, str | int) else type(value).__name__
