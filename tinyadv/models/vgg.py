"""The networks of Simonyan and Zisserman (2015, arXiv:1409.1556), with the layers and names of torchvision."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyadv.models.pretrained import loaded
from tinyadv.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from tinyadv.spellings import spelled

PLAN = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (filters, as a multiple of the width; convolutions) before a pooling


class VGG(Sequential):
    """VGG-16: five groups of 3x3 convolutions, and three dense layers; images (N, 3, H, W).

    Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, column D.
    batch_norm: with batch normalisation after each convolution. width: the filters of the first group; the dense
    layers have 64 times as many. small_images: the usual form for 32x32 images, with a single dense layer.
    """

    def __init__(self, batch_norm: bool = False, num_classes: int = 1000, small_images: bool = False, width: int = 64,
                 seed: int = 0):
        self.input_shape = (3, 32, 32) if small_images else (3, 224, 224)
        rng, channels = np.random.default_rng(seed), 3
        features: list[Module] = []
        for factor, count in PLAN:
            for _ in range(count):
                features += [Conv2d(channels, factor * width, 3, padding=1, init="he_normal_out", rng=rng)]
                features += [BatchNorm2d(factor * width), ReLU()] if batch_norm else [ReLU()]
                channels = factor * width
            features += [MaxPool2d(2)]
        dense, hidden = partial(Linear, init="vgg", rng=rng), 64 * width
        if small_images:
            last: dict[str, Any] = {"flatten": Flatten(), "classifier": dense(channels, num_classes)}
        else:
            last = {"avgpool": AdaptiveAvgPool2d(7), "flatten": Flatten(), "classifier": Sequential(
                dense(49 * channels, hidden), ReLU(), Dropout(0.5, seed=int(rng.integers(2**32))),
                dense(hidden, hidden), ReLU(), Dropout(0.5, seed=int(rng.integers(2**32))),
                dense(hidden, num_classes),
            )}
        super().__init__(features=Sequential(*features), **last)


@spelled
def vgg16(num_classes: int = 1000, *, small_images: bool = False, width: int = 64, seed: int = 0,
          weights: str | None = None) -> VGG:
    """VGG-16; 138,357,544 parameters, or 14,719,818 with 10 classes and small_images.

    weights="IMAGENET1K_V1" (see `resnet18`): 71.592% correct,
    https://download.pytorch.org/models/vgg16-397923af.pth (527.8 MiB; the name ends in the first 8
    digits of its SHA-256). Images: resize the shorter side to 256 (bilinear, antialiased), cut out the central 224x224,
    divide by 255, and put nn.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) in front.
    """
    return loaded(VGG(False, num_classes, small_images, width, seed), "vgg16", weights)


@spelled
def vgg16_bn(num_classes: int = 1000, *, small_images: bool = False, width: int = 64, seed: int = 0,
             weights: str | None = None) -> VGG:
    """VGG-16 with batch normalisation; 138,365,992 parameters, or 14,728,266 with 10 classes and small_images.

    weights="IMAGENET1K_V1" (see `resnet18`): 73.360% correct,
    https://download.pytorch.org/models/vgg16_bn-6c64b313.pth (527.9 MiB; the name ends in the first 8
    digits of its SHA-256). Images: resize the shorter side to 256 (bilinear, antialiased), cut out the central 224x224,
    divide by 255, and put nn.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) in front.
    """
    return loaded(VGG(True, num_classes, small_images, width, seed), "vgg16_bn", weights)
