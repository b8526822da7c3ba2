"""The integers behind the shapes, and what their messages say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import shapes, sizes

from tinyadv import Tensor, data, nn, ops
from tinyadv.shapes import broadcast_axes, check_equal, check_floating, check_ndim, pair, window_counts


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_a_pair_is_one_number_or_two_none_too_small(a, b, least):
    for value, both in ((a, (a, a)), ((a, b), (a, b)), ([a, b], (a, b))):
        if min(both) >= least:
            assert pair(value, "stride", least=least) == both
        else:
            with pytest.raises(ValueError, match=rf"^stride must be an integer >= {least}, or .* got"):
                pair(value, "stride", least=least)


@pytest.mark.parametrize("value", [1.0, "12", None, (1,), (1, 2, 3), (1.0, 2), (), True, (1, True)])
def test_what_is_no_pair_is_refused(value):
    with pytest.raises(ValueError, match=r"size must be an integer >= 1, or a .* pair of them, got"):
        pair(value, "size", least=1)


@given(sizes(1, 12), sizes(1, 5), sizes(1, 4), sizes(0, 3))
def test_windows_are_counted_by_laying_them_out(size, kernel, stride, padding):
    padded = [n + 2 * p for n, p in zip(size, padding, strict=True)]
    laid = tuple(len(range(0, n - k + 1, s)) for n, k, s in zip(padded, kernel, stride, strict=True))
    if 0 in laid:
        message = f"pooling: the {kernel[0]}x{kernel[1]} window does not fit in the {padded[0]}x{padded[1]} image"
        with pytest.raises(ValueError, match=message):
            window_counts(size, kernel, stride, padding, "pooling")
    else:
        assert window_counts(size, kernel, stride, padding, "pooling") == laid


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=4, max_side=3))
def test_broadcast_axes_are_those_along_which_an_array_repeats(found):
    """Summing ones over them counts how often each element was used."""
    for shape in found.input_shapes:
        axes = broadcast_axes(shape, found.result_shape)
        repeated = np.broadcast_to(np.zeros(shape), found.result_shape)
        assert repeated.sum(axis=axes, keepdims=True).reshape(shape).shape == shape
        assert all(found.result_shape[a] == 1 or repeated.strides[a] == 0 for a in axes)


@given(shapes())
def test_no_axis_is_broadcast_to_its_own_shape(shape):
    assert broadcast_axes(shape, shape) == ()


def test_checks_name_both_sides():
    check_ndim((2, 3), 2, "linear", "x of shape (N, in)")
    check_equal(3, 3, "linear", "left", "right")
    with pytest.raises(ValueError, match=r"^linear: expected x of shape \(N, in\), .* 2 axes, got shape \(3,\)$"):
        check_ndim((3,), 2, "linear", "x of shape (N, in)")
    with pytest.raises(ValueError, match=r"^linear: the features of x is 3, but those of w is 4; .* equal$"):
        check_equal(3, 4, "linear", "the features of x", "those of w")


x, images, three = np.ones((2, 3)), np.ones((1, 2, 1, 1)), np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.matmul(x, x), r"^matmul: the last axis of x \(2, 3\) is 3, but .* y \(2, 3\) is 2"),
        (lambda: ops.matmul(x, np.array(2.0)), r"^matmul: a number is no matrix: multiply with"),
        (lambda: ops.linear(three, x), r"^linear: expected x of shape \(N, in\)"),
        (lambda: ops.linear(x, three), r"^linear: expected a weight of shape \(out, in\)"),
        (lambda: ops.linear(x, x.T), r"^linear: the features of x \(2, 3\) is 3, but .* \(3, 2\) is 2"),
        (lambda: ops.linear(x, x, three), r"^linear: the size of the bias is 3, but .* is 2"),
        (lambda: ops.batch_norm(x, *4 * [three]), r"^batch_norm: expected images of shape \(N, C, H, W\)"),
        (lambda: ops.batch_norm(images, *4 * [three]), r"^batch_norm: .* channels is 2, but .* is 3"),
    ],
)
def test_errors_name_the_operation_and_both_sides(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("images", "message"), [
    ([[0.5]], r"got list: give np\.array\(images, np\.float32\)$"),
    (Tensor([[0.5]]), r"got Tensor: give images\.numpy\(\)$"),
    (data.Dataset(np.zeros((1, 1, 2, 2), np.float32), np.zeros(1, int), "none"), r"got Dataset: give dataset\.images$"),
    (nn.ReLU(), "got ReLU: the model comes first$"),
    (None, r"got NoneType: give an array \(N, C, H, W\)$"),
    (np.zeros(2, np.uint8), r"got uint8: for 8-bit images, give images\.astype\(np\.float32\) / 255$"),
])
def test_what_is_given_in_place_of_images_has_a_remedy_of_its_own(images, message):
    with pytest.raises(ValueError, match="^images must be a floating-point array, " + message):
        check_floating(images)
