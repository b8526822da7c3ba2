"""CIFAR-10 (Krizhevsky 2009): 60,000 colour photographs of 32 x 32 pixels in ten classes, read from binary files."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np

from tinyadv.spellings import spelled

from .fetch import ROUNDS, DataUnavailable, fetch, receive, user_cache, write_atomically
from .loader import Dataset

NAME = "cifar-10-batches-bin"
ARCHIVE = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
           "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171)  # URL, SHA-256, bytes
RECORD = 1 + 3 * 32 * 32  # bytes of an image: its label, then its red, green and blue plane, row by row
FILES = {  # SHA-256 and size
    "data_batch_1.bin": ("cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", 10_000 * RECORD),
    "data_batch_2.bin": ("a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", 10_000 * RECORD),
    "data_batch_3.bin": ("bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", 10_000 * RECORD),
    "data_batch_4.bin": ("014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", 10_000 * RECORD),
    "data_batch_5.bin": ("755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", 10_000 * RECORD),
    "test_batch.bin": ("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", 10_000 * RECORD),
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PROVENANCE = "PROVENANCE.txt"


@spelled
def cifar10(path: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
    """The training set (50,000 images) and the test set (10,000 images) of CIFAR-10.

    Images are float32 of shape (3, 32, 32) in [0, 1], labels int64.

    The six .bin files are read from the folder ``path`` (default ``$TINYADV_DATA/cifar-10-batches-bin``) or from the
    user's cache. If they are in neither, and ``download`` is True, their archive of 170 MB is downloaded into the
    cache. The size and SHA-256 of each file are checked.

    A folder with a file PROVENANCE.txt holds a copy whose bytes differ from the original. Then the text of that file
    replaces "cifar10" in the names of the data sets, and only the layout of the files is checked.

    Raises ValueError for a damaged file in the folder, DataUnavailable if no source has the data.
    """
    root = os.environ.get("TINYADV_DATA")
    folder = Path(path).expanduser() if path is not None else Path(root).expanduser() / NAME if root else None
    if folder and (folder / PROVENANCE).is_file():
        source, contents = _copy(folder)
    else:
        source, contents = "cifar10", _original(path, download)
    *train, test = (read_records(contents[file], file) for file in FILES)
    return _dataset(f"{source}-train", train), _dataset(f"{source}-test", [test])


def read_records(content: bytes, file: str = "the file") -> np.ndarray:
    """The records of a binary file, (N, 3073) uint8, read-only: each is a label and the 3 x 32 x 32 bytes of an image.

    Raises ValueError unless the file has at least one record, only complete records, and labels from 0 to 9.
    """
    if not content or len(content) % RECORD:
        raise ValueError(f"{file} must hold records of {RECORD} bytes, got {len(content):,} bytes: it is damaged")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if (largest := records[:, 0].max()) >= len(CLASSES):
        raise ValueError(f"{file} must hold labels from 0 to {len(CLASSES) - 1}, got {largest}: it is damaged")
    return records


def _copy(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The name in PROVENANCE.txt, and the contents of the files."""
    source = (folder / PROVENANCE).read_text(encoding="utf-8-sig", errors="backslashreplace").strip()
    if not source or not source.isprintable():
        raise ValueError(f"{folder / PROVENANCE} must contain one line, the name of the copy, got {source[:80]!r}")
    if missing := [file for file in FILES if not (folder / file).is_file()]:
        raise DataUnavailable(f"the copy of CIFAR-10 in {folder} lacks {', '.join(missing)}")
    return source, {file: (folder / file).read_bytes() for file in FILES}


def _original(path: str | os.PathLike[str] | None, download: bool) -> dict[str, bytes]:
    try:
        return fetch(NAME, FILES, (), path, download=False)
    except DataUnavailable:
        if not download:
            raise
    _fill_cache()
    return fetch(NAME, FILES, (), path, download=False)  # which checks every file


def _fill_cache() -> None:
    """Download the archive, check it, and write its files into the user's cache."""
    url, sha256, size = ARCHIVE
    cache, tried = user_cache(NAME), []
    if wrong := [str(cache / file) for file in FILES if (cache / file).is_dir()]:  # else the download would be wasted
        raise DataUnavailable(f"{wrong[0]} is a folder, where a file of the cache must be: remove it")
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise DataUnavailable(f"the cache {cache} cannot be written: {there} is no folder in which files can be made")
    for _ in range(ROUNDS):
        try:
            archive = receive(url, size)
        except OSError as error:
            tried.append(str(error))
            continue
        if (got := hashlib.sha256(archive).hexdigest()) == sha256:
            break
        tried.append(f"its SHA-256 is {got}, expected {sha256}")
    else:
        raise DataUnavailable("\n  ".join([f"could not download {url}:", *tried]) + "\nDownload it in another way, "
                              "unpack it, and set the environment variable TINYADV_DATA to the folder that contains "
                              f"{NAME}/.")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            for file in FILES:
                member = files.extractfile(f"{NAME}/{file}")
                assert member is not None  # the archive is the one that is expected
                write_atomically(cache / file, member.read())
    except OSError as error:
        raise DataUnavailable(f"the cache {cache} cannot be written: {error}") from error


def _dataset(name: str, batches: list[np.ndarray]) -> Dataset:
    records = np.concatenate(batches)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255)
    return Dataset(pixels, records[:, 0].astype(np.int64), name, CLASSES)
