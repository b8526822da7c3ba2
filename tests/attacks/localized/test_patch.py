"""Patches: one rectangle and no more, at every place; and the universal patch."""

import numpy as np
import pytest
from attack_cases import cnn, dense, images, labels, predictions, shown
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds, sizes

from tinyadv import ops
from tinyadv.attacks import Patch, paste, universal_patch
from tinyadv.attacks.base.window import pasted, window
from tinyadv.backend import to_host
from tinyadv.random import Streams

places = st.sampled_from(["random", "all"])


def box(changed):
    """(top, left, height, width) of the smallest rectangle around the changed pixels (C, H, W), all channels together.
    """
    rows, columns = (np.flatnonzero(changed.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


@given(seed=seeds, size=sizes(1, 4), image=sizes(1, 6), channels=st.integers(1, 3), where=places,
       dtype=st.sampled_from([np.float32, np.float64]), bounds=st.sampled_from([(0, 1), (-1.0, 1.0), (0.1, 0.7)]))
def test_nothing_changes_outside_of_one_rectangle(seed, size, image, channels, where, dtype, bounds):
    """Neither in the result nor in any point on the way; and the same rectangle is free in all channels."""
    low, high = bounds
    x = np.clip(low + (high - low) * images(4, (channels, *image), dtype, seed), np.nextafter(dtype(low), dtype(1)),
                np.nextafter(dtype(high), dtype(0)))
    attack = Patch(size, steps=2, places=where, bounds=bounds)
    model, y, points = dense(x.shape[1:], 3, dtype, seed=seed), labels(4, 3, seed), []
    found = attack(model, x, y, seed=seed, callback=lambda step: points.extend(
        zip(step.points, x[step.examples], strict=True)))
    for point, clean in [*points, *zip(found, x, strict=True)]:
        changed = point != clean
        if changed.any():
            *_, height, width = box(changed)
            assert height <= size[0]
            assert width <= size[1]
            assert low <= float(point.min())
            assert float(point.max()) <= high


def test_every_place_is_reached_the_last_row_and_column_included():
    x = np.full((300, 1, 6, 5), 0.5)
    start = shown(Patch((2, 3), steps=1), dense((1, 6, 5), 3, np.float64), x, labels(300, 3))[0]
    corners = {box(point != clean)[:2] for point, clean in zip(start, x, strict=True)}
    assert corners == {(row, column) for row in range(5) for column in range(3)}


def test_all_values_are_allowed_and_found():
    """Where the logits are linear, each pixel of the patch ends at the bound that its weight points to."""
    weight = np.random.default_rng(0).normal(size=(2, 20))
    x, y = images(9, (1, 4, 5), np.float64), np.zeros(9, int)
    found = Patch((2, 2), steps=8)(lambda x: ops.linear(ops.flatten(x), weight), x, y)
    uphill = ((weight[1] - weight[0]) > 0).reshape(1, 4, 5).astype(float)
    for point, clean in zip(found, x, strict=True):
        top, left, height, width = box(point != clean)
        inside = np.s_[:, top:top + height, left:left + width]
        assert (height, width) == (2, 2)
        np.testing.assert_array_equal(point[inside], uphill[inside])


@given(seed=seeds, restarts=st.integers(1, 3), size=sizes(1, 3))
def test_all_places_are_never_weaker_than_random_ones(seed, restarts, size):
    """And what a random place breaks is broken in the same way."""
    model, x = dense((1, 6, 6), 4, scale=3, seed=seed), images(12, (1, 6, 6), seed=seed)
    y = predictions(model, x)
    chance, every = (Patch(size, steps=3, restarts=restarts, places=where).run(model, x, y, seed=seed)
                     for where in ("random", "all"))
    assert (every.success >= chance.success).all()
    if restarts == 1:
        assert every.x_adv[chance.success].tobytes() == chance.x_adv[chance.success].tobytes()


@given(seed=seeds, row=st.integers(0, 6), column=st.integers(0, 5))
def test_all_places_find_the_one_that_matters(seed, row, column):
    """Class 1 needs four bright pixels side by side, and each image has some dark ones there."""
    x, y = images(5, (1, 8, 7), seed=seed) * 0.2, np.zeros(5, int)
    inside = np.s_[:, :, row:row + 2, column:column + 2]

    def model(x):
        z = ops.mean(x[inside], axis=(1, 2, 3)) - 0.9
        return ops.reshape(z, (-1, 1)) * np.array([[0, 1]], x.dtype)

    result = Patch((2, 2), steps=5, places="all").run(model, x, y, seed=seed)
    assert result.success.all()
    assert result.forwards.max() <= 42 + 2 * (5 + 1) + 2  # a query for each place, two climbs, and the result


@given(seed=seeds, row=st.integers(0, 4), column=st.integers(0, 3))
def test_a_patch_may_have_one_place(seed, row, column):
    model, x, y = dense((2, 6, 6), 4, seed=seed), images(5, (2, 6, 6), seed=seed), labels(5, 4)
    found = Patch((2, 3), steps=3, places=(row, column), restarts=2).run(model, x, y, seed=seed).x_adv
    outside = np.ones((6, 6), bool)
    outside[row:row + 2, column:column + 3] = False
    np.testing.assert_array_equal(found[..., outside], x[..., outside])
    assert (found[..., ~outside] != x[..., ~outside]).mean() > 0.9


def test_a_place_where_the_patch_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"places must be below \(5, 4\), where the patch fits, got \(0, 4\)"):
        Patch((2, 3), places=(0, 4)).run(dense((2, 6, 6), 4), images(5, (2, 6, 6)), labels(5, 4))


def test_a_patch_as_large_as_the_image_replaces_it_and_a_larger_one_is_cut():
    model, x = cnn(), images(9)
    y = predictions(model, x)
    whole, larger = (Patch(size, steps=4)(model, x, y) for size in ((8, 8), (9, 100)))
    assert whole.tobytes() == larger.tobytes()
    assert ((whole == x).mean(axis=(1, 2, 3)) < 0.1).all()


@pytest.mark.parametrize(("message", "change"), [
    (r"size must be \(height, width\) in pixels.* got 5", {"size": 5}),
    (r"size must be an integer >= 1, got 0", {"size": (2, 0)}),
    (r"size must be an integer >= 1, got 2.5", {"size": (2.5, 2)}),
    ("step_size must be a number above 0, or None .*got 0", {"step_size": 0}),
    ("step_size must be a number above 0, or None .*got inf", {"step_size": np.inf}),
    ("places must be an integer >= 0, got -1", {"places": (0, -1)}),
    ('places must be "random" or "all", or a pixel .row, column., got \'every\'', {"places": "every"}),
])
def test_a_wrong_parameter_is_refused_by_name(message, change):
    with pytest.raises(ValueError, match=message):
        Patch(**change)


# One patch for all images


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_infinite_slopes_leave_the_universal_patch_finite():
    """Those of a square root at black pixels, whose sum over several images has infinities of both signs."""
    x = images(9, (1, 5, 5)) * (images(9, (1, 5, 5), seed=1) > 0.5)
    weight = np.random.default_rng(0).normal(size=(3, 25)).astype(np.float32)
    patch = universal_patch(lambda x: ops.linear(ops.flatten(x**0.5), weight), x, labels(9, 3), size=(3, 3), steps=5)
    assert np.isfinite(patch).all()


@given(seed=seeds, size=sizes(1, 3), image=sizes(3, 6), channels=st.integers(1, 3))
def test_a_pasted_patch_is_there_and_nothing_else_has_changed(seed, size, image, channels):
    x, patch = images(5, (channels, *image), seed=seed), 2 + images(1, (channels, *size), seed=seed)[0]
    found = paste(x, patch, seed=seed)
    for point, clean in zip(found, x, strict=True):
        top, left, *sides = box(point != clean)
        assert tuple(sides) == size
        np.testing.assert_array_equal(point[:, top:top + sides[0], left:left + sides[1]], patch)
    assert found[:2].tobytes() == paste(x[:2], patch, seed=seed).tobytes()


def test_the_windows_are_those_of_every_library(xp):
    x = xp.asarray(images(4, (2, 5, 6)))
    corners = xp.asarray(np.random.default_rng(0).random((4, 2)))
    there = window(corners, (2, 3), x.shape)
    found = pasted(x, xp.asarray(np.ones((4, 2, 2, 3), np.float32)), there)
    assert to_host((found == 1).sum()) == 4 * 2 * 2 * 3
    assert type(found) is type(x)


def signs(x):
    """A model whose class 1 has a bright first channel and a dark second one."""
    z = ops.sum(x * np.array([1, -1], x.dtype).reshape(2, 1, 1), axis=(1, 2, 3)) - 6.0
    return ops.reshape(z, (-1, 1)) * np.array([[0, 1]], x.dtype)


@pytest.mark.parametrize("target", [None, 1])
def test_the_universal_patch_is_what_the_model_looks_for(target):
    x, y = 0.3 * images(40, (2, 9, 9)), np.zeros(40, int)
    options = {"target": target, "size": (3, 3), "steps": 12, "batch_size": 20, "seed": 3}
    patch = universal_patch(signs, x, y, **options)
    np.testing.assert_array_equal(patch, np.broadcast_to([[[1]], [[0]]], (2, 3, 3)))
    assert (predictions(signs, x) == 0).mean() > 0.9
    assert (predictions(signs, paste(x, patch)) == 1).mean() > 0.9
    assert universal_patch(signs, x, y, **options).tobytes() == patch.tobytes()


@pytest.mark.parametrize(("message", "call"), [
    (r"patch must be \(C, h, w\) and fit", lambda x: paste(x, np.zeros((1, 9, 2)))),
    (r"patch must be \(C, h, w\) and fit", lambda x: paste(x, np.zeros((3, 2, 2)))),
    (r"patch must be \(C, h, w\) and fit", lambda x: universal_patch(cnn(), x, labels(4), size=(2, 9))),
    ("size must be", lambda x: universal_patch(cnn(), x, labels(4), size=3)),
    ("steps must be an integer >= 1, got 0", lambda x: universal_patch(cnn(), x, labels(4), steps=0)),
    ("y must be integer classes", lambda x: universal_patch(cnn(), x, labels(3))),
])
def test_what_does_not_fit_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call(images(4))


@pytest.mark.parametrize("bounds", [(0.0, 0.6), (0.1, 0.7)])
def test_a_universal_patch_lies_within_the_bounds_in_float64(bounds):
    x = np.full((6, 2, 5, 6), 0.4, np.float32)
    patch = universal_patch(signs, x, np.zeros(6, int), size=(2, 2), steps=8, step_size=np.float64(0.5), bounds=bounds)
    assert patch.dtype == np.float32
    assert bounds[0] <= patch.astype(np.float64).min()
    assert patch.astype(np.float64).max() <= bounds[1]


@pytest.mark.parametrize(("message", "change"), [
    ("step_size must be a number above 0, got nan", {"step_size": np.nan}),
    ("step_size must be a number above 0, got 'a'", {"step_size": "a"}),
    ("x must be a floating-point array .* got NoneType", {"x": None}),
    (r"x must have images to learn from, got shape \(0, 2, 5, 6\)", {"x": images(0, (2, 5, 6)), "y": np.zeros(0, int)}),
])
def test_a_universal_patch_is_not_learnt_from_wrong_arguments(message, change):
    with pytest.raises(ValueError, match=message):
        universal_patch(signs, **{"x": images(6, (2, 5, 6)), "y": np.zeros(6, int)} | change)


def test_a_universal_patch_is_not_learnt_from_one_logit():
    with pytest.raises(ValueError, match="a logit for each of two classes or more, got shape"):
        universal_patch(lambda x: ops.flatten(x)[:, :1], images(4), np.zeros(4, int))


@pytest.mark.parametrize("factor", [np.nan, 0])
def test_a_universal_patch_that_no_gradient_led_is_warned_of(factor):
    with pytest.warns(UserWarning, match="the patch is grey, as the cross entropy's gradient was 0 or NaN at all"):
        patch = universal_patch(lambda x: signs(x) * factor, images(6, (2, 5, 6)), np.zeros(6, int), steps=3)
    assert (patch == 0.5).all()


@pytest.mark.parametrize(("message", "x", "patch", "seed"), [
    ("images must be a floating-point array, got uint8", np.zeros((6, 1, 4, 4), np.uint8), np.ones((1, 2, 2)), 0),
    ("patch must be an array of finite numbers, got 'grey'", images(6, (1, 4, 4)), "grey", 0),
    ("Streams of 6 examples", images(6, (1, 4, 4)), np.ones((1, 2, 2), np.float32), Streams(0, range(1))),
    ("patch must be an array of finite numbers", images(6, (1, 4, 4)), np.full((1, 2, 2), np.nan, np.float32), 0),
])
def test_what_cannot_be_pasted_is_refused(message, x, patch, seed):
    with pytest.raises(ValueError, match=message):
        paste(x, patch, seed=seed)
