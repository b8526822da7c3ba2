"""The engine: what it records, what it walks, what it frees and whose memory the results are."""

import gc
import operator
import threading
import weakref

import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from strategies import away_from_zero, broadcastable, reals, shapes

from tinyadv import ops
from tinyadv.backend import array_module
from tinyadv.tensor import Tensor, gradients, no_grad, op

GRADIENTS_OF = {"gradients": lambda output, x: gradients(output, [x])[0], "backward": lambda output, x: walk(output, x)}


def walk(output, x):
    output.backward()
    return x.grad


@op
def identity(x):
    """x, whose vjp hands on g itself."""
    return x, lambda g: g


# What a Tensor is


@pytest.mark.parametrize("data", [3, 2.5, True, [1.0, 2.0], [[1], [2]], np.arange(3), np.array([True]), np.array(7)])
def test_numbers_lists_and_integers_become_float32(data):
    assert Tensor(data).dtype == np.float32
    np.testing.assert_array_equal(Tensor(data).data, np.asarray(data, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_dtype_and_memory(dtype):
    x = np.ones((2, 3), dtype)
    assert Tensor(x).dtype == dtype
    assert Tensor(x).data is x
    assert Tensor(Tensor(x)).data is x


@pytest.mark.parametrize("data", [1j, "text", [None], np.array(["a"])])
def test_what_is_no_real_number_is_refused(data):
    with pytest.raises(TypeError, match="a Tensor holds real numbers, got dtype"):
        Tensor(data)


@given(reals())
def test_it_has_the_shape_of_its_array(x):
    t = Tensor(x)
    assert (t.shape, t.ndim, t.size) == (x.shape, x.ndim, x.size)
    assert t.numpy() is t.data
    assert t.grad is None
    if x.ndim:
        assert len(t) == len(x) == len(list(t))
    if x.size == 1:
        assert t.item() == x.item()


def test_its_repr_is_worth_reading():
    x = Tensor(np.array([[1.0, 2.5]], np.float32))
    assert repr(x) == "Tensor([[1. , 2.5]], shape=(1, 2), float32)"
    assert repr((x * 2).sum()) == "Tensor(7., shape=(), float32, from sum)"
    with no_grad():
        assert repr(x + 1) == "Tensor([[2. , 3.5]], shape=(1, 2), float32, from an operation under no_grad())"
    assert len(repr(Tensor(np.zeros((100, 100))))) < 200


# Operators


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
@given(arrays=broadcastable(away_from_zero, away_from_zero))
def test_operators_are_those_of_numpy_from_either_side(name, arrays):
    """A Tensor with a Tensor, an array on its left or right, a number on its left or right."""
    f, (x, y) = getattr(operator, name), map(np.abs, map(np.asarray, arrays))
    x, y = np.asarray(x), np.asarray(y)
    for result in (f(Tensor(x), Tensor(y)), f(x, Tensor(y)), f(Tensor(x), y)):
        assert isinstance(result, Tensor)
        np.testing.assert_array_equal(result.data, f(x, y))
    np.testing.assert_array_equal(f(Tensor(x), 2.5).data, f(x, 2.5))
    np.testing.assert_array_equal(f(2.5, Tensor(x)).data, f(2.5, x))


def test_methods_and_other_operators():
    x = np.arange(1.0, 7).reshape(2, 3)
    t = Tensor(x)
    for result, expected in [
        (-t, -x), (t.T, x.T), (t[0, ::2], x[0, ::2]), (t @ t.T, x @ x.T), (x @ t.T, x @ x.T), (t @ x.T, x @ x.T),
        (t.sum(axis=0), x.sum(axis=0)), (t.mean(), x.mean()), (t.max(axis=1), x.max(axis=1)), (t.min(), x.min()),
        (t.reshape((3, 2)), x.reshape(3, 2)), (t.flatten(), x), (t.transpose((1, 0)), x.T),
    ]:
        np.testing.assert_array_equal(result.data, expected)


@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.float16(2)])
def test_a_number_takes_the_dtype_of_the_tensor_beside_it(number):
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(3, dtype))
        for result in (x * number, number * x, x + number, number / x, x**number, number**x, ops.maximum(number, x),
                       ops.multiply(x, y=number), ops.clip(x, low=number, high=number), ops.clip(x, number, number)):
            assert result.dtype == dtype
            assert gradients(result.sum(), [x])[0].dtype == dtype


def test_arguments_may_be_given_by_name():
    x, w, b = Tensor(np.ones((2, 3))), Tensor(np.ones((4, 3))), Tensor(np.ones(4))
    found = gradients(ops.linear(x, bias=b, weight=w).sum(), [x, w, b])
    assert [g.tolist() for g in found] == [[[4.0] * 3] * 2, [[2.0] * 3] * 4, [2.0] * 4]


# Walking back


def test_a_chain_of_5000_operations(depth=5000):
    x = Tensor(np.ones(3))
    y = x
    for _ in range(depth):
        y = y + 1
    (g,) = gradients(y.sum(), [x])
    assert g.tolist() == [1, 1, 1]


def test_a_deep_graph_may_be_thrown_away_unwalked():
    y = Tensor(np.ones(1))
    for _ in range(100_000):
        y = y + 1
    del y


@given(reals(shapes(min_dims=1)))
def test_gradients_of_branches_that_meet_are_added(x):
    """A diamond: the last operation sees x along three ways, and each is counted once."""

    def f(x):
        y = x * x
        return y * x + y - ops.tanh(y) * y

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


def test_an_output_that_is_no_scalar_is_refused():
    x = Tensor(np.ones(3))
    for walk_back in GRADIENTS_OF.values():
        with pytest.raises(ValueError, match=r"from a scalar, got shape \(3,\).*\.sum\(\)"):
            walk_back(x * 2, x)


@pytest.mark.parametrize("first", GRADIENTS_OF.values(), ids=GRADIENTS_OF)
@pytest.mark.parametrize("second", GRADIENTS_OF.values(), ids=GRADIENTS_OF)
def test_a_second_walk_is_a_clear_error(first, second):
    x = Tensor(np.ones(3))
    y = x * 2
    loss = y.sum()
    first(loss, x)
    for again in (loss, (y * 3).sum()):  # the graph itself, and a new one on top of it
        with pytest.raises(RuntimeError, match=r"was freed by an earlier .* run the forward pass again"):
            second(again, x)


@pytest.mark.parametrize("walk_back", GRADIENTS_OF.values(), ids=GRADIENTS_OF)
def test_an_output_under_no_grad_is_a_clear_error(walk_back):
    x = Tensor(np.ones(3))
    with no_grad():
        loss = (x * x).sum()
    with pytest.raises(RuntimeError, match=r"under no_grad\(\), so there is no graph"):
        walk_back(loss, x)


# no_grad


def test_under_no_grad_nothing_is_recorded_and_the_value_is_a_constant():
    x = Tensor(np.array([1.0, 2.0]))
    with no_grad():
        constant = x * 3
    (g,) = gradients((constant * x).sum(), [x])
    assert g.tolist() == [3, 6]


def test_no_grad_decorates_nests_and_ends_with_an_exception():
    x = Tensor(np.ones(1))

    def recorded():
        try:
            return gradients(x * 2, [x])[0].tolist() == [2]
        except RuntimeError:
            return False

    assert not no_grad()(recorded)()
    with no_grad():
        with no_grad():
            assert not recorded()
        assert not recorded()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert recorded()


def test_each_thread_has_its_own_switch():
    """A worker records while this thread does not, and the other way round."""
    x = Tensor(np.ones(1))
    entered, leave, found = threading.Event(), threading.Event(), []

    def record():
        found.append(gradients(x * 5, [x])[0].item())

    def stop_recording():
        with no_grad():
            entered.set()
            leave.wait(10)

    with no_grad():
        worker = threading.Thread(target=record)
        worker.start()
        worker.join()
    worker = threading.Thread(target=stop_recording)
    worker.start()
    assert entered.wait(10)
    record()
    leave.set()
    worker.join()
    assert found == [5, 5]


# Memory


@pytest.mark.parametrize("walk_back", GRADIENTS_OF.values(), ids=GRADIENTS_OF)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x,
        identity,
        lambda x: identity(x) + x,
        lambda x: x + 1,
        lambda x: x.reshape(-1)[1:],
        lambda x: ops.concatenate([x, x]),
        lambda x: x.T,
        lambda x: x - x,
    ],
)
def test_a_gradient_is_memory_of_its_own(f, walk_back):
    """Two gradients share none, nor with the input, the intermediate values or a read-only view."""
    x, y = Tensor(np.ones((2, 2))), Tensor(np.ones((2, 2)))
    middle = identity(x)
    loss = f(middle).sum() + identity(y).sum()
    if walk_back is GRADIENTS_OF["gradients"]:
        found = gradients(loss, [x, y, middle])
    else:
        loss.backward()
        found = [x.grad, y.grad]
    arrays = [*found, x.data, y.data, loss.data]
    for i, a in enumerate(arrays):
        assert not any(np.may_share_memory(a, b) for b in arrays[i + 1 :] if not (a is x.data and b is middle.data))
    for g in found:
        g += 1  # a writable array


def test_a_second_backward_leaves_the_first_gradient_alone():
    x = Tensor(np.ones(2))
    (x * 2).sum().backward()
    first = x.grad
    (x * 2).sum().backward()
    assert first.tolist() == [2, 2]
    assert x.grad.tolist() == [4, 4]


@st.composite
def _unused(draw):
    return draw(st.none())


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
