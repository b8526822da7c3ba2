"""How far rounding can move the result of an operation in float32, so that a bound holds for what is computed.

A sum of n products, in any order and with or without fused multiply-add, differs from the exact one by at most
gamma(n) times the sum of their absolute values, gamma(n) = n u / (1 - n u), where u is the unit roundoff: Higham 2002,
"Accuracy and stability of numerical algorithms", sections 3.1 and 3.5. docs/certificates.md states the theorem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tinyadv import ops
from tinyadv.certify.abstract import magnitude
from tinyadv.ops.movement import _concatenate
from tinyadv.shapes import pair
from tinyadv.tensor import Tensor

FLOAT32 = 2.0**-24  # the unit roundoff
LEAST = 2.0**-100   # products below 2**-126 may become 0; gamma(n) times this is more than n of them

EXACT = {ops.relu, ops.max, ops.min, ops.max_pool2d, ops.abs, ops.negative, ops.reshape, ops.flatten, ops.transpose,
         ops.broadcast_to, ops.getitem, _concatenate}
# The roundings of a result, or what the functions of NumPy and CuPy guarantee at least, in units of the result.
# Constants that are Python numbers are rounded, too.
RELATIVE = {ops.multiply: 2, ops.divide: 2, ops.maximum: 1, ops.minimum: 1, ops.clip: 1, ops.pad: 1, ops.leaky_relu: 3,
            ops.sqrt: 2, ops.exp: 8, ops.log: 8, ops.tanh: 8, ops.sigmoid: 16}
SUMS = {ops.add: 2, ops.subtract: 2, ops.linear: 3, ops.conv2d: 3, ops.matmul: 2, ops.sum: 1, ops.mean: 1,
        ops.avg_pool2d: 1, ops.batch_norm: 4}  # how many of the arguments are operands; the rest are options


def rounding_error(operation: Callable, args: tuple, kwargs: dict[str, Any], u: float, result: Tensor) -> Tensor | None:
    """A bound, like the result, of the error with unit roundoff u, for all inputs in the abstract args; None for 0.

    result: a bound of its absolute value. TypeError for an operation whose rounding has no bound here.
    """
    if operation in EXACT:
        return None
    if operation in RELATIVE:
        return (result + LEAST) * _gamma(RELATIVE[operation], u)
    if operation not in SUMS:
        raise TypeError(f"{operation.__name__} has no bound of its rounding error: a certificate of a network with "
                        "this operation would not be sound; model(Interval(low, high)) bounds it without rounding")
    operands, least = SUMS[operation], LEAST
    sizes: list[Any] = [x if x is None else magnitude(x) for x in args[:operands]]  # so nothing is negative
    if operation is ops.batch_norm:  # scale * x + (bias - mean * scale)
        least = LEAST * (1 + sizes[0] + sizes[3].reshape(-1, 1, 1))  # scale may be below 2**-126
        sizes[3], terms = -sizes[3], 16
    elif operation in (ops.linear, ops.conv2d):
        terms = math.prod(args[1].shape[1:]) + 1
    elif operation is ops.matmul:
        terms = args[0].shape[-1]
    elif operation is ops.avg_pool2d:
        terms = math.prod(pair(args[1], "size", least=1)) + 1
    elif operation in (ops.sum, ops.mean):
        terms = args[0].size // max(1, result.size) + 1
    else:
        terms = 2
    kind = ops.add if operation is ops.subtract else operation
    return (kind(*sizes, *args[operands:], **kwargs) + least) * _gamma(terms, u)


def _gamma(terms: int, u: float) -> float:
    """One more rounding than counted: it covers all those of the bounds themselves, which are made in float64."""
    n = terms + 2
    if n * u >= 1:
        raise ValueError(f"the rounding errors of {n} steps have no bound where the unit roundoff is {u:g}")
    return n * u / (1 - n * u)
