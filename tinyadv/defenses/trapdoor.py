"""Trapdoors: patterns that a network is taught to mistake for a class, and a detector of attacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyadv import driver, ops
from tinyadv.attacks.base.arguments import check_target
from tinyadv.backend import Array, move, on_its_device, to_host
from tinyadv.data import Dataset
from tinyadv.data.loader import check_dataset
from tinyadv.nn import Module
from tinyadv.nn.latent import Latent, latent, unit
from tinyadv.ops.loss import check_labels
from tinyadv.random import check_seed
from tinyadv.shapes import check_equal, check_floating, check_ndim, check_positive, is_number, to_count
from tinyadv.tensor import Tensor


class Trapdoors:
    """A pattern for each class: x' = (1 - mask) x + mask * pattern. Shan et al. 2020, arXiv:1904.08554, section 4.1.

    As in the authors' code for MNIST, a mask is `strength` in some random squares, and 0 elsewhere; a square's pattern
    is normal noise with a random mean and deviation, clipped to [0, 1]. So no pixel changes by more than `strength`.

    classes: their number; shape: (C, H, W); squares: for each class, they may overlap; side: of a square, in pixels.
    masks, patterns: (classes, C, H, W).
    """

    def __init__(self, classes: int = 10, shape: tuple[int, int, int] = (1, 28, 28), strength: float = 0.1,
                 squares: int = 7, side: int = 3, seed: int = 0):
        if not (is_number(strength) and 0 <= strength <= 1):
            raise ValueError(f"strength must be in [0, 1], got {strength!r}")
        if not isinstance(shape, tuple | list) or len(shape) != 3:
            raise ValueError(f"shape must be (C, H, W), got {shape!r}: for grey images, (1, H, W)")
        for name, count, least in (("classes", classes, 2), ("squares", squares, 0), ("side", side, 1),
                                   *(("each number of shape", each, 1) for each in shape)):
            to_count(name, count, least)
        if side > min(shape[1:]):
            raise ValueError(f"side must be at most that of the image, {min(shape[1:])}, got {side}")
        rng, self.classes = np.random.default_rng(check_seed(seed)), classes
        self.masks, self.patterns = np.zeros((2, classes, *shape), np.float32)
        for mask, pattern in zip(self.masks, self.patterns, strict=True):
            for _ in range(squares):
                top, left = (rng.integers(0, length - side + 1) for length in shape[1:])
                square = np.s_[:, top:top + side, left:left + side]
                mask[square] = strength
                mean, deviation = rng.random(2)
                pattern[square] = np.clip(rng.normal(mean, deviation, pattern[square].shape), 0, 1)

    def __repr__(self) -> str:
        return f"Trapdoors({self.classes} classes, {self.masks.shape[1:]}, strength={self.masks.max(initial=0):g})"

    @on_its_device
    def inject(self, images: Array, classes: Array | int) -> Array:
        """Images (N, C, H, W) in [0, 1] with the trapdoors of these classes (N,), or of one class for all.

        ValueError for classes, or images, of other shapes.
        """
        check_floating(images)
        if images.shape[1:] != self.masks.shape[1:]:
            raise ValueError(f"images must be (N, C, H, W) with (C, H, W) = {self.masks.shape[1:]}, as that of the "
                             f"trapdoors, got shape {images.shape}")
        classes = to_host(check_target(classes, "classes", images))
        check_labels(classes, self.classes, "classes")
        masks, patterns = (move(array[classes].astype(images.dtype), images) for array in (self.masks, self.patterns))
        return images * (1 - masks) + masks * patterns


class TrapdoorDetector(Module):
    """A network with one class more, the last: "flagged", for inputs that look like the trapdoor of their class.

    Shan et al. 2020, arXiv:1904.08554, sections 4.2 and 4.3. The signature of a class is the mean latent vector of
    images with its trapdoor (`nn.Latent`). An input of predicted class k is flagged if the cosine of its latent vector
    and the signature k is above the threshold t_k.

    The logit of "flagged" is the largest logit plus sharpness * (cosine - t_k). So an attack on the detector that
    reaches a `target=` class is misclassified *and* not flagged. That is the adaptive attack, after Carlini 2020,
    arXiv:2009.10975, who broke the defence: its gradient leads to the class, and away from the signature.

    model: the network, K classes; signatures: (K, D); thresholds: (K,). `trapdoor_detector` makes all of them.
    """

    def __init__(self, model: Module, signatures: Array, thresholds: Array, sharpness: float = 10.0):
        check_positive("sharpness", sharpness)
        check_ndim(signatures.shape, 2, "TrapdoorDetector", "signatures (K, D)")
        check_equal(len(signatures), len(thresholds), "TrapdoorDetector", "the number of signatures", "of thresholds")
        self.model, self.sharpness, there = model, sharpness, driver.memory_of(model, signatures)
        self.signatures = unit(Tensor(move(signatures, like=there))).data  # buffers
        self.thresholds = move(to_host(thresholds).astype(signatures.dtype), like=there)

    def forward(self, x: Tensor) -> Tensor:
        z, logits = latent(self.model, x)
        check_equal(logits.shape[1], len(self.thresholds), "TrapdoorDetector", "the model's number of classes",
                    "that of the signatures")
        check_equal(z.shape[1], self.signatures.shape[1], "TrapdoorDetector", "the length of the latent vectors",
                    "that of the signatures")
        chosen = logits.data.argmax(axis=1)
        cosine = ops.sum(unit(z) * self.signatures[chosen], axis=1)
        flag = ops.max(logits, axis=1) + self.sharpness * (cosine - self.thresholds[chosen])
        return ops.concatenate([logits, flag.reshape(-1, 1)], axis=1)

    def scores(self, images: Array, **options: Any) -> np.ndarray:
        """The cosines (N,) of images (N, C, H, W) with the signatures of their predicted classes."""
        z, logits = (to_host(driver.logits(model, images, **options)) for model in (Latent(self.model), self.model))
        return (unit(Tensor(z)).data * to_host(self.signatures)[logits.argmax(axis=1)]).sum(axis=1)

    def flagged(self, images: Array, **options: Any) -> np.ndarray:
        """(N,) bool: whether images (N, C, H, W) are taken for attacks."""
        return to_host(driver.classes(driver.logits(self, images, **options))) == len(self.thresholds)


def trapdoor_detector(model: Module, trapdoors: Trapdoors, train: Dataset, held_out: Dataset, *, fpr: float = 0.05,
                      sharpness: float = 10.0) -> TrapdoorDetector:
    """The detector of a network that has been trained with trapdoors.

    train: for the signatures; every image gets every trapdoor. held_out: other clean images, for the thresholds: a
    share `fpr` of those that are predicted as a class, the false positives, lies above its threshold. A class as which
    none is predicted has the threshold of all images together.
    """
    if not (is_number(fpr) and 0 < fpr < 1):
        raise ValueError(f"fpr must be a rate in (0, 1), got {fpr!r}")
    for dataset in train, held_out:
        check_dataset(dataset)
    logits = to_host(driver.logits(model, held_out.images))
    check_equal(logits.shape[1], trapdoors.classes, "trapdoor_detector", "the model's number of classes",
                "that of the trapdoors")
    signatures = np.stack([to_host(driver.logits(Latent(model), trapdoors.inject(train.images, k))).mean(axis=0)
                           for k in range(trapdoors.classes)])
    detector = TrapdoorDetector(model, signatures, np.full(trapdoors.classes, np.inf), sharpness)
    scores, predicted = detector.scores(held_out.images), driver.classes(logits)
    own = [scores[predicted == k] if (predicted == k).any() else scores for k in range(trapdoors.classes)]
    return TrapdoorDetector(model, signatures, np.array([np.quantile(each, 1 - fpr) for each in own]), sharpness)

