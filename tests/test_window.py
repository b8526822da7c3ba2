"""Convolution and pooling against loops over the windows, for every layout in memory and either gradient path."""

import math

import numpy as np
import pytest
import references as ref
from gradcheck import inner
from hypothesis import given
from hypothesis import strategies as st
from strategies import conv_cases, images, pool_cases, sizes

from tinyadv import ops
from tinyadv.ops import window
from tinyadv.shapes import pair, window_counts
from tinyadv.tensor import Tensor, gradients

LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "batch last": lambda x: np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "a slice": lambda x: np.pad(x, 1)[tuple(slice(1, 1 + n) for n in x.shape)],
    "every other": lambda x: np.repeat(np.repeat(x, 2, axis=3), 2, axis=0)[::2, :, :, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
}
layouts = st.sampled_from(sorted(LAYOUTS))
in_any_layout = pytest.mark.parametrize("layout", LAYOUTS)


def run(operation, arrays, upstream, options):
    """[value, gradient of <value, upstream> in each array]."""
    tensors = [Tensor(x) for x in arrays]
    value = operation(*tensors, **options)
    return [value.data, *gradients(inner(value, upstream(value.shape)), tensors)]


def wavy(shape):
    """An upstream gradient that tells all pixels apart."""
    return np.cos(np.arange(math.prod(shape)).reshape(shape))


def wavy_in(layout):
    return lambda shape: LAYOUTS[layout](wavy(shape))


def assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@in_any_layout
@given(case=conv_cases(), weight_layout=layouts)
def test_conv2d_is_a_loop_over_windows(layout, case, weight_layout):
    (x, weight, bias), options = case
    y = ref.conv2d(x, weight, bias, **options)
    actual = run(ops.conv2d, (LAYOUTS[layout](x), LAYOUTS[weight_layout](weight), bias), wavy_in(layout), options)
    assert_equal(actual, [y, *ref.conv2d_gradients(wavy(y.shape), x, weight, **options)])


@in_any_layout
@given(case=pool_cases())
def test_avg_pool2d_is_a_loop_over_windows(layout, case):
    (x,), options = case
    y = ref.avg_pool2d(x, **options)
    actual = run(ops.avg_pool2d, (LAYOUTS[layout](x),), wavy_in(layout), options)
    assert_equal(actual, [y, ref.avg_pool2d_gradient(wavy(y.shape), x, **options)])


@in_any_layout
@given(case=pool_cases(), levels=st.sampled_from([1, 2, 200]))
def test_max_pool2d_is_a_loop_over_windows(layout, case, levels):
    """With one or two grey levels the windows are full of ties: the first maximum takes the gradient."""
    (x,), options = case
    x = np.round(x / 3 * levels)
    y = ref.max_pool2d(x, **options)
    actual = run(ops.max_pool2d, (LAYOUTS[layout](x),), wavy_in(layout), options)
    assert_equal(actual, [y, ref.max_pool2d_gradient(wavy(y.shape), x, **options)])


@given(conv_cases())
def test_conv2d_without_bias(case):
    (x, weight, _), options = case
    actual = run(ops.conv2d, (x, weight), wavy, options)
    y = ref.conv2d(x, weight, **options)
    assert_equal(actual, [y, *ref.conv2d_gradients(wavy(y.shape), x, weight, **options)[:2]])


@pytest.mark.parametrize(
    ("filters", "channels", "stride", "padding", "folds"),
    [(2, 4, 1, 1, False), (2, 4, 1, 0, False), (2, 4, 1, 2, False), (4, 1, 1, 1, True), (2, 4, 2, 1, True),
     (2, 4, 1, 3, True), (2, 4, (1, 2), 1, True), (2, 4, 1, (0, 3), True)],
)
@given(seed=st.integers(0, 100))
def test_the_input_gradient_comes_the_cheaper_way_and_is_the_same(filters, channels, stride, padding, folds, seed):
    """Correlating with the flipped kernel asks for stride 1, little padding and few filters; folding always works."""
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((2, channels, 6, 7)), rng.standard_normal((filters, channels, 3, 3))
    folded = []
    with pytest.MonkeyPatch.context() as patch:
        fold = window._fold_product
        patch.setattr(window, "_fold_product", lambda *args: folded.append(args) or fold(*args))
        y, gradient, _ = run(ops.conv2d, (x, weight), wavy, {"stride": stride, "padding": padding})
    assert bool(folded) == folds
    expected, _, _ = ref.conv2d_gradients(wavy(y.shape), x, weight, stride, padding)
    assert_equal([gradient], [expected])
    g = np.ascontiguousarray(wavy(y.shape).transpose(1, 2, 3, 0))
    by_folding = fold(weight, g, (6, 7), pair(stride, "stride", least=1), pair(padding, "padding", least=0))
    assert_equal([by_folding.transpose(3, 0, 1, 2)], [expected])


@given(images((2, 6, 7, 3)), sizes(1, 3), sizes(1, 3), sizes(0, 1), st.integers(0, 100))
def test_folding_is_the_adjoint_of_taking_windows(x, kernel, stride, padding, seed):
    """<windows(x), u> = <x, fold(u)> for images (C, H, W, N) and any u."""
    padded = window._padded(x, padding)
    windows = window._windows(padded, kernel, stride)
    u = np.random.default_rng(seed).standard_normal(windows.shape)
    folded = window._fold(lambda i, j: (u[:, i, j], 1), padded, x.shape[1:3], kernel, stride, padding)
    assert folded.shape == x.shape
    np.testing.assert_allclose((windows * u).sum(), (x * folded).sum(), atol=1e-9)


@given(conv_cases(), st.sampled_from([1, 200, 1000]))
def test_the_size_of_a_block_does_not_matter(case, size):
    """Blocks of one pixel, of a part of a row, of some rows, of the whole image."""
    arrays, options = case
    whole = run(ops.conv2d, arrays, wavy, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "BLOCK_BYTES", size)
        assert_equal(run(ops.conv2d, arrays, wavy, options), whole)


@given(conv_cases(), st.sampled_from([1, 1000, 1 << 20]))
def test_blocks_cover_every_pixel_once(case, size):
    (x, weight, _), options = case
    windows = window._windows(window._batch_last(ref.frame(x, options["padding"])), weight.shape[2:],
                              pair(options["stride"], "stride", least=1))
    seen = np.zeros(windows.shape[3:5], int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "BLOCK_BYTES", size)
        for rows, columns in window._blocks(x, windows):
            seen[rows, columns] += 1
            patches = windows[:, :, :, rows, columns]
            assert patches.nbytes <= size or patches.shape[3:5] == (1, 1)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [(ops.conv2d, {"padding": 1}), (ops.conv2d, {"stride": 2}), (ops.max_pool2d, {"size": 2}),
     (ops.max_pool2d, {"size": 3, "padding": 1}), (ops.avg_pool2d, {"size": 2, "padding": 1})],
)
def test_no_images_give_no_images(xp, operation, arguments):
    x = Tensor(xp.zeros((0, 3, 6, 6), xp.float32))
    weights = [Tensor(xp.ones((4, 3, 3, 3), xp.float32)), Tensor(xp.ones(4, xp.float32))]
    tensors = [x, *(weights if operation is ops.conv2d else [])]
    y = operation(*tensors, **arguments)
    assert y.shape[0] == 0
    for g, t in zip(gradients(y.sum(), tensors), tensors, strict=True):
        assert g.shape == t.shape
        assert not g.any()


@given(conv_cases())
def test_images_stay_batch_last_in_memory(case):
    """A result feeds the next operation without a copy."""
    (x, weight, bias), options = case
    y = ops.conv2d(Tensor(x), weight, bias, **options)
    for result in (y, ops.max_pool2d(y, 1), ops.avg_pool2d(y, 1), ops.relu(y)):
        inside = result.data.transpose(1, 2, 3, 0)
        assert inside.flags.c_contiguous
        assert np.shares_memory(window._batch_last(result.data), result.data)


# Pooling at its edges


def test_ties_go_to_the_first_maximum_row_by_row():
    x = Tensor(np.array([[[[1.0, 2, 2], [2, 0, 2], [2, 2, 1]]]]))
    (g,) = gradients(ops.max_pool2d(x, 2, stride=1).sum(), [x])
    assert g[0, 0].tolist() == [[0, 2, 0], [1, 0, 1], [0, 0, 0]]


@given(pool_cases(), st.integers(0, 10**6))
def test_nan_propagates_to_the_windows_that_hold_it_and_no_further(case, place):
    (hole,), options = case
    hole.reshape(-1)[place % hole.size] = np.nan
    for operation, reference in ((ops.max_pool2d, ref.max_pool2d), (ops.avg_pool2d, ref.avg_pool2d)):
        expected = reference(hole, **options)
        np.testing.assert_array_equal(np.isnan(operation(hole, **options).data), np.isnan(expected))


@given(pool_cases(lambda shape: images(shape).map(lambda x: -1 - np.abs(x))))
def test_padding_never_wins_a_maximum(case):
    (x,), options = case
    assert (ops.max_pool2d(x, **options).data <= -1).all()


def test_infinite_values_are_pooled_like_others():
    x = np.array([[[[-np.inf, -np.inf], [-np.inf, np.inf]]]])
    assert ops.max_pool2d(x, 2).item() == np.inf
    assert ops.max_pool2d(x[:, :, :1], (1, 2)).item() == -np.inf


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: ops.conv2d(x[0], w), r"conv2d: expected images of shape \(N, C, H, W\).* got shape \(3, 8, 8\)"),
        (lambda x, w: ops.conv2d(x, w[0]), r"conv2d: expected a weight of shape \(F, C, kh, kw\).* shape \(3, 3, 3\)"),
        (lambda x, w: ops.conv2d(x, w[:, :2]), "conv2d: the images' number of channels is 3, but the weight's is 2"),
        (lambda x, w: ops.conv2d(x[:, :, :2], w), "conv2d: the 3x3 window does not fit in the 2x8 image .*padding"),
        (lambda x, w: ops.conv2d(x, w, stride=0), "stride must be an integer >= 1, or a .* pair of them, got 0"),
        (lambda x, w: ops.conv2d(x, w, stride=(1, 2, 3)), r"stride must be .*, got \(1, 2, 3\)"),
        (lambda x, w: ops.conv2d(x, w, stride=1.5), "stride must be .*, got 1.5"),
        (lambda x, w: ops.conv2d(x, w, padding=-1), "padding must be an integer >= 0, .* got -1"),
        (lambda x, w: ops.conv2d(x, w, np.zeros(5)), "conv2d: the size of the bias is 5, but .* filters is 4"),
        (lambda x, w: ops.max_pool2d(x[0], 2), r"max_pool2d: expected images .* got shape \(3, 8, 8\)"),
        (lambda x, w: ops.max_pool2d(x, 9), "max_pool2d: the 9x9 window does not fit in the 8x8 image"),
        (lambda x, w: ops.max_pool2d(x, 0), "size must be an integer >= 1, .* got 0"),
        (lambda x, w: ops.max_pool2d(x, 2, padding=2), r"max_pool2d: padding \(2, 2\) .* half of the window \(2, 2\)"),
        (lambda x, w: ops.avg_pool2d(x, (9, 1)), "avg_pool2d: the 9x1 window does not fit in the 8x8 image"),
        (lambda x, w: ops.avg_pool2d(x, 3, padding=(0, 2)), r"avg_pool2d: padding \(0, 2\) .* the window \(3, 3\)"),
    ],
)
def test_errors_name_the_operation_and_both_sides(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 3, 8, 8)), np.zeros((4, 3, 3, 3)))


@given(sizes(1, 9), sizes(1, 4), sizes(1, 4), sizes(0, 2))
def test_the_output_has_as_many_pixels_as_windows_fit(size, kernel, stride, padding):
    x, weight = np.zeros((1, 1, *size)), np.zeros((1, 1, *kernel))
    try:
        counts = window_counts(size, kernel, stride, padding, "conv2d")
    except ValueError:
        with pytest.raises(ValueError, match="does not fit"):
            ops.conv2d(x, weight, stride=stride, padding=padding)
    else:
        assert ops.conv2d(x, weight, stride=stride, padding=padding).shape == (1, 1, *counts)
