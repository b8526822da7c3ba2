"""The first error: the closed form on linear networks, wrong there and right before, inf where there is none."""

import re

import numpy as np
import pytest
from attack_cases import cnn, dense, images, on_device
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, analysis, evaluation, nn, ops
from tinyadv.attacks import FGSM


def two_classes(seed, shape=(1, 3, 3)):
    """A linear network with two classes, images that it tells well apart, and their margins."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([-1, 1], (2, 9)) * rng.uniform(0.5, 1, (2, 9))
    weight[1] = -weight[0] * rng.uniform(0.5, 1, 9)
    x = 0.5 + 0.05 * rng.uniform(-1, 1, (4, *shape))
    lead = (x.reshape(4, 9) - 0.5) @ (weight[0] - weight[1])
    bias = np.array([0, -(weight[1] @ np.full(9, 0.5)) + weight[0] @ np.full(9, 0.5)])
    model = lambda images: ops.linear(ops.flatten(images), Tensor(weight), Tensor(bias))  # noqa: E731
    return model, x, lead, weight[0] - weight[1]


@given(seed=seeds, norm=st.sampled_from(["linf", "l2"]))
def test_on_a_linear_network_it_is_the_margin_over_the_dual_norm(seed, norm):
    """Of two classes, whose boundary is a hyperplane: no pixel reaches a bound on the way."""
    model, x, lead, difference = two_classes(seed)
    expected = abs(lead) / np.linalg.norm(difference, ord={"linf": 1, "l2": 2}[norm])
    found = analysis.first_error(model, x, norm)
    assert (found >= expected - 1e-12).all()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@given(seed=seeds, norm=st.sampled_from(["linf", "l2"]), classes=st.integers(2, 5))
@settings(deadline=None)
def test_it_is_wrong_there_and_right_at_every_step_before(seed, norm, classes):
    rng = np.random.default_rng(seed)
    model, x = dense((1, 3, 3), classes, scale=6.0, seed=seed % 1000), rng.random((5, 1, 3, 3), np.float32)
    y, way = rng.integers(0, classes, 5), rng.normal(size=x.shape)
    if norm == "l2":
        way /= np.linalg.norm(way.reshape(5, -1), axis=1).reshape(5, 1, 1, 1)
    else:
        way = np.sign(way)
    found, cells = analysis.first_error(model, x, way, y, cells=20), 20
    farthest = 1.0 if norm == "linf" else 3.0

    def right(k, eps):
        point = (x[k:k + 1] + eps * way[k:k + 1]).clip(0, 1).astype(np.float32)
        return evaluation.predict(model, point)[0] == y[k]

    for k, eps in enumerate(found):
        grid = np.arange(cells + 1) / cells * farthest
        if np.isinf(eps):
            assert all(right(k, step) for step in grid)
        else:
            assert not right(k, eps)
            assert all(right(k, step) for step in grid[grid < eps - farthest / cells * 1e-9])
            assert eps == 0 or right(k, max(0, eps - 1e-4)) or eps - 1e-4 < grid[np.searchsorted(grid, eps) - 1]


def test_a_direction_of_nothing_errs_at_once_or_never():
    model, x = cnn(), images(4)
    y = evaluation.predict(model, x)
    wrong = np.where(np.arange(4) % 2, y, (y + 1) % 5)
    assert analysis.first_error(model, x, np.zeros_like(x), wrong).tolist() == [0, np.inf, 0, np.inf]


def test_it_depends_on_no_shard_and_no_memory(xp):
    model, x = cnn(), images(6)
    found = analysis.first_error(model, x, "linf")
    assert found.shape == (6,)
    assert found.dtype == np.float64
    moved = analysis.first_error(on_device(cnn(), xp), xp.asarray(x), "linf", batch_size=2, workers=2)
    np.testing.assert_allclose(moved, found, atol=2e-4)


@pytest.mark.parametrize(("direction", "options", "message"), [
    (np.zeros((2, 1, 8, 7)), {}, "direction must have the shape of the images, (2, 1, 8, 8), got (2, 1, 8, 7)"),
    ("up", {}, "norm must be"),
    (FGSM(0.1), {}, 'direction must be an array like the images, or "linf" or "l2", got FGSM('),
    (images(2).tolist(), {}, 'direction must be an array like the images, or "linf" or "l2", got ['),
    ("linf", {"cells": 2.5}, "cells must be an integer >= 1, got 2.5"),
    ("linf", {"labels": [0, 99]}, "labels must lie in [0, 5), the classes of the logits; got labels from"),
    ("linf", {"labels": [-1, 0]}, "labels must lie in [0, 5)"),
    (images(2), {"labels": [-1, 0]}, "first_error: labels must lie in [0, 5)"),
    ("linf", {"cells": 0}, "cells must be >= 1 and tolerance > 0, got 0 and 0.0001"),
    ("linf", {"tolerance": 0}, "cells must be >= 1 and tolerance > 0, got 100 and 0"),
])
def test_what_does_not_fit_is_refused(direction, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        analysis.first_error(cnn(), images(2), direction, **options)


@pytest.mark.parametrize("labels", [None, 0])
def test_a_model_of_one_logit_is_told_to_return_two(labels):
    def one(x):
        return ops.flatten(x)[:, :1]

    x = images(2)
    for run in (lambda: analysis.first_error(one, x, x, labels), lambda: analysis.first_error(one, x, "linf", labels),
                lambda: analysis.landscape(one, x, labels, x, x, [0.1]),
                lambda: analysis.fourier_sensitivity(one, x, labels, norm=0.5)):
        with pytest.raises(ValueError, match="a logit for each of two classes or more, got shape"):
            run()


def leaning(slope):
    """Two classes, and the first one up to where the sum of four pixels is 2."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, rng=0))
    model.layers[1].weight.data = np.array([[0] * 4, [slope] * 4], np.float32)
    model.layers[1].bias.data = np.array([0, -2 * slope], np.float32)
    return model


@pytest.mark.parametrize("length", [1e-10, 1e-13, 1e-30])
def test_the_first_error_along_a_tiny_direction_is_found_to_the_last_bit(length):
    x = np.full((1, 1, 2, 2), 0.2)
    (found,) = analysis.first_error(leaning(1.0), x, np.full_like(x, length), tolerance=1e-17)
    np.testing.assert_allclose(found * length, 0.3, rtol=1e-6)


@pytest.mark.parametrize("length", [1e-300, 1e-170, 1e160, 1e300])
def test_directions_whose_squares_are_no_numbers_are_no_others(length):
    x, way = np.full((1, 1, 2, 2), 0.2), np.ones((1, 1, 2, 2))
    expected = analysis.first_error(leaning(1.0), x, way, tolerance=1e-320)
    found = analysis.first_error(leaning(1.0), x, way * length, tolerance=1e-320)
    np.testing.assert_allclose(found * length, expected, rtol=1e-6)


@given(seed=seeds, rows=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
@settings(max_examples=10)
def test_of_a_random_model_the_error_of_an_image_depends_on_no_other_image(seed, rows):
    """A prefix keeps the places of the images, and so their streams; so do labels that end the search of others."""
    model, x = nn.Sequential(nn.GaussianNoise(0.5, at_test=True, seed=0), cnn()), images(6)
    way, y = np.sign(np.random.default_rng(seed).normal(size=x.shape)), evaluation.predict(model, x)
    found = analysis.first_error(model, x, way, y, cells=10)
    np.testing.assert_allclose(analysis.first_error(model, x[:3], way[:3], y[:3], cells=10), found[:3], atol=2e-4)
    wrong = np.isin(np.arange(6), rows)
    other = analysis.first_error(model, x, way, np.where(wrong, (y + 1) % 5, y), cells=10)
    assert (other[wrong] == 0).all()
    np.testing.assert_allclose(other[~wrong], found[~wrong], atol=2e-4)


def test_no_number_is_no_error_and_no_direction():
    x = np.full((2, 1, 2, 2), 0.2)
    assert analysis.first_error(leaning(np.nan), x, np.ones_like(x), [0, 1]).tolist() == [np.inf, np.inf]
    with pytest.raises(ValueError, match="direction must be finite"):
        analysis.first_error(leaning(1.0), x, np.full_like(x, np.nan))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_integer_images_are_refused_by_every_analysis_and_not_cut(dtype):
    model, x = cnn(), (images(2) > 0.5).astype(dtype)
    for run in (lambda: analysis.saliency(model, x), lambda: analysis.guided_saliency(model, x),
                lambda: analysis.grad_cam(model, x), lambda: analysis.first_error(model, x, "linf"),
                lambda: analysis.landscape(model, x, x, x, None, reach=[0, 1]),
                lambda: analysis.fourier_sensitivity(model, x, norm=0.5),
                lambda: analysis.transfer_function(model, [1], 0.1, base=x)):
        with pytest.raises(ValueError, match=f"images must be a floating-point array, got {np.dtype(dtype)}"):
            run()


def test_images_outside_of_the_bounds_are_refused_and_not_cut():
    model, x = cnn(), 255 * images(2)
    for run in (lambda **more: analysis.first_error(model, x, "linf", **more),
                lambda **more: analysis.landscape(model, x, None, x, x, [0, 1], **more),
                lambda **more: analysis.fourier_sensitivity(model, x, norm=0.5, **more)):
        with pytest.raises(ValueError, match=r"images must lie in bounds=.* for grey levels .* give images / "):
            run()
        with pytest.raises(ValueError, match=r"bounds must be a tuple \(low, high\) of numbers with low < high"):
            run(bounds=(1, 0))
        run(bounds=(0.0, 255.0))


def test_a_model_without_numbers_has_no_classes_to_explain():
    x = np.full((2, 1, 2, 2), 0.2)
    with pytest.raises(ValueError, match="the model's logits are NaN at 2 of 2 images, so they have no class"):
        analysis.saliency(leaning(np.nan), x)
