"""Convolution and pooling against loops over the windows, for every layout in memory and every way to compute them."""

import math

import numpy as np
import pytest
import references as ref
from gradcheck import inner
from hypothesis import given
from hypothesis import strategies as st
from strategies import conv_cases, grouped_conv_cases, images, pool_cases, seeds, sizes

from tinyadv import ops, rows, window
from tinyadv.ops import conv
from tinyadv.ops.movement import arranged
from tinyadv.ops.normalize import batch_statistics
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
libraries = st.sampled_from([{np}, set()])  # KEEP_ORDER: with an empty set NumPy computes as CuPy does, in C order


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
@pytest.mark.parametrize("few_channels", [0, conv.FEW_CHANNELS, 1000])
@given(case=conv_cases(), weight_layout=layouts, stride=st.sampled_from([{}, {"stride": 1}]),
       few_terms=st.sampled_from([0, 10**6]), keep_order=libraries)
def test_conv2d_is_a_loop_over_windows(layout, few_channels, case, weight_layout, stride, few_terms, keep_order):
    """Whichever way it is computed: by rows, of which there are two ways at stride 1, or by columns."""
    (x, weight, bias), options = case
    options = options | stride
    y = ref.conv2d(x, weight, bias, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "FEW_CHANNELS", few_channels)
        patch.setattr(rows, "FEW_TERMS", few_terms)
        patch.setattr(window, "KEEP_ORDER", keep_order)
        actual = run(ops.conv2d, (LAYOUTS[layout](x), LAYOUTS[weight_layout](weight), bias), wavy_in(layout), options)
    assert_equal(actual, [y, *ref.conv2d_gradients(wavy(y.shape), x, weight, **options)])


@in_any_layout
@given(case=pool_cases(), keep_order=libraries)
def test_avg_pool2d_is_a_loop_over_windows(layout, case, keep_order):
    (x,), options = case
    y = ref.avg_pool2d(x, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "KEEP_ORDER", keep_order)
        actual = run(ops.avg_pool2d, (LAYOUTS[layout](x),), wavy_in(layout), options)
    assert_equal(actual, [y, ref.avg_pool2d_gradient(wavy(y.shape), x, **options)])


@in_any_layout
@given(case=pool_cases(), levels=st.sampled_from([1, 2, 200]), keep_order=libraries)
def test_max_pool2d_is_a_loop_over_windows(layout, case, levels, keep_order):
    """With one or two grey levels the windows are full of ties: the first maximum takes the gradient."""
    (x,), options = case
    x = np.round(x / 3 * levels)
    y = ref.max_pool2d(x, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "KEEP_ORDER", keep_order)
        actual = run(ops.max_pool2d, (LAYOUTS[layout](x),), wavy_in(layout), options)
    assert_equal(actual, [y, ref.max_pool2d_gradient(wavy(y.shape), x, **options)])


@pytest.mark.parametrize(("filters", "channels", "few", "stride", "padding", "there", "back"), [
    (4, 2, 32, 1, 1, "gathers", "folds"), (2, 4, 32, 1, 1, "folds", "gathers"), (4, 4, 32, 1, 0, "folds", "folds"),
    (2, 4, 32, 1, 2, "folds", "gathers"), (2, 4, 0, 1, 1, "gathers", "gathers"), (4, 3, 2, 1, 1, "gathers", "gathers"),
    (2, 3, 32, 1, 1, "gathers", "gathers"), (2, 4, 32, 2, 1, "gathers", "folds"), (2, 4, 0, 1, 3, "gathers", "folds"),
    (2, 4, 32, (1, 2), 1, "gathers", "folds"), (2, 4, 32, 1, (0, 3), "gathers", "folds"),
])
def test_the_cheaper_way_is_taken(monkeypatch, filters, channels, few, stride, padding, there, back):
    """The image's columns gathered, or the products with the flipped kernel folded: the more rows, the better.

    A stride, more padding than the kernel reaches, or (there) few terms leave one way.
    """
    taken, arrays = [], (np.ones((2, channels, 6, 7)), np.ones((filters, channels, 3, 3)))
    for name, way in (("correlate", "gathers"), ("correlate_adjoint", "folds")):
        kernel = getattr(rows, name)
        monkeypatch.setattr(rows, name, lambda *args, kernel=kernel, way=way: taken.append(way) or kernel(*args))
    monkeypatch.setattr(conv, "FEW_CHANNELS", few)
    run(ops.conv2d, arrays, wavy, {"stride": stride, "padding": padding})
    assert taken == [there, back]


@given(conv_cases(), seeds)
def test_the_kernels_are_adjoint_to_each_other(case, seed):
    """<correlate(x), g> = <x, correlate_adjoint(g)> = <weight, weight_gradient(x, g)>, windows of padding alone too."""
    (x, weight, _), options = case
    stride, padding = pair(options["stride"], "stride", least=1), pair(options["padding"], "padding", least=0)
    size, kernel = x.shape[2:], weight.shape[2:]
    y = rows.correlate(x, weight, window_counts(size, kernel, stride, padding, "conv2d"), stride, padding)
    g = np.random.default_rng(seed).standard_normal(y.shape)
    of_x = rows.correlate_adjoint(g, weight, size, stride, padding)
    of_weight = rows.weight_gradient(x, g, kernel, stride, padding)
    assert (of_x.shape, of_weight.shape) == (x.shape, weight.shape)
    np.testing.assert_allclose([(of_x * x).sum(), (of_weight * weight).sum()], (y * g).sum(), rtol=0, atol=1e-9)


@given(h=st.integers(1, 6), r=st.integers(1, 2), reach=st.integers(0, 4), first=st.integers(-6, 6),
       stride=st.integers(1, 3), count=st.integers(1, 7))
def test_stacks_hold_every_row_of_an_output_that_exists_once(h, r, reach, first, stride, count):
    image = np.arange(h * r * 2).reshape(h, r, 2)
    given, held, found = np.zeros(count, int), np.zeros((count, reach * r), int), np.full((count, reach * r, 2), -1)
    stacked = list(rows._stacks(image, reach, first, stride, count))
    for outputs, terms, stacks in stacked:
        given[outputs] += 1
        held[outputs, terms] += 1
        found[outputs, terms] = stacks
        assert np.shares_memory(stacks, image) or not stacks.size
    row = first + stride * np.arange(count)[:, None] + np.arange(reach)  # (count, reach)
    exists = (row >= 0) & (row < h)
    expected = np.where(exists[:, :, None, None], image[row.clip(0, h - 1)], -1)  # (count, reach, r, 2)
    assert (given == 1).all()  # also those without a row: their zeros have to be written
    assert (held == exists.repeat(r, axis=1)).all()
    assert (found == expected.reshape(found.shape)).all()
    assert not reach or len(stacked) == (~exists.all(1)).sum() + exists.all(1).any()  # those that have all, at once


@given(images((6, 2, 8, 3)), sizes(1, 3), st.none() | sizes(1, 3), sizes(0, 2), seeds)
def test_folding_is_the_adjoint_of_shifting(x, size, stride, padding, seed):
    """<shifted(x), u> = <x, fold(u)> for images (N, C, H, W) and any u; windows side by side included."""
    stride, x = stride or size, window.outside(x)
    counts = window_counts((6, 8), size, stride, padding, "shifted")
    shifted = np.stack(window.shifted(window.padded(x, padding), size, stride, counts))
    u = np.random.default_rng(seed).standard_normal(shifted.shape)
    folded = window.fold(reversed(u), u[0], (6, 8), size, stride, padding)
    assert folded.shape == x.shape
    np.testing.assert_allclose((shifted * u).sum(), (x * folded).sum(), rtol=0, atol=1e-9)


@given(channels=st.integers(1, 3), filters=st.integers(1, 9), kernel=sizes(1, 3), n=st.integers(1, 40), seed=seeds)
def test_equal_windows_of_few_terms_give_equal_bits(channels, filters, kernel, n, seed):
    """In float32, wherever they stand and however many images there are: the float64 sum, rounded once."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((filters, channels, *kernel), np.float32)
    x = np.tile(rng.random((1, channels, 2, 3), np.float32), (n, 1, 3, 3))  # (N, C, 6, 9), the same pixels repeated
    y = ops.conv2d(x, weight).data
    expected = ref.conv2d(x[:1].astype(np.float64), weight.astype(np.float64))[:, :, :2, :3].astype(np.float32)
    np.testing.assert_array_equal(y, np.tile(expected, (n, 1, 3, 3))[:, :, : y.shape[2], : y.shape[3]])


@given(kernel=sizes(1, 3), stride=st.just((1, 1)) | sizes(1, 3), padding=sizes(0, 2), channels=st.integers(1, 20),
       filters=st.integers(1, 20), width=st.integers(3, 8), seed=seeds)
def test_equal_neighbours_in_a_row_give_equal_bits(kernel, stride, padding, channels, filters, width, seed):
    """Also where the matrix product rounds each column differently, as BLAS kernels may."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (3, channels, 5, width)) * rng.random((3, channels, 1, 1), np.float32)
    for w in range(1, width):  # most columns repeat the one to their left
        x[..., w] = np.where(rng.random((3, 1, 5)) < 0.8, x[..., w - 1], x[..., w])
    x, weight = x.astype(np.float32), rng.standard_normal((filters, channels, *kernel), np.float32)

    def multiply_rows(matrix, rows, reach, first, stride, y):
        exact(matrix, rows, reach, first, stride, y)
        y *= 1 + 1e-6 * rng.random(y.shape[-1])  # an error for each column

    exact = rows._multiply_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "FEW_TERMS", 0)
        patch.setattr(rows, "_multiply_rows", multiply_rows)
        y = ops.conv2d(x, weight, stride=stride, padding=padding).data
    border = 0 if stride[1] == 1 else math.ceil(padding[1] / stride[1])  # there windows may hold padding
    framed = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(framed, kernel, (2, 3))[:, :, :: stride[0], :: stride[1]]
    equal = (windows[:, :, :, 1:] == windows[:, :, :, :-1]).all(axis=(1, 4, 5))  # (N, OH, OW - 1)
    inner = slice(border, equal.shape[2] - border)
    same = y[..., 1:] == y[..., :-1]
    assert same[:, :, :, inner][np.broadcast_to(equal[:, None], same.shape)[:, :, :, inner]].all()


@pytest.mark.parametrize("n", [1, 7, 14, 23])
def test_flat_images_give_flat_results(n):
    """With the BLAS at hand, in the shape of MadryCNN's second layer; its kernels for the ends of a product differ."""
    rng = np.random.default_rng(n)
    x = np.broadcast_to(rng.random((n, 32, 14, 1), np.float32), (n, 32, 14, 14))
    y = ops.conv2d(x, rng.standard_normal((64, 32, 5, 5), np.float32), padding=2).data
    assert (y[..., 2:12] == y[..., 2:3]).all()


def test_one_window_has_no_neighbour():
    assert ops.conv2d(np.ones((1, 8, 7, 7)), np.ones((2, 8, 7, 7)), stride=2).data.tolist() == [[[[392]], [[392]]]]


@pytest.mark.parametrize(("operation", "arguments"), [
    (ops.conv2d, {"padding": 1}), (ops.conv2d, {"stride": 2}), (ops.max_pool2d, {"size": 2}),
    (ops.max_pool2d, {"size": 3, "padding": 1}), (ops.avg_pool2d, {"size": 2, "padding": 1}),
])
def test_no_images_give_no_images(xp, operation, arguments):
    shapes = [(0, 3, 6, 6), *([(4, 3, 3, 3), (4,)] if operation is ops.conv2d else [])]
    tensors = [Tensor(xp.ones(shape, xp.float32)) for shape in shapes]
    y = operation(*tensors, **arguments)
    assert y.shape[0] == 0
    for g, t in zip(gradients(y.sum(), tensors), tensors, strict=True):
        assert g.shape == t.shape
        assert not g.any()


@given(conv_cases() | grouped_conv_cases())
def test_images_keep_their_order_in_memory(case):
    """(H, C, W, N), so that a result feeds the next operation without a copy."""
    (x, weight, bias), options = case
    y = ops.relu(ops.conv2d(x, weight, bias, **options))
    size = tuple(min(2, n) for n in y.shape[2:])
    for result in (y, ops.max_pool2d(y, size), ops.avg_pool2d(y, size)):
        assert np.shares_memory(window.inside(result.data), result.data)


@given(conv_cases() | grouped_conv_cases(), st.booleans())
def test_in_either_order_in_memory_all_layers_compute_the_same(case, training):
    """A network in C order, as with CuPy, and with the batch last: values and gradients, whatever the geometry."""
    arrays, options = case

    def network(x, weight, bias, gain, shift):
        mean, variance, _ = batch_statistics(x.data)
        x = ops.batch_norm(x, gain, shift, mean, variance, of_batch=training)
        y = ops.relu(ops.conv2d(x, weight, bias, **options))
        return ops.flatten(ops.max_pool2d(y, tuple(min(2, n) for n in y.shape[2:])))

    gain, shift = np.linspace(1, 2, 2 * arrays[0].shape[1]).reshape(2, -1)
    expected = run(network, (*arrays, gain, shift), wavy, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "KEEP_ORDER", set())
        actual = run(network, (arranged(arrays[0]), *arrays[1:], gain, shift), wavy, {})
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize(("call", "message"), [
    (lambda x, w: ops.conv2d(x[0], w), r"conv2d: expected images of shape \(N, C, H, W\).* got shape \(3, 8, 8\)"),
    (lambda x, w: ops.conv2d(x, w[0]), r"conv2d: expected a weight of shape \(F, C, kh, kw\).* shape \(3, 3, 3\)"),
    (lambda x, w: ops.conv2d(x, w[:, :2]), "conv2d: the images' number of channels is 3, but the weight's is 2"),
    (lambda x, w: ops.conv2d(x[:, :, :2], w), "conv2d: the 3x3 window does not fit in the 2x8 image .*padding"),
    (lambda x, w: ops.conv2d(x, w, stride=0), "stride must be an integer >= 1, or a .* pair of them, got 0"),
    (lambda x, w: ops.conv2d(x, w, padding=-1), "padding must be an integer >= 0, .* got -1"),
    (lambda x, w: ops.conv2d(x, w, np.zeros(5)), "conv2d: the size of the bias is 5, but .* filters is 4"),
    (lambda x, w: ops.conv2d(x, w, dilation=0), "dilation must be an integer >= 1, .* got 0"),
    (lambda x, w: ops.conv2d(x, w, dilation=4), "conv2d: the 9x9 window does not fit in the 8x8 image"),
    (lambda x, w: ops.conv2d(x, w, groups=3), "conv2d: groups must be a divisor of the weight's 4 filters, got 3"),
    (lambda x, w: ops.conv2d(x, w, groups=0), "groups must be .* got 0"),
    (lambda x, w: ops.conv2d(x, w, groups=2), "channels is 3, but that of the weight times groups is 6"),
    (lambda x, w: ops.conv2d(x, w[:, :1], np.zeros(5), groups=2), "the size of the bias is 5, but"),
    (lambda x, w: ops.max_pool2d(x[0], 2), r"max_pool2d: expected images .* got shape \(3, 8, 8\)"),
    (lambda x, w: ops.max_pool2d(x, 9), "max_pool2d: the 9x9 window does not fit in the 8x8 image"),
    (lambda x, w: ops.max_pool2d(x, 0), "size must be an integer >= 1, .* got 0"),
    (lambda x, w: ops.max_pool2d(x, 2, padding=2), r"max_pool2d: padding \(2, 2\) .* half of the window \(2, 2\)"),
    (lambda x, w: ops.avg_pool2d(x, (9, 1)), "avg_pool2d: the 9x1 window does not fit in the 8x8 image"),
    (lambda x, w: ops.avg_pool2d(x, 3, padding=(0, 2)), r"avg_pool2d: padding \(0, 2\) .* the window \(3, 3\)"),
])
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


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4), (1, 4, 1, 1)])
def test_a_bias_has_one_axis(shape):
    x, w = np.ones((2, 3, 5, 5)), np.ones((4, 3, 2, 2))
    with pytest.raises(ValueError, match=r"conv2d: .*a bias of shape \(4,\)"):
        ops.conv2d(x, w, np.ones(shape))
    with pytest.raises(ValueError, match=r"linear: .*a bias of shape \(4,\)"):
        ops.linear(np.ones((2, 3)), np.ones((4, 3)), np.ones(shape))
