"""Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.nn import GELU, Attention, Conv2d, LayerNorm, Linear, Module, Sequential, init
from tinyadv.shapes import to_count
from tinyadv.tensor import Tensor


class PatchEmbedding(Module):
    """The image cut into patches, each mapped to a token: (N, C, H, W) -> (D, N, T), row by row."""

    def __init__(self, channels: int, dim: int, patch_size: int, rng: np.random.Generator):
        self.proj = Conv2d(channels, dim, patch_size, patch_size, init="glorot_uniform", rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(x).transpose((1, 0, 2, 3))  # (D, N, H / patch, W / patch)
        d, n, rows, columns = y.shape
        return y.reshape((d, n, rows * columns))


class Block(Module):
    """y + mlp(norm(y)), where y = x + attention(norm(x)), and mlp has two dense layers: "pre-norm"."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, rng: np.random.Generator):
        options: Any = {"init": "glorot_uniform", "rng": rng}
        self.norm1 = LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, **options)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.mlp = Sequential(fc1=Linear(dim, mlp_dim, **options), act=GELU(), fc2=Linear(mlp_dim, dim, **options))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(Module):
    """Patches as tokens, a class token before them, and learned positions added; the class token gives the logits.

    Dosovitskiy et al. 2021, arXiv:2010.11929, figure 1.
    By default for CIFAR-10, 811,146 parameters; VisionTransformer((1, 28, 28), patch_size=7, dim=64, depth=4,
    mlp_dim=128) is one for MNIST, of 139,018. dim: the numbers of a token. depth: the number of blocks. The parameters
    have the names of timm's and DeiT's networks. ValueError unless patch_size divides the image's height and width.
    """

    def __init__(self, image_shape: tuple[int, int, int] = (3, 32, 32), patch_size: int = 4, dim: int = 128,
                 depth: int = 6, num_heads: int = 4, mlp_dim: int = 256, num_classes: int = 10, seed: int = 0):
        if len(image_shape) != 3:
            raise ValueError(f"image_shape must be (channels, height, width), got {image_shape!r}")
        (channels, height, width), depth = image_shape, to_count("depth", depth, least=0)
        if not isinstance(patch_size, int | np.integer) or patch_size < 1 or height % patch_size or width % patch_size:
            raise ValueError(f"patch_size must divide the image's {height} and {width} pixels; got {patch_size}")
        self.input_shape = (channels, height, width)
        rng, tokens = np.random.default_rng(seed), (height // patch_size) * (width // patch_size) + 1
        self.cls_token = Tensor(_small((1, 1, dim), rng))
        self.pos_embed = Tensor(_small((1, tokens, dim), rng))
        self.patch_embed = PatchEmbedding(channels, dim, patch_size, rng)
        self.blocks = [Block(dim, num_heads, mlp_dim, rng) for _ in range(depth)]
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = Linear(dim, num_classes, init="glorot_uniform", rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:  # the positions are those of such images
            raise ValueError(f"VisionTransformer: images must have the shape {self.input_shape}, got {x.shape[1:]}")
        patches = self.patch_embed(x)                                        # (D, N, T), as `linear` lays tokens out
        first = ops.broadcast_to(self.cls_token.T, (*patches.shape[:2], 1))  # (D, N, 1)
        tokens = ops.concatenate([first, patches], axis=2) + self.pos_embed.transpose((2, 0, 1))
        tokens = tokens.transpose((1, 2, 0))                                 # (N, 1 + T, D)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


def _small(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """N(0, 0.02²)."""
    init.reserve(shape)
    return 0.02 * rng.standard_normal(shape, np.float32)
