"""What a Tensor is, its operators, and when nothing is recorded."""

import copy
import operator
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from strategies import broadcastable, positive, reals

from tinyadv import nn, ops
from tinyadv.tensor import Tensor, gradients, no_grad, op


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
    assert len(repr(Tensor(np.zeros((100, 100))))) < 400  # cut short


# Operators


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
@given(arrays=broadcastable(positive, positive))
def test_operators_are_those_of_numpy_from_either_side(name, arrays):
    """A Tensor with a Tensor, an array on its left or right, a number on its left or right."""
    f, (x, y) = getattr(operator, name), arrays
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
        (t.reshape((3, 2)), x.reshape(3, 2)), (t.reshape(3, -1), x.reshape(3, 2)), (t.flatten(), x),
        (t.transpose((1, 0)), x.T), (t.transpose(1, 0), x.T), (t.transpose(), x.T), (abs(-t), x),
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


# no_grad


def test_under_no_grad_nothing_is_recorded_and_the_value_is_a_constant():
    x = Tensor(np.array([1.0, 2.0]))
    with no_grad():
        constant = x * 3
    (g,) = gradients((constant * x).sum(), [x])
    assert g.tolist() == [3, 6]


def records():
    """Whether operations are recorded here and now."""
    x = Tensor(np.ones(1))
    try:
        return gradients(x * 2, [x])[0].tolist() == [2]
    except RuntimeError:
        return False


def test_no_grad_decorates_nests_and_ends_with_an_exception():
    assert not no_grad()(records)()
    with no_grad():
        with no_grad():
            assert not records()
        assert not records()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert records()


def test_each_thread_has_its_own_switch():
    """A worker records while this thread does not, and the other way round."""
    entered, leave = threading.Event(), threading.Event()

    def stop_recording():
        with no_grad():
            entered.set()
            return leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with no_grad():
            assert pool.submit(records).result()
        worker = pool.submit(stop_recording)
        assert entered.wait(10)
        still_recording = records()
        leave.set()
        assert worker.result()
        assert still_recording


# What PyTorch's users write


@given(reals(shape=(2, 3)))
def test_numpy_sees_the_array_of_a_tensor(values):
    x = Tensor(values)
    assert np.asarray(x) is values
    assert np.asarray(x, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(x), values)
    assert np.array_equal(np.stack([x, x]), [values, values])


@given(reals(shape=(2, 3)))
def test_argmax_is_that_of_the_array(values):
    assert Tensor(values).argmax() == values.argmax()
    assert np.array_equal(Tensor(values).argmax(1), values.argmax(axis=1))
    assert np.array_equal(Tensor(values).argmax(axis=-2), values.argmax(axis=0))


def test_no_gradient_flows_through_a_detached_tensor():
    x = Tensor([2.0, 3.0])
    y = x * x
    assert y.detach().data is y.data
    (g,) = gradients((y.detach() * x).sum(), [x])
    assert g.tolist() == [4, 9]


def test_every_tensor_requires_grad():
    x = Tensor([2.0])
    x.requires_grad = True
    assert x.requires_grad
    with pytest.raises(ValueError, match=r"use its array, x.data, as a constant"):
        x.requires_grad = False


@pytest.mark.parametrize("value", [0.0, 2.5, float("nan")])
def test_a_tensor_of_one_element_is_a_number(value):
    for x in (Tensor(value), Tensor([[value]])):
        assert bool(x) == bool(value)
        np.testing.assert_equal(float(x), value)
    with pytest.raises(ValueError, match="more than one element is ambiguous"):
        bool(Tensor([0.0, 1.0]))


def test_the_error_of_an_operation_names_it_and_keeps_its_class():
    class Mine(ValueError):
        pass

    @op
    def failing(x):
        raise Mine("not fitted", 3)

    x = Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^add of shape \(2, 3\) and \(4,\): operands"):
        x + Tensor(np.ones(4))
    with pytest.raises(IndexError, match=r"^getitem of shape \(2, 3\): index 2"):
        x[2]
    with pytest.raises(np.exceptions.AxisError, match=r"in sum of shape \(2, 3\)"):
        x.sum(axis=5)
    with pytest.raises(TypeError, match=r"^add: unsupported operand"):
        ops.add(1, "a")
    with pytest.raises(Mine, match=r"in failing of shape \(2, 3\)") as caught:
        failing(x)
    assert caught.value.args == ("not fitted", 3)


def test_arrays_in_two_memories_are_an_error_that_says_so(xp):
    x = np.ones((2, 3), np.float32)
    there = xp.asarray(x)
    for run, places in (
            (lambda: Tensor(there) + x, "cuda:0 and cpu"), (lambda: x @ Tensor(there.T), "cpu and cuda:0"),
            (lambda: ops.concatenate([x, there], axis=0), "cpu and cuda:0"),
            (lambda: nn.Linear(3, 2, rng=0)(there), "cuda:0 and cpu")):
        if there is x:  # NumPy: all is in one memory
            run()
        else:
            with pytest.raises(TypeError, match=f'; they lie on {places}: move one, by model.to."cuda:0". or backend'):
                run()
    with pytest.raises(ValueError, match="add of shape") as error:
        Tensor(there) + there[:, :2]
    assert "lie on" not in str(error.value)


# What an operation takes

ODD = {"integers": np.array([3, 1, 2]), "bytes": np.array([3, 1, 2], np.uint8), "a list": [3, 1, 2],
       "booleans": np.array([True, False, True]), "a tuple": (3.0, 1.0, 2.0)}
OPERATIONS = [ops.add, ops.subtract, ops.multiply, ops.power, ops.maximum, ops.minimum, ops.matmul, ops.mse_loss]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_what_is_no_float_takes_the_dtype_of_the_float_beside_it_from_either_side(operation, name, dtype):
    odd, x = ODD[name], Tensor(np.array([2, 1, 4], dtype))
    for pair, floats in ((x, odd), (x, np.array(odd, dtype))), ((odd, x), (np.array(odd, dtype), x)):
        y, expected = operation(*pair), operation(*floats)
        assert y.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(y.data, expected.data)
        np.testing.assert_array_equal(gradients(y.sum(), [x])[0], gradients(expected.sum(), [x])[0])


@pytest.mark.parametrize("name", ODD)
def test_without_floats_all_is_float32(name):
    odd = ODD[name]
    floats = np.array(odd, np.float32)
    for operation in ops.sum, ops.mean, ops.exp, ops.relu, ops.softmax, ops.negative, ops.max, ops.logsumexp:
        np.testing.assert_array_equal(operation(odd).data, operation(floats).data)
        assert operation(odd).dtype == np.float32
    for operation in ops.add, ops.subtract, ops.multiply, ops.power, ops.maximum:
        assert operation(odd, odd).dtype == np.float32
        np.testing.assert_array_equal(operation(odd, odd).data, operation(floats, floats).data)
        np.testing.assert_array_equal(operation(2, odd).data, operation(2, floats).data)


def test_digits_of_integers_are_kept_beside_float64():
    many, none = np.array([2**24 + 1]), Tensor(np.zeros(1))
    assert (many + none).item() == (none + many).item() == 2**24 + 1


def test_a_layer_takes_what_is_no_float():
    image = np.array([[1, 0], [0, 0]], bool).reshape(1, 1, 2, 2)
    weight = Tensor(np.ones((1, 1, 2, 2), np.float32))
    assert ops.mean(image).item() == ops.avg_pool2d(image, 2).item() == 0.25
    for y in ops.conv2d(image, weight), ops.conv2d(image, [[[[1, 1], [1, 1]]]]), ops.linear(image[0, 0], weight[0, 0]):
        assert y.dtype == np.float32
    assert ops.concatenate([np.array([1, 2]), Tensor(np.ones(2, np.float32))]).dtype == np.float32


def test_numbers_alone_are_float32():
    for y in ops.sum(2.0), ops.mean(np.float32(2)), ops.softmax(2, axis=None), ops.mse_loss(2.0, 1), ops.leaky_relu(2):
        assert y.dtype == np.float32
    assert ops.power(2, np.array([9], np.uint8)).item() == 512


def test_a_list_of_tensors_is_no_argument():
    x = Tensor(np.ones(2))
    for odd in [x, x], [[Tensor(1.0), 2.0]], [None, 1.0], ["1", "2"], (Tensor(1.0), 2):
        with pytest.raises(TypeError, match=r"a list of anything but numbers is no operand; ops\.concatenate makes"):
            ops.add(x, odd)


@pytest.mark.parametrize("call", [lambda: ops.relu(None), lambda: ops.sum(None), lambda: ops.add(None, 2)])
def test_nothing_is_no_operand(call):
    with pytest.raises((AttributeError, TypeError)):
        call()


def test_labels_and_indices_stay_integers_in_an_operation_of_the_users_own():
    @op
    def own(logits, y):
        rows = np.arange(len(y))

        def vjp(g):
            slope = np.zeros_like(logits)
            slope[rows, y] = g
            return slope

        return logits[rows, y], vjp

    @op
    def product(a, b):
        return a * b, lambda g: g * b, lambda g: g * a

    x, labels = Tensor(np.eye(3, dtype=np.float32)), np.array([0, 2, 1])
    np.testing.assert_array_equal(own(x, labels).data, [1, 0, 0])
    assert product(x, labels).dtype == product(labels, x).dtype == np.float32


def test_a_list_may_be_given_by_name():
    x = Tensor(np.ones((1, 2), np.float32))
    assert ops.add(x, y=[1, 2]).dtype == np.float32
    np.testing.assert_array_equal(ops.linear(x, weight=[[1, 2]], bias=[3]).data, [[6]])


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_a_leaf(copied):
    x = Tensor(np.ones(3, np.float32))
    with no_grad():
        weight = x * 0.5
    y = x * 2
    for _ in range(2000):  # a graph is no part of a copy, however deep
        y = y + 1
    for each in x, weight, y:
        leaf = copied(each)
        np.testing.assert_array_equal(leaf.data, each.data)
        (leaf * leaf).sum().backward()
        np.testing.assert_array_equal(leaf.grad, 2 * each.data)
    np.testing.assert_array_equal(copied(leaf).grad, leaf.grad)
    assert (copied(x).data is x.data) == (copied is copy.copy)


def test_a_gradient_is_an_array_also_of_a_number():
    x = Tensor(1.0)
    (gradient,) = gradients((x + x) * 2, [x])
    assert isinstance(gradient, np.ndarray)
    assert gradient.shape == ()


def test_an_axis_of_a_number_is_as_in_numpy():
    x = Tensor(3.0)
    assert gradients(ops.sum(x, axis=0), [x])[0] == gradients(ops.max(x, axis=-1), [x])[0] == 1


def test_names_are_those_of_the_user():
    x = Tensor(np.ones(2, np.float32))
    assert "from concatenate" in repr(ops.concatenate([x, x]))
    with pytest.raises(TypeError, match=r"argmax takes no dim: write axis="):
        x.argmax(dim=0)
