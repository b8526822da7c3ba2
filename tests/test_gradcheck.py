"""The gradient check catches the mistakes that it is there for."""

import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from strategies import broadcastable, images, reals

from tinyadv import graph
from tinyadv.tensor import op


@op
def product(x, y):
    return x * y, lambda g: g * y, lambda g: g * x


def product_with(x_vjp, y_vjp):
    """x * y with vjps(g, x, y) of one's own."""
    return op(lambda x, y: (x * y, lambda g: x_vjp(g, x, y), lambda g: y_vjp(g, x, y)))


x, y = np.random.default_rng(0).uniform(1, 2, (2, 3, 4))
large = np.random.default_rng(0).uniform(1, 2, (2, 20, 20))


@given(broadcastable(reals, reals))
def test_right_vjps_pass(arrays):
    check_vjp(product, arrays)


@given(images((2, 3, 10, 10)), images((2, 3, 10, 10)))
def test_right_vjps_of_large_arrays_pass(x, y):
    check_vjp(product, (x, y))


@pytest.mark.parametrize("arrays", [(x, y), tuple(large)], ids=["every axis", "one direction"])
@given(seed=st.integers(0, 100))
def test_a_factor_of_1_0005_is_caught(arrays, seed):
    wrong = product_with(lambda g, x, y: 1.0005 * g * y, lambda g, x, y: g * x)
    with pytest.raises(AssertionError, match="argument 0 along"):
        check_vjp(wrong, arrays, seed=seed)


def test_a_factor_of_1_0005_in_the_second_argument_is_caught():
    wrong = product_with(lambda g, x, y: g * y, lambda g, x, y: g * x / 1.0005)
    with pytest.raises(AssertionError, match="argument 1 along"):
        check_vjp(wrong, (x, y))


@pytest.mark.parametrize("element", range(12))
def test_a_wrong_sign_in_one_element_is_caught(element):
    sign = np.ones(12)
    sign[element] = -1
    wrong = product_with(lambda g, x, y: g * y * sign.reshape(3, 4), lambda g, x, y: g * x)
    with pytest.raises(AssertionError, match="argument 0 along"):
        check_vjp(wrong, (x, y))


def test_a_vjp_of_the_wrong_argument_is_caught():
    swapped = product_with(lambda g, x, y: g * x, lambda g, x, y: g * y)
    for position in (0, 1):
        with pytest.raises(AssertionError, match=f"argument {position} along"):
            check_vjp(swapped, (x, y), wrt=[position])


def test_an_ignored_upstream_gradient_is_caught():
    wrong = product_with(lambda g, x, y: y, lambda g, x, y: g * x)
    with pytest.raises(AssertionError, match="argument 0 along"):
        check_vjp(wrong, (x, y))


@pytest.mark.parametrize("shape", [(4,), (3, 1), ()])
def test_a_missing_unbroadcast_is_caught(monkeypatch, shape):
    monkeypatch.setattr(graph, "_unbroadcast", lambda g, *_: g)
    with pytest.raises(AssertionError, match=r"gradient \(3, 4\) of an argument"):
        check_vjp(product, (x, np.ones(shape)), wrt=[1])


def test_another_dtype_is_caught():
    wrong = product_with(lambda g, x, y: (g * y).astype(np.float32), lambda g, x, y: g * x)
    with pytest.raises(AssertionError, match="float32 gradient of a float64 argument"):
        check_vjp(wrong, (x, y))


def test_only_the_arguments_asked_for_are_checked():
    half_right = product_with(lambda g, x, y: g * y, lambda g, x, y: -g * x)
    check_vjp(half_right, (x, y), wrt=[0])
    with pytest.raises(AssertionError, match="argument 1"):
        check_vjp(half_right, (x, y))
