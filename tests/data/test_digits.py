import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv.data import digits


@pytest.fixture(scope="module")
def drawn():
    return digits(600, 200)


def test_it_looks_like_a_data_set(drawn):
    train, test = drawn
    assert repr(train) == "Dataset digits-train: 600 images (1, 28, 28), 10 classes"
    assert repr(test) == "Dataset digits-test: 200 images (1, 28, 28), 10 classes"
    assert train.classes == tuple("0123456789")
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int64


def test_values_are_grey_levels_from_black_to_white(drawn):
    for dataset in drawn:
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        assert np.isin(dataset.images, levels).all()
        assert (dataset.images.min(axis=(1, 2, 3)) == 0).all()
        assert (dataset.images.max(axis=(1, 2, 3)) > 0.9).all()


def test_digits_have_the_ink_and_the_place_of_mnist(drawn):
    images = drawn[0].images[:, 0]
    ink = images.sum(axis=(1, 2))
    rows, columns = (images.sum(axis=axis) @ np.arange(28) / ink for axis in (2, 1))
    assert 0.10 < images.mean() < 0.16  # 0.13 in MNIST
    assert np.abs([rows - 13.5, columns - 13.5]).max() < 4
    assert np.abs([rows.mean() - 13.5, columns.mean() - 13.5]).max() < 0.5
    assert images[:, [0, -1]].mean() < 0.001  # nothing is cut off at the edges
    assert images[:, :, [0, -1]].mean() < 0.001


def test_digits_are_neither_turned_nor_mirrored(drawn):
    """On average a 1 is tall and narrow, a 6 has its bowl below, and a 4 its foot on the right."""
    one, four, six = (drawn[0].images[drawn[0].labels == k].mean(axis=(0, 1)) for k in (1, 4, 6))
    height, width = ((one.max(axis=axis) > 0.1).sum() for axis in (1, 0))
    assert height > 1.5 * width
    assert six[14:].sum() > 1.1 * six[:14].sum()
    assert four[20:, 14:].sum() > 1.5 * four[20:, :14].sum()


def test_every_ten_images_hold_each_digit_once_in_varying_order(drawn):
    tens = drawn[0].labels.reshape(-1, 10)
    assert (np.sort(tens) == np.arange(10)).all()
    assert len(np.unique(tens, axis=0)) == len(tens)


@settings(max_examples=10, deadline=None)
@given(train=st.integers(0, 120), test=st.integers(0, 120))
def test_a_smaller_set_is_the_beginning_of_a_larger_one(drawn, train, test):
    for small, large in zip(digits(train, test), drawn, strict=True):
        assert np.array_equal(small.images, large.images[: len(small)])
        assert np.array_equal(small.labels, large.labels[: len(small)])
        assert len(small) == (train if small.name == "digits-train" else test)


def test_no_image_is_drawn_twice(drawn):
    everything = np.concatenate([part.images for part in (*drawn, *digits(100, 100, seed=1))])
    assert len(np.unique(everything.reshape(1000, -1), axis=0)) == 1000


def test_a_digit_is_nearest_to_its_own_class(drawn):
    """The nearest class mean tells well over half of the test digits: label and drawing belong together."""
    train, test = drawn
    means = np.stack([train.images[train.labels == k].mean(axis=0) for k in range(10)])
    nearest = ((test.images[:, None] - means) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert (nearest == test.labels).mean() > 0.6


@pytest.mark.parametrize("name", ["train", "test", "seed"])
@pytest.mark.parametrize("value", [-1, 2.5, True, "9", None])
def test_what_is_no_count_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be an integer >= 0, got {value!r}"):
        digits(**{"train": 0, "test": 0, name: value})
