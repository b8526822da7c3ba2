"""A Tensor remembers how it was computed; `gradients` walks that graph back (graph.py). No operation is known here.

An operation is one function on raw arrays, marked `@op`, which returns its value and, for each of its array arguments,
a vjp: a function from the gradient `g` with respect to the value to the gradient with respect to that argument.

    @op
    def multiply(x, y):
        return x * y, lambda g: g * y, lambda g: g * x

A vjp never writes into `g` or into an argument, captures arrays and not Tensors, and need not mention broadcasting,
which is undone here, once. A Tensor is what one can differentiate with respect to; a plain array is a constant.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyadv.backend import Array, array_module, device_of, is_array, on_its_device, to_host
from tinyadv.graph import Node, Vertex, topological_order, walk_back
from tinyadv.parallel import Setting
from tinyadv.shapes import Shape
from tinyadv.spellings import explain, spelled


class Tensor:
    """An array and, unless it is a leaf, the operation that computed it.

    data: the NumPy or CuPy array. Numbers, lists and integer arrays become float32; float arrays keep their dtype.
    Assign a new array rather than write into it: a recorded graph may need the old values.
    grad: None, or the array that `backward()` has added up for this leaf.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad")
    __array_ufunc__ = None  # makes `array * tensor` ask the Tensor instead of NumPy

    def __init__(self, data: Any, requires_grad: bool = True):
        data = data.data if isinstance(data, Tensor) else data
        with device_of(data):
            array = array_module(data).asarray(data)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"a Tensor holds real numbers, got dtype {array.dtype}")
            if array.dtype.kind != "f" or not hasattr(data, "dtype"):
                array = array.astype(np.float32)
        self.data: Array = array
        self.grad: Array | None = None
        self._node: Node | None = None
        self._require_grad(requires_grad)

    if TYPE_CHECKING:  # what ops/__init__.py binds
        def _operator(self, other: Any = None) -> Tensor: ...
        def _method(self, *args: Any, **kwargs: Any) -> Tensor: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _operator
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __getitem__ = _operator
        sum = mean = max = min = reshape = flatten = transpose = _method
        T: Tensor

    @property
    def shape(self) -> Shape:
        """The shape of the array."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """The element type."""
        return self.data.dtype

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """The one element as a Python number."""
        return self.data.item()

    __float__ = item

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if form else repr(self)

    def __bool__(self) -> bool:
        return bool(self.data)  # an error for more than one element, as in NumPy

    def numpy(self) -> np.ndarray:
        """The array on the host: the same memory on a CPU, a copy from a GPU."""
        return to_host(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype, copy=copy)

    def __reduce__(self) -> tuple:
        return Tensor, (self.data,), (None, {"grad": self.grad})  # a copy or a pickle is a leaf: a graph has functions

    def detach(self) -> Tensor:
        """A leaf with the same array: no gradient flows through it."""
        return Tensor(self.data)

    @spelled
    def argmax(self, axis: int | None = None) -> Array:
        """The index of the (first) largest element along an axis, or of all: an array of integers."""
        return on_its_device(lambda array: array.argmax(axis=axis))(self.data)

    def _require_grad(self, value: bool) -> None:
        if not value:
            raise ValueError("a Tensor always has gradients: use its array, x.data, as a constant")

    requires_grad = property(lambda self: True, _require_grad, doc="Always True; for a constant, take x.data.")

    def backward(self) -> None:
        """Add d(self)/d(leaf) into `.grad` of every leaf that this scalar was computed from; frees the graph."""
        for leaf, gradient in _walk_back_from(self).items():
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=20)
        origin = "" if self._node is None else f", from {self._node.name}"
        return f"Tensor({values}, shape={self.shape}, {self.dtype}{origin})"


_UNRECORDED = Node("an operation under no_grad()", [])
NO_FLOATS = {"i", "u", "b", list, tuple}  # kinds of arrays, and classes
_recording = Setting("recording", True)


def no_grad() -> AbstractContextManager[None]:
    """Record nothing in this block (or decorated function), in this thread: for evaluation and updates."""
    return recording(False)


def recording(on: bool) -> AbstractContextManager[None]:
    """Record the operations of this block, in this thread, or do not."""
    return _recording.within(on)


def op(function: Callable, operands: int = 1) -> Callable[..., Tensor]:
    """Turn a function on arrays that returns (value, vjp, ...) into one on Tensors that is recorded.

    Array arguments come first, one vjp each; they may be Tensors, arrays or numbers. The first `operands` of them may
    be lists, too, and are computed with as floats: integers, booleans and lists take the dtype of the floats beside
    them, as numbers do, so that float32 stays float32. The others may be labels or indices.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def apply(*args: Any, **kwargs: Any) -> Tensor:
        if any(isinstance(value, Tensor | list | tuple) or is_array(value) for value in kwargs.values()):
            bound = signature.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        if abstract := [x for x in args if hasattr(type(x), "through")]:  # an interval, say: see certify/abstract.py
            lists = [_of_list(x, abstract[0].dtype) if isinstance(x, list | tuple) else x for x in args[:operands]]
            return abstract[0].through(apply, (*lists, *args[operands:]), kwargs)
        try:
            arrays, options = [_raw(x) for x in args], {name: _raw(value) for name, value in kwargs.items()}
            with device_of(*arrays):
                arrays[:operands] = _floating(arrays[:operands])
                value, *vjps = function(*arrays, **options)
                dtypes = [x.dtype for x in arrays[operands:len(vjps)] if hasattr(x, "dtype")]
                if any(dtype.kind in "iub" for dtype in dtypes):  # NumPy makes float64 of float32 and int64
                    floats = [x.dtype for x in arrays[:len(vjps)] if is_array(x) and x.dtype.kind == "f"]
                    value = value.astype(np.result_type(*floats or [np.float32]), copy=False)
        except (IndexError, TypeError, ValueError) as error:
            explain(error, function.__name__, args, kwargs, signature.parameters)
            raise
        if any(isinstance(x, Tensor) for x in args[len(vjps):]):
            raise TypeError(f"{function.__name__} is differentiated in its first {len(vjps)} arguments only: use .data")
        result = Tensor(value)
        inputs = [(x, vjp) for x, vjp in zip(args, vjps, strict=False) if isinstance(x, Tensor)]
        edges = [(_vertex(x), vjp, x.shape, x.dtype) for x, vjp in inputs]
        if edges:
            result._node = Node(function.__name__.lstrip("_"), edges) if _recording.get() else _UNRECORDED
        return result

    return apply


def gradients(output: Tensor, wrt: Sequence[Tensor], *, keep_graph: bool = False) -> list[Array]:
    """The gradient arrays of a scalar output in each Tensor of `wrt`, leaf or not; zeros where it does not depend.

    Only the vjps on a path from `output` to `wrt` are called, and no `.grad` is touched: an attack never pays for a
    weight gradient. The graph is freed, unless it is kept for another output that shares it.
    Raises ValueError if the output is not a scalar, RuntimeError if its graph was not recorded or is freed.
    """
    if not isinstance(wrt, Sequence) or not all(isinstance(x, Tensor) for x in wrt):
        raise TypeError("wrt must be a list of Tensors, as in gradients(loss, [x])")
    found = _walk_back_from(output, {_vertex(x) for x in wrt}, keep_graph)
    return [found[_vertex(x)] if _vertex(x) in found else array_module(x.data).zeros_like(x.data) for x in wrt]


def depends(output: Tensor, x: Tensor) -> bool:
    """Whether the output was computed from x by recorded operations; True for an output without any, a constant."""
    return isinstance(root := _vertex(output), Tensor) or _vertex(x) in topological_order(root)


def _raw(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.data
    return argument.item() if isinstance(argument, np.generic) else argument


def _floating(operands: list[Any]) -> list[Any]:
    """The operands with those that are no floats in the dtype of the others; numbers beside arrays stay numbers."""
    kinds = [getattr(getattr(x, "dtype", None), "kind", type(x)) for x in operands]
    if "f" in kinds and NO_FLOATS.isdisjoint(kinds):  # as nearly always, so this is quick
        return operands
    floats = [x.dtype for x, kind in zip(operands, kinds, strict=True) if kind == "f"]
    xp, dtype = array_module(*operands), np.result_type(*floats or [np.float32])
    if all(isinstance(x, int | float) for x in operands):  # one of the numbers must be an array
        return [np.asarray(operands[0], dtype), *operands[1:]]
    return [x if kind not in NO_FLOATS else x.astype(dtype) if is_array(x) else xp.asarray(_of_list(x, dtype))
            for x, kind in zip(operands, kinds, strict=True)]


def _of_list(values: Sequence[Any], dtype: np.dtype) -> np.ndarray:
    """The array of a list; TypeError for one of anything but numbers, such as Tensors, whose gradient would be lost."""
    def numbers(values: Any) -> bool:
        return all(map(numbers, values)) if isinstance(values, list | tuple) else not isinstance(values, Tensor)

    array = np.asarray(values) if numbers(values) else np.array(None)
    if array.dtype.kind not in "fiub":
        raise TypeError("a list of anything but numbers is no operand; ops.concatenate makes one Tensor of several")
    return array.astype(dtype)


def _walk_back_from(output: Tensor, wanted: set | None = None, keep_graph: bool = False) -> dict:
    """{vertex: gradient} of the wanted vertices (None: of all leaves) that the scalar output depends on."""
    if output.size != 1:
        raise ValueError(f"gradients start from a scalar, got shape {output.shape}: reduce it, as in output.sum()")
    if output._node is _UNRECORDED:
        raise RuntimeError("this Tensor was computed under no_grad(), so there is no graph to walk back")
    with device_of(output.data):
        return walk_back(_vertex(output), array_module(output.data).ones_like(output.data), wanted, keep_graph)


def _vertex(x: Tensor) -> Vertex:
    return x if x._node is None or x._node is _UNRECORDED else x._node
