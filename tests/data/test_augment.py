import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv.data import augment
from tinyadv.random import Streams


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, 2, 5, 7), np.float32)


@pytest.mark.parametrize(("change", "mode"), [(augment.crop, "constant"), (augment.translate, "reflect")])
@given(count=st.integers(0, 9), most=st.integers(0, 6), seed=st.integers(0, 99))
def test_a_shift_is_by_at_most_so_many_pixels_with_zeros_or_the_mirrored_image_at_the_edges(change, mode, count, most,
                                                                                            seed):
    x = images(count, seed)
    moved = change(most)(x, Streams(seed, range(count)))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    frame = np.pad(x, ((0, 0), (0, 0), (most, most), (most, most)), mode)
    shifts = [(down, right) for down in range(2 * most + 1) for right in range(2 * most + 1)]
    for image, whole in zip(moved, frame, strict=True):
        assert any(np.array_equal(image, whole[:, down:down + 5, right:right + 7]) for down, right in shifts)


@pytest.mark.parametrize("change", [augment.crop, augment.translate])
def test_every_shift_is_as_likely(change):
    x = np.broadcast_to(images(1), (2500, 2, 5, 7))
    found, counts = np.unique(change(2)(x, Streams(0, range(2500))).reshape(2500, -1), axis=0, return_counts=True)
    assert len(found) == 25
    assert 60 < counts.min() <= counts.max() < 150


@given(count=st.integers(0, 9), size=st.integers(0, 9), seed=st.integers(0, 99))
def test_cutout_clears_one_square_and_no_other_pixel(count, size, seed):
    x = images(count, seed) + 1  # no zeros of its own
    cut = augment.cutout(size)(x, Streams(seed, range(count)))
    assert (cut.shape, cut.dtype) == (x.shape, x.dtype)
    for before, after in zip(x, cut, strict=True):
        cleared = after == 0
        np.testing.assert_array_equal(after[~cleared], before[~cleared])
        rows, columns = cleared[0].any(axis=1), cleared[0].any(axis=0)
        np.testing.assert_array_equal(cleared, np.broadcast_to(rows[:, None] & columns, cleared.shape))
        for hit in (rows, columns):  # a run of `size` pixels, or of at least half as many at an edge
            where = np.flatnonzero(hit)
            assert (size == 0) == (len(where) == 0)
            if size:
                assert len(where) == where[-1] - where[0] + 1 <= size
                assert len(where) == size or where[0] == 0 or where[-1] == len(hit) - 1
                assert len(where) >= min(size // 2, len(hit))


def test_cutout_reaches_every_pixel():
    cut = augment.cutout(1)(np.ones((400, 1, 5, 7), np.float32), Streams(0, range(400)))
    assert (cut.min(axis=0) == 0).all()


@given(count=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_flip_mirrors_some_images_and_leaves_the_others(count, seed):
    x = images(count, seed)
    flipped = augment.flip()(x, Streams(seed, range(count)))
    mirrored = [np.array_equal(a, b[..., ::-1]) for a, b in zip(flipped, x, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, x, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert count < 20 or 0 < sum(mirrored) < count


@given(seed=st.integers(0, 99))
def test_what_an_image_becomes_does_not_depend_on_its_neighbours(seed):
    x, change = images(9, seed), augment.chain(augment.crop(2), augment.flip(), augment.translate(1), augment.cutout(2))
    together = change(x, Streams(seed, range(9)))
    np.testing.assert_array_equal(together[3:5], change(x[3:5], Streams(seed, [3, 4])))
    assert not np.array_equal(together, x)


def test_numbers_of_pixels_may_be_numpys():
    x = np.ones((3, 1, 5, 5), np.float32)
    for change in (augment.crop, augment.translate, augment.cutout):
        one, other = (change(count)(x, Streams(0, range(3))) for count in (2, np.int64(2)))
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("value", [-1, 1.5, True])
@pytest.mark.parametrize(("change", "name"), [(augment.crop, "padding"), (augment.translate, "pixels"),
                                              (augment.cutout, "size")])
def test_a_senseless_number_of_pixels_is_refused(change, name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be an integer >= 0, got {value}")):
        change(value)


@pytest.mark.parametrize("change", [augment.crop(1), augment.translate(1), augment.cutout(1), augment.flip()])
def test_each_image_needs_a_stream_of_its_own(change):
    with pytest.raises(ValueError, match="augment: the number of images is 5, but that of streams is 1"):
        change(np.ones((5, 1, 4, 4), np.float32), Streams(0, range(1)))
    with pytest.raises(ValueError, match=r"augment: .*images of shape \(N, C, H, W\)"):
        change(np.ones((1, 4, 4), np.float32), Streams(0, range(1)))


def test_a_chain_takes_augmentations_one_by_one():
    with pytest.raises(TypeError, match=r"as in chain\(flip\(\), crop\(4\)\)"):
        augment.chain([augment.flip()])
