"""Walking back: which vjps are called, what is added up, what is freed, and whose memory the results are."""

import gc
import weakref

import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from strategies import broadcastable, positive, reals

from tinyadv import ops
from tinyadv.backend import array_module
from tinyadv.tensor import Tensor, gradients, no_grad, op


def by_gradients(output, x):
    return gradients(output, [x])[0]


def by_backward(output, x):
    output.backward()
    return x.grad


either_way = pytest.mark.parametrize("walk", [by_gradients, by_backward])


@op
def identity(x):
    """x, whose vjp hands on g itself."""
    return x, lambda g: g


def test_a_chain_of_5000_operations():
    x = Tensor(np.ones(3))
    y = x
    for _ in range(5000):
        y = y + 1
    (g,) = gradients(y.sum(), [x])
    assert g.tolist() == [1, 1, 1]


def test_a_deep_graph_may_be_thrown_away_unwalked():
    y = Tensor(np.ones(1))
    for _ in range(50_000):
        y = y + 1
    del y


@given(positive())
def test_gradients_of_branches_that_meet_are_added(x):
    """A diamond: the last operation sees x along three ways, and each is counted once."""

    def f(x):
        y = x * x
        return y * x + y + ops.tanh(y) * y

    check_vjp(f, [x])


def test_a_ladder_of_diamonds_is_walked_in_linear_time():
    x = Tensor(1.0)
    y = x
    for _ in range(60):
        y = y + y  # 2**60 ways from y to x
    assert gradients(y, [x])[0] == 2.0**60


@given(reals())
def test_an_argument_given_twice_gets_both_gradients(x):
    t = Tensor(x)
    np.testing.assert_array_equal(gradients((t * t).sum(), [t])[0], 2 * x)
    np.testing.assert_array_equal(gradients((t - t).sum(), [t])[0], 0 * x)
    np.testing.assert_array_equal(gradients(ops.concatenate([t.reshape(-1), t.reshape(-1)]).sum(), [t])[0], x * 0 + 2)


@given(broadcastable(reals, reals, reals))
def test_broadcasting_is_undone(arrays):
    check_vjp(lambda x, y, z: (x + y) * z - y, arrays)


def test_gradients_with_respect_to_intermediates():
    x = Tensor(np.array([1.0, 2.0]))
    y = x * 3
    z = y * y
    loss = z.sum()
    found = gradients(loss, [loss, z, y, x])
    assert [g.tolist() for g in found] == [1.0, [1.0, 1.0], [6.0, 12.0], [18.0, 36.0]]


def test_the_same_tensor_may_be_asked_for_twice():
    x = Tensor(np.array([1.0, 2.0]))
    first, second = gradients((x * x).sum(), [x, x])
    assert first.tolist() == second.tolist() == [2.0, 4.0]


def test_what_the_output_does_not_depend_on_has_gradient_zero(xp):
    x, y = Tensor(xp.asarray([1.0, 2.0])), Tensor(xp.asarray([[3.0]], dtype=xp.float32))
    for output in (x.sum(), Tensor(xp.asarray(1.0))):
        _, zero = gradients(output, [x, y])
        assert array_module(zero) is xp
        assert (zero.shape, zero.dtype, float(zero.sum())) == ((1, 1), np.float32, 0)


def test_gradients_touches_no_grad():
    x, y = Tensor(np.ones(2)), Tensor(np.ones(2))
    x.grad = "mine"
    gradients((x * y).sum(), [x])
    assert (x.grad, y.grad) == ("mine", None)


def test_backward_adds_up_in_the_leaves_alone():
    x, y = Tensor(np.array([1.0, 2.0])), Tensor(np.array([5.0, 7.0]))
    for times in (1, 2):
        z = x * y
        z.sum().backward()
        assert x.grad.tolist() == [5 * times, 7 * times]
        assert y.grad.tolist() == [times, 2 * times]
        assert z.grad is None


def test_only_vjps_on_the_way_are_called():
    """Nothing is computed for a weight, nor below a branch that does not lead to x."""
    called = []

    @op
    def watched(x, weight, name):
        return x * weight, lambda g: called.append(f"{name}.x") or g, lambda g: called.append(f"{name}.weight") or g

    x, w, other = (Tensor(np.ones(2)) for _ in range(3))
    below = watched(other, w, "below")
    above = watched(watched(x, w, "first"), below, "second")
    gradients(above.sum(), [x])
    assert called == ["second.x", "first.x"]


# Errors


@either_way
def test_an_output_that_is_no_scalar_is_refused(walk):
    x = Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"from a scalar, got shape \(3,\).*\.sum\(\)"):
        walk(x * 2, x)


@pytest.mark.parametrize("first", [by_gradients, by_backward])
@pytest.mark.parametrize("second", [by_gradients, by_backward])
def test_a_second_walk_is_a_clear_error(first, second):
    x = Tensor(np.ones(3))
    y = x * 2
    loss = y.sum()
    first(loss, x)
    for again in (loss, (y * 3).sum()):  # the graph itself, and a new one on top of it
        with pytest.raises(RuntimeError, match=r"was freed by an earlier .* run the forward pass again"):
            second(again, x)


@either_way
def test_an_output_under_no_grad_is_a_clear_error(walk):
    x = Tensor(np.ones(3))
    with no_grad():
        loss = (x * x).sum()
    with pytest.raises(RuntimeError, match=r"under no_grad\(\), so there is no graph"):
        walk(loss, x)


# Memory


@either_way
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x, identity, lambda x: identity(x) + x, lambda x: x + 1, lambda x: x.reshape(-1)[1:], lambda x: x.T,
        lambda x: ops.concatenate([x, x]), lambda x: x - x, lambda x: ops.broadcast_to(x, (3, 2, 2)),
    ],
)
def test_a_gradient_is_memory_of_its_own(f, walk):
    """Two gradients share none, nor does one with an input or the output, and all may be written."""
    x, y = Tensor(np.ones((2, 2))), Tensor(np.ones((2, 2)))
    middle = identity(x)
    loss = f(middle).sum() + identity(y).sum()
    if walk is by_gradients:
        found = gradients(loss, [x, y, middle])
    else:
        loss.backward()
        found = [x.grad, y.grad]
    for i, g in enumerate(found):
        assert not any(np.may_share_memory(g, other) for other in [*found[i + 1 :], x.data, y.data, loss.data])
    for g in found:
        g += 1


def test_a_second_backward_leaves_the_first_gradient_alone():
    x = Tensor(np.ones(2))
    (x * 2).sum().backward()
    first = x.grad
    (x * 2).sum().backward()
    assert first.tolist() == [2, 2]
    assert x.grad.tolist() == [4, 4]


class Watched(np.ndarray):
    """An array that can be watched dying."""


def test_the_walk_frees_what_the_vjps_have_captured():
    captured = np.ones(3).view(Watched)
    alive = weakref.ref(captured)
    x = Tensor(np.ones(3))
    y = x * captured
    loss = y.sum()
    del captured
    gc.collect()
    assert alive() is not None
    gradients(loss, [x])
    assert alive() is None
    assert y.data.tolist() == [1, 1, 1]


def test_values_that_no_vjp_needs_die_at_once():
    x = Tensor(np.ones(3))
    y = x + 1
    alive = weakref.ref(y)
    z = (y + 2).sum()
    del y
    assert alive() is None
    assert gradients(z, [x])[0].tolist() == [1, 1, 1]


def test_the_graph_is_freed_while_it_is_walked():
    """When the vjp of the first operation runs, what the last one has captured is gone."""
    captured = np.ones(3).view(Watched)
    alive = weakref.ref(captured)
    at_the_first = []

    @op
    def first(x):
        return x + 0, lambda g: at_the_first.append(alive()) or g

    x = Tensor(np.ones(3))
    loss = (first(x) * captured).sum()
    del captured
    gradients(loss, [x])
    assert at_the_first == [None]
