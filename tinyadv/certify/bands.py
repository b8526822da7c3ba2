"""Bands of columns: a deterministic certificate against patches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.backend import Array, move, to_host
from tinyadv.certify.hiding import hidden
from tinyadv.certify.report import CertifiedReport
from tinyadv.data.augment import Augmentation
from tinyadv.data.loader import check_dataset
from tinyadv.ops.loss import check_labels
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams
from tinyadv.shapes import to_count


@dataclass(frozen=True)
class Bands:
    """The class that wins the vote of all bands of `width` columns, each shown alone, the others hidden.

    Levine and Feizi 2020, arXiv:2002.10733. A band begins at each of the W columns, and goes on at the left edge where
    it leaves the image. A patch of m x m pixels meets at most m + width - 1 bands, and each can move one vote from the
    winner to another class. So the winner stays if it leads by 2 (m + width - 1) votes, and by one more against a class
    of a lower number, which wins a tie. There is no randomness. The base model gets 2 C channels (`certify.hidden`).
    """

    width: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", to_count("width", self.width))

    def kept(self, columns: int) -> np.ndarray:
        """(W, 1, 1, W) bool: the columns of each band."""
        start, column = np.ogrid[:columns, :columns]
        return ((column - start) % columns < self.width).reshape(columns, 1, 1, columns)

    @property
    def augment(self) -> Augmentation:
        """The augmentation with which to train the base model: one random band of each image."""
        width = self.width  # a number in the closure, so that the recipe of a checkpoint tells it

        def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
            columns = images.shape[3]
            start = (streams.uniform(()) * columns).astype(int)
            return hidden(images, Bands(width).kept(columns)[start])

        return apply

    def certify(self, model: Callable, dataset: Any, patch: int, *, workers: int | None = None) -> CertifiedReport:
        """Which images no square patch of `patch` pixels a side can change, and which are classified correctly."""
        patch = to_count("patch", patch)
        check_dataset(dataset)
        certified, clean = np.zeros((2, len(dataset)), bool)
        started = time.perf_counter()

        def put(part: slice, votes: np.ndarray) -> None:
            labels = dataset.labels[part]
            check_labels(labels, votes.shape[1], "Bands")
            rows, classes = np.arange(len(labels)), np.arange(votes.shape[1])
            wins_ties = (classes < labels[:, None]).astype(int)
            lead = votes[rows, labels][:, None] - votes - wins_ties
            lead[rows, labels] = votes.sum()
            clean[part] = (lead >= 0).all(axis=1) & (votes[rows, labels] > 0)  # NaN logits are no votes
            certified[part] = (lead >= 2 * (patch + self.width - 1)).all(axis=1)

        driver.run(self.votes, model, (dataset.images,), put, batch_size=1, workers=workers)
        return CertifiedReport(str(self), float(patch), "patch", dataset.name, certified, clean,
                               seconds=time.perf_counter() - started)

    def votes(self, model: Callable, images: Array) -> np.ndarray:
        """(N, K): how many bands of each image (N, C, H, W) the base model puts into each class.

        A forward pass has all bands of one image, and nothing else, so that no vote depends on other images.
        """
        like, kept = driver.memory_of(model, images), self.kept(images.shape[3])
        images = to_host(images)

        def vote(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
            logits = driver.forward(model, arranged(move(hidden(image, kept), like))).data
            return (to_host(driver.classes(logits))[:, None] == np.arange(logits.shape[1])).sum(axis=0)

        if not len(images):
            return vote(images, kept[:0])[None][:0]
        return np.stack([vote(image[None], kept) for image in images])
