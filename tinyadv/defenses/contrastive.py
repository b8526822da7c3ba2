"""A classifier by the nearest of some reference images, in the latent space of a network."""

from __future__ import annotations

import numpy as np

from tinyadv import driver, ops
from tinyadv.backend import Array, move, to_host
from tinyadv.nn import Module
from tinyadv.nn.latent import Latent, latent, unit
from tinyadv.tensor import Tensor


class NearestLatent(Module):
    """The class of the nearest reference image, by the distance of the latent vectors (`nn.Latent`) of a network.

    Castro Ros, Ben Mansour and Bouskila 2020, "Adversarial Networks": with five images of each class as references,
    behind training with a contrastive loss (`training.Contrastive`). The logit of a class is minus the smallest squared
    distance to its references, so every attack runs on it, through the distances.

    model: the network; images: (M, C, H, W), such as five of each class; labels: (M,), with all classes 0 to K - 1.
    normalize: whether latent vectors are divided by their length, as in training. The latent vectors of the references
    are those of the present weights; make it anew after training.
    """

    def __init__(self, model: Module, images: Array, labels: Array, normalize: bool = False):
        labels = np.asarray(to_host(labels))
        classes = np.unique(labels)
        right = labels.dtype.kind in "iu" and labels.shape == (len(images),)
        if not (right and len(classes) and np.array_equal(classes, np.arange(len(classes)))):
            raise ValueError(f"labels must be integers ({len(images)},) and hold all classes from 0 on, got "
                             f"{classes.tolist()}, {labels.dtype}, in shape {labels.shape}")
        self.model, self.normalize, self.labels = model, normalize, tuple(labels.tolist())
        vectors = driver.logits(Latent(model), images)
        self.references = move(vectors, like=driver.memory_of(model, images))  # a buffer
        if normalize:
            self.references = unit(Tensor(self.references)).data

    def forward(self, x: Tensor) -> Tensor:
        z, _ = latent(self.model, x)
        away = (unit(z) if self.normalize else z).reshape(len(z), 1, -1) - self.references   # (N, M, D)
        squares, labels = ops.sum(away * away, axis=2), np.array(self.labels)
        return ops.concatenate([-ops.min(squares[:, np.flatnonzero(labels == k).tolist()], axis=1, keepdims=True)
                                for k in range(labels.max() + 1)], axis=1)
