"""Convolutional networks for CIFAR-10. Images are (N, 3, 32, 32) in [0, 1], logits (N, 10)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyadv.nn import (
    GELU,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    Normalize,
    ReLU,
    Sequential,
)
from tinyadv.tensor import Tensor

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images, by channel


class CifarCNN(Sequential):
    """Three stages of two convolutions with batch normalisation, and two dense layers; 551,466 parameters.

    The order within a stage is convolution, ReLU, normalisation, and the dropout rates grow from 0.3 to 0.5, as in the
    network of Sayah (2020, "Cifar-10 Image Classification using CNNs") that Kelley and Fritz use (2021,
    "Interpretabilidad de los Ataques Adversarios"). The 896 running statistics are not counted as parameters.
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)

        def stage(channels: int, filters: int, drop: float) -> list[Module]:
            return [
                Conv2d(channels, filters, 3, padding=1, init="keras", rng=rng), ReLU(), BatchNorm2d(filters),
                Conv2d(filters, filters, 3, padding=1, init="keras", rng=rng), ReLU(), BatchNorm2d(filters),
                MaxPool2d(2), Dropout(drop, seed=int(rng.integers(2**32))),
            ]

        super().__init__(
            *stage(3, 32, 0.3),                                 # (N, 32, 16, 16)
            *stage(32, 64, 0.5),                                # (N, 64, 8, 8)
            *stage(64, 128, 0.5),                               # (N, 128, 4, 4)
            Flatten(),                                          # (N, 2048)
            Linear(2048, 128, init="keras", rng=rng), ReLU(), Dropout(0.5, seed=int(rng.integers(2**32))),
            Linear(128, 10, init="keras", rng=rng),
        )


class BaseCNN(Sequential):
    """Three pairs of convolutions, two dense layers and two dropouts, of normalised pixels; 814,570 parameters.

    It stands for the base network of Castro Ros, Ben Mansour and Bouskila (2020, "Adversarial Networks"), whose
    figure is lost. Their text fixes several convolutions, two dense layers at the end, two dropouts and normalised
    data. The filters and the batch normalisation before each ReLU are chosen here.
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)

        def convolution(channels: int, filters: int) -> list[Module]:
            return [Conv2d(channels, filters, 3, padding=1, bias=False, init="he_normal", rng=rng),
                    BatchNorm2d(filters), ReLU()]

        super().__init__(
            Normalize(MEAN, STD),
            *convolution(3, 32), *convolution(32, 32), MaxPool2d(2),       # (N, 32, 16, 16)
            *convolution(32, 64), *convolution(64, 64), MaxPool2d(2),      # (N, 64, 8, 8)
            *convolution(64, 128), *convolution(128, 128), MaxPool2d(2),   # (N, 128, 4, 4)
            Flatten(),                                                     # (N, 2048)
            Dropout(0.3, seed=int(rng.integers(2**32))),
            Linear(2048, 256, init="he_normal", rng=rng), ReLU(), Dropout(0.3, seed=int(rng.integers(2**32))),
            Linear(256, 10, init="he_normal", rng=rng),
        )


class Shift(BatchNorm2d):
    """Batch normalisation without a scale, and with a shift of eight times the bias: Jordan (2024, arXiv:2404.00498).

    So a step of SGD moves the shift 64 times as far. A scale would shrink under a strong weight decay, until the
    GELU behind it is next to linear.
    """

    def __init__(self, num_features: int):
        super().__init__(num_features, momentum=0.4)
        self.weight: Any = np.ones(num_features, np.float32)  # a buffer, which is not trained

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 7.0 * self.bias.reshape(-1, 1, 1)  # and the layer adds one more


class AirbenchCNN(Sequential):
    """Six wide convolutions that learn quickly; 1,971,640 parameters, of which 312 are fixed.

    After Jordan (2024, arXiv:2404.00498), whose network of that shape reaches 94% of CIFAR-10 in ten epochs. Two starts
    make it fast: a fixed first layer that whitens patches of 2x2 pixels, and other layers that first pass on what they
    get, with one filter for each channel before them. He computes the whitening from the training images. Here it is
    written down (`whitening`), because it hardly differs.
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)

        def convolution(channels: int, filters: int) -> Conv2d:
            layer = Conv2d(channels, filters, 3, padding=1, bias=False, rng=rng)
            layer.weight.data[:channels] = 0
            layer.weight.data[range(channels), range(channels), 1, 1] = 1
            return layer

        def group(channels: int, filters: int) -> list[Module]:
            return [convolution(channels, filters), MaxPool2d(2), Shift(filters), GELU(),
                    convolution(filters, filters), Shift(filters), GELU()]

        first: Any = Conv2d(3, 24, 2, rng=rng)
        first.weight.data[:], first.bias.data[:] = whitening(), 0
        super().__init__(
            Normalize(MEAN, STD),
            first.freeze(), GELU(),                # (N, 24, 31, 31)
            *group(24, 64),                        # (N, 64, 15, 15)
            *group(64, 256),                       # (N, 256, 7, 7)
            *group(256, 256),                      # (N, 256, 3, 3)
            MaxPool2d(3), Flatten(),               # (N, 256)
            Linear(256, 10, bias=False, rng=rng),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 9  # so that the first predictions are cautious


def whitening() -> np.ndarray:
    """Filters (24, 3, 2, 2) whose outputs on normalised CIFAR-10 correlate little, and most of which have variance one.

    The principal components of patches of 2x2 pixels are nearly the products of four patterns, the mean and three
    differences, and three directions of colour: brightness, red against blue, green against both. Each is divided by
    its standard deviation on the first 5,000 training images; small ones, which are noise, by a little more (the
    smallest two have variances of 0.2 and 0.3; small ones of the same pattern correlate by up to 0.4). Then come the
    same filters with the other sign, as an activation would lose one half.
    """
    patterns = np.array([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]) / 2
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    deviations = np.array([[3.155, 0.630, 0.581, 0.233], [0.872, 0.074, 0.061, 0.015], [0.409, 0.047, 0.040, 0.012]])
    filters = np.einsum("kc,pij->kpcij", colours, patterns) / np.sqrt(deviations**2 + 5e-4)[:, :, None, None, None]
    return np.concatenate([filters, -filters]).reshape(24, 3, 2, 2)
