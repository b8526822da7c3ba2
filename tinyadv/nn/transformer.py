"""The layers of transformers. A batch of N sequences of T tokens, D numbers each, is (N, T, D)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinyadv import ops
from tinyadv.nn.init import reserve
from tinyadv.nn.layers import Linear, Rng
from tinyadv.nn.module import Module
from tinyadv.shapes import check_ndim, to_count
from tinyadv.tensor import Tensor


class LayerNorm(Module):
    """Each token normalised by its mean and variance, then scaled and shifted (Ba et al. 2016, arXiv:1607.06450)."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5):
        if isinstance(normalized_shape, Sequence) and len(normalized_shape) == 1:  # as PyTorch writes it, too
            (normalized_shape,) = normalized_shape
        self.normalized_shape, self.eps = to_count("normalized_shape", normalized_shape), eps
        reserve((self.normalized_shape,))
        self.weight = Tensor(np.ones(self.normalized_shape, np.float32))
        self.bias = Tensor(np.zeros(self.normalized_shape, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class GELU(Module):
    """x times the probability that a standard normal number is below x."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x)


class Attention(Module):
    """Self-attention with several heads: (N, T, D) -> (N, T, D) (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Each head takes D / num_heads numbers of the queries q, the keys k and the values v of all tokens, and gives
    softmax(q k.T / sqrt(D / num_heads)) v. `qkv` makes all three from x, and `proj` mixes the heads. ValueError unless
    num_heads divides dim, which is D.
    """

    def __init__(self, dim: int, num_heads: int, *, init: str = "glorot_uniform", rng: Rng = None):
        if not isinstance(num_heads, int | np.integer) or num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, {dim}; got {num_heads}")
        rng = np.random.default_rng(rng)
        self.dim, self.num_heads = dim, num_heads
        self.qkv = Linear(dim, 3 * dim, init=init, rng=rng)
        self.proj = Linear(dim, dim, init=init, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        check_ndim(x.shape, 3, "Attention", "tokens of shape (N, T, D)")
        n, t, each = *x.shape[:2], self.dim // self.num_heads
        heads = self.qkv(x).reshape((n, t, 3, self.num_heads, each)).transpose((2, 0, 3, 1, 4))
        q, k, v = heads[0], heads[1], heads[2]                                      # (N, heads, T, D / heads)
        scores = ops.softmax((q * each**-0.5) @ k.transpose((0, 1, 3, 2)))          # (N, heads, T, T)
        return self.proj((scores @ v).transpose((0, 2, 1, 3)).reshape((n, t, self.dim)))
