"""Properties of every operation, over the table in cases.py."""

import numpy as np
import pytest
from cases import CASES
from gradcheck import check_vjp, inner
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import ops, tensor
from tinyadv.backend import array_module, to_host
from tinyadv.ops.movement import arranged
from tinyadv.ops.normalize import batch_statistics
from tinyadv.tensor import Tensor, gradients, op

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
fewer = settings(max_examples=max(5, settings().max_examples // 3))


def test_every_operation_has_a_case():
    assert {case.operation for case in CASES} == set(ops.__all__)


@every_case
@given(data=st.data())
def test_the_gradients_are_right(case, data):
    arrays, options = data.draw(case.operands)
    check_vjp(lambda *tensors: case.function(*tensors, **options), arrays)


@every_case
@given(data=st.data())
def test_the_values_are_right_and_nothing_is_written(case, data):
    """Neither the arguments nor the upstream gradient, and the result stays what it was: all are read-only here."""
    arrays, options = data.draw(case.operands)
    for x in arrays:
        x.flags.writeable = False
    tensors = [Tensor(x) for x in arrays]
    result = case.function(*tensors, **options)
    expected = case.reference(*arrays, **options)
    assert result.shape == np.shape(expected)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.data, expected, rtol=1e-12, atol=1e-12)

    upstream = np.linspace(1, 2, result.size).reshape(result.shape)
    upstream.flags.writeable = False
    before = result.data.copy()
    gradients(against(result, upstream), tensors)
    assert np.array_equal(result.data, before)


@op
def against(y, u):
    """<y, u>, whose vjp hands out u itself."""
    return (y * u).sum(), lambda g: u


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float16, 0.1)])
@fewer
@given(data=st.data())
def test_a_dtype_stays_itself(case, dtype, tolerance, data):
    arrays, options = data.draw(case.operands)
    tensors = [Tensor(x.astype(dtype)) for x in arrays]
    options = {name: cast(value, dtype) for name, value in options.items()}
    result = case.function(*tensors, **options)
    assert result.dtype == dtype
    np.testing.assert_allclose(result.data, case.reference(*arrays, **options), rtol=tolerance, atol=tolerance)
    upstream = np.ones(result.shape, dtype)
    assert {g.dtype for g in gradients(inner(result, upstream), tensors)} == {np.dtype(dtype)}


def cast(value, dtype):
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


MANY = np.full((1, 70_000), 2, np.float16)


@pytest.mark.parametrize(("function", "x", "value", "slope"), [
    (lambda x: ops.mse_loss(x, 0 * x), MANY * 8, 256, 32 / 70_000),
    (ops.mean, MANY, 2, 1 / 70_000),
    (lambda x: ops.max(x), MANY, 2, 1 / 70_000),
    (lambda x: ops.min(x, axis=1).sum(), MANY, 2, 1 / 70_000),
    (ops.logsumexp, MANY, 2 + np.log(70_000), 1 / 70_000),
    (lambda x: ops.softmax(x)[0, 0], np.zeros((1, 100_000), np.float16), 1e-5, None),
    (lambda x: ops.log_softmax(x)[0, 0], np.zeros((1, 100_000), np.float16), -np.log(1e5), None),
    (lambda x: ops.cross_entropy(x, np.ones(300, int)), np.repeat(np.float16([[300, 0]]), 300, 0), 300, None),
    (lambda x: ops.avg_pool2d(x, 10).sum(), np.full((1, 1, 10, 10), 1000, np.float16), 1000, 0.01),
    (lambda x: ops.sum(x, axis=0)[0], np.float16([[60_000, 0], [60_000, 0], [-60_000, 0]]), 60_000, None),
    (lambda x: ops.getitem(x, np.zeros(3000, int)).mean(), np.ones((1, 1), np.float16), 1, 1),
    (lambda x: ops.multiply(x, np.ones(3000, np.float16)).mean(), np.ones((1, 1), np.float16), 1, 1),
    (lambda x: batch_norm(np.full((1, 1, 300, 300), 1, np.float16), x), np.ones((1, 1), np.float16), 0, None),
])
def test_sums_over_float16_are_wide_enough(function, x, value, slope):
    """It ends at 65,504, and from 2048 on it does not count."""
    x = Tensor(x)
    y = function(x)
    (g,) = gradients(y, [x])
    assert y.dtype == g.dtype == np.float16
    np.testing.assert_allclose(y.item(), value, rtol=2e-3, atol=1e-3)
    assert np.isfinite(g).all()
    if slope is not None:
        np.testing.assert_allclose(g, slope, rtol=1e-2)


def batch_norm(images, weight):
    mean, variance, _ = batch_statistics(images)
    assert (mean, variance) == (1, 0)
    return ops.batch_norm(images, weight[0], weight[0] * 0, mean, variance).mean()


@every_case
@fewer
@given(data=st.data())
def test_it_runs_where_its_arrays_are(xp, case, data):
    arrays, options = data.draw(case.operands)

    def run(library):
        tensors = [Tensor(library.asarray(x)) for x in arrays]
        result = case.function(*tensors, **{name: move(value, library) for name, value in options.items()})
        loss = inner(result, library.asarray(np.linspace(1, 2, result.size).reshape(result.shape)))
        return [result.data, *gradients(loss, tensors)]

    for here, on_host in zip(run(xp), run(np), strict=True):
        assert array_module(here) is xp
        np.testing.assert_allclose(Tensor(here).numpy(), on_host, rtol=1e-9, atol=1e-9)


def move(value, library):
    if isinstance(value, tuple):
        return tuple(move(part, library) for part in value)
    return library.asarray(value) if isinstance(value, np.ndarray) else value


@every_case
@fewer
@given(data=st.data())
def test_a_vjp_that_nobody_asked_for_is_not_called(case, data):
    arrays, options = data.draw(case.operands)
    asked = data.draw(st.integers(0, len(arrays) - 1))
    called = []

    class Spy(tensor.Node):
        def __init__(self, name, edges):
            super().__init__(name, [(vertex, spied(vertex, vjp), *rest) for vertex, vjp, *rest in edges])

    def spied(vertex, vjp):
        return lambda g: called.append(vertex) or vjp(g)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor, "Node", Spy)
        tensors = [Tensor(x) for x in arrays]
        result = case.function(*tensors, **options)
        gradients(inner(result, np.ones(result.shape)), [tensors[asked]])
    assert [vertex for vertex in called if isinstance(vertex, Tensor)] == [tensors[asked]]


@pytest.mark.parametrize("name", ops.__all__)
def test_it_says_what_it_does(name):
    assert getattr(ops, name).__doc__


# What the docstrings promise where the table does not go: at kinks, ties, infinities and NaN.


@pytest.mark.parametrize(
    ("function", "arrays", "expected"),
    [
        (ops.relu, [[0.0, -0.0, 1.0]], [[0, 0, 1]]),
        (ops.leaky_relu, [[0.0, 1.0]], [[0.01, 1]]),
        (ops.abs, [[0.0, -2.0]], [[0, -1]]),
        (lambda x: ops.clip(x, -1, 1), [[-1.0, 1.0, -1.5, 1.5]], [[1, 1, 0, 0]]),
        (ops.maximum, [[1.0, 2.0], [1.0, 3.0]], [[1, 0], [0, 1]]),
        (ops.minimum, [[1.0, 2.0], [1.0, 3.0]], [[1, 1], [0, 0]]),
        (ops.max, [[2.0, 1.0, 2.0]], [[0.5, 0, 0.5]]),
        (ops.min, [[2.0, 1.0, 1.0]], [[0, 0.5, 0.5]]),
        (ops.power, [[0.0], [0.0]], [[0], [0]]),
        (lambda x: x**0, [[0.0]], [[0]]),
        (lambda x: x**2, [[0.0, -3.0]], [[0, -6]]),
        (ops.logsumexp, [[-np.inf, 0.0]], [[0, 1]]),
        (ops.sigmoid, [[-np.inf, np.inf, 0.0]], [[0, 0, 0.25]]),
    ],
)
def test_the_gradient_at_a_kink_is_the_one_promised(function, arrays, expected):
    tensors = [Tensor(np.array(x)) for x in arrays]
    found = gradients(ops.sum(function(*tensors)), tensors)
    assert [g.tolist() for g in found] == expected


@pytest.mark.parametrize(
    "function",
    [ops.relu, ops.leaky_relu, ops.abs, ops.tanh, ops.sigmoid, ops.max, ops.min, ops.logsumexp, ops.softmax,
     lambda x: ops.maximum(x, 1.0), lambda x: ops.minimum(1.0, x), lambda x: ops.clip(x, -1, 1)],
)
def test_nan_is_not_hidden(function):
    assert np.isnan(function(np.array([np.nan])).data).all()


@pytest.mark.parametrize("x", [-1e4, -800.0, -90.0, 90.0, 800.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturating_functions_do_not_overflow(x, dtype):
    """Warnings are errors here, so the values alone need a look."""
    t = Tensor(np.array(x, dtype))
    for function, low, high in ((ops.sigmoid, 0, 1), (ops.tanh, -1, 1)):
        y = function(t)
        assert low <= y.item() <= high
        assert np.isfinite(gradients(y, [t])[0])
    assert ops.sigmoid(np.array(-700.0)).item() == np.exp(-700.0)


@pytest.mark.parametrize(("shape", "order"), [
    ((4, 2, 3, 5), (2, 1, 3, 0)), ((4, 7), (1, 0)), ((4, 2, 3), (1, 2, 0)), ((4,), (0,)), ((0, 2, 3, 5), (2, 1, 3, 0)),
])
def test_an_arranged_copy_has_the_batch_last_and_images_row_by_row_or_is_in_c_order(xp, shape, order):
    x = xp.asarray(np.random.default_rng(0).random(shape))
    copy = arranged(x)
    assert type(copy) is xp.ndarray
    assert (copy.transpose(order) if xp is np else copy).flags.c_contiguous
    np.testing.assert_array_equal(to_host(copy), to_host(x))
    copy[...] = -1
    assert not (x == -1).any()


@pytest.mark.parametrize("run", [
    ops.mean, ops.softmax, ops.gelu, ops.leaky_relu, lambda x: ops.cross_entropy(x, np.array([0, 1])),
    lambda x: ops.mse_loss(x, np.ones((2, 2), np.float32)), lambda x: ops.avg_pool2d(x[None, None], 2),
])
def test_an_integer_array_is_as_a_tensor_of_it(run):
    x = np.array([[1, 2], [4, -3]])
    np.testing.assert_array_equal(run(x).data, run(x.astype(np.float32)).data)


@pytest.mark.parametrize("integers", [np.int64, np.int32, np.int16, np.uint16, np.uint8, bool])
@pytest.mark.parametrize("floats", [np.float32, np.float64])
@pytest.mark.parametrize("run", [ops.add, ops.multiply, ops.divide, ops.maximum, ops.matmul, ops.linear,
                                 lambda x, y: ops.mse_loss(x, y), lambda x, y: ops.concatenate([x, y], axis=0)])
def test_an_integer_array_beside_a_tensor_does_not_change_its_dtype(run, floats, integers):
    x, y = Tensor(np.full((2, 2), 3, floats)), np.ones((2, 2), integers)
    for value in run(x, y), run(y, x):
        assert value.dtype == floats
        assert gradients(ops.sum(value), [x])[0].dtype == floats


def test_an_operation_may_compute_with_more_digits_than_its_argument():
    """As the model of another framework does, of which classes may depend on them."""
    @op
    def precise(x):
        return x * np.float64(1) + np.full(1, 1e-12), lambda g: g

    x = Tensor(np.ones(2, np.float32))
    assert precise(x).dtype == np.float64
    assert gradients(ops.sum(precise(x)), [x])[0].dtype == np.float32
    for product in ops.multiply(x, np.ones(2)), ops.multiply(x, y=np.ones(2)):
        assert product.dtype == np.float64
    assert ops.multiply(2.0, np.arange(3)).dtype == np.float32
    half = ops.multiply(Tensor(np.ones(2, np.float16)), np.ones(2, np.int16))
    assert half.dtype == np.float16


def test_the_slopes_of_logsumexp_beside_an_infinite_element_are_zero():
    x = Tensor(np.array([np.inf, 0.0, 5.0]))
    with np.errstate(invalid="ignore"):
        assert gradients(ops.logsumexp(x), [x])[0][1:].tolist() == [0, 0]


@pytest.mark.parametrize(("limits", "slopes"), [((None, 0.5), [1, 1, 0]), ((0.0, None), [0, 1, 1])])
def test_a_limit_may_be_none(limits, slopes):
    x = Tensor(np.array([-1.0, 0.25, 2.0]))
    assert gradients(ops.sum(ops.clip(x, *limits)), [x])[0].tolist() == slopes


@pytest.mark.parametrize("lay", [np.asarray, np.asfortranarray])
@pytest.mark.parametrize("operation", [lambda x: ops.mean(x, axis=0), lambda x: ops.sum(x, axis=0) / len(x)])
def test_sums_along_a_long_axis_have_the_digits_of_float32(operation, lay):
    x = lay(np.full((2**18, 3), 0.1, np.float32))
    np.testing.assert_allclose(operation(x).data, 0.1, rtol=1e-6)


@pytest.mark.parametrize("layer", [lambda x, bias: x + bias, lambda x, bias: ops.linear(x, np.zeros((3, 3)), bias)])
def test_the_gradient_of_what_is_added_to_many_rows_has_the_digits_of_float32(layer):
    x, bias = np.full((2**18, 3), 0.1, np.float32), Tensor(np.zeros(3, np.float32))
    (gradient,) = gradients((layer(np.zeros((2**18, 3), np.float32), bias) * x).sum(), [bias])
    np.testing.assert_allclose(gradient, 2**18 * np.float64(np.float32(0.1)), rtol=1e-6)


def test_the_mean_of_nothing_is_zero():
    x = Tensor(np.zeros((0, 3)))
    assert ops.mean(x).item() == 0
    assert gradients(ops.mean(x), [x])[0].shape == (0, 3)


@pytest.mark.parametrize(("x", "y", "of_x", "of_y"), [
    (np.inf, 0.0, 0, np.inf), (0.0, 0.0, 0, 0), (0.0, 2.0, 0, 0), (np.nan, 0.0, 0, np.nan)])
def test_the_gradient_of_a_power_at_its_edges(x, y, of_x, of_y):
    x, y = Tensor(np.array([x])), Tensor(np.array([y]))
    np.testing.assert_array_equal(gradients((x**y).sum(), [x, y]), [[of_x], [of_y]])


def test_below_zero_the_power_of_zero_falls_without_end():
    x, y = Tensor(np.zeros(1)), Tensor(-np.ones(1))
    with np.errstate(divide="ignore"):
        assert gradients((x**y).sum(), [y])[0] == -np.inf


@pytest.mark.parametrize("limits", [(np.zeros(3, int), np.ones(3, int)), ([0.0, 0, 0], [1, 1, 1]), (np.zeros(3), None)])
def test_clip_keeps_the_dtype_whatever_its_limits_are(limits):
    x = Tensor(np.array([-0.5, 0.5, 0.75], np.float32))
    y = ops.clip(x, *limits)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data, x.data.clip(0, 1))


@pytest.mark.parametrize(("call", "match"), [
    (lambda x: ops.layer_norm(x, np.ones((3, 3)), np.zeros(3)), r"layer_norm: expected a weight of shape \(D,\)"),
    (lambda x: ops.layer_norm(x, np.ones(3), np.zeros((3, 1))), r"layer_norm: expected a bias of shape \(3,\)"),
    (lambda x: ops.batch_norm(x[:, :, None, None], np.ones(1), np.zeros(3), np.zeros(3), np.ones(3)),
     r"batch_norm: the shape of the weight is \(1,\), but that of the mean is \(3,\)"),
    (lambda x: ops.batch_norm(x[:, :, None, None], np.ones(3), np.zeros(1), np.zeros(3), np.ones(3)),
     "batch_norm: the size of the bias is 1, but"),
    (lambda x: ops.linear(x, np.ones((2, 3)), 2.0), r"linear: expected a bias of shape \(2,\), got 2.0"),
    (lambda x: ops.layer_norm(x, np.ones(3), None), r"layer_norm: expected a bias of shape \(3,\), got None"),
])
def test_what_would_be_broadcast_by_mistake_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(np.ones((4, 3)))


@pytest.mark.parametrize("n", [3, 7, 49, 98, 107])
def test_the_mean_of_equal_numbers_is_that_number(n):
    assert ops.mean(np.ones(n)).item() == 1
