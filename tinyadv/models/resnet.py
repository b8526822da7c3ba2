"""Residual networks (He et al. 2016, arXiv:1512.03385): the small one for CIFAR-10, PyTorch's, and one for MNIST."""

from __future__ import annotations

from functools import partial

import numpy as np

from tinyadv.models.blocks import BasicBlock, Bottleneck, projection, stages
from tinyadv.models.pretrained import loaded
from tinyadv.nn import BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, MaxPool2d, Module, ReLU, Sequential
from tinyadv.spellings import spelled

BLOCKS: dict[str, type[Module]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet20(Sequential):
    """Three stages of three blocks with 16, 32 and 64 filters; 269,722 parameters. Images (N, 3, 32, 32).

    He et al., section 4.2: shortcuts that change the shape add channels of zeros (option A).
    """

    input_shape = (3, 32, 32)

    def __init__(self, seed: int = 0):
        conv = partial(Conv2d, bias=False, init="he_normal", rng=(rng := np.random.default_rng(seed)))
        blocks = stages(partial(BasicBlock, conv=conv), 16, [(3, 16, 1), (3, 32, 2), (3, 64, 2)])
        super().__init__(
            conv(3, 16, 3, padding=1), BatchNorm2d(16), ReLU(),
            *blocks[0],                               # (N, 16, 32, 32)
            *blocks[1],                               # (N, 32, 16, 16)
            *blocks[2],                               # (N, 64, 8, 8)
            GlobalAvgPool2d(),                        # (N, 64)
            Linear(64, 10, init="he_normal", rng=rng),
        )


class MnistResNet(Sequential):
    """A 7x7 convolution, 3x3 pooling and two blocks of 64 filters; 152,202 parameters. Images (N, 1, 28, 28).

    The network of Kelley and Fritz (2021, "Interpretabilidad de los Ataques Adversarios", figure 31), made in Keras:
    its convolutions have a bias. The 640 running statistics are not counted as parameters.
    """

    input_shape = (1, 28, 28)

    def __init__(self, seed: int = 0):
        conv = partial(Conv2d, init="keras", rng=(rng := np.random.default_rng(seed)))
        norm = partial(BatchNorm2d, eps=1e-3, momentum=0.01)  # Keras's
        super().__init__(
            conv(1, 64, 7, padding=3), norm(64), ReLU(),      # (N, 64, 28, 28)
            MaxPool2d(3),                                     # (N, 64, 9, 9)
            BasicBlock(64, 64, conv=conv, norm=norm),
            BasicBlock(64, 64, conv=conv, norm=norm),
            GlobalAvgPool2d(),                                # (N, 64)
            Linear(64, 10, init="keras", rng=rng),
        )


class ResNet(Sequential):
    """A residual network of four stages with the layers and names of torchvision; images (N, 3, H, W).

    He et al. 2016, arXiv:1512.03385, table 1.
    block: "basic" or "bottleneck". blocks: their number in each stage. width: the filters of the first stage, which
    double in each further one. small_images: the usual form for 32x32 images, whose first convolution is 3x3 with
    stride 1 and which has no pooling after it. ValueError for another block.
    """

    def __init__(self, block: str = "basic", blocks: tuple[int, ...] = (2, 2, 2, 2), num_classes: int = 1000,
                 small_images: bool = False, width: int = 64, seed: int = 0):
        if block not in BLOCKS:
            raise ValueError(f"block must be one of {', '.join(BLOCKS)}; got {block!r}")
        self.input_shape = (3, 32, 32) if small_images else (3, 224, 224)
        conv = partial(Conv2d, bias=False, init="he_normal_out", rng=(rng := np.random.default_rng(seed)))
        made = partial(BLOCKS[block], conv=conv, shortcut=projection(conv))
        first = conv(3, width, 3, 1, 1) if small_images else conv(3, width, 7, 2, 3)
        parts = stages(made, width, [(n, width << k, 2 if k else 1) for k, n in enumerate(blocks)])
        super().__init__(
            conv1=first, bn1=BatchNorm2d(width), relu=ReLU(),
            **({} if small_images else {"maxpool": MaxPool2d(3, 2, 1)}),
            **{f"layer{k}": Sequential(*part) for k, part in enumerate(parts, start=1)},
            avgpool=GlobalAvgPool2d(),
            fc=Linear(parts[-1][-1].filters, num_classes, rng=rng),  # type: ignore[attr-defined]
        )


@spelled
def resnet18(num_classes: int = 1000, *, small_images: bool = False, width: int = 64, seed: int = 0,
             weights: str | None = None) -> ResNet:
    """ResNet-18: basic blocks; 11,689,512 parameters, or 11,173,962 with 10 classes and small_images.

    weights="IMAGENET1K_V1": those of torchvision, which classify 69.758% of the ImageNet validation images correctly.
    They are downloaded once: https://download.pytorch.org/models/resnet18-f37072fd.pth (44.7 MiB; the name ends in the
    first 8 digits of its SHA-256). Images: resize the shorter side to 256 (bilinear, antialiased), cut out the central
    224x224, divide by 255, and put nn.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) in front of the network,
    so that eps is in pixels. Errors are those of `data.mnist`, and StateError for weights that do not fit.
    """
    return loaded(ResNet("basic", (2, 2, 2, 2), num_classes, small_images, width, seed), "resnet18", weights)


@spelled
def resnet50(num_classes: int = 1000, *, small_images: bool = False, width: int = 64, seed: int = 0,
             weights: str | None = None) -> ResNet:
    """ResNet-50: bottlenecks; 25,557,032 parameters, or 23,520,842 with 10 classes and small_images.

    weights (see `resnet18`): "IMAGENET1K_V1", 76.130% correct,
    https://download.pytorch.org/models/resnet50-0676ba61.pth (97.8 MiB); "IMAGENET1K_V2", 80.858% correct,
    https://download.pytorch.org/models/resnet50-11ad3fa6.pth (97.8 MiB). The names end in the first 8 digits of the
    SHA-256. Images: resize the shorter side to 256 for V1, 232 for V2 (bilinear, antialiased), cut out the central
    224x224, divide by 255, and put nn.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) in front.
    """
    return loaded(ResNet("bottleneck", (3, 4, 6, 3), num_classes, small_images, width, seed), "resnet50", weights)
