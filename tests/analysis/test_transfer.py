"""The transfer function: the Fourier transform of a kernel, and neither the mean nor the bias."""

import re

import numpy as np
import pytest
from attack_cases import cnn, images, on_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, analysis, models, nn, ops


@given(filters=st.integers(1, 4), channels=st.integers(1, 3), kh=st.integers(1, 5), kw=st.integers(1, 5), seed=seeds,
       amplitude=st.floats(0.01, 0.5))
def test_that_of_a_convolution_is_its_kernels_fourier_transform(filters, channels, kh, kw, seed, amplitude):
    """Without padding all positions are interior."""
    layer = nn.Conv2d(channels, filters, (kh, kw), rng=seed)
    layer.weight.data = np.random.default_rng(seed).normal(size=layer.weight.shape)
    layer.bias.data = np.random.default_rng(seed).normal(size=filters)
    frequencies = [1, 2.5, 6, 13, 14]
    grey = np.full((1, channels, 28, 28), 0.5)
    columns = layer.weight.data.sum(axis=(1, 2))  # (F, kw)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(kw), frequencies) / 28)
    expected = np.sqrt((abs(columns @ waves) ** 2).sum(axis=0))
    found = analysis.transfer_function(layer, frequencies, amplitude, base=grey)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@given(seed=seeds, scale=st.floats(0.1, 0.5), offset=st.floats(-5, 5))
def test_of_a_linear_layer_it_depends_on_no_amplitude_no_bias_and_no_base(seed, scale, offset):
    layer = nn.Conv2d(1, 3, 5, padding=2, rng=seed)
    first = analysis.transfer_function(layer, range(1, 14), scale)
    layer.bias.data = layer.bias.data + np.float32(offset)
    base = np.random.default_rng(seed).random((2, 1, 28, 28), np.float32)
    np.testing.assert_allclose(analysis.transfer_function(layer, range(1, 14), 0.3, base=base), first, rtol=1e-3)


def test_the_highest_frequency_of_the_pixels_is_not_lost():
    gain = analysis.transfer_function(lambda x: 3 * x, [14], 0.5, base=np.full((1, 1, 28, 28), 0.5))
    np.testing.assert_allclose(gain, [3])


def test_what_comes_before_the_layer_counts():
    layer = nn.Conv2d(1, 3, 5, padding=2, rng=0)
    plain, nothing, half = (analysis.transfer_function(layer, [1, 5], 0.4, through) for through in (
        None, lambda x: 0 * x, lambda x: x / 2))
    assert not nothing.any()
    np.testing.assert_allclose(half, plain / 2, rtol=1e-5)


def test_a_model_is_measured_where_it_is_in_evaluation_mode(xp):
    model, base = cnn(), images(4)
    found = analysis.transfer_function(model, [1, 2, 3], 0.2, base=base)
    assert (found > 0).all()
    moved = analysis.transfer_function(on_device(cnn(), xp), [1, 2, 3], 0.2, base=xp.asarray(base))
    np.testing.assert_allclose(moved, found, rtol=1e-4)


def test_a_model_knows_the_shape_of_its_images():
    model = models.LeNet(seed=0, image_shape=(3, 32, 32))
    grey = np.full((1, 3, 32, 32), 0.5, np.float32)
    assert np.array_equal(analysis.transfer_function(model, [3], 0.2),
                          analysis.transfer_function(model, [3], 0.2, base=grey))


@pytest.mark.parametrize("amplitude", [0, -1, 0.6])
def test_an_amplitude_that_leaves_the_image_is_refused(amplitude):
    message = f"amplitude must be above 0 and, on a grey image, at most 0.5; got {amplitude}"
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.transfer_function(ops.relu, [1], amplitude)


@given(sigma=st.floats(0.01, 2), seed=seeds, n=st.integers(1, 3))
def test_noise_alone_changes_no_gain_and_nothing_is_counted(sigma, seed, n):
    noise = nn.GaussianNoise(sigma, at_test=True, seed=seed)
    base = np.random.default_rng(seed).random((n, 1, 6, 6))
    found = analysis.transfer_function(noise, [1, 2.5], 0.3, base=base)
    np.testing.assert_allclose(found, [1, 1])
    assert np.array_equal(analysis.transfer_function(lambda x: x, [1, 2.5], 0.3, noise, base), found)
    assert noise.calls == 0


def test_a_random_model_has_the_same_gains_each_time():
    model, x = nn.Sequential(nn.GaussianNoise(0.3, at_test=True, seed=1), cnn()), images(3)
    first = analysis.transfer_function(model, [1, 2], 0.2, base=x)
    assert np.array_equal(analysis.transfer_function(model, [1, 2], 0.2, base=x), first)


def test_what_comes_before_is_in_evaluation_mode_too_and_stays_as_it_was():
    through = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5, seed=0)).train()
    before, x = through.state_dict(), images(4)
    found = analysis.transfer_function(lambda y: 2 * y, [1, 3], 0.2, through, x)
    np.testing.assert_allclose(found, [2, 2], rtol=1e-4)
    np.testing.assert_equal(through.state_dict(), before)
    assert through.training


@pytest.mark.parametrize(("frequencies", "base", "message"), [
    (1, images(2), "frequencies must be a list of cycles per image, such as [1, 2, 3], got 1"),
    ([1], images(2)[0], "base must be (N, C, H, W), with N >= 1, got shape (1, 8, 8)"),
    ([1], images(0), "base must be (N, C, H, W), with N >= 1, got shape (0, 1, 8, 8)"),
    ([1], images(2).tolist(), "images must be a floating-point array, got list: give np.array(images, np.float32)"),
    ([1], Tensor(images(2)), "images must be a floating-point array, got Tensor: give images.numpy()"),
])
def test_what_is_no_list_of_frequencies_and_no_images_is_refused(frequencies, base, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.transfer_function(cnn(), frequencies, 0.1, base=base)
