"""Bounds and tests of a binomial proportion, in plain Python, that are on the safe side of every rounding error.

P(X >= k) for X ~ Bin(n, p) is the regularised incomplete beta function I_p(k, n - k + 1): Abramowitz and Stegun 1964,
eq. 26.5.24; here by the continued fraction of their eq. 26.5.8.
"""

from __future__ import annotations

import math

from tinyadv.shapes import check_fraction, to_count

TINY = 1e-300  # stands for 0 in a denominator


def clopper_pearson(k: int, n: int, alpha: float) -> float:
    """The lower end of the one-sided interval of Clopper and Pearson 1934, for k hits in n trials.

    The true proportion is at least this with probability 1 - alpha or more. ValueError unless k and n are integers,
    0 <= k <= n, n >= 1 and 0 < alpha < 1.
    """
    k, n = to_count("k", k, least=0), to_count("n", n)
    if k > n:
        raise ValueError(f"k must be at most n, got k={k} and n={n}")
    check_fraction("alpha", alpha)
    alpha = float(alpha)  # a float32 would be compared in float32
    if k == 0:
        return 0.0
    low, high = 0.0, k / n if alpha <= 0.5 else 1.0  # k is a median of Bin(n, k / n)
    while low < (middle := (low + high) / 2) < high:  # until they are neighbours
        if incomplete_beta(middle, k, n - k + 1) * _reserve(n) <= alpha:
            low = middle
        else:
            high = middle
    return low


def sign_test(a: int, b: int) -> float:
    """The p-value of the two-sided test that two outcomes, seen a and b times, are equally likely, or a bit more.

    It is that of PREDICT in Cohen et al. 2019, arXiv:1902.02918, after Hung and Fithian 2019 (Annals of
    Statistics 47).
    """
    a, b = to_count("a", a, least=0), to_count("b", b, least=0)
    if a + b < 1:
        raise ValueError("a and b must not both be 0")
    high, low = max(a, b), min(a, b)
    return 1.0 if high == low else min(1.0, 2 * incomplete_beta(0.5, high, low + 1) * _reserve(a + b))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), for 0 <= x <= 1 and a, b > 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - incomplete_beta(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / a * _fraction(x, a, b)


def _reserve(n: int) -> float:
    """More than the relative error of `incomplete_beta` for n trials, which is at most 4e-15 n where it was measured.

    Most of it is lost where terms of the size n log n cancel.
    """
    return 1 + 1e-14 * (n + 10)


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction 1 / (1 + d1 / (1 + d2 / (1 + ...))), by the method of Lentz (1976)."""
    value, c, d = 1.0, 1.0, 0.0
    for m in range(1, 100_000):  # 68 were the most for n up to 1e10
        for step in (
                -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1)),
                m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))):
            d = 1 / ((1 + step * d) or TINY)
            c = 1 + step / c or TINY
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return 1 / value
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) does not converge")
