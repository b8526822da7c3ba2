"""Local gradients smoothing: what changes quickly from pixel to pixel, as a patch of noise does, is darkened."""

from __future__ import annotations

import numpy as np

from tinyadv.backend import Array, array_module
from tinyadv.defenses.bpda import Defense
from tinyadv.shapes import check_ndim, check_not_negative, to_count
from tinyadv.tensor import Tensor


class LGS(Defense):
    """Blocks of images (N, C, H, W) in which neighbouring pixels differ much are darkened: Naseer et al. 2019.

    arXiv:1807.01216, section 3: g is the length of the first differences of the mean channel, scaled to [0, 1] for each
    image, and 0 outside of the blocks whose mean of g is above `threshold`. The image becomes x (1 - clip(strength * g,
    0, 1)). A flat image has g = 0. Blocks at the last rows and columns may be cut; one block above keeps a pixel's g.

    strength: their lambda, 0 for no change. block, overlap: the side of the square blocks, and how much of it they
    share, in pixels. The paper has 2.3, 15, 5 and 0.1 for images of 299 pixels; for 28 or 32, take block=5, overlap=2.
    gradient: see `Defense`; "smooth" is that of the formula with g held constant.
    """

    def __init__(self, strength: float = 2.3, block: int = 15, overlap: int = 5, threshold: float = 0.1,
                 gradient: str = "identity"):
        super().__init__(gradient)
        for name, value in ("strength", strength), ("threshold", threshold):
            check_not_negative(name, value)
        block, overlap = to_count("block", block), to_count("overlap", overlap, 0)
        if overlap >= block:
            raise ValueError(f"overlap must be less than block, {block}, got {overlap}")
        self.strength, self.block, self.overlap, self.threshold = strength, block, overlap, threshold

    def transform(self, images: Array) -> Array:
        return images * self._factor(images)

    def smooth(self, x: Tensor) -> Tensor:
        return x * self._factor(x.data)

    def _factor(self, images: Array) -> Array:
        """1 - clip(strength * g, 0, 1), (N, 1, H, W), in the dtype of the images; computed in float64."""
        check_ndim(images.shape, 4, "LGS", "images (N, C, H, W)")
        xp, grey = array_module(images), images.astype(np.float64).mean(axis=1, keepdims=True)
        down, right = xp.zeros_like(grey), xp.zeros_like(grey)
        down[:, :, :-1], right[..., :-1] = grey[:, :, 1:] - grey[:, :, :-1], grey[..., 1:] - grey[..., :-1]
        g = xp.sqrt(down**2 + right**2)
        low, high = g.min(axis=(1, 2, 3), keepdims=True), g.max(axis=(1, 2, 3), keepdims=True)
        g = (g - low) / xp.where(high > low, high - low, 1)
        return (1 - xp.clip(self.strength * g * self._noisy(g), 0, 1)).astype(images.dtype)

    def _noisy(self, g: Array) -> Array:
        """Whether a pixel is in a block, at least, whose mean of g (N, 1, H, W) is above the threshold: bool."""
        xp, sizes = array_module(g), g.shape[2:]
        starts = [range(0, max(1, size - self.overlap), self.block - self.overlap) for size in sizes]
        noisy = xp.zeros(g.shape, bool)
        for top in starts[0]:
            band = g[:, :, top:top + self.block]
            lines = sum(band[:, :, row] for row in range(band.shape[2]))  # in one order, whatever the memory: (N, 1, W)
            for left in starts[1]:
                total = sum(lines[..., column] for column in range(left, min(left + self.block, sizes[1])))
                mean = total / (band.shape[2] * min(self.block, sizes[1] - left))
                noisy[:, :, top:top + self.block, left:left + self.block] |= (mean > self.threshold)[..., None, None]
        return noisy
