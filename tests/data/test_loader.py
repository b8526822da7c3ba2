import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv.data import Dataset, batches

CLASSES = ("cat", "dog", "ship")


def numbered(n):
    """A data set whose image i is filled with i."""
    images = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((2, 3, 4), np.float32)
    return Dataset(images, np.arange(n) % 3, "numbered-test", CLASSES)


def numbers(images):
    return images[:, 0, 0, 0].astype(int).tolist()


def test_repr_says_what_it_holds():
    assert repr(numbered(1000)) == "Dataset numbered-test: 1,000 images (2, 3, 4), 3 classes"


@pytest.mark.parametrize("index", [
    slice(5), slice(3, None, 2), slice(0), [], [4, 0, 4], np.array([-1, 2]), np.arange(9) % 2 == 0, 7, -9,
    np.int64(3), np.array(3),
])
def test_a_selection_is_the_data_set_of_those_examples(index):
    selected = numbered(9)[index]
    expected = np.atleast_1d(np.arange(9)[index]).tolist()
    assert numbers(selected.images) == expected
    assert selected.labels.tolist() == [i % 3 for i in expected]
    assert len(selected) == len(expected)
    assert (selected.name, selected.classes) == ("numbered-test", CLASSES)


def test_a_slice_shares_memory():
    dataset = numbered(9)
    assert np.shares_memory(dataset[2:5].images, dataset.images)


@pytest.mark.parametrize("index", [9, -10, [0, 9], np.ones(8, bool), (1, 1)])
def test_an_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match=r"index|indices"):
        numbered(9)[index]


def test_one_index_after_the_other_visits_every_example_once():
    test = numbered(4)
    assert [numbers(test[k].images) for k in range(len(test))] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("images", "labels", "message"), [
    ([[1]], np.zeros(1, int), "images must be an array, got list: convert it with np.asarray"),
    (np.zeros((2, 1, 4, 4), np.float32), [0, 1], "labels must be an array, got list: convert it with np.asarray"),
    (np.zeros((2, 1, 4, 4)), np.zeros(2, int), "images must be float32 of shape (N, C, H, W), got float64"),
    (np.zeros((2, 4, 4), np.float32), np.zeros(2, int), "images must be float32 of shape (N, C, H, W)"),
    (np.zeros((2, 1, 4, 4), np.float32), np.eye(2, dtype=int), "one-hot labels, take labels.argmax(axis=1)"),
    (np.zeros((2, 1, 4, 4), np.float32), np.zeros(2, np.uint8), "labels must be int64 of shape (N,), got u"),
    (np.zeros((2, 1, 4, 4), np.float32), np.zeros(3, int), "the same length, got 2 and 3"),
    (np.zeros((2, 1, 4, 4), np.float32), np.array([0, 3]), "labels must be in 0 .. 2"),
    (np.zeros((2, 1, 4, 4), np.float32), np.array([-1, 0]), "labels must be in 0 .. 2"),
])
def test_parts_that_do_not_fit_together_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Dataset(images, labels, "bad", CLASSES)


@given(n=st.integers(0, 40), batch_size=st.integers(1, 50), seed=st.none() | st.integers(0, 2**64),
       epoch=st.integers(0, 9))
def test_a_pass_visits_every_example_once_with_its_label(n, batch_size, seed, epoch):
    seen = list(batches(numbered(n), batch_size, seed=seed, epoch=epoch))
    order = [i for images, _ in seen for i in numbers(images)]
    assert sorted(order) == list(range(n))
    assert [label for _, labels in seen for label in labels] == [i % 3 for i in order]
    assert [len(labels) for _, labels in seen] == [min(batch_size, n - i) for i in range(0, n, batch_size)]
    assert seed is not None or order == list(range(n))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(batch_size, seed, epoch):
        passed = batches(numbered(50), batch_size, seed=seed, epoch=epoch)
        return tuple(i for images, _ in passed for i in numbers(images))

    orders = [order(8, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert orders == [order(5, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None, "8", True])
def test_a_batch_size_that_is_no_positive_integer_is_refused_at_once(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        batches(numbered(4), batch_size)


@pytest.mark.parametrize("classes", [10, "0123456789"])
def test_classes_are_names(classes):
    with pytest.raises(ValueError, match="classes must be the names of the classes, in order, got"):
        Dataset(np.zeros((1, 1, 2, 2), np.float32), np.zeros(1, np.int64), classes=classes)


def test_arrays_of_a_gpu_are_refused_with_the_remedy(xp):
    images, labels = xp.zeros((1, 1, 2, 2), np.float32), xp.zeros(1, np.int64)
    if xp is np:
        assert len(Dataset(images, labels)) == 1
    else:
        with pytest.raises(ValueError, match=r"images must be an array of NumPy, got \w+.*: give images\.get\(\)"):
            Dataset(images, labels)
