"""An array library for the tests: NumPy inside, and outside as strict as CuPy is about host and device memory.

What runs on it keeps its arrays on one side. Read off CuPy 14: a NumPy array as an operand or argument is a
TypeError, 0-d ones included (NumPy scalars are plain numbers); so is every implicit conversion to NumPy; a
result is never a scalar; an index alone may come from the host. `asarray` and `.get()` are the two crossings; what is
computed is in C order; and no function has the keywords of LACKING, which is tested on CuPy's own signatures
(cupy_on_cpu). Stricter than CuPy: NumPy's own functions refuse a device array, where CuPy would answer for them.
"""

import types

import numpy as np

CONSTANTS = {
    "bool_", "e", "float16", "float32", "float64", "inf", "int8", "int16", "int32", "int64", "nan", "newaxis", "pi",
    "uint8", "uint16", "uint32", "uint64",
}
FUNCTIONS = {  # of the names that NumPy and CuPy share, those that tinyadv may use; add one if CuPy has it
    "abs", "add", "all", "any", "arange", "arctanh", "argmax", "argmin", "argsort", "array_equal",
    "ascontiguousarray", "broadcast_to", "ceil", "clip", "concatenate", "cos", "cumsum", "diff", "divide", "einsum",
    "empty", "empty_like", "equal", "exp", "expand_dims", "eye", "flatnonzero", "flip", "floor", "fmax", "frexp",
    "full", "full_like", "greater_equal", "isfinite", "isinf", "isnan", "ldexp", "log", "log1p", "logaddexp",
    "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "max", "maximum", "mean", "min", "minimum",
    "moveaxis", "multiply", "negative", "nextafter", "nonzero", "ones", "ones_like", "pad", "power", "prod",
    "repeat", "result_type", "rint", "roll", "sign", "sin", "sort", "split", "sqrt", "square", "squeeze", "stack",
    "std", "subtract", "sum", "take", "take_along_axis", "tanh", "tensordot", "tile", "transpose", "tril", "triu",
    "trunc", "var", "where", "zeros", "zeros_like",
}
METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumsum", "dot", "fill", "flatten", "item",
    "max", "mean", "min", "nonzero", "prod", "ravel", "repeat", "reshape", "round", "sort", "squeeze", "std", "sum",
    "swapaxes", "take", "tolist", "transpose", "var", "view",
}
LACKING = {"correction", "device", "initial", "like", "optimize", "stable", "where"}  # keywords of NumPy's alone
ATTRIBUTES = {"T", "base", "dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides"}
OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul")


class ndarray:
    """An array in the memory of a pretended device."""

    __array_ufunc__ = None  # NumPy's ufuncs refuse it; `host * device` and `number * device` come here
    __hash__ = None

    def __init__(self, host):
        self._host = host

    def get(self):
        """A copy in NumPy."""
        return self._host.copy()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_function__(self, function, types, args, kwargs):
        return NotImplemented  # and NumPy raises TypeError

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            return _device(getattr(self._host, name))
        if name in METHODS:
            return _lift(getattr(self._host, name))
        raise AttributeError(f"a device array has no {name!r}: add it to METHODS if CuPy's has")

    def __getitem__(self, index):
        return _device(self._host[_index(index)])

    def __setitem__(self, index, value):
        self._host[_index(index)] = _host(value)

    @property
    def device(self):
        return types.SimpleNamespace(id=0)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return map(_device, self._host)

    def __repr__(self):
        return f"device {self._host!r}"


def _binary(name):
    def method(self, other):
        if isinstance(other, list | tuple):
            raise TypeError(f"Unsupported type {type(other)}")
        if getattr(other, "__array_ufunc__", self) is None and not isinstance(other, ndarray):
            return NotImplemented  # a Tensor, which asks to be asked itself
        return _device(getattr(self._host, name)(_host(other)))

    return method


def _in_place(name):
    def method(self, other):
        self._host = getattr(self._host, name)(_host(other))
        return self

    return method


def _unary(name):
    return lambda self: _device(getattr(self._host, name)())


for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _binary(f"__r{_name}__"))
    if _name != "matmul":
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(f"__{_name}__"))
for _name in ("int", "float", "bool"):  # a transfer of one number, which CuPy does unasked as well
    setattr(ndarray, f"__{_name}__", lambda self, name=_name: getattr(self._host, f"__{name}__")())


def asarray(a, dtype=None):
    """A copy of a host array, a number or a list on the device; a device array itself."""
    return ndarray(np.array(a, dtype)) if not isinstance(a, ndarray) else a if dtype is None else a.astype(dtype)


def _device(value):
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value, order="C" if getattr(value, "base", None) is None else None))
    if type(value) in (tuple, list) and any(isinstance(part, np.ndarray) for part in value):
        return type(value)(map(_device, value))
    return value


def _host(value):
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a host array, move it with asarray()")
    return type(value)(map(_host, value)) if type(value) in (tuple, list) else value


def _index(index):
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return index._host if isinstance(index, ndarray) else index


def _lift(function):
    """NumPy's function, with arguments and results on the device."""

    def lifted(*args, **kwargs):
        if unknown := LACKING & set(kwargs):
            raise TypeError(f"CuPy's {function.__name__} takes no {', '.join(sorted(unknown))}")
        if function is np.where and not isinstance(args[0], ndarray):
            raise AttributeError(f"'{type(args[0]).__name__}' object has no attribute 'astype'")  # as CuPy has it
        return _device(function(*map(_host, args), **{name: _host(value) for name, value in kwargs.items()}))

    return lifted


def __getattr__(name):
    if name in CONSTANTS:
        return getattr(np, name)
    if name in FUNCTIONS:
        return _lift(getattr(np, name))
    raise AttributeError(f"strict_device has no {name!r}: add it to FUNCTIONS if CuPy has it")


add = _lift(np.add)
add.at = lambda a, index, b: np.add.at(a._host, _index(index), _host(b))
lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=_lift(np.lib.stride_tricks.as_strided)))
