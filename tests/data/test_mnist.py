import gzip
import hashlib
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinyadv.data import DataUnavailable, mnist
from tinyadv.data.mnist import FILES, read_idx

SHAPES = array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)


def idx(array, code=8):
    """The bytes of the idx file of an array."""
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@given(arrays(np.uint8, SHAPES))
def test_reading_inverts_writing(array):
    for content in (idx(array), gzip.compress(idx(array))):
        read = read_idx(content)
        assert read.dtype == np.uint8
        assert np.array_equal(read, array)


def test_a_path_reads_as_its_bytes_do(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array)))
    assert np.array_equal(read_idx(tmp_path / "plain"), array)
    assert np.array_equal(read_idx(str(tmp_path / "packed.gz")), array)


@given(array=arrays(np.uint8, SHAPES), data=st.data())
def test_every_truncation_is_refused(array, data):
    content = idx(array)
    with pytest.raises(ValueError, match="an idx file"):
        read_idx(content[: data.draw(st.integers(0, len(content) - 1))])


@given(array=arrays(np.uint8, SHAPES), extra=st.binary(min_size=1))
def test_bytes_after_the_end_are_refused(array, extra):
    with pytest.raises(ValueError, match="it is too long"):
        read_idx(idx(array) + extra)


@pytest.mark.parametrize("code", [0, 7, 9, 0x0B, 0x0C, 0x0D, 0x0E])
def test_other_types_than_unsigned_bytes_are_refused(code):
    with pytest.raises(ValueError, match=f"must start with 00 00 08 .* got 00 00 {code:02x} 02"):
        read_idx(idx(np.zeros((2, 2), np.uint8), code))


@pytest.mark.parametrize("start", [b"", b"\0\0\x08\0", b"\x93NUMPY", b"\0\1\x08\1"])
def test_a_wrong_magic_number_is_refused(start):
    with pytest.raises(ValueError, match="must start with 00 00 08"):
        read_idx(start + bytes(20) if start else start)


def test_a_huge_claimed_shape_is_refused_before_anything_is_allocated():
    for wrap in (bytes, gzip.compress):
        with pytest.raises(ValueError, match=r"18446744065119617025 bytes after its header, but it has only \d+"):
            read_idx(wrap(b"\0\0\x08\2" + b"\xff" * 8 + b"abc"))


@pytest.mark.parametrize("claimed", [1000, 30_000_000], ids=["short", "as it is"])
def test_gzip_that_unpacks_to_far_more_than_it_claims_or_should_is_refused(claimed):
    bomb = gzip.compress(b"\0\0\x08\1" + claimed.to_bytes(4, "big") + bytes(30_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"decompresses to more than the 1,008 bytes|or unusual gzip"):
            read_idx(bomb)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_mnist_is_the_real_thing_or_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", tmp_path.joinpath)
    if not Path(os.environ.get("TINYADV_DATA") or tmp_path, "mnist").is_dir():
        with pytest.raises(DataUnavailable, match="TINYADV_DATA to the folder that holds mnist"):
            mnist(tmp_path / "empty", download=False)
        return
    train, test = mnist(download=False)
    assert repr(train) == "Dataset mnist-train: 60,000 images (1, 28, 28), 10 classes"
    assert repr(test) == "Dataset mnist-test: 10,000 images (1, 28, 28), 10 classes"
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.array_equal(np.unique(train.images), np.arange(256, dtype=np.float32) / np.float32(255))
    assert train.images.dtype == np.float32


def test_a_damaged_file_is_named_with_both_hashes(tmp_path):
    content = idx(np.zeros((1, 28, 28), np.uint8))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    got, expected = hashlib.sha256(content).hexdigest(), FILES["train-images-idx3-ubyte"][0]
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte is damaged: .* {got}, .* {expected}"):
        mnist(tmp_path, download=False)
