"""Figures of images: every pixel, caption and colour, on any device, and no text that overlaps."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from plot_cases import CLASSES, attacked, check_layout, dataset, layout, model, pixels

from tinyadv import ops, plots


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


def test_side_by_side_no_text_is_cut_off_or_overlaps_another_or_an_image():
    clean = replace(dataset(4, 3), classes=("airplane", "automobile", "horse"))
    both = plots.blank(8, 4)
    left, right = both.subfigures(1, 2)
    assert plots.adversarial_triples(model, clean, attacked(clean), figure=left) is both
    assert plots.epsilon_curve({"a": {0: 1, 0.3: 0}, "b": {0: 1, 0.3: 0.5}}, title="b", figure=right) is both
    assert check_layout(both, left.texts) > 1 + 3 + 4 * (2 + 2) + 3


@pytest.mark.parametrize(("rows", "columns", "height"), [(1, 1, 0), (2, 8, 4), (3, 3, 1)])
def test_no_text_of_a_grid_is_cut_off_or_overlaps(rows, columns, height):
    caption = "\n".join(["linf 0.15"] * height)
    figure = plots.grid(np.zeros((rows, columns, 1, 28, 28)), rows="8" * rows, columns="8" * columns,
                        captions=caption, title="title")
    assert check_layout(figure, figure.texts) == 1 + rows + columns + (rows * columns if height else 0)


def test_captions_may_be_numbers():
    plots.grid(np.zeros((1, 2, 1, 4, 4)), captions=[[1, 2]])


def test_a_class_without_a_name_has_its_number_and_no_class_is_nan():
    """A few images of low labels have names for these alone; the model may have more classes."""
    clean = replace(dataset(3, 1), labels=np.zeros(3, np.int64), classes=("zero",))

    def captions(answer):
        figure = plots.adversarial_triples(answer, clean, clean.images)
        return {text.get_text() for axes in figure.axes for text in axes.texts}

    assert captions(lambda x: np.tile([0.0, 0, 9], (len(x), 1))) == {"“2”\n100.0%"}
    assert captions(lambda x: np.full((len(x), 3), np.nan)) == {"NaN"}


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_leaves_the_other_noise_as_it_is(worst):
    clean = dataset(2, 1)
    x_adv = attacked(clean)
    x_adv[0, 0, 0, 0] = worst
    figure = plots.adversarial_triples(lambda x: np.ones((len(x), 3)), clean, x_adv)
    assert figure.get_suptitle().endswith("at most 0.25")
    noise = pixels(figure.axes[4])
    assert np.allclose(clean.images[1, 0] + 0.25 * noise, x_adv[1, 0], atol=1e-6)
    figure.draw_without_rendering()


@pytest.mark.parametrize(("logits", "found"), [([0, 1e-9, 0], 1), ([0, np.inf, 0], 1), ([0, 0, 1e-12], 2)])
def test_the_class_of_a_caption_is_that_of_the_highest_logit(logits, found):
    clean = dataset(1, 1)
    figure = plots.adversarial_triples(lambda x: np.tile(np.float64(logits), (len(x), 1)), clean, clean.images)
    assert figure.axes[0].texts[0].get_text().startswith(f"“{CLASSES[found]}”")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool])
def test_images_of_integers_are_refused(dtype):
    images, clean = np.zeros((1, 1, 1, 4, 5), dtype), dataset(1, 1)
    with pytest.raises(ValueError, match=re.escape("give images.astype(np.float32) / 255")):
        plots.grid(images)
    with pytest.raises(ValueError, match=re.escape("give adversarial.astype(np.float32) / 255")):
        plots.adversarial_triples(model, clean, images[0])
