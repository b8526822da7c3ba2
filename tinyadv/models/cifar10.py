"""Convolutional networks for CIFAR-10. Images are (N, 3, 32, 32) in [0, 1], logits (N, 10)."""

from __future__ import annotations

import numpy as np

from tinyadv.nn import (
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
            Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            *convolution(3, 32), *convolution(32, 32), MaxPool2d(2),       # (N, 32, 16, 16)
            *convolution(32, 64), *convolution(64, 64), MaxPool2d(2),      # (N, 64, 8, 8)
            *convolution(64, 128), *convolution(128, 128), MaxPool2d(2),   # (N, 128, 4, 4)
            Flatten(),                                                     # (N, 2048)
            Dropout(0.3, seed=int(rng.integers(2**32))),
            Linear(2048, 256, init="he_normal", rng=rng), ReLU(), Dropout(0.3, seed=int(rng.integers(2**32))),
            Linear(256, 10, init="he_normal", rng=rng),
        )
