"""How a pixel is hidden from a model, so that hidden is not the same as black."""

from __future__ import annotations

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array
from tinyadv.shapes import check_floating
from tinyadv.tensor import Tensor, no_grad


def hidden(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as (N, 2 C, H, W): a kept pixel p is the pair (p, 1 - p), a hidden one is (0, 0).

    kept: bool, broadcast against (N, 1, H, W). The encoding of Levine and Feizi 2020, arXiv:1911.09272.
    """
    check_floating(images)
    with no_grad():
        return hide(Tensor(images), kept.astype(images.dtype)).data


def hide(x: Tensor, kept: Array) -> Tensor:
    """`hidden` of a Tensor, through which gradients pass; kept: 1 or 0, in the dtype of x."""
    return ops.concatenate([x, 1 - x], axis=1) * kept
