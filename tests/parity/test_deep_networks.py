"""The deep networks beside the same ones in PyTorch, written down here as torchvision has them, in float64."""

from functools import partial

import numpy as np
import pytest
import torch
from references import in_float64
from torch.nn import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)

from tinyadv import Tensor, gradients, models

pytestmark = pytest.mark.parity


class Named(Module):
    """Modules by name, one after the other; their dots become the levels of the network."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x


def conv3x3(channels, filters, stride=1):
    return Conv2d(channels, filters, 3, stride, 1, bias=False)


class BasicBlock(Module):
    """torchvision.models.resnet.BasicBlock."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(channels, width, stride), BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width), BatchNorm2d(width)
        self.downsample = shortcut(channels, width, stride)
        self.filters = width

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """torchvision.models.resnet.Bottleneck."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = Conv2d(channels, width, 1, bias=False), BatchNorm2d(width)
        self.conv2, self.bn2 = conv3x3(width, width, stride), BatchNorm2d(width)
        self.conv3, self.bn3 = Conv2d(width, 4 * width, 1, bias=False), BatchNorm2d(4 * width)
        self.downsample = shortcut(channels, 4 * width, stride)
        self.filters = 4 * width

    def forward(self, x):
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels, filters, stride):
    if stride == 1 and channels == filters:
        return None
    return Sequential(Conv2d(channels, filters, 1, stride, bias=False), BatchNorm2d(filters))


class PreActBlock(Module):
    """preact_resnet.py of github.com/locuslab/fast_adversarial: the shortcut starts from x itself."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.bn1, self.conv1 = BatchNorm2d(channels), conv3x3(channels, width, stride)
        self.bn2, self.conv2 = BatchNorm2d(width), conv3x3(width, width)
        if stride != 1 or channels != width:
            self.shortcut = Sequential(Conv2d(channels, width, 1, stride, bias=False))
        self.filters = width

    def forward(self, x):
        y = self.conv1(torch.relu(self.bn1(x)))
        y = self.conv2(torch.relu(self.bn2(y)))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


def layers(block, counts, width):
    channels, parts = width, {}
    for stage, count in enumerate(counts):
        blocks = []
        for k in range(count):
            blocks.append(block(channels, width << stage, 2 if stage and not k else 1))
            channels = blocks[-1].filters
        parts[f"layer{stage + 1}"] = Sequential(*blocks)
    return parts, channels


def resnet(block, counts, width, small):
    first = {"conv1": conv3x3(3, width)} if small else {"conv1": Conv2d(3, width, 7, 2, 3, bias=False)}
    parts, channels = layers(block, counts, width)
    return Named(**first, bn1=BatchNorm2d(width), relu=ReLU(), **({} if small else {"maxpool": MaxPool2d(3, 2, 1)}),
                 **parts, avgpool=AdaptiveAvgPool2d(1), flatten=Flatten(), fc=Linear(channels, 10))


def preact_resnet(width):
    parts, channels = layers(PreActBlock, (2, 2, 2, 2), width)
    return Named(conv1=conv3x3(3, width), **parts, bn=BatchNorm2d(channels), relu=ReLU(), avgpool=AvgPool2d(4),
                 flatten=Flatten(), linear=Linear(channels, 10))


def vgg(norm, width, small):
    parts, channels = [], 3
    for v in (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0):  # torchvision's configuration D; 0 is "M"
        if v:
            parts += [Conv2d(channels, v * width, 3, padding=1), *([BatchNorm2d(v * width)] if norm else []), ReLU()]
            channels = v * width
        else:
            parts += [MaxPool2d(2, 2)]
    if small:
        return Named(features=Sequential(*parts), flatten=Flatten(), classifier=Linear(channels, 10))
    hidden = 64 * width
    return Named(features=Sequential(*parts), avgpool=AdaptiveAvgPool2d(7), flatten=Flatten(), classifier=Sequential(
        Linear(49 * channels, hidden), ReLU(), Dropout(), Linear(hidden, hidden), ReLU(), Dropout(),
        Linear(hidden, 10)))


class DenseLayer(Named):
    """torchvision.models.densenet._DenseLayer."""

    def forward(self, x):
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


def densenet(counts, growth, small):
    channels = 2 * growth
    first = {"conv0": conv3x3(3, channels)} if small else {
        "conv0": Conv2d(3, channels, 7, 2, 3, bias=False), "norm0": BatchNorm2d(channels), "relu0": ReLU(),
        "pool0": MaxPool2d(3, 2, 1)}
    parts = {}
    for i, count in enumerate(counts):
        block = {}
        for k in range(count):
            block[f"denselayer{k + 1}"] = DenseLayer(
                norm1=BatchNorm2d(channels), conv1=Conv2d(channels, 4 * growth, 1, bias=False),
                norm2=BatchNorm2d(4 * growth), conv2=conv3x3(4 * growth, growth))
            channels += growth
        parts[f"denseblock{i + 1}"] = Named(**block)
        if i < len(counts) - 1:
            parts[f"transition{i + 1}"] = Named(norm=BatchNorm2d(channels), relu=ReLU(), conv=Conv2d(
                channels, channels // 2, 1, bias=False), pool=AvgPool2d(2, 2))
            channels //= 2
    return Named(features=Named(**first, **parts, norm5=BatchNorm2d(channels)), relu=ReLU(),
                 avgpool=AdaptiveAvgPool2d(1), flatten=Flatten(), classifier=Linear(channels, 10))


class Attention(Module):
    """timm.layers.Attention."""

    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = Linear(dim, 3 * dim), Linear(dim, dim), heads

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, t, d))


class Block(Named):
    """timm.models.vision_transformer.Block."""

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(Module):
    """timm.models.vision_transformer.VisionTransformer."""

    def __init__(self, shape, patch, dim, depth, heads, hidden):
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = torch.nn.Parameter(torch.randn(1, shape[1] * shape[2] // patch**2 + 1, dim))
        self.patch_embed = Named(proj=Conv2d(shape[0], dim, patch, patch))
        self.blocks = Sequential(*(Block(
            norm1=LayerNorm(dim, eps=1e-6), attn=Attention(dim, heads), norm2=LayerNorm(dim, eps=1e-6),
            mlp=Named(fc1=Linear(dim, hidden), act=GELU(), fc2=Linear(hidden, dim))) for _ in range(depth)))
        self.norm, self.head = LayerNorm(dim, eps=1e-6), Linear(dim, 10)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


SMALL, LARGE = (3, 32, 32), (3, 48, 40)
TWINS = {  # name: (ours, theirs, image); few filters, and few pixels
    "resnet18": (partial(models.resnet18, 10, width=8), partial(resnet, BasicBlock, (2, 2, 2, 2), 8, False), LARGE),
    "resnet18 small": (partial(models.resnet18, 10, width=8, small_images=True),
                       partial(resnet, BasicBlock, (2, 2, 2, 2), 8, True), SMALL),
    "resnet50": (partial(models.resnet50, 10, width=4), partial(resnet, Bottleneck, (3, 4, 6, 3), 4, False), LARGE),
    "resnet50 small": (partial(models.resnet50, 10, width=4, small_images=True),
                       partial(resnet, Bottleneck, (3, 4, 6, 3), 4, True), SMALL),
    "PreActResNet18": (partial(models.PreActResNet18, width=8), partial(preact_resnet, 8), SMALL),
    "vgg16": (partial(models.vgg16, 10, width=4), partial(vgg, False, 4, False), LARGE),
    "vgg16 small": (partial(models.vgg16, 10, width=4, small_images=True), partial(vgg, False, 4, True), SMALL),
    "vgg16_bn": (partial(models.vgg16_bn, 10, width=4), partial(vgg, True, 4, False), (3, 224, 224)),
    "vgg16_bn small": (partial(models.vgg16_bn, 10, width=4, small_images=True), partial(vgg, True, 4, True), SMALL),
    "VisionTransformer": (models.VisionTransformer, partial(VisionTransformer, SMALL, 4, 128, 6, 4, 256), SMALL),
    "VisionTransformer, of MNIST": (partial(models.VisionTransformer, (1, 28, 28), 7, 64, 4, 4, 128),
                                    partial(VisionTransformer, (1, 28, 28), 7, 64, 4, 4, 128), (1, 28, 28)),
    "densenet121": (partial(models.densenet121, 10, growth=4), partial(densenet, (6, 12, 24, 16), 4, False), LARGE),
    "densenet121 small": (partial(models.densenet121, 10, growth=4, small_images=True),
                          partial(densenet, (6, 12, 24, 16), 4, True), SMALL),
}


@pytest.mark.parametrize("name", TWINS)
def test_logits_and_input_gradients_agree_with_pytorchs(name):
    make, twin, shape = TWINS[name]
    torch.manual_seed(0)
    ours, theirs = make(seed=1), twin().double().eval()
    for module in theirs.modules():
        if isinstance(module, BatchNorm2d):  # as after training: other than 0 and 1
            for each in (module.weight, module.running_var):
                torch.nn.init.uniform_(each, 0.5, 1.5)
            for each in (module.bias, module.running_mean):
                torch.nn.init.normal_(each, 0, 0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    in_float64(ours)
    ours.load_state_dict(theirs.state_dict())
    images = np.random.default_rng(0).random((2, *shape))

    x, t = Tensor(images), torch.from_numpy(images).requires_grad_()
    logits, expected = ours.eval()(x), theirs(t)
    weights = np.random.default_rng(1).normal(size=logits.shape)
    (slope,) = gradients((logits * weights).sum(), [x])
    (expected * torch.from_numpy(weights)).sum().backward()
    assert logits.shape == (2, 10)
    assert error(logits.data, expected.detach().numpy()) < 1e-9
    assert error(slope, t.grad.numpy()) < 1e-9


def error(ours, theirs):
    """The largest difference, relative to the largest entry."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
