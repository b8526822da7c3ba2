"""MNIST (LeCun, Cortes and Burges, 1998): 70,000 handwritten digits of 28 x 28 grey pixels."""

import math
import os
from pathlib import Path

import numpy as np

from tinyadv.spellings import spelled

from .fetch import decompressed, fetch
from .loader import Dataset

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {  # SHA-256 and size of the decompressed file
    "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
    "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
    "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
    "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
}
CLASSES = tuple("0123456789")
EXPANSION = 100  # gzip may unpack to so many times its size; for the training images it is 4.7
LONGEST_HEADER = 4 + 4 * 255


@spelled
def mnist(path: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
    """The training set (60,000 images) and the test set (10,000), of shape (1, 28, 28) in [0, 1].

    The four idx files come from the folder ``path`` (by default ``$TINYADV_DATA/mnist``) or from the user's
    cache. Unless ``download`` is False, missing files are downloaded into the cache. Each file is checked by its
    SHA-256. Raises ValueError for a damaged file in that folder, and DataUnavailable if no source has the data.
    """
    contents = fetch("mnist", FILES, MIRRORS, path, download)
    train_images, train_labels, test_images, test_labels = (read_idx(contents[file]) for file in FILES)
    return (_dataset("mnist-train", train_images, train_labels),
            _dataset("mnist-test", test_images, test_labels))


def read_idx(source: bytes | str | os.PathLike[str]) -> np.ndarray:
    """The array of unsigned bytes in an idx file, given as its bytes or its path, plain or gzip; read-only.

    The format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the data in row-major order. Raises ValueError for any other file, and for gzip
    that decompresses to more than EXPANSION times its size.
    """
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    head = decompressed(raw, LONGEST_HEADER, whole=False)[:LONGEST_HEADER]
    if head[:3] != b"\0\0\x08" or head[3:4] in (b"", b"\0"):
        raise ValueError("an idx file of unsigned bytes must start with 00 00 08 and its dimensionality, "
                         f"got {head[:4].hex(' ') or 'an empty file'}")
    start = 4 + 4 * head[3]
    if len(head) < start:
        raise ValueError(f"an idx file of {head[3]} dimensions must have a header of {start} bytes, "
                         f"got {len(head)} bytes in all: it is truncated")
    shape = np.frombuffer(head[4:start], ">u4").tolist()
    expected = math.prod(shape)
    if expected > EXPANSION * len(raw):
        raise ValueError(f"an idx file of shape {tuple(shape)} must hold {expected} bytes after its header, but it has "
                         f"only {len(raw)} bytes in all: it is truncated, or unusual gzip, to be decompressed first")
    content = decompressed(raw, start + expected)
    if (got := len(content) - start) != expected:
        raise ValueError(f"an idx file of shape {tuple(shape)} must hold {expected} bytes after its header, "
                         f"got {got}: it is {'truncated' if got < expected else 'too long'}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _dataset(name: str, images: np.ndarray, labels: np.ndarray) -> Dataset:
    pixels = images[:, None] / np.float32(255)  # (N, 1, 28, 28)
    return Dataset(pixels, labels.astype(np.int64), name, CLASSES)
