"""Certificates by sampling: a smoothed model is the majority vote of a base model on random versions of the image.

Cohen et al. 2019, arXiv:1902.02918, algorithm 1. smoothing.py and ablation.py each add how an image is varied, and how
far away another image must be to change the vote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from tinyadv import driver, ops
from tinyadv.backend import VERSION, Array, move, to_host
from tinyadv.certify.binomial import clopper_pearson, sign_test
from tinyadv.certify.report import Saved
from tinyadv.data.augment import Augmentation
from tinyadv.data.loader import check_dataset
from tinyadv.nn import Module
from tinyadv.nn.table import progress_bar, table
from tinyadv.ops.loss import check_labels
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams, check_seed, drawing_from, in_hand
from tinyadv.shapes import check_fraction, to_count
from tinyadv.tensor import Tensor, no_grad

CHUNK = 100  # versions of an image in one forward pass; always so many, so that no bit depends on anything else


class Vote(Module):
    """See `Sampled.smoothed`. As a module, so that the base model is in evaluation mode, and images come to its GPU."""

    def __init__(self, certificate: Sampled, model: Callable, samples: int, seed: int):
        self.certificate, self.model, self.samples, self.seed = certificate, model, samples, seed

    def forward(self, x: Tensor) -> Tensor:
        n, *shape = x.shape
        own, versions = in_hand(), np.arange(self.samples)
        drawn = self.certificate.draw(tuple(shape), Streams(self.seed, versions))
        seen = self.certificate.show(x[np.arange(n).repeat(self.samples)], move(np.tile(drawn, (n, 1, 1, 1)), x.data))
        inner = nullcontext() if own is None else drawing_from(Streams(  # a random base model draws for each version
            self.seed, (own.examples[:, None] * self.samples + versions).ravel()).spawn(0).of_pass(0))
        with inner:
            logits = self.model(seen)
        return ops.log(ops.mean(ops.reshape(ops.softmax(logits), (n, self.samples, -1)), axis=1) + 1e-9)


@dataclass(frozen=True)
class Sampled:
    """The base class. choose: the number of samples that choose the class; samples: of those that bound its share.

    alpha: the largest probability, for each image, that the certificate is wrong. With probability 1 - alpha or more,
    the true shares of the classes are within their bounds (Clopper and Pearson), whatever the model is.
    """

    choose: int = field(default=100, kw_only=True)
    samples: int = field(default=10_000, kw_only=True)
    alpha: float = field(default=0.001, kw_only=True)

    norm: ClassVar[str]

    def __post_init__(self) -> None:
        for name in ("choose", "samples"):
            object.__setattr__(self, name, to_count(name, getattr(self, name)))
        check_fraction("alpha", self.alpha)
        object.__setattr__(self, "alpha", float(self.alpha))  # with a float32, bounds would be computed in float32

    def draw(self, shape: tuple[int, ...], streams: Streams) -> np.ndarray:
        """What varies images of shape (C, H, W), drawn once from each stream, for `show`."""
        raise TypeError(f"{type(self).__name__} defines no draw(shape, streams)")

    def show(self, x: Tensor, drawn: Array) -> Tensor:
        """The versions of N images (N, C, H, W) that N draws make; gradients pass through them."""
        raise TypeError(f"{type(self).__name__} defines no show(x, drawn)")

    def vary(self, images: Array, streams: Streams) -> Array:
        """A random version of each image (N, C, H, W), drawn from its own stream."""
        with no_grad():
            return self.show(Tensor(images), move(self.draw(images.shape[1:], streams), images)).data

    def radius(self, share: float, shape: tuple[int, ...], other: float | None = None) -> float:
        """The certified radius of an image (C, H, W) one of whose classes has at least this share.

        other: an upper bound of the share of every other class; 1 - share unless given. Without a lead the radius is 0.
        """
        raise TypeError(f"{type(self).__name__} defines no radius(share, shape, other)")

    def shares(self, votes: np.ndarray, top: int) -> tuple[float, float]:
        """With confidence 1 - alpha, the least share of the class `top`, and the most of any other.

        votes: (K,), those of `samples` versions. A version with a logit that is NaN votes for no class, and counts.
        """
        least = clopper_pearson(int(votes[top]), self.samples, self.alpha)
        return least, 1 - least

    def smoothed(self, model: Callable, *, samples: int = 100, seed: int = 0) -> Vote:
        """The vote as a model for attacks: from images (N, C, H, W) to the logs (N, K) of mean probabilities.

        All images get the same `samples` random changes, in one forward pass: a batch takes `samples` times the memory.
        An attack on this model breaks the vote only if `predict` confirms it.
        """
        return Vote(self, model, to_count("samples", samples), check_seed(seed))

    @property
    def augment(self) -> Augmentation:
        """The augmentation with which to train the base model: `training.fit(..., augment=certificate.augment)`."""
        variation = self.variation

        def apply(images: np.ndarray, streams: Streams) -> np.ndarray:
            return variation.vary(images, streams)

        return apply

    @property
    def variation(self) -> Sampled:
        """The same, with the usual numbers of samples and alpha, on which the versions of an image do not depend."""
        return replace(self, choose=Sampled.choose, samples=Sampled.samples, alpha=Sampled.alpha)

    def certify(self, model: Callable, dataset: Any, *, seed: int = 0, workers: int | None = None,
                progress: bool = False) -> CertifiedRadii:
        """CERTIFY of Cohen et al. for each image: the class, and the radius within which no image has another class.

        Image i draws from (seed, i) alone, and every forward pass has CHUNK versions of one image. So the result does
        not depend on the number of workers or on the other images, nor, up to the rounding of float32 products, on the
        machine.
        """
        return self._all(self._certify, model, dataset, seed, workers, progress)

    def predict(self, model: Callable, dataset: Any, *, seed: int = 0, workers: int | None = None,
                progress: bool = False) -> CertifiedRadii:
        """PREDICT of Cohen et al.: the class of the majority, or -1 where a test at alpha does not confirm it.

        That certifies nothing: all radii are NaN.
        """
        return self._all(self._predict, model, dataset, seed, workers, progress)

    def _all(self, work: Callable, model: Callable, dataset: Any, seed: int, workers: int | None,
             progress: bool) -> CertifiedRadii:
        check_dataset(dataset)
        seed = check_seed(seed)
        count, started = len(dataset), time.perf_counter()
        predictions, radii = np.full(count, -1), np.zeros(count)
        with progress_bar(count, str(self), progress) as bar:
            def put(part: slice, found: tuple[int, float, int]) -> None:
                predictions[part], radii[part], classes = found
                check_labels(dataset.labels, classes, type(self).__name__)  # as soon as the number is known
                bar.update(1)

            driver.run(work, model, (dataset.images, Streams(seed, range(count))), put, batch_size=1,
                       workers=workers)
        return CertifiedRadii(str(self), self.norm, seed, dataset.name, dataset.labels, predictions, radii,
                              time.perf_counter() - started)

    def _certify(self, model: Callable, image: np.ndarray, streams: Streams) -> tuple[int, float, int]:
        top = int(self._votes(model, image, streams, 0, self.choose).argmax())
        votes = self._votes(model, image, streams, 1, self.samples)  # of new samples
        share, other = self.shares(votes, top)
        if share > other:
            return top, self.radius(share, image.shape[1:], other), len(votes)
        return -1, 0.0, len(votes)

    def _predict(self, model: Callable, image: np.ndarray, streams: Streams) -> tuple[int, float, int]:
        votes = self._votes(model, image, streams, 2, self.samples)
        second, first = np.sort(votes)[-2:].tolist()
        sure = first and sign_test(first, second) <= self.alpha
        return int(votes.argmax()) if sure else -1, np.nan, len(votes)

    def _votes(self, model: Callable, image: np.ndarray, streams: Streams, purpose: int, count: int) -> np.ndarray:
        """(K,): how many of `count` versions of one image (1, C, H, W) the base model puts into each class.

        Version s draws from a stream of its own, which depends on the seed, the image, the purpose and s.
        """
        key = np.random.SeedSequence((streams.seed, int(streams.examples[0]), purpose)).generate_state(1, np.uint64)
        like, images, found = driver.memory_of(model, image), np.repeat(to_host(image), CHUNK, axis=0), []
        for start in range(0, count, CHUNK):
            own = Streams(int(key[0]), range(start, start + CHUNK))
            logits = driver.forward(model, arranged(move(self.vary(images, own), like)), own)
            found.append(to_host(driver.classes(logits.data))[:count - start])
        return (np.concatenate(found)[:, None] == np.arange(logits.shape[1])).sum(axis=0)


@dataclass(frozen=True, eq=False)
class CertifiedRadii(Saved):
    """The classes of N images, and the radii within which they are certified. It prints as a table.

    method: how; norm: that of the radii; seed: of the samples; data: the name of the images. Arrays (N,):
    labels: the true classes. predictions: int64, -1 where the vote abstains. radii: float64, 0 without a certificate,
    and NaN, which is no radius at all, from `predict`.
    """

    method: str
    norm: str
    seed: int
    data: str
    labels: np.ndarray
    predictions: np.ndarray
    radii: np.ndarray
    seconds: float = 0.0
    version: str = VERSION

    title: ClassVar[str] = "certified radii"
    dtypes: ClassVar[dict[str, str]] = {"labels": "i", "predictions": "i", "radii": "f"}

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: whether the class is the true one."""
        return self.predictions == self.labels

    @property
    def abstained(self) -> np.ndarray:
        """(N,) bool: whether the vote abstains. That is not right, but breaks no certificate either."""
        return self.predictions == -1

    @property
    def accuracy(self) -> float:
        """The fraction of images of the right class; who abstains is wrong."""
        return float(self.correct.mean())

    @property
    def median_radius(self) -> float:
        """The median radius; an image of a wrong class, or without a class, counts as -1."""
        return float(np.median(np.where(self.correct, self.radii, -1)))

    def certified_accuracy(self, radius: float) -> float:
        """The fraction of images of the right class whose certified radius is at least this."""
        return float((self.correct & (self.radii >= radius)).mean())

    def curve(self, radii: Any) -> dict[float, float]:
        """{radius: certified accuracy}, as `plots.epsilon_curve` draws it."""
        return {float(radius): self.certified_accuracy(radius) for radius in radii}

    def __str__(self) -> str:
        facts = (f"{self.data}: {len(self.labels):,} images, {self.norm}, seed {self.seed}, {self.seconds:.1f} s; "
                 f"accuracy {self.accuracy:.2%}, abstained {self.abstained.mean():.2%}, ")
        if np.isnan(self.radii).any():
            return f"{self.method}\n  {facts}predicted, not certified"
        steps = np.linspace(0, float(self.radii.max(initial=0)), 6)
        steps = np.unique(steps.round() if self.norm == "l0" else steps)  # pixels are whole
        rows = [("radius", "certified (Clopper-Pearson)"), *(
            (f"{radius:.3g}", f"{self.certified_accuracy(radius):.2%}") for radius in steps)]
        return "\n  ".join([self.method, f"{facts}median radius {self.median_radius:.4g}", *table(rows, "<>")])

    __repr__ = __str__
