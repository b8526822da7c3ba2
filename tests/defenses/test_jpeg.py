"""JPEG against Pillow, its smooth stand-in against JPEG, and the random qualities of SHIELD."""

import io

import numpy as np
import pytest
from defense_cases import from_pillow, pictures
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import seeds

from tinyadv import Tensor, defenses, driver, gradients, nn, ops
from tinyadv.defenses import jpeg
from tinyadv.random import Streams, drawing_from
from tinyadv.tensor import op

qualities, subsamplings = st.integers(1, 100), st.sampled_from(list(jpeg.FACTORS))
shapes = st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))


@given(seed=seeds, shape=shapes, quality=qualities, subsampling=subsamplings, levels=st.sampled_from([2, 4, 255, 1e6]))
def test_it_is_pillows_own_compression_to_the_last_bit(seed, shape, quality, subsampling, levels):
    """Of noise, too, on few levels or on none: rounded to the nearest of 256, and not cut off."""
    x = (np.rint(np.random.default_rng(seed).random((2, *shape)) * levels) / levels).astype(np.float32)
    found = defenses.JPEG(quality, subsampling)(Tensor(x)).data
    assert found.tobytes() == from_pillow(x, quality, subsampling).astype(np.float32).tobytes()


def test_pixels_are_rounded_and_not_cut_off():
    level = np.full((1, 1, 8, 8), 0.5 / 255 + 1e-3, np.float32)  # just above half a level
    assert (defenses.JPEG(100)(Tensor(level)).data == np.float32(1 / 255)).all()


@pytest.mark.parametrize("quality", range(1, 101))
def test_the_tables_are_pillows(quality):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    for ours, table in zip(jpeg.tables(quality), Image.open(file).quantization.values(), strict=True):
        assert ours.ravel().tolist() == list(table)


def test_a_grey_image_of_128_and_nearly_the_best_quality_change_little():
    x = np.full((1, 1, 28, 28), 128 / 255, np.float32)
    for quality in (1, 10, 50, 100):
        assert defenses.JPEG(quality)(Tensor(x)).data.tobytes() == x.tobytes()
    noise = np.random.default_rng(0).random((4, 1, 28, 28))
    levels = np.rint(255 * noise)
    assert abs(255 * defenses.JPEG(100)(Tensor(levels / 255)).data - levels).max() <= 1.001


def test_the_cosine_transform_is_orthonormal():
    for n, m in ((8, 8), (28, 32), (33, 40)):
        there, back = jpeg.axis(n, 1)
        assert there.shape == (m, n)
        np.testing.assert_allclose(back @ there, np.eye(n), atol=1e-12)
    blocks = jpeg.axis(16, 1)[0]
    np.testing.assert_allclose(blocks @ blocks.T, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("subsampling", jpeg.FACTORS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 17, 40)], ids=str)
@pytest.mark.parametrize("quality", [5, 20, 75, 100])
def test_with_true_rounding_the_stand_in_is_jpeg(monkeypatch, quality, shape, subsampling):
    """Up to the two roundings that it leaves out, of colours and pixels: so its steps are the right ones."""
    @op
    def hard_round(z):
        return np.rint(z), lambda g: g

    x = pictures(8, shape, np.float64)
    soft = 255 * jpeg.stand_in(Tensor(x), quality, subsampling).data
    monkeypatch.setattr(jpeg, "soft_round", hard_round)
    hard = 255 * jpeg.stand_in(Tensor(x), quality, subsampling).data
    true = 255 * jpeg.compressed(x, quality, subsampling)
    assert abs(np.clip(hard, 0, 255) - true).mean() < 2.5
    assert abs(soft - hard).mean() < abs(np.clip(hard, 0, 255) - 255 * x).mean() + 1  # by less than JPEG changes x


@given(seed=seeds, shape=shapes, quality=st.sampled_from([10, 50, 90]), subsampling=subsamplings)
def test_the_gradient_of_the_stand_in_is_right(seed, shape, quality, subsampling):
    """With a smooth curve in the place of the rounding, which jumps at halves; its own slope is tested below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "soft_round", lambda z: z * z * 0.1)
        check_vjp(lambda x: jpeg.stand_in(x, quality, subsampling), (np.random.default_rng(seed).random((2, *shape)),))


@given(seed=seeds)
def test_the_soft_rounding_is_near_to_rounding_and_its_slope_is_known(seed):
    z = np.random.default_rng(seed).normal(size=50) * 4
    found = jpeg.soft_round(Tensor(z)).data
    assert (abs(found - np.rint(z)) <= 1 / 8 + 1e-12).all()
    point = Tensor(z)
    (slope,) = gradients(jpeg.soft_round(point).sum(), [point])
    np.testing.assert_allclose(slope, 3 * (z - np.rint(z)) ** 2)


# SHIELD


@given(seed=seeds, shape=shapes, qualities=st.lists(qualities, min_size=1, max_size=3).map(tuple))
def test_each_block_is_of_one_of_the_qualities(seed, shape, qualities):
    x = pictures(3, shape, seed=seed)
    found = driver.logits(nn.Sequential(defenses.SHIELD(qualities), ops.flatten), x, seed=seed).reshape(x.shape)
    plain = [from_pillow(x, quality).astype(x.dtype) for quality in qualities]
    for i in range(0, shape[1], 8):
        for j in range(0, shape[2], 8):
            block = np.s_[:, :, i:i + 8, j:j + 8]
            for k, image in enumerate(found[block]):
                assert any(image.tobytes() == each[block][k].tobytes() for each in plain)


def test_the_qualities_are_equally_likely():
    x = np.random.default_rng(0).random((50, 1, 40, 40)).astype(np.float32)
    found = driver.logits(nn.Sequential(defenses.SHIELD(), ops.flatten), x).reshape(x.shape)
    counts = []
    for quality in (20, 40, 60, 80):
        same = found == from_pillow(x, quality).astype(x.dtype)
        counts.append(same.reshape(50, 5, 8, 5, 8).all(axis=(2, 4)).sum())
    assert sum(counts) == 50 * 25
    assert min(counts) > 250


def test_its_smooth_gradient_is_that_of_the_drawn_qualities():
    x, layer = pictures(2, (1, 16, 16), np.float64), defenses.SHIELD((10, 90), gradient="smooth")
    point = Tensor(x)
    with drawing_from(Streams(0, range(2)).of_pass(0)):
        value = layer(point)
    w = np.random.default_rng(0).normal(size=x.shape)
    low = (value.data == from_pillow(x, 10)).reshape(2, 1, 2, 8, 2, 8).all(axis=(3, 5), keepdims=True)
    low = np.broadcast_to(low, (2, 1, 2, 8, 2, 8)).reshape(x.shape)
    expected = []
    for quality, part in (10, low), (90, ~low):
        z = Tensor(x)
        expected.append(gradients((jpeg.stand_in(z, quality, "4:2:0") * (w * part)).sum(), [z])[0])
    np.testing.assert_allclose(gradients((value * w).sum(), [point])[0], sum(expected), atol=1e-12)


# Errors


def test_what_jpeg_cannot_do_is_an_error():
    for quality in (0, 101, 7.5, "best", True):
        for make in defenses.JPEG, lambda quality: defenses.SHIELD((quality,)):
            with pytest.raises(ValueError, match=f"quality must be an integer from 1 to 100, got {quality!r}"):
                make(quality)
    with pytest.raises(ValueError, match=r"qualities must be several, such as \(20, 40, 60, 80\), got 50"):
        defenses.SHIELD(50)
    with pytest.raises(ValueError, match=r"SHIELD: expected images \(N, C, H, W\)"):
        defenses.SHIELD()(Tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match="quality must be an integer from 1 to 100, got none"):
        defenses.SHIELD(())
    with pytest.raises(ValueError, match="subsampling must be one of 4:4:4, 4:2:2, 4:2:0; got '4:1:1'"):
        defenses.SHIELD(subsampling="4:1:1")
    with pytest.raises(ValueError, match=r"C = 1 or 3, got shape \(1, 2, 8, 8\)"):
        defenses.JPEG()(Tensor(np.zeros((1, 2, 8, 8))))


def test_a_quality_may_be_an_integer_of_numpy():
    x = Tensor(np.random.default_rng(0).random((2, 3, 16, 16)))
    assert repr(defenses.JPEG(np.int64(10))) == repr(defenses.JPEG(10))
    np.testing.assert_array_equal(defenses.JPEG(np.uint8(10))(x).data, defenses.JPEG(10)(x).data)
    qualities = list(np.arange(10, 100, 40)), (10, 50, 90)
    one, other = (defenses.SHIELD(each, seed=3)(x).data for each in qualities)
    np.testing.assert_array_equal(one, other)


def test_they_say_what_they_are():
    assert repr(defenses.JPEG(quality=10)) == "JPEG(gradient='identity', quality=10, subsampling='4:2:0')"
    assert repr(defenses.SHIELD(seed=3)) == ("SHIELD(gradient='identity', qualities=(20, 40, 60, 80), "
                                             "subsampling='4:2:0', seed=3, calls=0)")
