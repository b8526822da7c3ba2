"""Figures of fields: maps side by side on one scale."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import plots


@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(2, 5), st.integers(2, 5)), count=st.integers(1, 3), seed=st.integers(0, 99))
def test_surfaces_lie_side_by_side_on_one_scale_of_colours(shape, count, seed):
    rng = np.random.default_rng(seed)
    heights = {str(k): rng.random(shape) * (k + 1) for k in range(count)}
    x, y = np.arange(shape[1]), np.arange(shape[0])
    *places, bar = plots.surfaces(heights, x, y, xlabel="a", ylabel="b", title="pets").axes
    assert [axes.get_title() for axes in places] == list(heights)
    assert [axes.get_ylabel() for axes in places] == ["b"] + [""] * (count - 1)
    extremes = np.min(list(heights.values())), np.max(list(heights.values()))
    for axes in places:
        filled = axes.collections[0]
        assert (filled.levels[0], filled.levels[-1]) == pytest.approx(extremes)
        assert (*axes.get_xlim(), *axes.get_ylim()) == (0, shape[1] - 1, 0, shape[0] - 1)
    assert bar.get_ylim() == pytest.approx(extremes)


def test_a_flat_surface_is_drawn():
    plots.surfaces({"flat": np.ones((2, 2))}, [0, 1], [0, 1], xlabel="", ylabel="").draw_without_rendering()


def test_surfaces_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=re.escape("(2, 3), 2 x 2 or larger, at least one, got {'a': (3, 2)}")):
        plots.surfaces({"a": np.ones((3, 2))}, [0, 1, 2], [0, 1], xlabel="", ylabel="")


@settings(max_examples=10, deadline=None)
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 5)), count=st.integers(1, 3), signed=st.booleans(),
       seed=st.integers(0, 99))
def test_heatmaps_have_one_scale_and_zero_in_the_middle(shape, count, signed, seed):
    rng = np.random.default_rng(seed)
    values = {str(k): rng.normal(size=shape) for k in range(count)}
    *places, bar = plots.heatmaps(values, xlabel="a", ylabel="b", label="log", signed=signed, title="pets").axes
    every = np.array(list(values.values()))
    low, high = (-abs(every).max(), abs(every).max()) if signed else (every.min(), every.max())
    for axes, (name, each) in zip(places, values.items(), strict=True):
        image = axes.images[0]
        assert image.get_clim() == (low, high if high > low else low + 1)  # a flat map has a scale, too
        assert np.array_equal(image.get_array(), each)
        left, right, bottom, top = image.get_extent()
        assert (right - left, bottom - top) == shape[::-1]
        assert (-left - 0.5, -top - 0.5) == (shape[1] // 2, shape[0] // 2)
        assert (axes.get_title(), axes.get_xlabel()) == (name, "a")
    assert bar.get_ylabel() == "log"


@pytest.mark.parametrize(("signed", "scale"), [(False, (-1, 0)), (True, (-1, 1))])
def test_heatmaps_of_which_the_largest_value_is_zero(signed, scale):
    first, *_ = plots.heatmaps({"a": [[-1, 0], [-0.5, -0.2]]}, xlabel="", ylabel="", label="", signed=signed).axes
    assert first.images[0].get_clim() == scale


def test_heatmaps_of_nothing_are_refused():
    with pytest.raises(ValueError, match=re.escape("arrays (H, W), at least one, got {'a': (3,)}")):
        plots.heatmaps({"a": np.ones(3)}, xlabel="", ylabel="", label="")


def test_flat_fields_are_drawn_and_what_cannot_be_is_refused():
    almost = np.ones((3, 3), np.float32)
    almost[0, 0] = np.nextafter(np.float32(1), np.float32(2))
    for each in (almost, np.full((3, 3), 1e8, np.float32), np.zeros((3, 3))):
        plots.surfaces({"flat": each}, range(3), range(3), xlabel="x", ylabel="y")
    for wrong in (np.full((3, 3), np.nan), np.full((3, 3), np.inf)):
        with pytest.raises(ValueError, match="heights must hold finite arrays"):
            plots.surfaces({"flat": wrong}, range(3), range(3), xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="2 x 2 or larger"):
        plots.surfaces({"point": np.zeros((1, 1))}, [0], [0], xlabel="x", ylabel="y")


def test_signed_zeros_lie_in_the_middle_of_the_colours():
    figure = plots.heatmaps({"zeros": np.zeros((2, 2))}, xlabel="x", ylabel="y", label="z", signed=True)
    assert figure.axes[0].images[0].get_clim() == (-1, 1)


def test_heatmaps_are_of_finite_numbers():
    with pytest.raises(ValueError, match="values must hold finite arrays"):
        plots.heatmaps({"a": np.array([[0.0, np.nan]]), "b": np.ones((2, 2))}, xlabel="x", ylabel="y", label="l")


@settings(max_examples=10, deadline=None)
@given(low=st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.25, 2.3, 1000.0]), span=st.floats(-3, 3))
def test_the_numbers_beside_the_colours_are_those_of_the_levels(low, span):
    high = low + max(10 ** span, 1e-6 * abs(low))
    figure = plots.surfaces({"a": np.array([[low, high], [low, low]])}, [0, 1], [0, 1], xlabel="", ylabel="")
    figure.draw_without_rendering()
    axis = figure.axes[-1].yaxis
    factor = float(axis.get_offset_text().get_text().replace("\N{MINUS SIGN}", "-") or 1)
    written = [factor * float(label.get_text().replace("\N{MINUS SIGN}", "-")) for label in axis.get_ticklabels()]
    np.testing.assert_allclose(written, np.linspace(low, high, 6), atol=0.01 * (high - low))
