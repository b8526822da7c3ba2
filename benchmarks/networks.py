"""The networks that are timed, and their twins: the same layers and weights in PyTorch and in MyGrad."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn as torch_nn

from tinyadv import models, nn

NETWORKS = ("LeNet", "SmallCNN", "MadryCNN", "CifarCNN", "ResNet20")
DEEP = {"ResNet18": partial(models.resnet18, 10, small_images=True), "VisionTransformer": models.VisionTransformer,
        "ResNet50": models.resnet50}


def build(name: str) -> nn.Module:
    """The network, in evaluation mode, its batch normalisation with statistics as after some training."""
    model = (DEEP.get(name) or getattr(models, name))(seed=0).eval()
    rng = np.random.default_rng(0)
    for _, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += rng.normal(0, 0.1, module.num_features).astype(np.float32)
            module.running_var *= rng.uniform(0.5, 2, module.num_features).astype(np.float32)
    return model


def torch_twin(model: nn.Module) -> torch_nn.Module:
    """The network in PyTorch, with the same weights."""
    twin = _torch_layer(model).eval()
    twin.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
    return twin


class TorchBlock(torch_nn.Module):
    """models.blocks.BasicBlock or Bottleneck in PyTorch."""

    def __init__(self, block: models.blocks.BasicBlock | models.blocks.Bottleneck):
        super().__init__()
        self.depth = 3 if isinstance(block, models.blocks.Bottleneck) else 2
        for k in range(1, self.depth + 1):
            for name in (f"conv{k}", f"bn{k}"):
                self.add_module(name, _torch_layer(getattr(block, name)))
        self.downsample = _torch_layer(block.downsample) if block.downsample else torch_nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for k in range(1, self.depth + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(torch.relu(y) if k > 1 else y))
        return torch.relu(self.downsample(x) + y)


class TorchPadded(torch_nn.Module):
    """models.blocks.Padded in PyTorch, subsampled."""

    def __init__(self, shortcut: models.blocks.Padded):
        super().__init__()
        self.stride, self.after = shortcut.stride, shortcut.after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch_nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.after))


class TorchAttention(torch_nn.Module):
    """nn.Attention in PyTorch."""

    def __init__(self, layer: nn.Attention):
        super().__init__()
        self.qkv, self.proj, self.heads = _torch_layer(layer.qkv), _torch_layer(layer.proj), layer.num_heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = torch_nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, t, d))


class TorchTransformer(torch_nn.Module):
    """models.VisionTransformer in PyTorch."""

    def __init__(self, model: models.VisionTransformer):
        super().__init__()
        for name in ("cls_token", "pos_embed"):
            setattr(self, name, torch_nn.Parameter(torch.tensor(getattr(model, name).data)))
        self.patch_embed = torch_nn.Sequential(OrderedDict(proj=_torch_layer(model.patch_embed.proj)))
        self.blocks = torch_nn.ModuleList(torch_nn.ModuleDict(
            {name: _torch_layer(part) for name, part in vars(block).items() if isinstance(part, nn.Module)})
            for block in model.blocks)
        self.norm, self.head = _torch_layer(model.norm), _torch_layer(model.head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = x + block["attn"](block["norm1"](x))
            x = x + block["mlp"](block["norm2"](x))
        return self.head(self.norm(x)[:, 0])


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
            return torch_nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case nn.GlobalAvgPool2d():
            return torch_nn.Sequential(torch_nn.AdaptiveAvgPool2d(1), torch_nn.Flatten())
        case nn.Flatten():
            return torch_nn.Flatten()
        case nn.Dropout():
            return torch_nn.Dropout(layer.p)
        case models.blocks.BasicBlock() | models.blocks.Bottleneck():
            return TorchBlock(layer)
        case models.blocks.Padded():
            return TorchPadded(layer)
        case models.VisionTransformer():
            return TorchTransformer(layer)
        case nn.Attention():
            return TorchAttention(layer)
        case nn.LayerNorm():
            return torch_nn.LayerNorm(layer.normalized_shape, layer.eps)
        case nn.GELU():
            return torch_nn.GELU()
        case nn.Sequential():
            return torch_nn.Sequential(OrderedDict((name, _torch_layer(part)) for name, part in vars(layer).items()
                                                   if isinstance(part, nn.Module)))
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

    layers = [layer(each) for each in model.layers] if isinstance(model, nn.Sequential) else [None]
    if None in layers:
        return None

    def forward(x):
        for each in layers:
            x = each(x)
        return x

    return forward


def _plus(x, bias):
    return x if bias is None else x + bias
