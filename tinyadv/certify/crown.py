"""CROWN over interval bounds: differences of logits bounded by linear functions, in one pass back to the input.

Zhang et al. 2018, arXiv:1811.00866 (CROWN); with the bounds of interval arithmetic before each relu it is CROWN-IBP,
Zhang et al. 2020, arXiv:1906.06316, section 3.2. An upper bound a · h + constant, where h is the result of a layer,
becomes one of the layer's input, and so on back to the box, where it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.certify.abstract import beside
from tinyadv.certify.interval import Interval
from tinyadv.certify.rounding import rounding_error
from tinyadv.certify.rules import _variance
from tinyadv.tensor import Tensor, op

SLACK = 2.0**-32  # in units of each number: covers the roundings of this pass itself, sums of 2**20 terms in float64
LEAST = 1e-8      # the width that the interval before a relu has at least


@beside
def crown_worst(z: Interval, labels: Any, flat: bool = False) -> Tensor:
    """(N, K): for logits z (N, K), upper bounds of z_j - z_y as `Interval.worst` has them, some better, some worse.

    CROWN-IBP (Zhang et al. 2020, arXiv:1906.06316, section 3.2).
    A relu that may be on or off is below the line through the ends of its interval, and above a line through 0 with
    slope 1 if it is mostly on, and else 0; with `flat` always 0. What comes through an operation without a rule here is
    bounded by its interval. The bounds can be differentiated, also by way of the intervals.
    """
    if not isinstance(z, Interval):
        raise TypeError(f"crown_worst takes an Interval of logits, as model(Interval(low, high)), got "
                        f"{type(z).__name__}")
    labels, xp = z.own(labels, "crown_worst"), array_module(z.low.data)
    bound: Any = 0.0  # a number lies in any memory
    eye = xp.eye(z.shape[1], dtype=z.dtype)
    found = {id(z): Tensor(eye[:, None] - eye[labels])}  # the coefficients of each value, (K, N, ...)
    h: Any
    for h in z.steps():
        if (a := found.pop(id(h), None)) is None:
            continue
        o = h.origin
        back = RULES[o.operation](a, h, flat, *o.args, **o.kwargs) if o and o.operation in RULES else None
        *parts, constant = back or (_dot(a, h.centre) + _dot(ops.abs(a), h.radius),)
        for x, coefficients in parts:
            found[id(x)] = found[id(x)] + coefficients if id(x) in found else coefficients
        bound = bound if constant is None else bound + constant
        if h.roundoff:
            error = rounding_error(o.operation, o.args, o.kwargs, h.roundoff, h.magnitude) if back else None
            slack = h.magnitude * SLACK
            bound = bound + _dot(ops.abs(a), slack if error is None else slack + error)
    return ops.transpose(bound)


def _dot(a: Tensor, x: Any) -> Tensor:
    """(K, N): of coefficients (K, N, ...) and numbers (N, ...), or what broadcasts to it."""
    return (a * x).sum(axis=tuple(range(2, a.ndim)))


# The rules: of the coefficients a of a result h, `flat`, and the arguments of the operation. They return pairs, of each
# Interval among the arguments and its coefficients, and last a constant (K, N) or None; or None if they do not apply.


def _linear(a: Tensor, h: Interval, flat: bool, x: Interval, weight: Any, bias: Any = None) -> tuple:
    return (x, a @ weight), None if bias is None else _dot(a, bias)


def _conv2d(a: Tensor, h: Interval, flat: bool, x: Interval, weight: Any, bias: Any = None, *options: Any,
            **named: Any) -> tuple:
    def conv(x: Array, weight: Array) -> tuple:
        return unwrap(ops.conv2d)(x, weight, None, *options, **named)
    return (x, _by_rows(a, x, conv, weight)), None if bias is None else _dot(a, bias.reshape(-1, 1, 1))


def _avg_pool2d(a: Tensor, h: Interval, flat: bool, x: Interval, *options: Any, **named: Any) -> tuple:
    return (x, _by_rows(a, x, lambda x, _: unwrap(ops.avg_pool2d)(x, *options, **named))), None


def _mean(a: Tensor, h: Interval, flat: bool, x: Interval, axis: Any = None, keepdims: bool = False) -> tuple | None:
    axes = range(x.ndim) if axis is None else {each % x.ndim for each in (axis if isinstance(axis, tuple) else (axis,))}
    if 0 in axes:
        return None
    share = 1 if h.origin.operation is ops.sum else h.size / x.size  # type: ignore[union-attr]
    kept = (1 if k in axes else length for k, length in enumerate(x.shape))
    return (x, a.reshape((len(a.data), *kept)) * array_module(x.low.data).full(x.shape, share, x.dtype)), None


def _by_rows(a: Tensor, x: Interval, linear: Callable, weight: Any = None) -> Tensor:
    """The adjoint of linear(x, weight) in x, for coefficients (K, N, ...)."""
    rows = _adjoint(a.reshape((-1, *a.shape[2:])), weight, linear, x.shape[1:])
    return rows.reshape((*a.shape[:2], *x.shape[1:]))


@op
def _adjoint(g: Array, weight: Array, linear: Callable, shape: tuple[int, ...]) -> tuple:
    """The same for rows g (n, ...) -> (n, *shape); linear returns a value and its vjps."""
    zero = array_module(g).zeros((1, *shape), g.dtype)
    return linear(zero, weight)[1](g), lambda u: linear(u, weight)[0], lambda u: linear(u, weight)[2](g)


def _batch_norm(a: Tensor, h: Interval, flat: bool, x: Interval, weight: Any, bias: Any, mean: Array, variance: Array,
                eps: float = 1e-5, of_batch: bool = False) -> tuple:
    values: Any = x.one, h.one
    spread = _variance(values[0], mean, variance) if of_batch else variance.astype(x.dtype)
    scale = (weight * (spread + eps) ** -0.5).reshape(-1, 1, 1)
    if of_batch:  # the mean depends on the values
        return (x, a * scale), _dot(a, values[1] - values[0] * scale)
    return (x, a * scale), _dot(a, bias.reshape(-1, 1, 1) - mean.reshape(-1, 1, 1) * scale)


def _relu(a: Tensor, h: Interval, flat: bool, x: Interval) -> tuple:
    low = -ops.relu(-x.low)
    high = ops.maximum(ops.relu(x.high), low + LEAST)
    slope = high / (high - low)
    below = (low.data == 0) if flat else (high.data > -low.data)
    rises = ops.relu(a)
    return (x, rises * slope + (a - rises) * below.astype(x.dtype)), _dot(rises, -low * slope)


def _reshape(a: Tensor, h: Interval, flat: bool, x: Interval, shape: Any = None) -> tuple | None:
    return ((x, a.reshape((*a.shape[:2], *x.shape[1:]))), None) if len(x) == a.shape[1] == len(h) else None


def _add(a: Tensor, h: Interval, flat: bool, *terms: Any) -> tuple | None:
    same = all(isinstance(x, Interval) and x.shape == h.shape for x in terms)
    return (*((x, a) for x in terms), None) if same else None


RULES: dict[Callable, Callable[..., tuple | None]] = {
    ops.linear: _linear, ops.conv2d: _conv2d, ops.avg_pool2d: _avg_pool2d, ops.batch_norm: _batch_norm,
    ops.mean: _mean, ops.sum: _mean, ops.relu: _relu, ops.flatten: _reshape, ops.reshape: _reshape, ops.add: _add}
