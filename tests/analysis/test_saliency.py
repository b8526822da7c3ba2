"""Saliency maps: exact on linear networks and on global average pooling, the same in any memory and any shards."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attack_cases import cnn, images, on_device
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, analysis, driver, gradients, models, nn, ops

MAPS = [analysis.saliency, analysis.guided_saliency, analysis.grad_cam]
every_map = pytest.mark.parametrize("maps", MAPS, ids=lambda function: function.__name__)


def linear(shape, classes, seed):
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes, rng=seed))
    return model, model.layers[1].weight.data.reshape(classes, *shape)


@given(channels=st.integers(1, 3), h=st.integers(1, 5), w=st.integers(1, 5), n=st.integers(1, 4), seed=seeds)
def test_the_saliency_of_a_linear_network_is_its_weight_row(channels, h, w, n, seed):
    model, weight = linear((channels, h, w), 4, seed)
    x = images(n, (channels, h, w))
    classes = np.random.default_rng(seed).integers(0, 4, n)
    for function in (analysis.saliency, analysis.guided_saliency):
        assert np.array_equal(function(model, x, classes), abs(weight[classes]).max(axis=1))
        predicted = driver.logits(model, x).argmax(axis=1)
        assert np.array_equal(function(model, x), abs(weight[predicted]).max(axis=1))
        assert np.array_equal(function(model, x, 3), np.repeat(abs(weight[3:4]).max(axis=1), n, axis=0))


@given(n=st.integers(1, 3), h=st.integers(1, 6), w=st.integers(1, 6), size=st.sampled_from([6, 9]), seed=seeds)
@settings(deadline=None)
def test_grad_cam_is_cam_where_a_linear_layer_follows_global_average_pooling(n, h, w, size, seed):
    """CAM (Zhou et al. 2016, arXiv:1512.04150): the row of the class in the last layer weighs the maps."""
    conv = nn.Conv2d(2, 5, 3, padding=1, rng=seed)
    last = nn.Linear(5, 4, rng=seed + 1)
    model = nn.Sequential(conv, nn.ReLU(), nn.GlobalAvgPool2d(), last)
    x, classes = images(n, (2, h, w), seed=size), np.random.default_rng(seed).integers(0, 4, n)
    seen = ops.relu(conv(Tensor(x))).numpy()
    cam = (last.weight.data[classes][:, :, None, None] * seen).sum(axis=1).clip(0)
    highest = cam.max(axis=(1, 2), keepdims=True)
    expected = cam / np.where(highest > 0, highest, 1)
    for layer in ("1", None) if h * w > 1 else ("1",):
        np.testing.assert_allclose(analysis.grad_cam(model, x, classes, layer), expected, atol=1e-5)


def test_grad_cam_is_cam_on_the_mnist_resnet():
    model, x = models.MnistResNet(seed=1), images(3, (1, 28, 28))
    seen = []
    with nn.module.watching(lambda module, y: seen.append(y.numpy()) if module is model.layers[5] else None):
        predicted = driver.forward(model.eval(), x).argmax(axis=1)
    cam = np.einsum("nk,nkhw->nhw", model.layers[7].weight.data[predicted], seen[0]).clip(0)  # (3, 9, 9)
    found = analysis.grad_cam(model, x)
    shares = np.clip(1 - abs((np.arange(28) + 0.5) * 9 / 28 - 0.5 - np.arange(9)[:, None]), 0, 1).T  # by hand: bilinear
    shares /= shares.sum(axis=1, keepdims=True)  # at the border, the nearest
    enlarged = shares @ cam @ shares.T
    np.testing.assert_allclose(found, enlarged / enlarged.max(axis=(1, 2), keepdims=True), atol=1e-5)


@given(n=st.integers(1, 9), m=st.integers(1, 12))
def test_enlarging_keeps_constants_and_a_slope_in_the_interior(n, m):
    shares = analysis.saliency.__globals__["_bilinear"](n, m)
    assert shares.shape == (m, n)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    places = (np.arange(m) + 0.5) * n / m - 0.5
    np.testing.assert_allclose(shares @ np.arange(n), places.clip(0, n - 1), atol=1e-12)


@given(n=st.integers(1, 4), seed=seeds)
def test_a_guided_relu_passes_back_what_is_positive_both_ways(n, seed):
    x, g = np.random.default_rng(seed).integers(-2, 3, (2, n, 5)).astype(float)
    with ops.elementwise.guided.within(True):
        y = ops.relu(point := Tensor(x))
    assert np.array_equal(y.data, x.clip(0))
    assert np.array_equal(gradients((y * g).sum(), [point])[0], np.where((x > 0) & (g > 0), g, 0))
    y = ops.relu(point)
    assert np.array_equal(gradients((y * g).sum(), [point])[0], np.where(x > 0, g, 0))


def test_a_guided_map_is_that_of_guided_relus_and_leaves_other_threads_alone():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 6, rng=0), nn.ReLU(), nn.Linear(6, 3, rng=1)), images(
        8, (1, 3, 3))
    plain = analysis.saliency(model, x, 1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: MAPS[k % 2](model, x, 1), range(12)))
    for k, each in enumerate(found):
        assert np.array_equal(each, found[1] if k % 2 else plain)
    first, last = (layer.weight.data for layer in (model.layers[1], model.layers[3]))
    before = x.reshape(8, 9) @ first.T + model.layers[1].bias.data
    slopes = (np.where(before > 0, last[1].clip(0), 0) @ first).reshape(8, 3, 3)
    np.testing.assert_allclose(found[1], abs(slopes), rtol=1e-5)
    assert not np.allclose(found[1], plain)


@every_map
def test_maps_depend_on_no_shard_and_leave_the_model_alone(maps):
    model, x = cnn(), images(7)
    before, flags = model.state_dict(), [module.training for _, module in model.named_modules()]
    found = maps(model, x, workers=1)
    assert found.shape == (7, 8, 8)
    assert found.dtype == np.float32
    np.testing.assert_allclose(maps(model, x, batch_size=2, workers=2), found, rtol=1e-5, atol=1e-6)
    np.testing.assert_equal(model.state_dict(), before)
    assert [module.training for _, module in model.named_modules()] == flags
    assert maps(model, x[:0]).shape == (0, 8, 8)


@every_map
def test_a_map_changes_with_the_weights_of_the_last_layer(maps):
    """A map that does not depend on the trained weights shows the image alone (Adebayo et al. 2018)."""
    model, x = cnn(), images(4)
    before = maps(model, x, 0)
    model.layers[-1].weight.data = np.random.default_rng(9).normal(size=(5, 64)).astype(np.float32)
    assert np.corrcoef(before.ravel(), maps(model, x, 0).ravel())[0, 1] < 0.95


@every_map
def test_maps_are_made_where_the_model_is(maps, xp):
    model, x = cnn(), images(3)
    expected = maps(model, x, 2)
    found = maps(on_device(cnn(), xp), xp.asarray(x), 2)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_map_of_nothing_is_zero():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=0), nn.Flatten(), nn.Linear(8, 3, rng=0))
    model.layers[2].weight.data = np.zeros((3, 8), np.float32)
    assert not analysis.grad_cam(model, images(2, (1, 4, 4))).any()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"classes": 5}, r"labels must lie in [0, 5)"),
    ({"classes": -1}, r"labels must lie in [0, 5)"),
    ({"classes": [0]}, "classes must be integer classes of shape (2,)"),
])
@every_map
def test_classes_that_do_not_fit_are_refused(maps, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        maps(cnn(), images(2), **arguments)


@pytest.mark.parametrize(("layer", "message"), [
    ("conv", "layer must be a name from model.named_modules(), , 0, 1, 2, 3, 4, 5, 6, 7; got 'conv'"),
    ("5", "layer must give maps (N, K, h, w) on the way to the logits, got shape (1, 64)"),
])
def test_a_layer_without_maps_is_refused(layer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.grad_cam(cnn(), images(2), layer=layer)


def test_grad_cam_needs_layers_with_names():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, whose layers have names, got function"):
        analysis.grad_cam(lambda x: ops.flatten(x), images(2))
    with pytest.raises(ValueError, match="got no such output"):
        analysis.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images(2))


@given(seed=seeds, channels=st.integers(1, 3))
def test_the_correlation_is_pearsons(seed, channels):
    rng = np.random.default_rng(seed)
    noise, maps = rng.normal(size=(3, channels, 4, 5)), rng.random((3, 4, 5))
    expected = [np.corrcoef(abs(a).max(axis=0).ravel(), b.ravel())[0, 1] for a, b in zip(noise, maps, strict=True)]
    np.testing.assert_allclose(analysis.correlation(noise, maps), expected, atol=1e-12)
    assert analysis.correlation(np.ones_like(noise), maps).tolist() == [0, 0, 0]


def test_the_correlation_of_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=re.escape("to match noise of shape (2, 1, 4, 4); got (2, 1, 4, 4)")):
        analysis.correlation(np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)))


def test_constants_correlate_with_nothing_however_their_mean_rounds():
    assert analysis.correlation(np.full((1, 1, 7, 7), 0.1), np.full((1, 7, 7), 0.1)).tolist() == [0]


@given(seed=seeds, power=st.integers(-1000, 1000))
def test_the_correlation_depends_on_no_scale(seed, power):
    rng = np.random.default_rng(seed)
    noise, maps = rng.normal(size=(3, 2, 4, 5)), rng.random((3, 4, 5))
    expected = analysis.correlation(noise, maps)
    for a, b in ((np.ldexp(noise, power), maps), (noise, np.ldexp(maps, power))):
        np.testing.assert_array_equal(analysis.correlation(a, b), expected)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_the_correlation_with_no_number_is_no_number(spoilt):
    noise, maps = np.random.default_rng(0).normal(size=(2, 3, 1, 4, 4)), np.random.default_rng(1).random((3, 4, 4))
    noise, other = noise[0], maps.copy()
    noise[0, 0, 1, 2], other[1, 3, 3] = spoilt, spoilt
    assert np.isnan(analysis.correlation(noise, other)).tolist() == [True, True, False]


def test_the_correlation_of_what_is_no_array_is_refused():
    with pytest.raises(ValueError, match=re.escape("maps must be an array, got list: give np.array(maps, np.float32)")):
        analysis.correlation(np.zeros((2, 1, 4, 4)), [[1.0]])
    with pytest.raises(ValueError, match=re.escape("noise must be an array, got Tensor: give noise.numpy()")):
        analysis.correlation(Tensor(np.zeros((2, 1, 4, 4))), np.zeros((2, 4, 4)))
