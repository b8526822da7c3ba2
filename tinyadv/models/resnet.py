"""Residual networks for 32x32 images (He et al. 2016, arXiv:1512.03385, section 4.2, and arXiv:1603.05027)."""

from __future__ import annotations

import numpy as np

from tinyadv import ops
from tinyadv.nn import BatchNorm2d, Conv2d, GlobalAvgPool2d, LeakyReLU, Linear, Module, ReLU, Sequential, Standardize
from tinyadv.tensor import Tensor


class BasicBlock(Module):
    """relu(x + y), where y is two 3x3 convolutions of x with batch normalisation.

    If the block halves the image, the shortcut x is subsampled and its new channels are zeros, so it has no parameters
    (option A of the paper).
    """

    def __init__(self, channels: int, filters: int, stride: int = 1, rng: np.random.Generator | int | None = None):
        self.channels, self.filters, self.stride = channels, filters, stride
        self.conv1 = Conv2d(channels, filters, 3, stride, 1, False, init="he_normal", rng=rng)
        self.bn1 = BatchNorm2d(filters)
        self.conv2 = Conv2d(filters, filters, 3, 1, 1, False, init="he_normal", rng=rng)
        self.bn2 = BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.filters != self.channels:
            x = ops.pad(x, ((0, 0), (0, self.filters - self.channels), (0, 0), (0, 0)))
        return ops.relu(x + y)


class ResNet20(Sequential):
    """Three stages of three blocks with 16, 32 and 64 filters; 269,722 parameters. Images (N, 3, 32, 32)."""

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        blocks = [BasicBlock(16, 16, rng=rng) for _ in range(3)]
        for channels in (16, 32):
            blocks += [BasicBlock(channels, 2 * channels, 2, rng=rng)]
            blocks += [BasicBlock(2 * channels, 2 * channels, rng=rng) for _ in range(2)]
        super().__init__(
            Conv2d(3, 16, 3, padding=1, bias=False, init="he_normal", rng=rng), BatchNorm2d(16), ReLU(),
            *blocks,                                  # (N, 64, 8, 8)
            GlobalAvgPool2d(),                        # (N, 64)
            Linear(64, 10, init="he_normal", rng=rng),
        )


class MadryUnit(Module):
    """x + y, where y is two 3x3 convolutions of x, each after batch normalisation and leaky ReLU: "pre-activation".

    If the unit halves the image, the shortcut is the mean of each 2x2 pixels. New channels are zeros, half of them
    before the old ones. With `activated_shortcut` the shortcut starts behind the first leaky ReLU.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1, activated_shortcut: bool = False,
                 rng: np.random.Generator | int | None = None):
        self.channels, self.filters, self.stride = channels, filters, stride
        self.activated_shortcut = activated_shortcut
        self.bn1 = BatchNorm2d(channels, eps=1e-3)
        self.conv1 = Conv2d(channels, filters, 3, stride, 0, False, init="he_normal_out", rng=rng)
        self.bn2 = BatchNorm2d(filters, eps=1e-3)
        self.conv2 = Conv2d(filters, filters, 3, 1, 1, False, init="he_normal_out", rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.leaky_relu(self.bn1(x), 0.1)
        if self.activated_shortcut:
            x = y
        before = 1 if self.stride == 1 else 0  # TensorFlow's "same" padding: none before an even image that is halved
        y = self.conv1(ops.pad(y, ((0, 0), (0, 0), (before, 1), (before, 1))))
        y = self.conv2(ops.leaky_relu(self.bn2(y), 0.1))
        if self.stride != 1:
            x = ops.avg_pool2d(x, self.stride)
        if self.filters != self.channels:
            new = (self.filters - self.channels) // 2
            x = ops.pad(x, ((0, 0), (new, new), (0, 0), (0, 0)))
        return x + y


class MadryResNet(Sequential):
    """The CIFAR-10 network of Madry et al. (2018, arXiv:1706.06083): three stages of five units.

    16, 32 and 64 filters, times `width`: 464,154 parameters for width 1, the paper's "simple" network, and 45,901,914
    for width 10, its "wide" one. Its first layer standardises each image, so attacks see pixels in [0, 1].
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0, width: int = 1):
        rng = np.random.default_rng(seed)
        units: list[Module] = []
        channels = 16
        for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for k in range(5):
                units.append(MadryUnit(channels, filters, 1 if k else stride, activated_shortcut=not units, rng=rng))
                channels = filters
        super().__init__(
            Standardize(), Conv2d(3, 16, 3, padding=1, bias=False, init="he_normal_out", rng=rng),
            *units,                                   # (N, 64 width, 8, 8)
            BatchNorm2d(channels, eps=1e-3), LeakyReLU(0.1),
            GlobalAvgPool2d(),                        # (N, 64 width)
            Linear(channels, 10, init="lecun_uniform", rng=rng),
        )
