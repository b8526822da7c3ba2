"""Operations on each element by itself; two operands broadcast against each other as in NumPy.

At a kink the gradient is 0 for relu and abs, 1 for clip at its limits, and all of it goes to x in maximum and minimum.
A mask multiplies instead of selecting: `g * mask` runs an order of magnitude faster than `where(mask, g, 0)`
(and makes NaN of an infinite g).
"""

import math
from functools import cache, partial

import numpy as np

from tinyadv.backend import array_module, wide
from tinyadv.fused import rectified
from tinyadv.parallel import Setting
from tinyadv.shapes import is_number
from tinyadv.tensor import op

guided = Setting("guided", False)  # within `guided.within(True)`, relu passes positive gradients only back


@partial(op, operands=2)
def add(x, y):
    """x + y."""
    return x + y, lambda g: g, lambda g: g


@partial(op, operands=2)
def subtract(x, y):
    """x - y."""
    return x - y, lambda g: g, lambda g: -g


@partial(op, operands=2)
def multiply(x, y):
    """x * y."""
    return x * y, lambda g: g * y, lambda g: g * x


@partial(op, operands=2)
def divide(x, y):
    """x / y."""
    z = x / y
    return z, lambda g: g / y, lambda g: -g * z / y


@op
def negative(x):
    """-x."""
    return -x, lambda g: -g


@partial(op, operands=2)
def power(x, y):
    """x ** y. The gradient in x of x ** 0 is 0, also at infinity, and that in y of 0 ** y is 0 unless y < 0."""
    xp = array_module(x, y)
    z = x**y
    return (z, lambda g: g * y * x ** xp.where(xp.equal(y, 0), 0, xp.subtract(y, 1)).astype(z.dtype),
            lambda g: g * z * xp.log(xp.where(xp.equal(x, 0) & xp.greater_equal(y, 0), 1, x)).astype(z.dtype))


@op
def exp(x):
    """The exponential."""
    y = array_module(x).exp(x)
    return y, lambda g: g * y


@op
def log(x):
    """The natural logarithm."""
    return array_module(x).log(x), lambda g: g / x


@op
def sqrt(x):
    """The square root."""
    y = array_module(x).sqrt(x)
    return y, lambda g: g / (2 * y)


@op
def abs(x):
    """The absolute value."""
    xp = array_module(x)
    return xp.abs(x), lambda g: g * xp.sign(x)


@partial(op, operands=2)
def maximum(x, y):
    """The larger of x and y; where they are equal the gradient goes to x."""
    return array_module(x, y).maximum(x, y), lambda g: g * (x >= y), lambda g: g * (x < y)


@partial(op, operands=2)
def minimum(x, y):
    """The smaller of x and y; where they are equal the gradient goes to x."""
    return array_module(x, y).minimum(x, y), lambda g: g * (x <= y), lambda g: g * (x > y)


@op
def clip(x, low, high):
    """x limited to [low, high]; the limits are numbers or arrays, or None, and not differentiated."""
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    low, high = (each if is_number(each) else array_module(x).asarray(each, x.dtype) for each in (low, high))
    return array_module(x).clip(x, low, high), lambda g: g * ((x >= low) & (x <= high))


@op
def relu(x):
    """max(x, 0). Where `guided` is set, its vjp is not the gradient, but that of guided back-propagation.

    Springenberg et al. 2015, arXiv:1412.6806, section 3.4: g passes back only where both x and g are positive.
    """
    y, positive = rectified(x)  # clipped: three times as fast as maximum(x, 0) in NumPy
    both = guided.get()  # positive has one byte each, so that y can go where nothing else keeps it
    return y, lambda g: (g.clip(0, math.inf) if both else g) * positive


@op
def leaky_relu(x, slope=0.01):
    """x where it is positive, slope * x elsewhere (Maas et al. 2013)."""
    scale = ((x > 0) * (1 - slope) + slope).astype(x.dtype)
    return x * scale, lambda g: g * scale


@op
def tanh(x):
    """The hyperbolic tangent."""
    y = array_module(x).tanh(x)
    return y, lambda g: g * (1 - y * y)


@op
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow, and accurate far below zero."""
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    y = xp.where(x < 0, e, 1) / (1 + e)
    return y, lambda g: g * y * (1 - y)


@op
def gelu(x):
    """x * Φ(x), where Φ is the distribution function of N(0, 1) (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    xp, dtype, x = array_module(x), x.dtype, x.astype(wide(x), copy=False)
    bell = xp.exp(-0.5 * x * x)
    tail = _scaled_erfc(xp.abs(x) * math.sqrt(0.5))
    tail *= bell
    tail /= 2
    below = xp.where(x > 0, 1 - tail, tail)  # Φ(x)
    bell *= x
    bell *= 1 / math.sqrt(2 * math.pi)
    bell += below  # the slope, Φ(x) + x Φ'(x)
    return (x * below).astype(dtype, copy=False), lambda g: g * bell


def _scaled_erfc(z):
    """erfc(z) exp(z²), for z >= 0. NumPy and CuPy have no such function, and so it is fitted here.

    It is almost straight in t = 1 / (1 + z/2): polynomials of degree 7 and 14 are exact to 2e-8 and 2e-15.
    """
    first, *others = _fitted(7 if z.dtype.itemsize == 4 else 14)
    t = (2 / (1 + z / 2) - (_LEAST + 1)) / (1 - _LEAST)  # from [_LEAST, 1] to [-1, 1]
    y = array_module(z).full_like(t, first)
    for coefficient in others:
        y *= t
        y += coefficient
    return y


_LEAST = 0.4  # the t up to which it is fitted, z = 3; beyond, the factor exp(-z²) of its error is below 2e-4


@cache
def _fitted(degree):
    """The coefficients of the polynomial of that degree, the highest first; fitted when they are first needed."""
    values = np.vectorize(lambda t: math.erfc(2 / t - 2) * math.exp((2 / t - 2) ** 2))
    fit = np.polynomial.Chebyshev.interpolate(values, degree, domain=(_LEAST, 1))
    return fit.convert(kind=np.polynomial.Polynomial, domain=(_LEAST, 1)).coef[::-1].tolist()
