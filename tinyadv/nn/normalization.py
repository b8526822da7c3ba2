"""Layers that shift and scale: by constants, by the statistics of a batch, or by those of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.backend import array_module
from tinyadv.fused import averaged
from tinyadv.nn.init import reserve
from tinyadv.nn.module import Module, array_of
from tinyadv.ops.normalize import batch_statistics
from tinyadv.parallel import first_part
from tinyadv.shapes import check_channels, check_ndim, check_within, to_count
from tinyadv.tensor import Tensor


class BatchNorm2d(Module):
    """Each channel normalised, then scaled and shifted by learned weight and bias (Ioffe and Szegedy 2015).

    In training mode, the mean and biased variance of the batch normalise, and the running statistics are updated:
    running = (1 - momentum) * running + momentum * batch, with the unbiased variance, as in PyTorch.
    In evaluation mode, the running statistics normalise.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        check_within("momentum", momentum, 0, 1)
        self.num_features, self.eps, self.momentum = to_count("num_features", num_features), eps, momentum
        reserve((num_features,))
        self.weight = Tensor(np.ones(num_features, np.float32))
        self.bias = Tensor(np.zeros(num_features, np.float32))
        self.running_mean = np.zeros(num_features, np.float32)
        self.running_var = np.ones(num_features, np.float32)
        self.num_batches_tracked = np.zeros((), np.int64)

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x.shape, self.num_features, type(self).__name__, "num_features")
        if not self.training:
            return ops.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)
        mean, variance, count = batch_statistics(array_of(x))
        if first_part() and count:  # once for the whole batch
            unbiased = variance * (count / max(count - 1, 1))
            for name, of_batch in ("running_mean", mean), ("running_var", unbiased):
                old = getattr(self, name)  # is not written into: a graph may need it
                setattr(self, name, averaged(old, of_batch, self.momentum).astype(old.dtype, copy=False))
            batches = self.num_batches_tracked
            self.num_batches_tracked = array_module(batches).asarray(batches + 1)  # an array: + gives a number
        return ops.batch_norm(x, self.weight, self.bias, mean, variance, self.eps, of_batch=True)


class BatchNorm1d(BatchNorm2d):
    """The same for features (N, C) or sequences (N, C, L)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in (2, 3):
            raise ValueError(f"BatchNorm1d: expected features of shape (N, C) or (N, C, L), got shape {x.shape}")
        return ops.reshape(super().forward(ops.reshape(x, (*x.shape, 1, 1)[:4])), x.shape)


class Normalize(Module):
    """(x - mean) / std for every channel: the first layer of a model, so that attacks see the data's own units."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean = np.asarray(mean, np.float32).reshape(-1, 1, 1)
        self.std = np.asarray(std, np.float32).reshape(-1, 1, 1)
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            raise ValueError(f"mean and std must be equally many, and std positive; got {mean!r} and {std!r}")

    def forward(self, x: Any) -> Tensor:
        if len(self.mean) > 1:
            check_channels(x.shape, len(self.mean), "Normalize", "the number of means")
        return ops.divide(ops.subtract(x, self.mean), self.std)

    def __repr__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in each.ravel().tolist()) for each in (self.mean, self.std))
        return f"Normalize(mean=({mean}), std=({std}))"


class Standardize(Module):
    """(x - mean) / max(std, floor) for every image, its mean and std over all its pixels and channels.

    In the CIFAR-10 networks of Madry et al. (2018, arXiv:1706.06083) this is the first layer. For an image of D numbers
    the floor is 1 / (255 sqrt(D)), so that a flat image gives zeros: TensorFlow's `per_image_standardization`, for
    pixels in [0, 1] instead of 0 to 255.
    """

    def forward(self, x: Any) -> Tensor:
        check_ndim(x.shape, 4, "Standardize", "images of shape (N, C, H, W)")
        return ops.standardize(x, 1 / (255**2 * max(1, x.shape[1] * x.shape[2] * x.shape[3])))
