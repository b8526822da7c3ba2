import copy
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from strategies import reals, seeds

from tinyadv import Tensor, gradients, nn, ops
from tinyadv.ops.movement import arranged
from tinyadv.parallel import together


def images(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def windows(x, size, stride, padding, fill):
    """(N, C, OH, OW, kh, kw) of images (N, C, H, W), written down as the definition of a window."""
    (kh, kw), (sh, sw), (ph, pw) = size, stride, padding
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    oh, ow = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    rows = [[x[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw] for j in range(ow)] for i in range(oh)]
    return np.moveaxis(np.array(rows), (0, 1), (2, 3))


@st.composite
def window_layers(draw):
    """(images, size, stride, padding) that fit each other, padding at most half of the window."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in size)
    height, width = (draw(st.integers(k, 7)) for k in size)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), height, width)
    return images(shape, draw(seeds)), size, stride, padding


@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_linear_is_a_matrix_product_and_a_shift(n, inputs, outputs, bias):
    layer, x = nn.Linear(inputs, outputs, bias, rng=0), images((n, inputs))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"][: 1 + bias]
    assert layer.weight.shape == (outputs, inputs)
    expected = np.einsum("ni,oi->no", x, layer.weight.data) + (layer.bias.data if bias else 0)
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)


@given(window_layers(), st.integers(1, 3), st.booleans())
def test_conv2d_is_an_inner_product_with_every_window(case, filters, bias):
    x, size, stride, padding = case
    layer = nn.Conv2d(x.shape[1], filters, size, stride, padding, bias=bias, rng=0)
    assert [p.shape for p in layer.parameters()] == [(filters, x.shape[1], *size), (filters,)][: 1 + bias]
    expected = np.einsum("nchwij,fcij->nfhw", windows(x, size, stride, padding, 0), layer.weight.data)
    expected += layer.bias.data[:, None, None] if bias else 0
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)


@given(window_layers())
def test_pooling_takes_the_maximum_or_the_mean_of_every_window(case):
    x, *arguments = case
    largest, average = nn.MaxPool2d(*arguments)(Tensor(x)).data, nn.AvgPool2d(*arguments)(Tensor(x)).data
    np.testing.assert_array_equal(largest, windows(x, *arguments, -np.inf).max(axis=(4, 5)))
    np.testing.assert_allclose(average, windows(x, *arguments, 0).mean(axis=(4, 5)), rtol=1e-12, atol=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), seeds)
def test_adaptive_pooling_takes_the_mean_of_every_window(height, width, size, seed):
    x = images((2, 3, height, width), seed)
    check_vjp(nn.AdaptiveAvgPool2d(size), [x])
    expected = np.empty((2, 3, size, size))
    for i, j in np.ndindex(size, size):
        rows = slice(math.floor(i * height / size), math.ceil((i + 1) * height / size))
        columns = slice(math.floor(j * width / size), math.ceil((j + 1) * width / size))
        expected[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    np.testing.assert_allclose(nn.AdaptiveAvgPool2d(size)(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)


def test_pooling_strides_by_its_size_unless_told_otherwise():
    x = Tensor(images((2, 3, 7, 8)))
    for pool in (nn.MaxPool2d, nn.AvgPool2d):
        np.testing.assert_array_equal(pool(2)(x).data, pool((2, 2), (2, 2), (0, 0))(x).data)
        np.testing.assert_array_equal(pool((2, 3))(x).data, pool((2, 3), (2, 3))(x).data)


@given(reals(shape=(2, 3, 2, 2)))
def test_layers_without_parameters_are_their_formulas(x):
    for layer, expected in (
        (nn.ReLU(), np.maximum(x, 0)),
        (nn.LeakyReLU(), np.where(x > 0, x, 0.01 * x)),
        (nn.LeakyReLU(0.3), np.where(x > 0, x, 0.3 * x)),
        (nn.Tanh(), np.tanh(x)),
        (nn.Sigmoid(), 1 / (1 + np.exp(-x))),
        (nn.Flatten(), x.reshape(2, 12)),
        (nn.GlobalAvgPool2d(), x.mean(axis=(2, 3))),
    ):
        np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-12, atol=1e-12)
        assert layer.state_dict() == {}


def test_sequential_applies_layers_and_functions_in_order():
    model = nn.Sequential(nn.Linear(3, 2, rng=0), ops.abs, nn.Linear(2, 1, rng=1))
    first, function, last = model.layers
    x = Tensor(images((4, 3)))
    np.testing.assert_array_equal(model(x).data, last(function(first(x))).data)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert nn.Sequential()(x) is x


@given(seeds)
def test_the_generator_of_a_layer_is_given_or_comes_from_a_seed(seed):
    def weights(rng):
        return [nn.Linear(3, 2, rng=rng).weight.data.tolist(), nn.Conv2d(1, 2, 3, rng=rng).weight.data.tolist()]

    assert weights(seed) == weights(seed)
    rng = np.random.default_rng(seed)
    first, second = weights(rng), weights(rng)
    assert first[0] == weights(seed)[0]
    assert first != second


@pytest.mark.parametrize("layer", [
    nn.Normalize(0.1, 0.3), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(1), nn.Dropout(), nn.MaxPool2d(2), nn.AvgPool2d(2),
    nn.GlobalAvgPool2d(), nn.Flatten(), nn.ReLU(), nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid(), nn.Standardize(),
], ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_an_array_is_a_constant_input_and_dtypes_are_kept(layer, dtype):
    x = images((2, 1, 4, 4)).astype(dtype)
    for training in (True, False):
        with layer.mode(training):
            from_array = layer(x)
        assert from_array.dtype == (dtype if not layer.state_dict() else np.result_type(dtype, np.float32))
    assert {name: array.dtype for name, array in layer.state_dict().items() if array.dtype != np.float32} in (
        {}, {"num_batches_tracked": np.int64},
    )


def test_batch_norm_normalises_each_channel_of_the_batch():
    layer, x = nn.BatchNorm2d(3), images((4, 3, 5, 2)) * 3 + 1
    layer.load_state_dict(layer.state_dict() | {"weight": np.array([1, 2, -3]), "bias": np.array([0, 4, 5])})
    y = layer(Tensor(x)).data
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), [0, 4, 5], atol=1e-6)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), [1, 2, 3], rtol=1e-5)
    z = (x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, z * [[[1]], [[2]], [[-3]]] + [[[0]], [[4]], [[5]]], rtol=1e-6, atol=1e-6)


@given(st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]), seeds)
def test_batch_norm_moves_its_running_statistics_as_pytorch_defines_them(batches, momentum, seed):
    layer = nn.BatchNorm2d(2, momentum=momentum)
    mean, var = np.zeros(2), np.ones(2)
    for i in range(batches):
        x = images((i + 1, 2, 3, 3), seed + i) * 2 + 1
        layer(Tensor(x))
        mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 2, 3))
        var = (1 - momentum) * var + momentum * x.var(axis=(0, 2, 3), ddof=1)  # unbiased
    state = layer.state_dict()
    np.testing.assert_allclose(state["running_mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["running_var"], var, rtol=1e-5)
    assert state["num_batches_tracked"] == batches


def test_batch_norm_evaluates_by_its_running_statistics_and_leaves_them():
    layer = nn.BatchNorm2d(2, eps=0.25).eval()
    state = layer.state_dict() | {"running_mean": np.array([1.0, -1]), "running_var": np.array([0.75, 3.75])}
    layer.load_state_dict(state)
    x = images((1, 2, 3, 3))
    expected = np.stack([x[:, 0] - 1, (x[:, 1] + 1) / 2], axis=1)
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_equal(layer.state_dict(), state)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_features_is_that_of_images_of_one_column(shape, training):
    x, layers = images(shape) * 2 + 1, (nn.BatchNorm1d(3), nn.BatchNorm2d(3))
    for layer in layers:
        layer.load_state_dict(layer.state_dict() | {"weight": np.array([1, 2, -3]), "bias": np.array([0, 4, 5])})
    with layers[0].mode(training), layers[1].mode(training):
        y, expected = layers[0](Tensor(x)).data, layers[1](Tensor(x.reshape(5, 3, -1, 1))).data
    np.testing.assert_array_equal(y, expected.reshape(shape))
    np.testing.assert_equal(layers[0].state_dict(), layers[1].state_dict())
    with layers[0].mode(training):
        check_vjp(layers[0], [x])


def test_batch_norm_names_itself_and_what_it_takes():
    with pytest.raises(ValueError, match=r"BatchNorm1d: expected features of shape \(N, C\) or \(N, C, L\), got"):
        nn.BatchNorm1d(3)(Tensor(images((2, 3, 4, 4))))
    with pytest.raises(ValueError, match="BatchNorm1d: the images' number of channels is 4, but num_features is 3"):
        nn.BatchNorm1d(3)(Tensor(images((2, 4))))


@given(kernel=st.integers(0, 2).map(lambda n: 2 * n + 1), dilation=st.integers(1, 3), size=st.integers(1, 6))
def test_same_padding_keeps_the_size_of_images_and_valid_adds_none(kernel, dilation, size):
    x = Tensor(images((2, 3, size, size + 1)))
    same = nn.Conv2d(3, 4, (kernel, 1), padding="same", dilation=dilation)
    assert same(x).shape == (2, 4, size, size + 1)
    assert nn.Conv2d(3, 4, kernel, padding="valid").padding == (0, 0)


@pytest.mark.parametrize("options", [{"stride": 2}, {"kernel_size": 2}, {"kernel_size": (3, 4)}, {"padding": "full"}])
def test_padding_that_is_no_word_or_cannot_be_the_same_is_refused(options):
    with pytest.raises(ValueError, match=r'padding must be .* pair, "valid" or, with stride 1 and an odd'):
        nn.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": "same"} | options)


def test_a_convolution_in_groups_has_weights_of_its_groups_alone():
    layer = nn.Conv2d(in_channels=4, out_channels=6, kernel_size=3, dilation=2, groups=2)
    assert layer.weight.shape == (6, 2, 3, 3)
    assert layer(Tensor(images((2, 4, 7, 7)))).shape == (2, 6, 3, 3)
    with pytest.raises(ValueError, match="groups must divide in_channels, 4, and out_channels, 6; got 4"):
        nn.Conv2d(4, 6, 3, groups=4)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: nn.ReLU(inplace=True), "ReLU takes no inplace: leave it out"),
    (lambda: nn.ReLU(True), "ReLU takes no arguments, got True"),
    (lambda: nn.Tanh(scale=2), "Tanh takes no scale: it takes nothing"),
    (lambda: nn.BatchNorm2d(3, affine=True), "BatchNorm2d takes no affine: leave it out"),
    (lambda: nn.Linear(3, outputs=2), "Linear takes no outputs: it takes in_features, out_features, bias"),
    (lambda: nn.Conv2d(1, 2, 3, device="cuda"), r"Conv2d takes no device: the model says where: model.to\("),
    (lambda: Tensor([1.0]).sum(dim=0), "sum takes no dim: write axis="),
    (lambda: ops.mean(Tensor([1.0]), keepdim=True), "mean takes no keepdim: write keepdims="),
])
def test_what_others_call_an_argument_is_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_layers_take_the_keywords_of_pytorch():
    nn.Linear(in_features=3, out_features=2, bias=False)
    nn.Conv2d(in_channels=1, out_channels=2, kernel_size=3, stride=1, padding=1, dilation=1, groups=1, bias=True)
    nn.MaxPool2d(kernel_size=2, stride=2, padding=0)
    nn.AvgPool2d(kernel_size=(2, 2))
    nn.LeakyReLU(negative_slope=0.1)
    nn.BatchNorm1d(num_features=3, eps=1e-5, momentum=0.1)


def test_batch_norm_of_no_images_leaves_its_statistics():
    layer, x = nn.BatchNorm2d(2), Tensor(np.zeros((0, 2, 3, 3), np.float32))
    y = layer(x)
    state = layer.state_dict()
    assert y.shape == gradients(y.sum(), [x])[0].shape == x.shape
    np.testing.assert_equal(state, nn.BatchNorm2d(2).state_dict())


def test_a_graph_in_evaluation_mode_keeps_the_statistics_of_its_time():
    layer, x = nn.BatchNorm2d(2), images((3, 2, 4, 4))
    with layer.mode(training=False):
        expected, y = (ops.sum(layer(Tensor(x)) * x) for _ in range(2))
    expected = gradients(expected, layer.parameters())
    layer(Tensor(x * 3 + 1))
    np.testing.assert_array_equal(gradients(y, layer.parameters()), expected)


def test_batch_norm_of_a_batch_is_blind_to_its_shift_and_scale_and_so_is_its_gradient():
    layer, x = nn.BatchNorm2d(2, eps=1e-12), images((3, 2, 4, 4))
    np.testing.assert_allclose(layer(Tensor(5 * x - 3)).data, layer(Tensor(x)).data, rtol=1e-6, atol=1e-6)
    leaf = Tensor(x)
    (g,) = gradients(ops.sum(layer(leaf) * images(x.shape, 1)), [leaf])
    assert np.abs(g).min() > 1e-6
    np.testing.assert_allclose([g.sum(axis=(0, 2, 3)), (g * x).sum(axis=(0, 2, 3))], 0, atol=1e-9)


@given(st.integers(1, 4), st.integers(4, 9), seeds)
def test_batch_norm_of_a_batch_in_parts_is_that_of_the_whole(count, n, seed):
    """Values, gradients and statistics, wherever the batch is cut: every part is normalised by the whole batch."""
    def computed(bounds):
        layer = nn.BatchNorm2d(2)
        vars(layer).update(weight=Tensor(np.array([0.5, -2])), bias=Tensor(np.zeros(2)))
        vars(layer).update(running_mean=np.zeros(2), running_var=np.ones(2))

        def work(part):
            leaf = Tensor(x[slice(*part)])
            y = layer(layer(leaf))
            return y.data, *gradients(ops.sum(y * weights[slice(*part)]), [leaf, layer.weight, layer.bias])

        with ThreadPoolExecutor(count) as pool:
            ys, gs, *shares = zip(*together(pool, work, list(itertools.pairwise(bounds))), strict=True)
        return [np.concatenate(ys), np.concatenate(gs), *map(sum, shares), *layer.state_dict().values()]

    x, weights = images((n, 2, 3, 4), seed) * 2 + 1, images((n, 2, 3, 4), seed + 1)
    cuts = np.random.default_rng(seed).choice(np.arange(1, n), count - 1, replace=False)
    for parts, whole in zip(computed([0, *sorted(cuts), n]), computed([0, n]), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)


def test_batch_norm_of_one_number_per_channel_is_the_bias():
    layer = nn.BatchNorm2d(2)
    assert layer(Tensor(np.full((1, 2, 1, 1), 7.0))).data.ravel().tolist() == [0, 0]
    np.testing.assert_allclose(layer.running_mean, 0.7, rtol=1e-6)
    np.testing.assert_allclose(layer.running_var, 0.9, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 2, 4), (2, 2)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_refuses_other_shapes_before_it_changes(shape, channels, training):
    layer = nn.BatchNorm2d(channels)
    before = layer.state_dict()
    with layer.mode(training), pytest.raises(ValueError, match=r"BatchNorm2d: .*(number of channels|\(N, C, H, W\))"):
        layer(Tensor(np.ones(shape)))
    np.testing.assert_equal(layer.state_dict(), before)


@given(st.floats(0, 0.95), seeds)
def test_dropout_keeps_the_rest_and_scales_it(p, seed):
    x = np.ones((20, 10, 5, 10))
    y = nn.Dropout(p, seed)(Tensor(x)).data
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-12)
    deviation = math.sqrt(x.size * p * (1 - p))
    assert abs(kept.sum() - x.size * (1 - p)) <= 6 * deviation + 10  # ten for the tail where few are dropped
    assert nn.Dropout(p, seed).eval()(x) is x


@given(seeds, st.integers(1, 3))
def test_dropout_masks_depend_on_seed_and_call_alone(seed, n):
    x = Tensor(images((n, 50)))
    one, other = nn.Dropout(0.5, seed), nn.Dropout(0.5, seed)
    calls = [one(x).data for _ in range(3)]
    other.eval()(x)  # an evaluation is no call
    other.train()
    for expected in calls:
        np.testing.assert_array_equal(other(x).data, expected)
    assert not np.array_equal(calls[0], calls[1])
    assert not np.array_equal(nn.Dropout(0.5, seed + 1)(x).data, calls[0])


def test_dropouts_gradient_has_the_mask_of_its_forward_pass():
    x = Tensor(np.ones((3, 4, 5, 5)))
    y = nn.Dropout(0.3, seed=1)(x)
    (g,) = gradients(ops.sum(y), [x])
    np.testing.assert_array_equal(g, y.data)


@given(st.integers(1, 4), seeds)
def test_dropout_of_a_batch_in_parts_drops_in_each_its_own_and_counts_once(count, seed):
    def calls(layer):
        with ThreadPoolExecutor(count) as pool:
            return [together(pool, lambda part: layer(part).data, [x] * count) for _ in range(3)]

    x = np.ones((2, 5, 4, 4))
    layer, whole = nn.Dropout(0.5, seed), nn.Dropout(0.5, seed)
    masks = np.array(calls(layer))  # (3, count, 2, 5, 4, 4)
    assert layer.calls == 3
    assert len({mask.tobytes() for masks_of_call in masks for mask in masks_of_call}) == 3 * count
    np.testing.assert_array_equal(calls(nn.Dropout(0.5, seed)), masks)
    np.testing.assert_array_equal([whole(x).data for _ in range(3)], masks[:, 0])  # a whole batch is part 0


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, math.nan])
def test_dropout_refuses_what_is_no_probability_below_one(p):
    with pytest.raises(ValueError, match=rf"p must be a probability in \[0, 1\), got {p}"):
        nn.Dropout(p)


def test_normalize_shifts_and_scales_each_channel():
    x = images((2, 3, 4, 4))
    y = nn.Normalize([0.5, 0.25, 0], (1, 0.5, 4))(Tensor(x)).data
    np.testing.assert_array_equal(y, np.stack([x[:, 0] - 0.5, (x[:, 1] - 0.25) * 2, x[:, 2] / 4], axis=1))
    assert list(nn.Normalize(0.1307, 0.3081).state_dict()) == ["mean", "std"]


@pytest.mark.parametrize(("mean", "std"), [
    ([0.5], [0.0]), ([0.5], [-1.0]), ([0.5], [math.nan]), ([0.5, 0.5], [1.0]), (0.5, [1.0, 1.0]),
])
def test_normalize_refuses_unequal_numbers_and_a_std_that_is_not_positive(mean, std):
    with pytest.raises(ValueError, match="mean and std must be equally many, and std positive; got"):
        nn.Normalize(mean, std)


@given(count=st.integers(0, 3), scale=st.sampled_from([0.0, 1e-9, 1e-4, 1.0]), seed=st.integers(0, 99))
def test_standardize_gives_every_image_mean_0_and_std_1_unless_it_is_flat(count, scale, seed):
    x = 0.5 + scale * np.random.default_rng(seed).normal(size=(count, 3, 4, 5))
    y = nn.Standardize()(Tensor(x)).data
    for image, result in zip(x, y, strict=True):
        expected = (image - image.mean()) / max(image.std(), 1 / (255 * math.sqrt(60)))
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    check_vjp(nn.Standardize(), [x], tolerance=1e-5)


@pytest.mark.parametrize("value", [0, 0.3, 1])
def test_a_flat_image_is_standardised_to_zero_in_float16(value):
    x = Tensor(np.full((1, 3, 32, 32), value, np.float16))
    y = nn.Standardize()(x)
    assert not y.data.any()
    assert np.isfinite(gradients((y * images(x.shape).astype(np.float16)).sum(), [x])[0]).all()


@pytest.mark.parametrize("moved", [0, 1 / 255])
def test_a_flat_float32_image_is_standardised_alike_in_every_batch(moved):
    """Its rounding errors would be divided by the floor, and they differ with the order of the sums."""
    x = np.full((25, 3, 32, 32), 0.7, np.float32)
    x[:, 0, 5, 5] += np.float32(moved)
    y = nn.Standardize()(Tensor(arranged(x))).data
    np.testing.assert_allclose(y, nn.Standardize()(Tensor(x[:1].astype(np.float64))).data.repeat(25, 0), atol=1e-4)
    assert moved or not y.any()


def test_integer_images_are_standardised_as_the_same_numbers():
    x = np.arange(48).reshape(1, 3, 4, 4) % 7
    np.testing.assert_array_equal(nn.Standardize()(x).data, nn.Standardize()(x.astype(np.float32)).data)


def test_standardize_refuses_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match=r"Standardize: expected images of shape \(N, C, H, W\)"):
        nn.Standardize()(Tensor(np.zeros((3, 4, 5))))


@pytest.mark.parametrize("layer", [nn.GlobalAvgPool2d(), nn.Standardize()], ids=lambda layer: type(layer).__name__)
def test_the_gradient_of_an_empty_batch_is_empty(layer):
    x = Tensor(np.zeros((0, 3, 4, 5)))
    assert gradients(layer(x).sum(), [x])[0].shape == x.shape


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_adaptive_pooling_takes_a_pair_and_an_axis_at_a_time(oh, ow, h, w):
    x = images((2, 3, h, w))
    both = nn.AdaptiveAvgPool2d((oh, ow))(Tensor(x)).data
    assert both.shape == (2, 3, oh, ow)
    one_by_one = nn.AdaptiveAvgPool2d((oh, ow))(nn.AdaptiveAvgPool2d((h, ow))(Tensor(x))).data
    np.testing.assert_allclose(both, one_by_one, rtol=1e-5, atol=1e-6)


def test_sizes_may_be_numpy_integers_and_at_least_one():
    assert nn.Conv2d(1, 1, np.int64(3))(np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="size must be an integer >= 1"):
        nn.AdaptiveAvgPool2d(0)


@pytest.mark.parametrize("name", ["forward", "train", "layers"])
def test_a_layer_that_would_hide_a_method_of_sequential_is_refused(name):
    with pytest.raises(ValueError, match=f"Sequential: {name} names one of its methods"):
        nn.Sequential(**{name: nn.Flatten()})


def test_a_sequential_gives_its_layers_by_number():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, rng=0), nn.ReLU())
    assert (model[0], model[-1]) == (model.layers[0], model.layers[2])
    assert list(model) == model.layers
    assert model[:2].layers == model.layers[:2]
    named = nn.Sequential(nn.Linear(2, 2, rng=0), relu=nn.ReLU(), last=nn.Linear(2, 2, rng=1))
    assert list(named[:].state_dict()) == list(named.state_dict())
    assert list(named[1:].state_dict()) == ["last.weight", "last.bias"]
    with pytest.raises(IndexError):
        model[3]


def test_only_what_a_sequential_was_given_and_later_modules_are_its_layers():
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), ops.relu, last=ops.tanh)
            self.activation = lambda x: x * 0

    net, x = Net(), images((2, 1, 2, 2))
    assert [name for name, _ in net._named()] == ["0", "1", "last"]
    before = net(x).data
    assert before.any()
    net.more = nn.Linear(4, 3, rng=0)
    net.last = ops.sigmoid
    assert net(x).shape == (2, 3)
    assert len(net[:2].layers) == 2
    net.last = net.more = None  # no layer any more
    assert [name for name, _ in net._named()] == ["0", "1"]


@pytest.mark.parametrize(("make", "name"), [
    (lambda: nn.Linear(0, 3), "in_features"), (lambda: nn.Linear(3, 2.5), "out_features"),
    (lambda: nn.Conv2d(3, 0, 3), "out_channels"), (lambda: nn.Conv2d(1.5, 1, 3), "in_channels"),
])
def test_sizes_that_no_layer_has_are_told_by_name(make, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1"):
        make()


def test_a_slice_of_a_sequential_keeps_the_order_of_its_layers():
    first, second, third = nn.Linear(2, 2, rng=0), nn.Tanh(), nn.Linear(2, 2, rng=1)
    mixed = nn.Sequential(**{"conv": first, "1": second, "end": third})
    assert mixed[:].layers == mixed.layers == [first, second, third]
    assert mixed[::-1].layers == [third, second, first]
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(mixed[:](x).data, mixed(x).data)
    plain = nn.Sequential(first, second, third)
    assert [name for name, _ in plain[1:].named_modules()] == ["", "0", "1"]


@pytest.mark.parametrize("momentum", [None, -0.1, 1.1, "0.1"])
def test_a_momentum_outside_of_0_to_1_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum must be a number in \[0, 1\]"):
        nn.BatchNorm2d(2, momentum=momentum)


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm2d(4.0), lambda: nn.LayerNorm((4, 4)), lambda: nn.LayerNorm(4.0),
                                  lambda: nn.Conv2d(4, 4, 3, groups=2.0), lambda: nn.Conv2d(4, 4, 3, groups="2")])
def test_a_size_that_is_no_integer_is_refused_when_the_layer_is_made(make):
    with pytest.raises(ValueError, match=r"(num_features|normalized_shape|groups) must be an integer >= 1, got"):
        make()


def test_copies_of_batch_norm_count_by_themselves():
    norm = nn.BatchNorm2d(2)
    other = copy.copy(norm)
    norm(np.ones((1, 2, 1, 1), np.float32))
    assert (norm.num_batches_tracked, other.num_batches_tracked) == (1, 0)
    assert isinstance(norm.num_batches_tracked, np.ndarray)
