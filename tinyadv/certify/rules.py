"""The rule of each operation for intervals: a function of the operation and its arguments, which returns the bounds.

docs/certificates.md derives them from that of one multiplication. The bounds of batch normalisation in training are
those of Shi et al. 2021, arXiv:2103.17268.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.certify.abstract import at, magnitude
from tinyadv.certify.interval import Ball, Interval, rule
from tinyadv.ops.movement import _concatenate
from tinyadv.parallel import all_reduce
from tinyadv.shapes import is_number
from tinyadv.tensor import Tensor, op

GELU_LEAST = -0.7517915246935645  # where gelu has its only minimum: it falls before and rises after


@rule(ops.add, ops.maximum, ops.minimum, ops.relu, ops.tanh, ops.sigmoid, ops.exp, ops.log, ops.sqrt, ops.clip,
      ops.sum, ops.mean, ops.max, ops.min, ops.logsumexp, ops.avg_pool2d, ops.max_pool2d, ops.reshape, ops.flatten,
      ops.transpose, ops.broadcast_to, ops.pad, ops.getitem, _concatenate)
def _monotone(operation: Callable, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """An operation that grows with each of its arguments: its bounds are the values at their bounds."""
    return operation(*at(args, "low"), **kwargs), operation(*at(args, "high"), **kwargs)


@rule(ops.leaky_relu)
def _leaky_relu(operation: Callable, x: Interval, slope: float = 0.01) -> tuple[Tensor, Tensor]:
    if slope < 0:
        raise ValueError(f"leaky_relu: an Interval needs a slope >= 0, got {slope!r}")
    return _monotone(operation, x, slope)


@rule(ops.negative)
def _negative(operation: Callable, x: Interval) -> tuple[Tensor, Tensor]:
    return -x.high, -x.low


@rule(ops.subtract)
def _subtract(operation: Callable, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    (x_low, x_high), (y_low, y_high) = _ends(x), _ends(y)
    return x_low - y_high, x_high - y_low


@rule(ops.linear, ops.conv2d)
def _affine(operation: Callable, x: Any, weight: Any, bias: Any = None, *options: Any, **named: Any) -> tuple:
    """The centre goes where every point goes, and the radius grows by the absolute weights."""
    if isinstance(weight, Interval) or isinstance(bias, Interval):
        raise TypeError(f"{operation.__name__}: an Interval must be the first argument, not the weight or the bias")
    centre = operation(x.centre, weight, bias, *options, **named)
    return Ball(centre, operation(x.radius, magnitude(weight), None, *options, **named))


@rule(ops.matmul)
def _matmul(operation: Callable, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """(a ± r) (b ± s) is a b, up to r |b| + |a| s + r s; the last two vanish where the other factor is a constant."""
    (a, r), (b, s) = _ball(x), _ball(y)
    radius: Any = 0.0
    if r is not None:
        radius = radius + operation(r, magnitude(b))
    if s is not None:
        radius = radius + operation(magnitude(a) if r is None else ops.abs(a) + r, s)
    return Ball(operation(a, b), radius)


@rule(ops.multiply)
def _multiply(operation: Callable, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """The extreme products are among those of the bounds."""
    products = [a * b for a in _ends(x) for b in _ends(y)]
    low, high = products[0], products[0]
    for each in products[1:]:
        low, high = ops.minimum(low, each), ops.maximum(high, each)
    return low, high


@rule(ops.divide)
def _divide(operation: Callable, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    (a, b), flip = _ends(y), isinstance(y, Interval)
    if flip and not ((a.data > 0) | (b.data < 0)).all():
        raise ValueError("divide: an Interval that holds zero cannot be a divisor")
    if not flip:
        quotients = [end / y for end in _ends(x)]
        return ops.minimum(*quotients), ops.maximum(*quotients)
    return _multiply(ops.multiply, x, Interval(1 / b, 1 / a))


@rule(ops.abs)
def _abs(operation: Callable, x: Interval) -> tuple[Tensor, Tensor]:
    return ops.relu(ops.maximum(x.low, -x.high)), x.magnitude


@rule(ops.power)
def _power(operation: Callable, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """x ** y for a number y: of even y by |x|; of others for positive x, or odd y > 0 for all x."""
    if not isinstance(x, Interval) or not is_number(y):
        raise TypeError(f"power: an Interval must be the base, and the exponent a number; got the exponent {y!r}")
    y = float(y)  # else a number of NumPy's would change the dtype
    low, high = _abs(ops.abs, x) if y % 2 == 0 else (x.low, x.high)
    if not (y > 0 and y % 1 == 0) and not (low.data > 0).all():
        raise ValueError(f"power: an Interval to the power {y!r} must be positive")
    ends = low**y, high**y
    return ends if y > 0 else ends[::-1]


@rule(ops.gelu)
def _gelu(operation: Callable, x: Interval) -> tuple[Tensor, Tensor]:
    least = ops.minimum(ops.maximum(x.low, GELU_LEAST), x.high)  # of the points in x, the nearest to the minimum
    return operation(least), ops.maximum(operation(x.low), operation(x.high))


@rule(ops.softmax)
def _softmax(operation: Callable, x: Interval, axis: int = -1) -> tuple[Tensor, Tensor]:
    """exp(x_i) / (exp(x_i) + the sum of the others): it grows with x_i, and falls with the others."""
    if axis not in (-1, x.ndim - 1):
        raise ValueError(f"softmax: an Interval needs the last axis, got {axis}")
    xp = array_module(x.low.data)
    k = x.shape[-1]
    but_itself = xp.where(xp.eye(k, dtype=bool), -xp.inf, 0).astype(x.dtype)  # (K, K)

    def at_end(own: Tensor, others: Tensor) -> Tensor:
        return ops.sigmoid(own - ops.logsumexp(others.reshape((*x.shape[:-1], 1, k)) + but_itself, axis=-1))

    return at_end(x.low, x.high), at_end(x.high, x.low)


@rule(ops.layer_norm)
def _layer_norm(operation: Callable, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    z = x - ops.mean(x, axis=-1, keepdims=True)
    z = z / ops.sqrt(ops.mean(ops.power(z, 2), axis=-1, keepdims=True) + eps)
    most = (x.shape[-1] - 1) ** 0.5  # |z| is at most that, whatever x is
    return _ends(ops.clip(z, -most, most) * weight + bias)


@rule(ops.standardize)
def _standardize(operation: Callable, x: Any, floor: float) -> tuple[Tensor, Tensor]:
    axes = tuple(range(1, x.ndim))
    z = x - ops.mean(x, axis=axes, keepdims=True)
    return _ends(z / ops.sqrt(ops.maximum(ops.mean(ops.power(z, 2), axis=axes, keepdims=True), floor)))


@rule(ops.batch_norm)
def _batch_norm(operation: Callable, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, eps: float = 1e-5,
                of_batch: bool = False) -> tuple[Tensor, Tensor]:
    """An affine map of each channel. In training it has the statistics of x.one: clean images, or the centre."""
    if not of_batch:
        zero = array_module(mean).zeros_like(mean)
        centre = operation(x.centre, weight, bias, mean, variance, eps)
        radius = operation(x.radius, magnitude(weight), zero, zero, variance, eps)
    else:  # the statistics depend on the weights before, so that the gradient goes through them, too
        one = x.one
        centre = operation(one, weight, bias, mean, variance, eps, of_batch=True)
        scale = (weight * (_variance(one, mean, variance) + eps) ** -0.5).reshape(1, -1, 1, 1)
        if x.value is not None:
            centre = centre + (x.centre - one) * scale
        radius = x.radius * ops.abs(scale)
    return Ball(centre, radius)


@op
def _variance(x: Array, mean: Array, variance: Array) -> tuple:
    """The variances of the channels of x (N, C, H, W), which are known, with their gradient in x."""
    def vjp(g: Array) -> Array:
        count, total = all_reduce(x.size // x.shape[1], g)
        return (x - mean.reshape(-1, 1, 1)) * (total * (2 / max(count, 1))).reshape(-1, 1, 1)
    return variance, vjp


def _ends(x: Any) -> tuple[Any, Any]:
    return (x.low, x.high) if isinstance(x, Interval) else (x, x)


def _ball(x: Any) -> tuple[Any, Any]:
    """The centre and the radius; None for the radius of a constant."""
    return (x.centre, x.radius) if isinstance(x, Interval) else (x, None)
