"""The networks that are timed, and their twins: the same layers and weights in PyTorch and in MyGrad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn as torch_nn

from tinyadv import models, nn

NETWORKS = ("LeNet", "SmallCNN", "MadryCNN", "CifarCNN", "ResNet20")


def build(name: str) -> nn.Module:
    """The network, in evaluation mode, its batch normalisation with statistics as after some training."""
    model = getattr(models, name)(seed=0).eval()
    rng = np.random.default_rng(0)
    for _, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += rng.normal(0, 0.1, module.num_features).astype(np.float32)
            module.running_var *= rng.uniform(0.5, 2, module.num_features).astype(np.float32)
    return model


def torch_twin(model: nn.Module) -> torch_nn.Module:
    """The network in PyTorch, with the same weights."""
    twin = torch_nn.Sequential(*map(_torch_layer, model.layers)).eval()
    twin.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
    return twin


class TorchBlock(torch_nn.Module):
    """models.blocks.BasicBlock in PyTorch."""

    def __init__(self, block: models.blocks.BasicBlock):
        super().__init__()
        self.conv1, self.bn1 = _torch_layer(block.conv1), _torch_layer(block.bn1)
        self.conv2, self.bn2 = _torch_layer(block.conv2), _torch_layer(block.bn2)
        self.stride, self.more = block.stride, block.filters - block.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = torch_nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return torch.relu(x + y)


def _torch_layer(layer: nn.Module) -> torch_nn.Module:
    match layer:
        case nn.Conv2d():
            return torch_nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
                                   layer.padding, bias=layer.bias is not None)
        case nn.Linear():
            return torch_nn.Linear(layer.in_features, layer.out_features)
        case nn.BatchNorm2d():
            return torch_nn.BatchNorm2d(layer.num_features)
        case nn.ReLU():
            return torch_nn.ReLU()
        case nn.AvgPool2d():
            return torch_nn.AvgPool2d(layer.kernel_size)
        case nn.MaxPool2d():
            return torch_nn.MaxPool2d(layer.kernel_size)
        case nn.GlobalAvgPool2d():
            return torch_nn.Sequential(torch_nn.AdaptiveAvgPool2d(1), torch_nn.Flatten())
        case nn.Flatten():
            return torch_nn.Flatten()
        case nn.Dropout():
            return torch_nn.Dropout(layer.p)
        case models.blocks.BasicBlock():
            return TorchBlock(layer)
    raise TypeError(f"no twin of {layer}")


def mygrad_twin(model: nn.Module) -> Callable | None:
    """The network in MyGrad, its weights constant; None where MyGrad has no such layer."""
    import mygrad
    from mygrad import nnet

    def layer(of: nn.Module) -> Callable | None:
        match of:
            case nn.Conv2d():
                weight = mygrad.tensor(of.weight.data, constant=True)
                bias = None if of.bias is None else of.bias.data[:, None, None]
                return lambda x: _plus(nnet.layers.conv_nd(x, weight, stride=of.stride, padding=of.padding), bias)
            case nn.Linear():
                return lambda x: mygrad.matmul(x, of.weight.data.T) + of.bias.data
            case nn.ReLU():
                return nnet.activations.relu
            case nn.AvgPool2d():
                return lambda x: x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))
            case nn.MaxPool2d():
                return lambda x: nnet.layers.max_pool(x, (2, 2), 2)
            case nn.Flatten():
                return lambda x: x.reshape(len(x), -1)
            case nn.Dropout():
                return lambda x: x
        return None

    layers = [layer(each) for each in model.layers]
    if None in layers:
        return None

    def forward(x):
        for each in layers:
            x = each(x)
        return x

    return forward


def _plus(x, bias):
    return x if bias is None else x + bias
