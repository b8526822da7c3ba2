import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv.certify import clopper_pearson, sign_test
from tinyadv.certify.binomial import incomplete_beta


@pytest.mark.parametrize(("k", "n", "alpha", "expected"), [
    (99_000, 100_000, 0.001, 0.988989), (9_900, 10_000, 0.001, 0.986531), (60, 100, 0.001, 0.440984),
    (1000, 1000, 0.05, 0.05**0.001), (0, 10, 0.05, 0.0),
    (1, 2, 0.9, 1 - 0.1**0.5), (1, 1, 0.9, 0.9), (2, 4, 0.99, 0.8591325)])
def test_the_bound_has_known_values(k, n, alpha, expected):
    assert clopper_pearson(k, n, alpha) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("a", "b", "expected"), [
    (60, 40, 0.0568879), (510, 490, 0.547973), (3, 3, 1.0), (0, 1, 1.0), (5, 0, 2 / 32)])
def test_the_test_has_known_values(a, b, expected):
    assert sign_test(a, b) == pytest.approx(expected, abs=1e-6)
    assert sign_test(b, a) == sign_test(a, b)


@given(n=st.integers(1, 40), data=st.data(), p=st.floats(0.001, 0.999))
def test_the_incomplete_beta_function_is_the_tail_of_the_binomial(n, data, p):
    k = data.draw(st.integers(1, n))
    tail = math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert incomplete_beta(p, k, n - k + 1) == pytest.approx(tail, rel=1e-9, abs=1e-13)


@given(n=st.integers(1, 400), data=st.data(), alpha=st.sampled_from([1e-6, 0.001, 0.05, 0.5, 0.9]))
def test_the_bound_and_the_test_are_on_the_safe_side_exactly(n, data, alpha):
    def tail(k, p):
        """P(X >= k) for X ~ Bin(n, p), as a fraction."""
        hit, all = Fraction(p).as_integer_ratio()
        return Fraction(sum(math.comb(n, i) * hit**i * (all - hit)**(n - i) for i in range(k, n + 1)), all**n)

    k = data.draw(st.integers(1, n))
    assert tail(k, clopper_pearson(k, n, alpha)) <= Fraction(alpha)
    assert Fraction(sign_test(k, n - k)) >= min(1, 2 * tail(max(k, n - k), 0.5))


@given(n=st.integers(1, 5000), data=st.data(), alpha=st.sampled_from([0.001, 0.05, 0.5, 0.9]))
def test_at_the_bound_so_many_hits_are_as_rare_as_alpha(n, data, alpha):
    k = data.draw(st.integers(1, n))
    p = clopper_pearson(k, n, alpha)
    assert 0 <= p < (k / n if alpha <= 0.5 else 1)
    assert incomplete_beta(p, k, n - k + 1) == pytest.approx(alpha, rel=1e-6)
    assert incomplete_beta(p, k, n - k + 1) <= alpha
    assert clopper_pearson(k - 1, n, alpha) < p < clopper_pearson(k, n, min(0.95, 1.5 * alpha))


def test_the_bound_covers_the_true_proportion_as_often_as_it_says():
    rng, alpha, runs = np.random.default_rng(0), 0.05, 2000
    for p, n in ((0.6, 50), (0.95, 200)):
        bounds = {k: clopper_pearson(k, n, alpha) for k in range(n + 1)}
        misses = sum(bounds[k] > p for k in rng.binomial(n, p, runs).tolist())
        assert misses / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


@given(k=st.integers(1, 200), more=st.integers(0, 200), alpha=st.floats(2**-10, 0.875, width=32))
def test_an_alpha_of_float32_is_compared_in_float64(k, more, alpha):
    bound = clopper_pearson(k, k + more, np.float32(alpha))
    assert type(bound) is float
    assert bound == clopper_pearson(k, k + more, alpha)


@pytest.mark.parametrize(("k", "n", "alpha", "message"), [
    (3, 2, 0.05, "k must be at most n, got k=3 and n=2"), (-1, 2, 0.05, "k must be an integer >= 0, got -1"),
    (9.5, 10, 0.1, "k must be an integer >= 0, got 9.5"), (True, 2, 0.05, "k must be an integer >= 0, got True"),
    (np.nan, 2, 0.05, "k must be an integer >= 0, got nan"), (0, 0, 0.05, "n must be an integer >= 1, got 0"),
    (1, 2.0, 0.05, "n must be an integer >= 1, got 2.0"),
    *((1, 2, alpha, rf"alpha must be a number in \(0, 1\), got {alpha!r}") for alpha in (0.0, 1, "0.05", np.nan))])
def test_impossible_counts_are_an_error(k, n, alpha, message):
    with pytest.raises(ValueError, match=message):
        clopper_pearson(k, n, alpha)


@pytest.mark.parametrize(("a", "b", "message"), [
    (0, 0, "a and b must not both be 0"), (1.5, 2, "a must be an integer >= 0, got 1.5"),
    (2, -1, "b must be an integer >= 0, got -1"), (2, np.nan, "b must be an integer >= 0, got nan")])
def test_impossible_counts_of_the_test_are_an_error(a, b, message):
    with pytest.raises(ValueError, match=message):
        sign_test(a, b)
    assert sign_test(np.int64(60), np.uint8(40)) == sign_test(60, 40)
