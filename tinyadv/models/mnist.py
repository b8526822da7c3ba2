"""Networks for MNIST. Images are (N, 1, 28, 28) in [0, 1], logits (N, 10)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyadv.nn import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from tinyadv.shapes import to_count


class SmallCNN(Sequential):
    """Two 3x3 convolutions without bias and two dense layers; 824,362 parameters.

    It is the "slide CNN": the network on the slides of U Kang's lecture "Deep Learning: Adversarial Machine Learning"
    (Seoul National University). With He initialisation, SGD with lr=0.01 and batches of 32 reaches about 98% in 3
    epochs. With Keras's default, "glorot_uniform", which the lecture used, it reaches about 97.5%.
    """

    input_shape = (1, 28, 28)

    def __init__(self, seed: int = 0):
        options: Any = {"init": "he_uniform", "rng": np.random.default_rng(seed)}
        super().__init__(
            Conv2d(1, 32, 3, padding=1, bias=False, **options), ReLU(), MaxPool2d(2),   # (N, 32, 14, 14)
            Conv2d(32, 64, 3, padding=1, bias=False, **options), ReLU(), MaxPool2d(2),  # (N, 64, 7, 7)
            Flatten(),                                                                  # (N, 3136)
            Linear(3136, 256, **options), ReLU(),
            Linear(256, 10, **options),
        )


class LeNet(Sequential):
    """LeNet (after LeCun et al. 1998) with average pooling, max pooling and dropout; 61,706 parameters.

    image_shape: (C, H, W), by default of MNIST; (3, 32, 32) makes it a network for CIFAR-10 of 83,126 parameters.
    extra: the number of dense layers of 256 that come before the last one, for which Kelley and Fritz (2021,
    "Interpretabilidad de los Ataques Adversarios", table 1) print 150,978 parameters for 2 and 1,335,234 for 20.
    """

    input_shape = (1, 28, 28)

    def __init__(self, seed: int = 0, image_shape: tuple[int, int, int] = (1, 28, 28), extra: int = 0):
        options: Any = {"init": "keras", "rng": np.random.default_rng(seed)}
        channels, height, width = (to_count("image_shape", side) for side in image_shape)
        self.input_shape, extra = (channels, height, width), to_count("extra", extra, least=0)
        flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        dense = [each for k in range(extra) for each in (Linear(256 if k else 84, 256, **options), ReLU())]
        super().__init__(
            Conv2d(channels, 6, 5, padding=2, **options), ReLU(), AvgPool2d(2),  # (N, 6, 14, 14)
            Conv2d(6, 16, 5, **options), ReLU(), MaxPool2d(2),                   # (N, 16, 5, 5)
            Flatten(),                                                           # (N, 400)
            Linear(flat, 120, **options), ReLU(), Dropout(0.5, seed=seed),
            Linear(120, 84, **options), ReLU(), *dense,
            Linear(256 if extra else 84, 10, **options),
        )


class ThresholdCNN(Sequential):
    """A 1x1 convolution that thresholds pixels, two strided convolutions, two dense layers; 349,630 parameters.

    Madry et al. (2018, arXiv:1706.06083, appendix C) found that the first layer of their robust network had learnt
    to threshold single pixels. This network starts with four such filters, relu(±4 (x - t)) for t = 0.35 and 0.65, and
    trains them like all other weights. The difference of the two with the same sign is constant where x is below 0.35
    or above 0.65, so it does not change if a black or a white pixel changes by 0.3.
    """

    input_shape = (1, 28, 28)

    def __init__(self, seed: int = 0):
        options: Any = {"init": "he_uniform", "rng": np.random.default_rng(seed)}
        pixels: Any = Conv2d(1, 4, 1, **options)
        pixels.weight.data[:, 0, 0, 0], pixels.bias.data[:] = (4, 4, -4, -4), (-1.4, -2.6, 1.4, 2.6)
        super().__init__(
            pixels, ReLU(),                                              # (N, 4, 28, 28)
            Conv2d(4, 32, 4, stride=2, padding=1, **options), ReLU(),    # (N, 32, 14, 14)
            Conv2d(32, 64, 4, stride=2, padding=1, **options), ReLU(),   # (N, 64, 7, 7)
            Flatten(),                                                   # (N, 3136)
            Linear(3136, 100, **options), ReLU(),
            Linear(100, 10, **options),
        )


class IntervalCNN(Sequential):
    """Two strided convolutions and a dense layer, with batch normalisation after each; 839,722 parameters.

    Made for certificates: small, without pooling, and with weights from which intervals keep their width (Shi et al.
    2021, arXiv:2103.17268). `training.Certified` trains it.
    image_shape: (C, H, W), H and W at least 4.
    """

    def __init__(self, seed: int = 0, width: int = 32, image_shape: tuple[int, int, int] = (1, 28, 28)):
        options: Any = {"init": "ibp", "rng": (rng := np.random.default_rng(seed))}
        self.input_shape, w, (channels, rows, columns) = tuple(image_shape), width, image_shape
        super().__init__(
            Conv2d(channels, w, 4, stride=2, padding=1, **options), BatchNorm2d(w), ReLU(),   # (N, w, 14, 14)
            Conv2d(w, 2 * w, 4, stride=2, padding=1, **options), BatchNorm2d(2 * w), ReLU(),  # (N, 2 w, 7, 7)
            Flatten(),                                                                        # (N, 98 w)
            Linear(2 * w * (rows // 4) * (columns // 4), 8 * w, **options), BatchNorm1d(8 * w), ReLU(),
            Linear(8 * w, 10, rng=rng),
        )


class VoterCNN(Sequential):
    """Two strided convolutions and a dense layer, with batch normalisation after each; 436,426 parameters.

    Made to be asked thousands of times about one image, by `certify.Smoothing`, or by `certify.Ablation`, whose images
    have 2 channels: see certify.hidden.
    """

    def __init__(self, seed: int = 0, channels: int = 1, width: int = 32):
        options: Any = {"bias": False, "init": "he_normal", "rng": (rng := np.random.default_rng(seed))}
        self.input_shape, w = (channels, 28, 28), width
        super().__init__(
            Conv2d(channels, w, 4, stride=2, padding=1, **options), BatchNorm2d(w), ReLU(),   # (N, w, 14, 14)
            Conv2d(w, 2 * w, 4, stride=2, padding=1, **options), BatchNorm2d(2 * w), ReLU(),  # (N, 2 w, 7, 7)
            Flatten(),                                                                        # (N, 98 w)
            Linear(98 * w, 4 * w, **options), BatchNorm1d(4 * w), ReLU(),
            Linear(4 * w, 10, rng=rng),
        )


class MadryCNN(Sequential):
    """The MNIST network of Madry et al. (2018, arXiv:1706.06083); 3,274,634 parameters."""

    input_shape = (1, 28, 28)

    def __init__(self, seed: int = 0):
        options: Any = {"init": "madry", "rng": np.random.default_rng(seed)}
        super().__init__(
            Conv2d(1, 32, 5, padding=2, **options), ReLU(), MaxPool2d(2),   # (N, 32, 14, 14)
            Conv2d(32, 64, 5, padding=2, **options), ReLU(), MaxPool2d(2),  # (N, 64, 7, 7)
            Flatten(),                                                      # (N, 3136)
            Linear(3136, 1024, **options), ReLU(),
            Linear(1024, 10, **options),
        )
