"""Residual networks for 32x32 images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

import numpy as np

from tinyadv import ops
from tinyadv.nn import BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, Module, ReLU, Sequential
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
