"""Pre-activation ResNets: each block starts with batch normalisation and ReLU (He et al. 2016, arXiv:1603.05027)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.models.blocks import Padded, PreActBlock, projection, stages
from tinyadv.nn import BatchNorm2d, Conv2d, GlobalAvgPool2d, LeakyReLU, Linear, ReLU, Sequential, Standardize
from tinyadv.tensor import Tensor


class PreActResNet18(Sequential):
    """Four stages of two blocks, batch normalisation and ReLU last; 11,172,170 parameters. Images (N, 3, 32, 32).

    The network of Wong et al. (2020, arXiv:2001.03994), with the names of their code. width: the filters of the first
    stage; activated_shortcut: whether the 1x1 convolutions of the shortcuts start behind the first activation, as in
    RobustBench's network of Rice et al. (2020, arXiv:2002.11569), and not from x; bn_before_fc: whether there are the
    last normalisation and ReLU, which RobustBench's network of Wong et al. lacks.
    """

    input_shape = (3, 32, 32)

    def __init__(self, num_classes: int = 10, width: int = 64, seed: int = 0, activated_shortcut: bool = False,
                 bn_before_fc: bool = True):
        conv = partial(Conv2d, bias=False, init="he_normal_out", rng=(rng := np.random.default_rng(seed)))
        block = partial(PreActBlock, conv=conv, shortcut=projection(conv, norm=None))
        first = conv(3, width, 3, 1, 1)
        parts: Any = stages(block, width, [(2, width << k, 2 if k else 1) for k in range(4)])
        for part in parts[1:]:
            part[0].activated_shortcut = activated_shortcut  # the only ones with a convolution in it
        super().__init__(
            conv1=first, **{f"layer{k}": Sequential(*part) for k, part in enumerate(parts, start=1)},
            **({"bn": BatchNorm2d(8 * width), "relu": ReLU()} if bn_before_fc else {}),   # (N, 8 width, 4, 4)
            avgpool=GlobalAvgPool2d(),                # (N, 8 width)
            linear=Linear(8 * width, num_classes, rng=rng),
        )


class SameConv2d(Conv2d):
    """A convolution padded as TensorFlow's "same": with stride 2, by one row below and one column to the right."""

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return super().forward(x)
        return ops.conv2d(ops.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1))), self.weight, self.bias, self.stride)


class MadryResNet(Sequential):
    """The CIFAR-10 network of Madry et al. (2018, arXiv:1706.06083): three stages of five units.

    16, 32 and 64 filters, times `width`: 464,154 parameters for width 1, the paper's "simple" network, and 45,901,914
    for width 10, its "wide" one. Its first layer standardises each image, so attacks see pixels in [0, 1].
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0, width: int = 1):
        options: Any = {"bias": False, "init": "he_normal_out", "rng": (rng := np.random.default_rng(seed))}
        norm = partial(BatchNorm2d, eps=1e-3)
        block = partial(PreActBlock, conv=partial(SameConv2d, **options), norm=norm,
                        shortcut=partial(Padded, average=True), activation=partial(ops.leaky_relu, slope=0.1))
        units: Any = stages(block, 16, [(5, 16 * width, 1), (5, 32 * width, 2), (5, 64 * width, 2)])
        units[0][0].activated_shortcut = True  # this one alone
        super().__init__(
            Standardize(), Conv2d(3, 16, 3, padding=1, **options),
            *units[0],                                # (N, 16 width, 32, 32)
            *units[1],                                # (N, 32 width, 16, 16)
            *units[2],                                # (N, 64 width, 8, 8)
            norm(64 * width), LeakyReLU(0.1),
            GlobalAvgPool2d(),                        # (N, 64 width)
            Linear(64 * width, 10, init="lecun_uniform", rng=rng),
        )
