"""Labelled images, and one pass over them in batches."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyadv.backend import is_array
from tinyadv.shapes import flat_labels, to_count
from tinyadv.spellings import no_attribute, spelled


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with their labels.

    images: float32 of shape (N, C, H, W), by convention in [0, 1].
    labels: int64 of shape (N,), in 0 .. len(classes) - 1.
    name: the name to cite in results, such as "mnist-test".
    classes: the name of each class; "0", "1", ... up to the highest label unless given.

    ``dataset[:1000]``, ``dataset[indices]`` and ``dataset[mask]`` select examples and keep name and classes;
    a slice shares memory with the original. ``dataset[i]`` is a Dataset of one. Raises ValueError where the
    shapes, dtypes or labels do not fit together, IndexError where an index is out of range.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str = "data"
    classes: tuple[str, ...] = ()

    if not TYPE_CHECKING:
        __getattr__ = no_attribute

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        for name, array in (("images", images), ("labels", labels)):
            if not is_array(array):
                raise ValueError(f"{name} must be an array, got {type(array).__name__}: convert it with np.asarray")
            if not isinstance(array, np.ndarray):  # batches are moved to where the model is
                raise ValueError(f"{name} must be an array of NumPy, got {type(array).__module__}: give {name}.get()")
        if images.ndim != 4 or images.dtype != np.float32:
            raise ValueError("images must be float32 of shape (N, C, H, W), got "
                             f"{images.dtype} {images.shape}: convert them with astype and reshape")
        if labels.ndim != 1 or labels.dtype != np.int64:
            raise ValueError("labels must be int64 of shape (N,), got "
                             f"{labels.dtype} {labels.shape}"
                             f"{flat_labels(labels, 'labels') or ': convert them with astype'}")
        if not isinstance(self.classes, tuple | list):
            raise ValueError(f"classes must be the names of the classes, in order, got {self.classes!r}")
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(labels.max(initial=-1) + 1))))
        if len(images) != len(labels):
            raise ValueError(f"images and labels must have the same length, got {len(images)} and {len(labels)}")
        if np.any((labels < 0) | (labels >= len(self.classes))):
            raise ValueError(f"labels must be in 0 .. {len(self.classes) - 1}, one for each of the classes, "
                             f"got {labels.min()} .. {labels.max()}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> "Dataset":
        if hasattr(index, "__index__") and np.ndim(index) == 0:
            index = [operator.index(index)]
        return Dataset(self.images[index], self.labels[index], self.name, self.classes)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a Dataset cannot be iterated over or unpacked: take dataset.images and dataset.labels, or, "
                        "for batches, `for images, labels in data.batches(dataset, 32)`")

    def __repr__(self) -> str:
        return (f"Dataset {self.name}: {len(self):,} images {self.images.shape[1:]}, "
                f"{len(self.classes)} classes")


def check_dataset(dataset: Any) -> None:
    """TypeError for what is no data set, ValueError for one without images, of which no fraction can be right."""
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a data.Dataset, got {type(dataset).__name__}: make one by "
                        "data.Dataset(images, labels)")
    if not len(dataset):
        raise ValueError(f"dataset must hold at least one image, but {dataset.name} is empty")


@spelled
def batches(dataset: Dataset, batch_size: int = 32, *, seed: int | None = None,
            epoch: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass over ``dataset``: an iterator of (images, labels) pairs, the last of which may be smaller.

    Without a ``seed`` the examples come in order, as views. With a seed they are shuffled, in an order that
    depends only on (seed, epoch), so a resumed run continues as if it had never stopped.
    Raises ValueError for a ``batch_size`` that is not a positive integer.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"batches are of a data.Dataset, got {type(dataset).__name__}: make one by "
                        "data.Dataset(images, labels)")
    batch_size = to_count("batch_size", batch_size)
    picks: Iterator[Any] = (slice(i, i + batch_size) for i in range(0, len(dataset), batch_size))
    if seed is not None:
        sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
        order = np.random.default_rng(sequence).permutation(len(dataset))
        picks = (order[pick] for pick in picks)
    return ((dataset.images[pick], dataset.labels[pick]) for pick in picks)
