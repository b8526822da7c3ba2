"""Checks a vjp against differences of the forward pass: <u, J d> = <vjp(u), d>.

f(x + h d) - f(x - h d) over 2 h is J d up to O(h²), and it needs no derivative to be right. It is compared
along a random direction, along one on the gradient's own side, where no terms cancel, and along every axis
where there are few.
"""

import numpy as np

from tinyadv.tensor import Tensor, gradients, op

STEP = 1e-5
FEW = 64


@op
def inner(y, u):
    """<y, u>, with no other operation involved; u is a constant."""
    return (y * u).sum(), lambda g: g * u


def check_vjp(function, arrays, wrt=None, tolerance=1e-6, seed=0):
    """Assert that every vjp of function(*tensors) is the transposed derivative at the float64 `arrays`.

    wrt: the positions to check, all by default. tolerance: relative to the sum of the absolute terms, since the
    sums themselves may cancel; on top comes what the rounding of f and of x makes of the difference.
    """
    rng = np.random.default_rng(seed)
    wrt = range(len(arrays)) if wrt is None else wrt
    tensors = [Tensor(x) for x in arrays]
    output = function(*tensors)
    u = rng.uniform(0.5, 1.5, output.shape) * rng.choice([-1, 1], output.shape)
    found = gradients(inner(output, u), [tensors[i] for i in wrt])

    for i, gradient in zip(wrt, found, strict=True):
        x = arrays[i]
        assert gradient.shape == x.shape, f"argument {i}: gradient {gradient.shape} of an argument {x.shape}"
        assert gradient.dtype == x.dtype, f"argument {i}: {gradient.dtype} gradient of a {x.dtype} argument"
        for direction in _directions(gradient, rng):
            after, before = (
                function(*tensors[:i], Tensor(x + h * direction), *tensors[i + 1 :]).data for h in (STEP, -STEP)
            )
            expected = u * (after - before) / (2 * STEP)
            actual = gradient * direction
            rounding = 4 * np.finfo(x.dtype).eps * (_size(u * after) / STEP + _size(u))
            allowed = tolerance * (_size(expected) + _size(actual)) + rounding
            error = abs(expected.sum() - actual.sum())
            assert error <= allowed, (
                f"argument {i} along {direction.tolist()}: {actual.sum()}, not {expected.sum()} (off by {error})"
            )


def _directions(gradient, rng):
    yield rng.uniform(-1, 1, gradient.shape)
    yield np.sign(gradient) * rng.uniform(0.5, 1, gradient.shape)
    if gradient.size <= FEW:
        yield from np.eye(gradient.size).reshape(gradient.size, *gradient.shape)


def _size(terms):
    return float(np.abs(terms).sum())
