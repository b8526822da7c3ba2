"""Spectra: Parseval, single waves, rings; and the sensitivity map on networks that see one wave alone."""

import re

import numpy as np
import pytest
from attack_cases import cnn, images, on_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import analysis, evaluation, ops
from tinyadv.analysis.spectra import wave

sides = st.integers(1, 9)


@given(h=sides, w=sides, seed=seeds)
def test_parseval(h, w, seed):
    noise = np.random.default_rng(seed).normal(size=(1, 1, h, w))
    energy = np.expm1(analysis.noise_spectrum(noise)) ** 2
    np.testing.assert_allclose(energy.sum(), h * w * ((noise - noise.mean()) ** 2).sum(), rtol=1e-9, atol=1e-12)
    assert abs(energy[h // 2, w // 2]) < 1e-18


@given(h=sides, w=sides, n=st.integers(1, 3), channels=st.integers(1, 3), seed=seeds)
def test_a_spectrum_is_the_mean_over_images_and_channels_and_knows_no_constant(h, w, n, channels, seed):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, channels, h, w))
    each = [analysis.noise_spectrum(channel[None, None]) for image in noise for channel in image]
    np.testing.assert_allclose(analysis.noise_spectrum(noise), np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_allclose(analysis.noise_spectrum(noise + rng.random()), np.mean(each, axis=0), atol=1e-9)


@given(h=sides, w=sides, data=st.data())
def test_a_wave_is_in_its_place_and_in_that_of_its_mirror(h, w, data):
    i, j = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    cosine = wave(h, w, i, j)
    np.testing.assert_allclose(np.linalg.norm(cosine), 1)
    found = np.argwhere(np.fft.ifftshift(analysis.noise_spectrum(cosine[None, None])) > 1e-6).tolist()
    expected = sorted({(i, j), (-i % h, -j % w)} - {(0, 0)})  # the constant is no noise
    assert found == [list(place) for place in expected]


@given(h=sides, w=sides, seed=seeds)
def test_a_radial_mean_is_that_of_each_ring(h, w, seed):
    spectrum = np.random.default_rng(seed).random((h, w))
    rings = {}
    for i, j in np.ndindex(h, w):
        rings.setdefault(round(float(np.hypot(i - h // 2, j - w // 2))), []).append(spectrum[i, j])
    expected = [np.mean(rings.get(r, [0])) for r in range(max(rings) + 1)]
    np.testing.assert_allclose(analysis.radial_mean(spectrum), expected)


def seeing(i, j):
    """A network with two classes that sees the amplitude of one wave alone: class 1 if it is large."""
    def model(x):
        seen = (x * wave(*x.shape[2:], i, j).astype(x.dtype)).sum(axis=(1, 2, 3))
        return ops.concatenate([ops.reshape(0 * seen + 0.5, (-1, 1)), ops.reshape(seen * seen, (-1, 1))], axis=1)
    return model


@given(size=st.integers(2, 6), data=st.data())
def test_a_network_that_sees_one_wave_is_sensitive_to_it_alone(size, data):
    i, j = data.draw(st.tuples(*2 * [st.integers(0, size - 1)]).filter(any))
    grey = np.full((3, 1, size, size), 0.5)
    found = analysis.fourier_sensitivity(seeing(i, j), grey, [0, 0, 0], norm=0.9, bounds=(-9.0, 9.0))
    expected = np.zeros((size, size))
    expected[[i, -i], [j, -j]] = 1
    assert np.array_equal(np.fft.ifftshift(found), expected)


def test_sensitivity_without_a_wave_is_the_error_and_depends_on_no_shard(xp):
    model, x, y = cnn(), images(6), np.zeros(6, int)
    error = (evaluation.predict(model, x) != y).mean()
    assert (analysis.fourier_sensitivity(model, x, y, norm=0) == error).all()
    assert not analysis.fourier_sensitivity(model, x, norm=0).any()
    found = analysis.fourier_sensitivity(model, x, y, norm=3.0, seed=1)
    assert found.shape == (8, 8)
    moved = analysis.fourier_sensitivity(on_device(cnn(), xp), xp.asarray(x), y, norm=3.0, seed=1, batch_size=2)
    assert np.array_equal(moved, found)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4)])
def test_a_spectrum_of_what_is_no_noise_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"noise must be (N, C, H, W), with N >= 1, got shape {shape}")):
        analysis.noise_spectrum(np.zeros(shape))


@pytest.mark.parametrize("labels", [99, -1, [0, 5]])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match=r"fourier_sensitivity: labels must lie in \[0, 5\)"):
        analysis.fourier_sensitivity(cnn(), images(2), labels, norm=0.1)


@pytest.mark.parametrize("norm", [np.nan, np.inf, -1, "l2"])
def test_a_norm_that_is_no_length_is_refused(norm):
    with pytest.raises(ValueError, match=f"norm must be a number >= 0, got {norm!r}"):
        analysis.fourier_sensitivity(cnn(), images(2), norm=norm)


@pytest.mark.parametrize(("run", "message"), [
    (lambda: analysis.fourier_sensitivity(cnn(), images(0), norm=1), "images must be (N, C, H, W), with N >= 1"),
    (lambda: analysis.fourier_sensitivity(lambda x: x, images(2).reshape(2, -1), norm=1),
     "images must be (N, C, H, W), with N >= 1, got shape (2, 64)"),
    (lambda: analysis.noise_spectrum([[[[1.0]]]]), "noise must be an array, got list: give np.array(noise"),
    (lambda: analysis.radial_mean([[1.0]]), "spectrum must be an array, got list: give np.array(spectrum, np.float32)"),
    (lambda: analysis.radial_mean(np.ones((1, 2, 2))), "spectrum must be (H, W), as that of noise_spectrum, got shape"),
])
def test_what_is_no_array_of_that_shape_is_refused(run, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run()


def test_the_rings_of_an_array_on_a_device_are_those_of_the_host(xp):
    spectrum = np.random.default_rng(0).random((5, 6))
    assert np.array_equal(analysis.radial_mean(xp.asarray(spectrum)), analysis.radial_mean(spectrum))
