"""Layers, with PyTorch's names, arguments, parameters and conventions; images are (N, C, H, W).

`init` names an initialiser of init.py; `rng` is a numpy Generator, a seed, or None for a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.backend import move
from tinyadv.nn.init import initializer
from tinyadv.nn.module import Module, array_of
from tinyadv.shapes import check_ndim, pair, to_count
from tinyadv.tensor import Tensor

Rng = np.random.Generator | int | None


class Sequential(Module):
    """Layers (or any functions on Tensors) one after the other, named "0", "1", ..., or by keywords.

    A module that is set as an attribute later is one more layer, as in PyTorch; a function is, if its name is a number.
    """

    _given: tuple[str, ...] | None = None  # the names of the arguments, which may be plain functions

    def __init__(self, *layers: Callable[[Tensor], Tensor], **named: Callable[[Tensor], Tensor]):
        if not all(map(callable, (*layers, *named.values()))):
            raise TypeError("Sequential takes layers one by one, as in Sequential(*layers)")
        if classes := [layer.__name__ for layer in (*layers, *named.values()) if isinstance(layer, type)]:
            raise TypeError(f"Sequential takes layers, got the class {classes[0]}: write {classes[0]}()")
        if taken := [name for name in named if hasattr(Sequential, name)]:
            raise ValueError(f"Sequential: {', '.join(taken)} names one of its methods: give the layer another name")
        given = {**{str(i): layer for i, layer in enumerate(layers)}, **named}
        vars(self).update(given, _given=tuple(given))

    @property
    def layers(self) -> list[Callable[[Tensor], Tensor]]:
        """The layers in order."""
        return [layer for _, layer in self._named()]

    def _named(self) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        return [(name, layer) for name, layer in vars(self).items()
                if callable(layer) and name != "forward" and (
                    self._given is None or name in self._given or name.isdigit() or isinstance(layer, Module))]

    def __getitem__(self, index: int | slice) -> Any:
        """The layer of that number, or a Sequential of several; they are shared, not copied."""
        if not isinstance(index, slice):
            return self.layers[index]
        named = self._named()[index]
        if all(name.isdigit() for name, _ in named):
            return Sequential(*(layer for _, layer in named))
        return Sequential(**dict(named))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Linear(Module):
    """x @ weight.T + bias: (N, in_features) -> (N, out_features), or of tokens (N, T, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *,
                 init: str = "pytorch", rng: Rng = None):
        self.in_features = to_count("in_features", in_features)
        self.out_features = to_count("out_features", out_features)
        weight, offset = initializer(init)((out_features, in_features), np.random.default_rng(rng))
        self.weight = Tensor(weight)
        self.bias = Tensor(offset) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Cross-correlation with learned kernels: (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    stride, padding, dilation, groups: as in ops.conv2d; padding may also be "same" (for stride 1) or "valid".
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] | str = 0,
                 dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True, *, init: str = "pytorch",
                 rng: Rng = None):
        in_channels, out_channels = to_count("in_channels", in_channels), to_count("out_channels", out_channels)
        if in_channels % to_count("groups", groups) or out_channels % groups:
            raise ValueError(f"groups must divide in_channels, {in_channels}, and out_channels, {out_channels}; "
                             f"got {groups!r}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair(kernel_size, "kernel_size", least=1)
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = self._padding(padding) if isinstance(padding, str) else padding
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        weight, offset = initializer(init)(shape, np.random.default_rng(rng))
        self.weight = Tensor(weight)
        self.bias = Tensor(offset) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _padding(self, name: str) -> tuple[int, int]:
        """The padding that PyTorch calls "valid", none, or "same", with which an image keeps its size."""
        (kh, kw), (dh, dw) = self.kernel_size, pair(self.dilation, "dilation", least=1)
        total = ((kh - 1) * dh, (kw - 1) * dw)
        if name == "valid":
            return (0, 0)
        if name != "same" or pair(self.stride, "stride", least=1) != (1, 1) or total[0] % 2 or total[1] % 2:
            raise ValueError('padding must be an integer, a (height, width) pair, "valid" or, with stride 1 and an odd '
                             f'kernel, "same"; got {name!r} for {self.kernel_size} and stride {self.stride}')
        return (total[0] // 2, total[1] // 2)


class _Pool2d(Module):
    def __init__(self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
                 padding: int | tuple[int, int] = 0):
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding


class MaxPool2d(_Pool2d):
    """The maximum of each window; the stride is the kernel's size unless given."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """The mean of each window, padding included; the stride is the kernel's size unless given."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class AdaptiveAvgPool2d(Module):
    """The means of OH x OW windows, which differ by a pixel where they must: (N, C, H, W) -> (N, C, OH, OW).

    size: (OH, OW), or one number for both. Along an axis of n pixels, window i of size windows goes from
    floor(i n / size) up to ceil((i + 1) n / size), as in PyTorch; but an infinite pixel gives NaN in other windows.
    """

    def __init__(self, size: int | tuple[int, int]):
        self.size = pair(size, "size", least=1)

    def forward(self, x: Tensor) -> Tensor:
        check_ndim(x.shape, 4, "AdaptiveAvgPool2d", "images of shape (N, C, H, W)")
        if x.shape[2:] == self.size:
            return x
        rows, columns = (move(self._means(n, size).astype(np.result_type(x.dtype, np.float16)), like=array_of(x))
                         for n, size in zip(x.shape[2:], self.size, strict=True))
        return ops.matmul(ops.matmul(rows, x), columns.T)

    @staticmethod
    def _means(n: int, size: int) -> np.ndarray:
        """(size, n): row i holds the share of each pixel in the mean of window i."""
        shares = np.zeros((size, n))
        for i, row in enumerate(shares):
            window = slice(i * n // size, -(-(i + 1) * n // size))
            row[window] = 1 / max(1, len(row[window]))
        return shares


class GlobalAvgPool2d(Module):
    """The mean of each channel: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


class Flatten(Module):
    """(N, ...) -> (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.flatten(x)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """x where it is positive, negative_slope * x elsewhere."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)
