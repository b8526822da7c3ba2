import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv.data import augment
from tinyadv.random import Streams


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, 2, 5, 7), np.float32)


@given(count=st.integers(0, 9), padding=st.integers(0, 6), seed=st.integers(0, 99))
def test_a_crop_is_a_shift_by_at_most_the_padding_with_zeros_at_the_edges(count, padding, seed):
    x = images(count, seed)
    moved = augment.crop(padding)(x, Streams(seed, range(count)))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    frame = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    shifts = [(down, right) for down in range(2 * padding + 1) for right in range(2 * padding + 1)]
    for image, whole in zip(moved, frame, strict=True):
        assert any(np.array_equal(image, whole[:, down:down + 5, right:right + 7]) for down, right in shifts)


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
    x, change = images(9, seed), augment.chain(augment.crop(2), augment.flip())
    together = change(x, Streams(seed, range(9)))
    np.testing.assert_array_equal(together[3:5], change(x[3:5], Streams(seed, [3, 4])))
    assert not np.array_equal(together, x)


@pytest.mark.parametrize("padding", [-1, 1.5, True])
def test_a_senseless_padding_is_refused(padding):
    with pytest.raises(ValueError, match=re.escape(f"padding must be an integer >= 0, got {padding}")):
        augment.crop(padding)
