import hashlib
import importlib
import io
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv.data import DataUnavailable, cifar10
from tinyadv.data.cifar10 import FILES, NAME, RECORD, read_records

MODULE = importlib.import_module("tinyadv.data.cifar10")  # whose name in the package is the function


def records(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.hstack([rng.integers(0, 10, (count, 1)), rng.integers(0, 256, (count, RECORD - 1))]).astype(np.uint8)


CONTENTS = {file: records(2, i).tobytes() for i, file in enumerate(FILES)}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A CIFAR-10 of two images a file: a folder that holds it, an empty cache, no other folder known."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "caches" / project)
    monkeypatch.delenv("TINYADV_DATA", raising=False)
    expected = {file: (hashlib.sha256(content).hexdigest(), len(content)) for file, content in CONTENTS.items()}
    monkeypatch.setattr(MODULE, "FILES", expected)
    (tmp_path / NAME).mkdir()
    for file, content in CONTENTS.items():
        (tmp_path / NAME / file).write_bytes(content)
    return tmp_path / NAME


@pytest.fixture
def archive(tiny, monkeypatch):
    """The archive of the tiny data set on a web server; its path, to be changed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as files:
        files.add(tiny, NAME)
    path = tiny.parent / "web" / "cifar.tar.gz"
    path.parent.mkdir()
    path.write_bytes(packed.getvalue())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
        monkeypatch.setattr(MODULE, "ARCHIVE", (url, sha256, len(packed.getvalue())))
        yield path
        server.shutdown()
        thread.join()


def check(train, test, source="cifar10"):
    assert repr(train) == f"Dataset {source}-train: 10 images (3, 32, 32), 10 classes"
    assert repr(test) == f"Dataset {source}-test: 2 images (3, 32, 32), 10 classes"
    for dataset, files in ((train, list(FILES)[:5]), (test, ["test_batch.bin"])):
        content = np.frombuffer(b"".join(CONTENTS[file] for file in files), np.uint8).reshape(-1, RECORD)
        assert dataset.labels.tolist() == content[:, 0].tolist()
        red, green, blue = np.split(content[:, 1:], 3, axis=1)  # the planes, rows first
        for channel, plane in enumerate((red, green, blue)):
            np.testing.assert_array_equal(dataset.images[:, channel].reshape(-1, 1024), plane / np.float32(255))


def test_the_original_is_read_from_a_folder_and_checked(tiny, monkeypatch):
    check(*cifar10(tiny, download=False))
    monkeypatch.setenv("TINYADV_DATA", str(tiny.parent))
    check(*cifar10(download=False))
    (tiny / "data_batch_3.bin").write_bytes(CONTENTS["data_batch_4.bin"])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is damaged: its decompressed SHA-256"):
        cifar10(tiny)


def test_a_copy_names_itself_in_the_names_of_its_data_sets(tiny, monkeypatch):
    monkeypatch.setattr(MODULE, "FILES", FILES)  # whose hashes are others
    (tiny / "PROVENANCE.txt").write_text("CIFAR-10 (a copy)\n")
    check(*cifar10(tiny, download=False), source="CIFAR-10 (a copy)")
    for text in ("", " \n", "two\nlines"):
        (tiny / "PROVENANCE.txt").write_text(text)
        with pytest.raises(ValueError, match=r"PROVENANCE\.txt must contain one line, the name of the copy"):
            cifar10(tiny)
    (tiny / "PROVENANCE.txt").write_text("une copie agrandie et d\xe9bruit\xe9e", encoding="latin-1")  # not UTF-8
    check(*cifar10(tiny), source=r"une copie agrandie et d\xe9bruit\xe9e")


def test_a_copy_with_a_damaged_or_missing_file_is_refused_by_name(tiny):
    (tiny / "PROVENANCE.txt").write_text("copy")
    (tiny / "data_batch_2.bin").write_bytes(CONTENTS["data_batch_2.bin"][:-1])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin must hold records of 3073 bytes, got 6,145 bytes"):
        cifar10(tiny)
    (tiny / "data_batch_2.bin").unlink()
    with pytest.raises(DataUnavailable, match=r"lacks data_batch_2\.bin$"):
        cifar10(tiny)


def test_the_archive_is_downloaded_once_into_the_cache(tiny, archive):
    empty = tiny.parent / "empty"
    with pytest.raises(DataUnavailable, match=r"not allowed \(download=False\)"):
        cifar10(empty, download=False)
    check(*cifar10(empty))
    archive.unlink()
    check(*cifar10(empty))
    cache = tiny.parent / "caches" / "tinyadv" / NAME
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == CONTENTS


def test_a_damaged_archive_leaves_nothing_behind(tiny, archive):
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataUnavailable, match=r"its SHA-256 is .*, expected(.|\n)*TINYADV_DATA to the folder that"):
        cifar10(tiny.parent / "empty")
    archive.unlink()
    with pytest.raises(DataUnavailable, match="404"):
        cifar10(tiny.parent / "empty")
    assert not (tiny.parent / "caches").exists()


@given(count=st.integers(1, 3), cut=st.integers(1, RECORD - 1), label=st.integers(10, 255))
def test_records_are_whole_and_their_labels_known(count, cut, label):
    whole = records(count)
    np.testing.assert_array_equal(read_records(whole.tobytes()), whole)
    with pytest.raises(ValueError, match="records of 3073 bytes"):
        read_records(whole.tobytes()[:-cut])
    whole[-1, 0] = label
    with pytest.raises(ValueError, match=f"labels from 0 to 9, got {label}"):
        read_records(whole.tobytes())


def test_cifar10_is_whole_or_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", tmp_path.joinpath)
    if not Path(os.environ.get("TINYADV_DATA") or tmp_path, NAME).is_dir():
        with pytest.raises(DataUnavailable, match=f"TINYADV_DATA to the folder that holds {NAME}"):
            cifar10(tmp_path / "empty", download=False)
        return
    train, test = cifar10(download=False)
    assert (train.images.shape, test.images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert (np.bincount(train.labels) == 5000).all()
    assert (np.bincount(test.labels) == 1000).all()
    assert train.name.removesuffix("-train") == test.name.removesuffix("-test")


def test_a_folder_in_the_place_of_a_file_is_told_before_the_download(tiny, archive):
    (tiny.parent / "caches" / "tinyadv" / NAME / "test_batch.bin").mkdir(parents=True)
    archive.unlink()  # the server would answer 404
    with pytest.raises(DataUnavailable, match=r"test_batch\.bin is a folder, where a file of the cache must be"):
        cifar10(tiny.parent / "empty")


def test_the_name_of_a_copy_may_begin_with_a_byte_order_mark(tiny):
    (tiny / "PROVENANCE.txt").write_text("A copy", encoding="utf-8-sig")
    assert cifar10(tiny)[0].name == "A copy-train"


@pytest.mark.parametrize("block", ["file", "permission"])
def test_a_cache_that_cannot_be_made_is_told_before_the_download(tiny, monkeypatch, block):
    asked = []
    monkeypatch.setattr(MODULE, "receive", lambda *args: asked.append(args))
    if block == "file":
        (tiny.parent / "caches").write_bytes(b"")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataUnavailable, match=r"the cache .* cannot be written"):
        cifar10(tiny.parent / "empty")
    assert not asked
