"""The network of Huang et al. (2017, arXiv:1608.06993), with the layers and names of torchvision."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.models.pretrained import loaded
from tinyadv.nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from tinyadv.spellings import spelled
from tinyadv.tensor import Tensor


class DenseLayer(Module):
    """x, and after it `growth` new channels: two convolutions of x, 1x1 and 3x3, each after normalisation and ReLU."""

    def __init__(self, channels: int, growth: int, conv: partial[Conv2d]):
        self.norm1, self.conv1 = BatchNorm2d(channels), conv(channels, 4 * growth, 1)
        self.norm2, self.conv2 = BatchNorm2d(4 * growth), conv(4 * growth, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(ops.relu(self.norm1(x)))
        y = self.conv2(ops.relu(self.norm2(y)))
        return ops.concatenate([x, y], axis=1)


class DenseNet(Sequential):
    """Blocks of layers that each see the results of all layers before; images (N, 3, H, W).

    Huang et al. 2017, arXiv:1608.06993, table 1.
    blocks: the number of layers in each. growth: the channels that each adds; the network starts with twice as many,
    and each transition between two blocks halves them. small_images: the usual form for 32x32 images, whose first
    convolution is 3x3 with stride 1, without normalisation and pooling after it.
    """

    def __init__(self, blocks: tuple[int, ...] = (6, 12, 24, 16), num_classes: int = 1000, small_images: bool = False,
                 growth: int = 32, seed: int = 0):
        self.input_shape = (3, 32, 32) if small_images else (3, 224, 224)
        conv = partial(Conv2d, bias=False, init="he_normal", rng=(rng := np.random.default_rng(seed)))
        channels = 2 * growth
        if small_images:
            features: dict[str, Any] = {"conv0": conv(3, channels, 3, 1, 1)}
        else:
            features = {"conv0": conv(3, channels, 7, 2, 3), "norm0": BatchNorm2d(channels), "relu0": ReLU(),
                        "pool0": MaxPool2d(3, 2, 1)}
        for b, count in enumerate(blocks, start=1):
            if b > 1:
                features[f"transition{b - 1}"] = Sequential(
                    norm=BatchNorm2d(channels), relu=ReLU(), conv=conv(channels, channels // 2, 1), pool=AvgPool2d(2))
                channels //= 2
            features[f"denseblock{b}"] = Sequential(**{
                f"denselayer{k + 1}": DenseLayer(channels + k * growth, growth, conv) for k in range(count)})
            channels += count * growth
        features["norm5"] = BatchNorm2d(channels)
        super().__init__(features=Sequential(**features), relu=ReLU(), avgpool=GlobalAvgPool2d(),
                         classifier=Linear(channels, num_classes, rng=rng))


@spelled
def densenet121(num_classes: int = 1000, *, small_images: bool = False, growth: int = 32, seed: int = 0,
                weights: str | None = None) -> DenseNet:
    """DenseNet-121; 7,978,856 parameters, or 6,956,298 with 10 classes and small_images.

    weights="IMAGENET1K_V1" (see `resnet18`): 74.434% correct,
    https://download.pytorch.org/models/densenet121-a639ec97.pth (30.8 MiB; the name ends in the first 8
    digits of its SHA-256). Images: resize the shorter side to 256 (bilinear, antialiased), cut out the central 224x224,
    divide by 255, and put nn.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) in front.
    """
    return loaded(DenseNet((6, 12, 24, 16), num_classes, small_images, growth, seed), "densenet121", weights)
