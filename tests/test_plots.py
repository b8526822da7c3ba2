import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.image import imread

from tinyadv import ops, plots
from tinyadv.data import Dataset
from tinyadv.training import Epoch, History

CLASSES = ("cat", "dog", "ship")


def dataset(n, channels, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((n, channels, 4, 5), dtype=np.float32)
    return Dataset(images, rng.integers(0, 3, n), "pets-test", CLASSES)


def model(x):
    """Three logits from (N, C, 4, 5): the sums of the first three rows of the first channel."""
    return 4 * x[:, 0, :3].sum(axis=2)


def attacked(clean, size=0.25, seed=1):
    signs = np.random.default_rng(seed).choice(np.float32([-1, 1]), clean.images.shape)
    return np.clip(clean.images + np.float32(size) * signs, 0, 1)


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def layout(image):
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


@settings(max_examples=10)
@given(n=st.integers(1, 4), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_a_row_of_triples_is_clean_plus_scale_times_noise_is_adversarial(n, channels, seed):
    clean = dataset(n, channels, seed)
    adversarial = attacked(clean, seed=seed + 1)
    figure = plots.adversarial_triples(model, clean, adversarial)
    rows = np.reshape(figure.axes, (n, 3))
    scale = abs(adversarial.astype(np.float64) - clean.images).max()
    for (left, middle, right), x, x_adv in zip(rows, clean.images, adversarial, strict=True):
        assert np.array_equal(pixels(left), layout(x))
        assert np.array_equal(pixels(right), layout(x_adv))
        noise = pixels(middle) if channels == 1 else 2 * pixels(middle) - 1
        assert abs(noise).max() <= 1
        assert np.allclose(layout(x) + scale * noise, layout(x_adv), atol=1e-6)
        assert middle.get_ylabel() == f"+ {scale:.3g} ×"
        assert right.get_ylabel() == "="
        for axes, low in ((left, 0), (middle, 0 if channels == 3 else -1), (right, 0)):
            assert axes.images[0].get_clim() == (low, 1)


@settings(max_examples=10)
@given(n=st.integers(1, 4), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_below_an_image_stand_class_and_confidence_in_blue_if_right_and_vermilion_if_wrong(n, channels, seed):
    clean = dataset(n, channels, seed)
    adversarial = attacked(clean, seed=seed + 1)
    rows = np.reshape(plots.adversarial_triples(model, clean, adversarial).axes, (n, 3))
    for column, images in ((0, clean.images), (2, adversarial)):
        probabilities = ops.softmax(model(images)).numpy()
        for axes, p, label in zip(rows[:, column], probabilities, clean.labels, strict=True):
            (caption,) = axes.texts
            assert caption.get_text() == f"“{CLASSES[p.argmax()]}”\n{p.max():.1%}"
            assert to_hex(caption.get_color()).upper() == ("#0072B2" if p.argmax() == label else "#D55E00")
    assert not [axes for axes in rows[:, 1] if axes.texts]


def test_triples_are_titled_with_the_data_set_and_the_budget_or_as_told():
    clean = dataset(2, 1)
    assert plots.adversarial_triples(model, clean, attacked(clean)).get_suptitle() == (
        "pets-test: pixels change by at most 0.25")
    assert plots.adversarial_triples(model, clean, attacked(clean), title="told").get_suptitle() == "told"


def test_an_attack_that_changes_nothing_has_zero_noise():
    clean = dataset(2, 1)
    figure = plots.adversarial_triples(model, clean, clean.images)
    assert not pixels(figure.axes[1]).any()
    assert figure.axes[1].get_ylabel() == "+ 0 ×"


def test_adversarial_images_may_lie_on_a_device(xp):
    clean = dataset(2, 3)
    on_host = plots.adversarial_triples(model, clean, attacked(clean))
    anywhere = plots.adversarial_triples(model, clean, xp.asarray(attacked(clean)))
    for axes, expected in zip(anywhere.axes, on_host.axes, strict=True):
        assert np.array_equal(pixels(axes), pixels(expected))


@pytest.mark.parametrize(("n", "channels", "cut", "message"), [
    (2, 1, np.s_[:1], "must have the shape of the clean images, (2, 1, 4, 5), got (1, 1, 4, 5)"),
    (2, 3, np.s_[:, :1], "must have the shape of the clean images, (2, 3, 4, 5), got (2, 1, 4, 5)"),
    (0, 1, np.s_[:], "N >= 1 and C = 1 or 3, got shape (0, 1, 4, 5)"),
    (1, 2, np.s_[:], "N >= 1 and C = 1 or 3, got shape (1, 2, 4, 5)"),
])
def test_triples_of_images_that_do_not_fit_are_refused(n, channels, cut, message):
    clean = dataset(n, channels)
    with pytest.raises(ValueError, match=re.escape(message)):
        plots.adversarial_triples(model, clean, clean.images[cut])


fractions = st.dictionaries(st.floats(0, 1), st.floats(0, 1), min_size=1)


@settings(max_examples=15)
@given(curves=st.dictionaries(st.sampled_from("abcdefg"), fractions, min_size=1))
def test_an_epsilon_curve_is_a_line_for_each_name_in_percent(curves):
    (axes,) = plots.epsilon_curve(curves, title="pets").axes
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
    assert (axes.get_legend() is not None) == (len(curves) > 1)


@pytest.mark.parametrize("curves", [{}, {"a": {}}, {"a": {0.0: 1.0}, "b": {}}])
def test_an_epsilon_curve_of_nothing_is_refused(curves):
    with pytest.raises(ValueError, match="curves must hold at least one name, and an accuracy for each"):
        plots.epsilon_curve(curves)


@pytest.mark.parametrize("accuracy", [-0.01, 97.8, float("nan")])
def test_an_accuracy_that_is_no_fraction_is_refused(accuracy):
    with pytest.raises(ValueError, match=r"curves must hold accuracies in \[0, 1\], got .* for 'FGSM'"):
        plots.epsilon_curve({"FGSM": {0.0: 0.9, 0.1: accuracy}})


sizes = st.integers(1, 3)


@settings(max_examples=10)
@given(rows=sizes, columns=sizes, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_a_grid_shows_images_as_they_are_and_noise_relative_to_its_largest_value(rows, columns, channels, seed):
    rng = np.random.default_rng(seed)
    shape, noise = (rows, columns), rng.random((rows, columns)) < 0.5
    images = np.where(noise[..., None, None, None], -3, 1) * rng.random((*shape, channels, 4, 5))
    names = [[str(k) for k in range(count)] for count in shape]
    captions = [[f"{i}, {j}" for j in range(columns)] for i in range(rows)]
    figure = plots.grid(images, rows=names[0], columns=names[1], captions=captions, noise=noise, title="pets")
    places = np.reshape(figure.axes, shape)
    assert figure.get_suptitle() == "pets"
    assert [axes.get_ylabel() for axes in places[:, 0]] == names[0]
    assert [axes.get_title() for axes in places[0]] == names[1]
    for place, axes in np.ndenumerate(places):
        image = images[place]
        expected = layout(image / abs(image).max() if noise[place] else image)
        if noise[place] and channels == 3:
            expected = (expected + 1) / 2
        assert np.allclose(pixels(axes), expected)
        assert axes.images[0].get_clim() == (-1 if noise[place] and channels == 1 else 0, 1)
        assert [text.get_text() for text in axes.texts] == [captions[place[0]][place[1]]]


def test_a_grid_leaves_out_an_image_with_a_nan_and_shows_noise_of_nothing():
    images = np.zeros((1, 2, 1, 4, 5))
    images[0, 1, 0, 2, 3] = np.nan
    shown, left_out = plots.grid(images, captions="caption", noise=True).axes
    assert not pixels(shown).any()
    assert not left_out.axison
    assert not [*left_out.images, *left_out.texts]


def test_the_images_of_a_grid_may_lie_on_a_device(xp):
    images = dataset(4, 1).images.reshape(2, 2, 1, 4, 5)
    for axes, expected in zip(plots.grid(xp.asarray(images)).axes, plots.grid(images).axes, strict=True):
        assert np.array_equal(pixels(axes), pixels(expected))


@pytest.mark.parametrize(("shape", "options", "message"), [
    ((2, 1, 4, 5), {}, "images must be (R, K, C, H, W), R and K >= 1, C = 1 or 3, got shape (2, 1, 4, 5)"),
    ((0, 2, 1, 4, 5), {}, "R and K >= 1, C = 1 or 3, got shape (0, 2, 1, 4, 5)"),
    ((1, 2, 2, 4, 5), {}, "R and K >= 1, C = 1 or 3, got shape (1, 2, 2, 4, 5)"),
    ((2, 1, 1, 4, 5), {"rows": "abc"}, "rows must hold 2 labels, or none, got 3"),
    ((2, 1, 1, 4, 5), {"columns": "abc"}, "columns must hold 1 labels, or none, got 3"),
    ((2, 1, 1, 4, 5), {"captions": ["a", "b", "c"]}, "could not be broadcast"),
])
def test_a_grid_of_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plots.grid(np.zeros(shape), **options)


numbers = st.floats(0.1, 1e4)


@settings(max_examples=15)
@given(x=st.lists(numbers, min_size=1, max_size=5), seed=st.integers(0, 99), log=st.sampled_from(["", "x", "y", "xy"]))
def test_lines_are_thick_for_one_and_thin_for_many_of_a_name(x, seed, log):
    rng = np.random.default_rng(seed)
    one, many = rng.random(len(x)), rng.random((3, len(x)))
    (axes,) = plots.lines({"one": (x, one), "many": (x, many), "own x": (many, many)}, xlabel="steps", ylabel="loss",
                          title="pets", log=log).axes
    first, *others = axes.lines
    assert np.array_equal(first.get_data(), (x, one))
    for line, other, own_x, y in zip(axes.lines[:1] * 3, others[:3], others[3:], many, strict=True):
        assert np.array_equal(other.get_data(), (x, y))
        assert np.array_equal(own_x.get_data(), (y, y))
        assert line.get_linewidth() > other.get_linewidth() == own_x.get_linewidth()
    assert [len({line.get_color() for line in group}) for group in (axes.lines, others[:3], others[3:])] == [3, 1, 1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "many", "own x"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("steps", "loss", "pets")
    assert "".join(name for name in "xy" if getattr(axes, f"get_{name}scale")() == "log") == log


def test_no_lines_are_refused():
    with pytest.raises(ValueError, match=re.escape("curves must hold at least one name with its x and y, got {}")):
        plots.lines({}, xlabel="x", ylabel="y")


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
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == list("abc"[:names])


def test_flat_surfaces_and_histograms_of_one_value_are_drawn():
    plots.surfaces({"flat": np.ones((2, 2))}, [0, 1], [0, 1], xlabel="", ylabel="").draw_without_rendering()
    plots.histograms({"one": [np.ones(3)]}, ["a"], xlabel="").draw_without_rendering()


def test_surfaces_and_histograms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=re.escape("arrays of shape (2, 3), at least one, got {'a': (3, 2)}")):
        plots.surfaces({"a": np.ones((3, 2))}, [0, 1, 2], [0, 1], xlabel="", ylabel="")
    with pytest.raises(ValueError, match="values must hold at least one heading, with 2 arrays for each"):
        plots.histograms({"a": [np.ones(3)]}, "ab", xlabel="")


def check_layout(figure, titles=()):
    """No text is cut off or overlaps another or an image; returns how many there are."""
    figure.draw_without_rendering()
    texts = [*titles]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        texts += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
                  if axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]]
    texts = [text for text in texts if text.get_text()]
    boxes = [part.get_window_extent() for part in (*texts, *figure.axes)]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert max(box.y1 for box in boxes) <= figure.bbox.y1
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    return len(texts)


@pytest.mark.parametrize(("x", "counted"), [([1, 2, 3], True), ([1, 2.5, 3], False)])
def test_what_is_counted_has_its_ticks_at_whole_numbers(x, counted):
    figure = plots.lines({"a": (x, [1, 2, 3])}, xlabel="starts", ylabel="accuracy")
    assert (np.mod(figure.axes[0].get_xticks(), 1) == 0).all() == counted


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


def test_side_by_side_no_text_is_cut_off_or_overlaps_another_or_an_image():
    clean = replace(dataset(4, 3), classes=("airplane", "automobile", "horse"))
    both = plots.blank(8, 4)
    left, right = both.subfigures(1, 2)
    assert plots.adversarial_triples(model, clean, attacked(clean), figure=left) is both
    assert plots.epsilon_curve({"a": {0: 1, 0.3: 0}, "b": {0: 1, 0.3: 0.5}}, title="b", figure=right) is both
    assert check_layout(both, left.texts) > 1 + 3 + 4 * (2 + 2) + 3


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
@pytest.mark.parametrize("most", [5, 1000, 1e6])
def test_no_text_of_lines_is_cut_off_or_overlaps(log, most):
    x = np.geomspace(1.4, most, 9)
    assert check_layout(plots.lines({"a": (x, x)}, xlabel="x", ylabel="y", title="a", log=log)) >= 3 + 2 + 2


@pytest.mark.parametrize(("rows", "columns", "height"), [(1, 1, 0), (2, 8, 4), (3, 3, 1)])
def test_no_text_of_a_grid_is_cut_off_or_overlaps(rows, columns, height):
    caption = "\n".join(["linf 0.15"] * height)
    figure = plots.grid(np.zeros((rows, columns, 1, 28, 28)), rows="8" * rows, columns="8" * columns,
                        captions=caption, title="title")
    assert check_layout(figure, figure.texts) == 1 + rows + columns + (rows * columns if height else 0)


def test_threads_draw_the_same_figure_at_a_time(tmp_path):
    clean = dataset(2, 1)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        figures = list(pool.map(lambda _: plots.adversarial_triples(model, clean, attacked(clean)), paths))
        list(pool.map(lambda figure, path: figure.savefig(path), figures, paths))
    first, *others = [imread(path) for path in paths]
    assert first.shape == (600, 750, 4)
    assert all(np.array_equal(first, other) for other in others)


def test_drawing_and_saving_leave_pyplot_alone(tmp_path):
    code = ("import sys; from tinyadv import plots; plots.epsilon_curve({'a': {0: 1}}).savefig(sys.argv[1]); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "curve.pdf"]).returncode == 0
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")
