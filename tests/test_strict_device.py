"""The stand-in computes what NumPy computes and refuses what CuPy refuses."""

import operator

import numpy as np
import pytest
import strict_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import broadcastable, images, reals

from tinyadv import ops
from tinyadv.tensor import Tensor, gradients

ARITHMETIC = ["add", "sub", "mul", "truediv", "matmul", "lt", "le", "eq", "ne", "gt", "ge"]
host = np.arange(6.0).reshape(2, 3)
device = strict_device.asarray(host)


def test_asarray_and_get_are_copies():
    there = strict_device.asarray(host)
    there += 1
    back = there.get()
    back += 1
    assert np.array_equal(there.get(), host + 1)
    assert np.array_equal(host, np.arange(6).reshape(2, 3))
    assert strict_device.asarray(there) is there


@pytest.mark.parametrize("name", [name for name in ARITHMETIC if name != "matmul"])
@given(arrays=broadcastable(reals, reals))
def test_operators_compute_what_numpy_computes(name, arrays):
    x, y = arrays
    function = getattr(operator, name)
    y = np.asarray(y + 4)  # not 0, to divide by
    there = function(strict_device.asarray(x), strict_device.asarray(y))
    assert isinstance(there, strict_device.ndarray)
    assert np.array_equal(there.get(), function(x, y))
    assert np.array_equal(function(strict_device.asarray(x), 2.5).get(), function(x, 2.5))
    assert np.array_equal(function(np.float32(2.5), strict_device.asarray(y)).get(), function(np.float32(2.5), y))


@given(images((2, 3, 4, 5)), st.sampled_from([None, 0, (1, 2), -1]))
def test_functions_and_methods_compute_what_numpy_computes(x, axis):
    there = strict_device.asarray(x)
    for name in ("sum", "max", "min", "mean", "var"):
        assert np.array_equal(getattr(there, name)(axis=axis).get(), getattr(x, name)(axis=axis))
    assert np.array_equal(strict_device.maximum(there, 0.5).get(), np.maximum(x, 0.5))
    assert np.array_equal(strict_device.where(there > 0, there, 0).get(), np.where(x > 0, x, 0))
    assert np.array_equal((there @ there.swapaxes(-1, -2)).get(), x @ x.swapaxes(-1, -2))
    assert np.array_equal(there.transpose(1, 2, 3, 0)[1:, ::2].get(), x.transpose(1, 2, 3, 0)[1:, ::2])
    assert strict_device.concatenate([there, there]).shape == (4, 3, 4, 5)


def test_results_are_arrays_even_of_no_axes():
    for result in (device.sum(), device[0, 0], device.max() + 1, strict_device.log(device[1, 1]), -device[0, 1]):
        assert isinstance(result, strict_device.ndarray)
        assert result.shape == ()
    assert float(device.sum()) == device.sum().item() == 15


def test_views_share_memory_and_out_is_written():
    there = strict_device.zeros((2, 3))
    there[:, 1] += 2
    there.reshape(-1)[0] = 7
    strict_device.matmul(device[:, :2], there[:, :2], out=there[:, 1:])
    strict_device.add.at(there, (strict_device.asarray([0, 0]), strict_device.asarray([0, 0])), 1)
    windows = strict_device.lib.stride_tricks.as_strided(there, (2, 2, 2), (*there.strides, there.strides[1]))
    assert there.get().tolist() == [[9, 0, 2], [0, 21, 14]]
    assert windows[1].get().tolist() == [[0, 21], [21, 14]]
    assert there.T.base is not None
    assert there.copy().base is None


@pytest.mark.parametrize("operand", [host, host[0], np.array(2.0), [1.0, 2.0, 3.0]], ids=["2-d", "1-d", "0-d", "list"])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_operators_refuse_host_arrays(name, operand):
    function = getattr(operator, name)
    with pytest.raises(TypeError, match="Unsupported"):
        function(device, operand)
    if isinstance(operand, np.ndarray):
        with pytest.raises(TypeError, match="Unsupported"):
            function(operand, device)


@pytest.mark.parametrize("operator", [operator.iadd, operator.imul, operator.itruediv])
def test_in_place_operators_refuse_a_mix(operator):
    with pytest.raises(TypeError, match="Unsupported"):
        operator(strict_device.zeros((2, 3)), host)
    with pytest.raises(TypeError):
        operator(np.zeros((2, 3)), device)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: strict_device.maximum(device, host),
        lambda: strict_device.concatenate([device, host]),
        lambda: strict_device.where(device > 0, device, host),
        lambda: strict_device.exp(host),
        lambda: strict_device.zeros_like(host),
        lambda: strict_device.matmul(device, device.T, out=np.zeros((2, 2))),
        lambda: strict_device.add.at(strict_device.zeros(3), strict_device.asarray([0]), np.ones(1)),
        lambda: device.__setitem__(0, np.ones(3)),
        lambda: device.sum(out=np.zeros(())),
    ],
)
def test_functions_refuse_host_arrays(mix):
    with pytest.raises(TypeError, match="Unsupported"):
        mix()


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray, np.array, np.exp, np.sum, np.zeros_like, np.shape,
        lambda x: np.add(host, x), lambda x: np.stack([x, x]),
        lambda x: np.copyto(np.zeros((2, 3)), x), lambda x: np.zeros((2, 3)).__setitem__(0, x[0]),
    ],
)
def test_numpy_refuses_device_arrays(convert):
    with pytest.raises(TypeError):
        convert(device)


def test_an_index_may_come_from_either_side():
    """As in CuPy, which moves it."""
    there = strict_device.asarray(host)
    for index in (np.array([1, 0]), strict_device.asarray([1, 0]), [1, 0]):
        assert np.array_equal(there[index].get(), host[[1, 0]])
        there[index] = 5.0
        assert (there.get() == 5).all()
        there = strict_device.asarray(host)


def test_what_is_computed_is_in_c_order_and_a_view_is_none():
    """As in CuPy, where (H, C, W, N) would be lost at every operation."""
    for result in (device.T + 1, strict_device.exp(device.T), device.T * device.T, -device.T):
        assert result.flags.c_contiguous
    assert not device.T.flags.c_contiguous


@pytest.mark.parametrize("call", [
    lambda: device.sum(where=device > 0), lambda: strict_device.max(device, initial=0.0),
    lambda: strict_device.exp(device, where=device > 0), lambda: strict_device.sort(device, stable=True),
])
def test_keywords_that_cupy_lacks_are_refused(call):
    with pytest.raises(TypeError, match=r"CuPy's \w+ takes no \w+"):
        call()


def test_what_cupy_lacks_is_not_there():
    with pytest.raises(AttributeError, match="add it to FUNCTIONS if CuPy has it"):
        strict_device.busday_count  # noqa: B018
    with pytest.raises(AttributeError, match="add it to METHODS if CuPy's has"):
        device.setflags  # noqa: B018


@pytest.mark.parametrize("name", sorted(strict_device.FUNCTIONS | strict_device.CONSTANTS))
def test_every_name_is_one_of_the_library(xp, name):
    assert hasattr(xp, name)


def test_a_tensor_on_the_right_takes_over():
    x = Tensor(device)
    for result in (device * x, device + x, device @ x.T, device / (x + 1), device**x):
        assert isinstance(result, Tensor)
        (g,) = gradients(ops.sum(result), [x])
        assert isinstance(g, strict_device.ndarray)
