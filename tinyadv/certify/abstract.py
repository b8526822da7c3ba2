"""Abstract values: each stands for a set of arrays, and flows through the same operations as a Tensor.

`@op` hands a call with an abstract argument to `through`, and so to the domain: Interval looks for the rule of that
operation in its table, Zonotope keeps affine ones exact. So every model that is built of operations can be bounded
without being written twice. Cousot and Cousot 1977, "Abstract interpretation"; for networks Gehr et al. 2018 (AI2).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from tinyadv import ops
from tinyadv.attacks.base.arguments import check_classes
from tinyadv.backend import Array, array_module, device_of, is_array
from tinyadv.ops.loss import check_labels
from tinyadv.shapes import Shape, check_ndim, check_several
from tinyadv.spellings import check_keywords
from tinyadv.tensor import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def beside(function: Callable[P, T]) -> Callable[P, T]:
    """The function, called in a block of `device_of` its first argument, an abstract value."""

    @functools.wraps(function)
    def there(*args: P.args, **kwargs: P.kwargs) -> T:
        sample = getattr(next(iter((*args, *kwargs.values())), None), "sample", None)
        with device_of(None if sample is None else sample.data):
            return function(*args, **kwargs)

    return there


class Origin(NamedTuple):
    """How an abstract value was computed: the operation and its arguments, some of which are abstract."""

    operation: Callable
    args: tuple
    kwargs: dict[str, Any]


class Abstract(Tensor):
    """A set of arrays of one shape. It has the operators and methods of a Tensor; a subclass is one domain.

    low, high: Tensors of that shape, between which every array of the set is. centre: half-way between them. value:
    None, or a Tensor of the set that is computed along with the bounds, such as the clean images. sample: any Tensor of
    its shape and dtype. origin: how it was computed; None for an input. A subclass defines `_through`, which computes
    the result of an operation.
    """

    __slots__ = ("high", "low", "origin", "sample", "value")

    low: Tensor
    high: Tensor
    centre: Tensor
    sample: Tensor
    value: Tensor | None
    origin: Origin | None

    @beside
    def through(self, operation: Callable, args: tuple, kwargs: dict[str, Any]) -> Abstract:
        """The result of an operation one of whose arguments is abstract; TypeError if there is no rule for it.

        Arguments that were given by name are put into their places, where all rules look for them.
        """
        if kwargs:
            signature = inspect.signature(operation)
            check_keywords(operation.__name__, kwargs, signature.parameters)
            bound = signature.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        for x in args:
            if isinstance(x, Abstract) and type(x) is not type(self):
                raise TypeError(f"{operation.__name__}: all abstract arguments must be of one class, got "
                                f"{type(self).__name__} and {type(x).__name__}")
        return self._through(operation, args, kwargs)

    def _through(self, operation: Callable, args: tuple, kwargs: dict[str, Any]) -> Abstract:
        raise TypeError(f"{type(self).__name__} defines no _through(operation, args, kwargs)")

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value."""
        return ops.maximum(ops.abs(self.low), ops.abs(self.high))

    def own(self, labels: Any, operation: str = "worst") -> Array:
        """The labels of logits (N, K) as an array (N,) beside them; ValueError unless these are classes, and K >= 2."""
        check_ndim(self.shape, 2, operation, "logits (N, K)")
        check_several(self.sample)
        labels = check_classes(labels, "labels", self.sample.data)
        if isinstance(labels, np.ndarray):  # a GPU would have to be waited for
            check_labels(labels, self.shape[1], operation)
        return labels

    @property
    def data(self) -> Array:
        """The array of the value; ValueError if there is none, as what is computed from one array bounds no other."""
        if self.value is None:
            raise ValueError(f"{type(self).__name__} stands for many arrays, but x.data is one of them: compute with x "
                             "itself, by the functions of ops")
        return self.value.data

    @property
    def one(self) -> Tensor:
        """The value, or without one the centre: for the statistics of a batch in training."""
        return self.centre if self.value is None else self.value

    @property
    def shape(self) -> Shape:
        return self.sample.shape

    @property
    def ndim(self) -> int:
        return self.sample.ndim

    @property
    def size(self) -> int:
        return self.sample.size

    @property
    def dtype(self) -> np.dtype:
        return self.sample.dtype

    def __len__(self) -> int:
        return len(self.sample)

    def steps(self) -> Iterator[Abstract]:
        """This value and all abstract values that it was computed from, each before those that it was made of."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            each, done = stack.pop()
            if done:
                order.append(each)
            elif id(each) not in seen:
                seen.add(id(each))
                stack.append((each, True))
                stack += [(x, False) for x in (each.origin.args if each.origin else ()) if isinstance(x, Abstract)]
        return reversed(order)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, {self.dtype})"


def magnitude(x: Any) -> Any:
    """The absolute value of a constant, or the largest one of an abstract value. Of integers it is made in float64."""
    if isinstance(x, Abstract):
        return x.magnitude
    whole = not isinstance(x, Tensor) and not (is_array(x) and x.dtype.kind == "f")
    return abs(array_module(x).asarray(x, np.float64) if whole else x)  # the int8 -128 has no absolute value


def at(args: tuple, end: str) -> list[Any]:
    """The arguments with each abstract one replaced by its "low", "high", "value" ..."""
    return [getattr(x, end) if isinstance(x, Abstract) else x for x in args]
