"""Figures of numbers: every point and label, what is refused, and no text that overlaps."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plot_cases import check_layout, legend_texts

from tinyadv import plots
from tinyadv.training import Epoch, History

fractions = st.dictionaries(st.floats(0, 1), st.floats(0, 1), min_size=1)


@settings(max_examples=15)
@given(curves=st.dictionaries(st.sampled_from("abcdefg"), fractions, min_size=1))
def test_an_epsilon_curve_is_a_line_for_each_name_in_percent(curves):
    figure = plots.epsilon_curve(curves, title="pets")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == list(curves)
    for line, curve in zip(axes.lines, curves.values(), strict=True):
        epsilons, percents = line.get_data()
        assert epsilons.tolist() == sorted(curve)
        assert percents.tolist() == [100 * curve[eps] for eps in sorted(curve)]
    looks = [(line.get_color(), line.get_marker()) for line in axes.lines[:5]]
    assert len(set(looks)) == len(looks)
    assert axes.get_ylim() == (0, 100)
    assert axes.get_title() == "pets"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("budget ε", "accuracy (%)")
    assert legend_texts(figure) == (list(curves) if len(curves) > 1 else [])
    assert plots.epsilon_curve(curves, xlabel="radius").axes[0].get_xlabel() == "radius"


@pytest.mark.parametrize("curves", [{}, {"a": {}}, {"a": {0.0: 1.0}, "b": {}}])
def test_an_epsilon_curve_of_nothing_is_refused(curves):
    with pytest.raises(ValueError, match="curves must hold at least one name, and an accuracy for each"):
        plots.epsilon_curve(curves)


@pytest.mark.parametrize("accuracy", [-0.01, 97.8, float("nan")])
def test_an_accuracy_that_is_no_fraction_is_refused(accuracy):
    with pytest.raises(ValueError, match=r"curves must hold accuracies in \[0, 1\], got .* for 'FGSM'"):
        plots.epsilon_curve({"FGSM": {0.0: 0.9, 0.1: accuracy}})


numbers = st.floats(0.1, 1e4)


@settings(max_examples=15)
@given(x=st.lists(numbers, min_size=1, max_size=5), seed=st.integers(0, 99), log=st.sampled_from(["", "x", "y", "xy"]))
def test_lines_are_thick_for_one_and_thin_for_many_of_a_name(x, seed, log):
    rng = np.random.default_rng(seed)
    one, many = rng.random(len(x)), rng.random((3, len(x)))
    figure = plots.lines({"one": (x, one), "many": (x, many), "own x": (many, many)}, xlabel="steps", ylabel="loss",
                         title="pets", log=log)
    (axes,) = figure.axes
    first, *others = axes.lines
    assert np.array_equal(first.get_data(), (x, one))
    for line, other, own_x, y in zip(axes.lines[:1] * 3, others[:3], others[3:], many, strict=True):
        assert np.array_equal(other.get_data(), (x, y))
        assert np.array_equal(own_x.get_data(), (y, y))
        assert line.get_linewidth() > other.get_linewidth() == own_x.get_linewidth()
    assert [len({line.get_color() for line in group}) for group in (axes.lines, others[:3], others[3:])] == [3, 1, 1]
    assert legend_texts(figure) == ["one", "many", "own x"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("steps", "loss", "pets")
    assert "".join(name for name in "xy" if getattr(axes, f"get_{name}scale")() == "log") == log


def test_no_lines_are_refused():
    with pytest.raises(ValueError, match=re.escape("curves must hold at least one name with its x and y, got {}")):
        plots.lines({}, xlabel="x", ylabel="y")


@pytest.mark.parametrize(("x", "counted"), [([1, 2, 3], True), ([1, 2.5, 3], False)])
def test_what_is_counted_has_its_ticks_at_whole_numbers(x, counted):
    figure = plots.lines({"a": (x, [1, 2, 3])}, xlabel="starts", ylabel="accuracy")
    assert (np.mod(figure.axes[0].get_xticks(), 1) == 0).all() == counted


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
@pytest.mark.parametrize("most", [5, 1000, 1e6])
def test_no_text_of_lines_is_cut_off_or_overlaps(log, most):
    x = np.geomspace(1.4, most, 9)
    assert check_layout(plots.lines({"a": (x, x)}, xlabel="x", ylabel="y", title="a", log=log)) >= 3 + 2 + 2


@given(count=st.integers(1, 9), attacked=st.booleans())
@settings(max_examples=5, deadline=None)
def test_a_history_shows_what_was_measured_against_the_epoch(count, attacked):
    robust = 0.25 if attacked else None
    epochs = History([Epoch(k, 1 / k, 0.5, 0.75, 0.1, 2.0, robust) for k in range(1, count + 1)])
    first, loss, rate, seconds = plots.history(epochs).axes
    found = {line.get_label(): line.get_ydata().tolist() for line in first.lines}
    expected = {"as trained on": [50] * count, "held out": [75] * count}
    assert found == expected | ({"attacked": [25] * count} if attacked else {})
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1 / k for k in range(1, count + 1)])
    assert rate.lines[0].get_ydata().tolist() == [0.1] * count
    assert seconds.lines[0].get_ydata().tolist() == [2.0] * count


def test_no_history_is_refused():
    with pytest.raises(ValueError, match="epochs must hold at least one epoch"):
        plots.history(History())


@settings(max_examples=10, deadline=None)
@given(headings=st.integers(1, 3), names=st.integers(1, 3), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_histograms_count_everything_in_bins_of_one_width(headings, names, n, seed):
    rng = np.random.default_rng(seed)
    values = {str(k): list(rng.random((names, n))) for k in range(headings)}
    figure = plots.histograms(values, "abc"[:names], xlabel="loss")
    assert [axes.get_title() for axes in figure.axes] == list(values)
    for axes in figure.axes:
        bars = [[bar.get_height() for bar in container] for container in axes.containers]
        assert [sum(heights) for heights in bars] == [n] * names
    assert legend_texts(figure) == list("abc"[:names])


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99))
def test_on_a_logarithmic_axis_bins_have_one_ratio(n, seed):
    rng = np.random.default_rng(seed)
    axes = plots.histograms({"a": [10 ** rng.uniform(-9, 3, n), np.ones(n)]}, "ab", xlabel="loss", log=True).axes[0]
    assert axes.get_xscale() == "log"
    ends = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.containers[0]])
    np.testing.assert_allclose(ends[:, 1] / ends[:, 0], ends[0, 1] / ends[0, 0], rtol=1e-6)
    assert [sum(bar.get_height() for bar in container) for container in axes.containers] == [n] * 2


def test_a_logarithmic_axis_of_nothing_is_refused():
    with pytest.raises(ValueError, match="values must be above 0 for a logarithmic axis"):
        plots.histograms({"a": [np.zeros(3)]}, "a", xlabel="", log=True)


@settings(max_examples=10, deadline=None)
@given(labels=st.integers(1, 3), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_bars_stand_side_by_side_at_their_names(labels, n, seed):
    heights = {str(k): row for k, row in enumerate(np.random.default_rng(seed).random((labels, n)))}
    (axes,) = plots.bars(heights, "abcde"[:n], ylabel="images", title="pets").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == list("abcde"[:n])
    ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for container in axes.containers for bar in container)
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(ends))
    for row, container in zip(heights.values(), axes.containers, strict=True):
        assert [bar.get_height() for bar in container] == row.tolist()
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in container] == list(range(n))
    assert (axes.get_ylabel(), axes.get_title()) == ("images", "pets")


def test_no_text_of_bars_is_cut_off_or_overlaps():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert check_layout(plots.bars({"a": range(10), "b": range(10)}, names, ylabel="y", title="b")) > 12


def test_bars_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="heights must hold at least one label, with 2 numbers for each"):
        plots.bars({"a": [1]}, "ab", ylabel="")


def test_a_histogram_of_one_value_is_drawn():
    plots.histograms({"one": [np.ones(3)]}, ["a"], xlabel="").draw_without_rendering()


def test_histograms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="values must hold at least one heading, with 2 arrays for each"):
        plots.histograms({"a": [np.ones(3)]}, "ab", xlabel="")


def test_bars_below_zero_are_seen_and_none_are_refused():
    low, high = plots.bars({"a": [1, -2], "b": [-1, 1]}, ["x", "y"], ylabel="z").axes[0].get_ylim()
    assert low <= -2
    assert high > 1
    percents = plots.bars({"a": [50, 100], "b": [20, 98]}, ["x", "y"], ylabel="%").axes[0]
    assert percents.get_ylim()[1] < 110  # so no tick above 100 is seen: the legend is below
    with pytest.raises(ValueError, match="heights must hold at least one label"):
        plots.bars({"a": []}, [], ylabel="z")


@pytest.mark.parametrize("log", ["x", "y"])
def test_a_logarithmic_axis_has_no_place_for_zero(log):
    with pytest.raises(ValueError, match=f"{log} must be above 0 on a logarithmic axis"):
        plots.lines({"a": ([0, 1, 2], [1, 0.5, 0])}, xlabel="x", ylabel="y", log=log)


def test_no_two_of_many_curves_look_the_same():
    axes = plots.lines({str(k): ([1, 2], [k, k]) for k in range(20)}, xlabel="x", ylabel="y").axes[0]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == 20


@pytest.mark.parametrize("several", [[np.r_[np.nan, np.ones(3)], np.ones(3)], [np.ones(3), np.r_[np.inf, 1]], [[], []]])
def test_histograms_are_of_finite_numbers(several):
    with pytest.raises(ValueError, match=r"values must be finite numbers, at least one for each heading: see .* 'h'"):
        plots.histograms({"h": several}, ["a", "b"], xlabel="x")
    with pytest.raises(ValueError, match="values must hold at least one heading"):
        plots.histograms({"h": []}, [], xlabel="x")


def test_an_empty_histogram_stands_beside_another():
    assert plots.histograms({"h": [np.array([]), np.arange(3.0)]}, ["a", "b"], xlabel="x").axes


words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=9) | st.sampled_from(
    ["_hidden", "_", r"$\frac$", "$", "$x$ and $y", r"\$"])


@settings(max_examples=5, deadline=None)
@given(names=st.lists(words, min_size=2, max_size=4, unique=True))
def test_every_name_is_in_the_legend_as_it_is_written(names):
    figures = [plots.lines({name: ([1, 2], [k, 1]) for k, name in enumerate(names)}, xlabel="", ylabel=names[0]),
               plots.bars({name: [1] * len(names) for name in names}, names, ylabel="", title=names[0]),
               plots.histograms({names[0]: [[1, 2]] * len(names)}, names, xlabel=names[0])]
    for figure in figures:
        assert legend_texts(figure) == names
        figure.draw_without_rendering()  # would fail at a formula that has no meaning


@pytest.mark.parametrize("draw", [
    lambda text: plots.lines({"a": ([text, "b"], [1, 2])}, xlabel="", ylabel=""),
    lambda text: plots.surfaces({text: np.eye(2)}, [0, 1], [0, 1], xlabel="", ylabel=""),
    lambda text: plots.heatmaps({text: np.eye(2)}, xlabel="", ylabel="", label=text),
    lambda text: plots.grid(np.zeros((1, 1, 1, 2, 2)), rows=[text], columns=[text], captions=text, title=text)])
def test_a_dollar_begins_no_formula(draw):
    draw(r"$\frac$").draw_without_rendering()


def test_numbers_that_matplotlib_writes_as_formulas_stay_formulas():
    axes = plots.histograms({"a": [np.geomspace(1e-9, 1e9, 9)]}, "a", xlabel="", log=True).axes[0]
    assert all(label.get_parse_math() for label in axes.get_xticklabels())
    axes = plots.lines({"a": ([1, 2], [1, 1e5])}, xlabel="", ylabel="").axes[0]
    axes.set_yscale("log")  # by the user
    assert all(label.get_parse_math() for label in axes.get_yticklabels())


def test_equal_curves_with_gaps_are_both_seen():
    curve = [1, 2, 3], [1, np.nan, 3]
    axes = plots.lines({"a": curve, "b": curve}, xlabel="", ylabel="").axes[0]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]


@pytest.mark.parametrize(("kind", "count", "longest", "part"), [
    ("lines", 2, 1, False), ("lines", 6, 15, True), ("lines", 35, 12, False), ("lines", 3, 80, False),
    ("bars", 9, 9, False), ("bars", 9, 9, True), ("bars", 2, 60, False)])
def test_a_legend_is_whole_and_hides_nothing(kind, count, longest, part):
    names = [str(k).ljust(longest if k == 1 else 3, "n") for k in range(count)]
    whole = plots.blank(9, 9) if part else None
    figure = whole.subfigures(1, 2)[0] if part else None
    if kind == "lines":
        drawn = plots.lines({name: ([1, 2], [k, 1]) for k, name in enumerate(names)}, xlabel="", ylabel="",
                            figure=figure)
    else:
        drawn = plots.bars({name: [k, 1] for k, name in enumerate(names)}, ["x", "y"], ylabel="", figure=figure)
    drawn.draw_without_rendering()
    (legend,) = (figure or drawn).legends
    box, axes = legend.get_window_extent(), drawn.axes[0]
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= (figure or drawn).bbox.x1
    assert box.y1 <= axes.get_tightbbox().y0 + 1
    assert axes.get_window_extent().height > 100


def test_of_curves_that_coincide_both_are_seen():
    one, other, same = plots.lines({"one": ([1, 2], [1, 2]), "other": ([1, 2], [2, 2]), "same": ([1.0, 2.0], [1, 2])},
                                   xlabel="", ylabel="").axes[0].lines
    assert (one.get_linestyle(), other.get_linestyle(), same.get_linestyle()) == ("-", "-", "--")
    assert (one.get_markerfacecolor() != "none", same.get_markerfacecolor()) == (True, "none")


def test_x_may_be_texts():
    axes = plots.lines({"net": (["clean", "APGD-CE"], [90, 40])}, xlabel="", ylabel="").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["clean", "APGD-CE"]


@pytest.mark.parametrize("pair", [
    [0.7, 0.2], [0.7, 0.2, 0.1], 3, None, ([1, 2], [1, 2, 3]), ([1], 2), ([[1, 2]], [1, 2]), ([1, 2], np.zeros((0, 2))),
    (np.zeros((2, 3)), np.zeros((3, 2))), {1: 2, 3: 4}])
def test_what_is_no_pair_of_x_and_y_is_refused(pair):
    with pytest.raises(ValueError, match=r"a pair \(x, y\) for each name, x of shape \(n,\), .* got .* for 'loss'"):
        plots.lines({"loss": pair}, xlabel="", ylabel="")


@pytest.mark.parametrize("values", [[0.7, 0.2], [], None, np.ones(3)])
def test_values_without_names_are_refused(values):
    labels = {"xlabel": "", "ylabel": ""}
    for argument, draw in {
            "curves": lambda: plots.lines(values, **labels), "heights": lambda: plots.bars(values, "ab", ylabel=""),
            "values": lambda: plots.histograms(values, "ab", xlabel="")}.items():
        with pytest.raises(TypeError, match=rf"{argument} must be a dict {{name: .*}}, got .*: give {{\"a name\""):
            draw()
    for argument, draw in {
            "heights": lambda: plots.surfaces(values, [0, 1], [0, 1], **labels),
            "values": lambda: plots.heatmaps(values, **labels, label="")}.items():
        with pytest.raises(TypeError, match=rf"{argument} must be a dict {{name: .*}}, got .*: give {{\"a name\""):
            draw()
    with pytest.raises(TypeError, match="a curve needs a name"):
        plots.epsilon_curve(values)
    with pytest.raises(ValueError, match="heights must hold at least one label, with 2 numbers for each"):
        plots.bars({"a": 3}, "ab", ylabel="")


def test_numbers_may_lie_on_a_device(xp):
    x, y = xp.asarray(np.arange(3.0)), xp.asarray(np.ones((2, 3)))
    assert len(plots.lines({"a": (x, y)}, xlabel="", ylabel="").axes[0].lines) == 2
    assert len(plots.bars({"a": x}, "abc", ylabel="").axes[0].containers[0]) == 3
    assert plots.histograms({"a": [x, y]}, "ab", xlabel="").axes[0].containers[0]
    assert plots.surfaces({"a": y}, x, x[:2], xlabel="", ylabel="").axes[0].collections
    assert np.array_equal(plots.heatmaps({"a": y}, xlabel="", ylabel="", label="").axes[0].images[0].get_array(),
                          np.ones((2, 3)))


def test_what_one_epoch_has_not_measured_is_a_gap():
    epochs = History([Epoch(k, 1.0, 0.5, 0.75, 0.1, 2.0, None if k == 2 else 0.25) for k in (1, 2, 3)])
    attacked = plots.history(epochs).axes[0].lines[-1]
    assert attacked.get_label() == "attacked"
    np.testing.assert_equal(attacked.get_ydata(), [25, np.nan, 25])


def test_a_figure_holds_one_drawing():
    whole = plots.blank(9, 5)
    plots.lines({"a": ([1], [1])}, xlabel="", ylabel="", figure=whole)
    with pytest.raises(ValueError, match="give each drawing a part of its own"):
        plots.lines({"a": ([1], [1])}, xlabel="", ylabel="", figure=whole)
    epochs, (left, _) = History([Epoch(1, 1.0, 0.5, 0.75, 0.1, 2.0, None)]), plots.blank(9, 5).subfigures(1, 2)
    plots.history(epochs, figure=left)
    with pytest.raises(ValueError, match="give each drawing a part of its own"):
        plots.history(epochs, figure=left)
