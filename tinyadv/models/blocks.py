"""The blocks of residual networks: each adds what it computes from x to x, or to a shortcut of another shape.

`conv` makes a convolution from (channels, filters, kernel_size, stride, padding) and `norm` a normalisation from a
number of channels: a network fixes there how its weights are drawn. `shortcut` makes a module from (channels,
filters, stride), and is asked only where the block changes the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyadv import ops
from tinyadv.nn import BatchNorm2d, Conv2d, Module, Sequential
from tinyadv.shapes import to_count
from tinyadv.tensor import Tensor

Conv = Callable[..., Conv2d]
Norm = Callable[[int], BatchNorm2d]
Shortcut = Callable[[int, int, int], Module]


class Padded(Module):
    """The image, smaller by the stride, with channels of zeros added; no parameters (He et al. 2016, option A).

    The image is subsampled and the zeros come last; or, with `average`, each pixel is the mean of the window that
    it stands for, and half of the zeros come first.
    """

    def __init__(self, channels: int, filters: int, stride: int, average: bool = False):
        self.stride, self.average = stride, average
        self.before = (filters - channels) // 2 if average else 0
        self.after = filters - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != 1:
            x = ops.avg_pool2d(x, self.stride) if self.average else x[:, :, :: self.stride, :: self.stride]
        return ops.pad(x, ((0, 0), (self.before, self.after), (0, 0), (0, 0)))


def projection(conv: Conv, norm: Norm | None = BatchNorm2d) -> Shortcut:
    """A shortcut by a 1x1 convolution, and a normalisation unless it is None (He et al. 2016, option B)."""
    return lambda channels, filters, stride: Sequential(
        conv(channels, filters, 1, stride, 0), *([] if norm is None else [norm(filters)]))


class BasicBlock(Module):
    """relu(x + y), where y is two 3x3 convolutions of x, each with batch normalisation after it.

    He et al. 2016, arXiv:1512.03385, figure 5, left. The stride is that of the first one.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1, *, conv: Conv = Conv2d, norm: Norm = BatchNorm2d,
                 shortcut: Shortcut = Padded):
        self.channels, self.filters, self.stride = channels, filters, stride
        self.conv1, self.bn1 = conv(channels, filters, 3, stride, 1), norm(filters)
        self.conv2, self.bn2 = conv(filters, filters, 3, 1, 1), norm(filters)
        self.downsample = shortcut(channels, filters, stride) if (channels, 1) != (filters, stride) else None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return ops.relu((self.downsample(x) if self.downsample else x) + y)


class Bottleneck(Module):
    """relu(x + y), where y is a 1x1, a 3x3 and a 1x1 convolution of x, each with batch normalisation after it.

    He et al. 2016, figure 5, right: the first two have `width` filters and the last one four times as many. The
    stride is that of the 3x3 convolution, as in PyTorch, and not of the first one, as in the paper.
    """

    def __init__(self, channels: int, width: int, stride: int = 1, *, conv: Conv = Conv2d, norm: Norm = BatchNorm2d,
                 shortcut: Shortcut = Padded):
        self.channels, self.filters, self.stride = channels, 4 * width, stride
        self.conv1, self.bn1 = conv(channels, width, 1, 1, 0), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, 1), norm(width)
        self.conv3, self.bn3 = conv(width, self.filters, 1, 1, 0), norm(self.filters)
        self.downsample = shortcut(channels, self.filters, stride) if (channels, 1) != (self.filters, stride) else None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.relu(self.bn1(self.conv1(x)))
        y = ops.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return ops.relu((self.downsample(x) if self.downsample else x) + y)


class PreActBlock(Module):
    """x + y, where y is two 3x3 convolutions of x, each after batch normalisation and an activation.

    "Pre-activation": He et al. 2016, arXiv:1603.05027, figure 1b. The shortcut starts from x, or, with
    `activated_shortcut`, behind the first activation.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1, *, conv: Conv = Conv2d, norm: Norm = BatchNorm2d,
                 shortcut: Shortcut = Padded, activation: Callable[[Tensor], Tensor] = ops.relu,
                 activated_shortcut: bool = False):
        self.channels, self.filters, self.stride = channels, filters, stride
        self.activation, self.activated_shortcut = activation, activated_shortcut
        self.bn1, self.conv1 = norm(channels), conv(channels, filters, 3, stride, 1)
        self.bn2, self.conv2 = norm(filters), conv(filters, filters, 3, 1, 1)
        self.shortcut = shortcut(channels, filters, stride) if (channels, 1) != (filters, stride) else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(x))
        if self.activated_shortcut:
            x = y
        y = self.conv2(self.activation(self.bn2(self.conv1(y))))
        return (self.shortcut(x) if self.shortcut else x) + y


def stages(block: Callable[..., Module], channels: int, plan: Sequence[tuple[int, int, int]]) -> list[list[Module]]:
    """Make a list of blocks for each stage of a residual network.

    block: makes a block from (channels, filters, stride); channels: of the input of the first stage; plan: for each
    stage, (number of blocks, filters, stride of the first block).
    """
    made: list[list[Module]] = []
    for count, filters, stride in plan:
        made.append([])
        for k in range(to_count("the number of blocks of a stage", count, least=0)):
            made[-1].append(block(channels, filters, 1 if k else stride))
            channels = made[-1][-1].filters  # type: ignore[attr-defined]
    return made
