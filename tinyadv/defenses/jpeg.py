"""JPEG compression in front of a model, at one quality or at random ones, with a smooth stand-in for its gradient."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array, array_module, move, to_host
from tinyadv.defenses.bpda import Defense, through
from tinyadv.nn import Random
from tinyadv.shapes import check_ndim
from tinyadv.tensor import Tensor, op

FACTORS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}  # how many rows and columns share a colour
LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]])  # ITU-T T.81, annex K
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


class JPEG(Defense):
    """Images (N, C, H, W) in [0, 1], C = 1 or 3, as they come back from a JPEG file: Das et al. 2017, arXiv:1705.02900.

    The file is written and read by Pillow, on the host. The pixels are rounded to 256 levels, not cut off, and values
    outside [0, 1] are clipped. Raises ValueError for other numbers of channels.

    quality: 1 to 100, as Pillow's. subsampling: of the colours, "4:2:0" (Pillow's default), "4:2:2" or "4:4:4" (none).
    gradient: see `Defense`; "smooth" is that of the same steps with `soft_round` for the rounding of waves, and without
        the rounding and clipping of pixels, which would leave black pixels without a gradient.
    """

    def __init__(self, quality: int = 75, subsampling: str = "4:2:0", gradient: str = "identity"):
        super().__init__(gradient)
        _check(subsampling, quality)
        self.quality, self.subsampling = int(quality), subsampling  # Pillow takes none of NumPy's integers

    def transform(self, images: Array) -> Array:
        return compressed(images, self.quality, self.subsampling)

    def smooth(self, x: Tensor) -> Tensor:
        return stand_in(x, self.quality, self.subsampling)


class SHIELD(Random, Defense):
    """Each block of 8 x 8 pixels as from a JPEG file of a random quality: Das et al. 2018, arXiv:1802.06816, section 3.

    This is the layer alone; the paper also retrains several models on compressed images, which vote.
    qualities: those to choose from, each equally likely. seed: see `nn.Random`. The rest is as in JPEG.
    """

    drawn = True

    def __init__(self, qualities: tuple[int, ...] = (20, 40, 60, 80), subsampling: str = "4:2:0",
                 gradient: str = "identity", seed: int | None = None):
        Defense.__init__(self, gradient)
        if not isinstance(qualities, tuple | list):
            raise ValueError(f"qualities must be several, such as (20, 40, 60, 80), got {qualities!r}")
        _check(subsampling, *qualities)
        self.qualities, self.subsampling = tuple(map(int, qualities)), subsampling
        Random.__init__(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        check_ndim(x.shape, 4, "SHIELD", "images (N, C, H, W)")
        h, w = x.shape[2:]
        blocks = self.streams(x).uniform((-(-h // 8), -(-w // 8)), 0, len(self.qualities)).astype(int)
        chosen = move(blocks.repeat(8, axis=1).repeat(8, axis=2)[:, None, :h, :w], like=x.data)  # (N, 1, H, W)

        def mixed(one: Callable[[Any, int, str], Any], images: Any) -> Any:
            return sum(one(images, quality, self.subsampling) * (chosen == k).astype(x.dtype)
                       for k, quality in enumerate(self.qualities))

        return through(x, lambda images: mixed(compressed, images), self.gradient, lambda z: mixed(stand_in, z))


def _check(subsampling: str, *qualities: int) -> None:
    if subsampling not in FACTORS:
        raise ValueError(f"subsampling must be one of {', '.join(FACTORS)}; got {subsampling!r}")
    if not qualities or not all(isinstance(each, int | np.integer) and not isinstance(each, bool) and 1 <= each <= 100
                                for each in qualities):
        raise ValueError(f"quality must be an integer from 1 to 100, got {', '.join(map(repr, qualities)) or 'none'}")


def compressed(images: Array, quality: int, subsampling: str) -> Array:
    """The images (N, C, H, W) in [0, 1], written to JPEG files and read again; in the memory and dtype of images."""
    from PIL import Image

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG needs images (N, C, H, W), C = 1 or 3, got shape {images.shape}")
    levels = np.rint(255 * np.clip(to_host(images).astype(np.float64), 0, 1)).astype(np.uint8)
    for level in levels.transpose(0, 2, 3, 1):
        file, picture = io.BytesIO(), Image.fromarray(level[..., 0] if level.shape[2] == 1 else level)
        picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
        level[:] = np.asarray(Image.open(file)).reshape(level.shape)
    return move((levels / 255).astype(images.dtype), like=images)


@op
def soft_round(z: Array) -> Any:
    """round(z) + (z - round(z))³: Shin and Song 2017, NIPS workshop on machine learning and computer security."""
    rest = z - array_module(z).rint(z)
    return z - rest + rest**3, lambda g: g * 3 * rest**2


def stand_in(x: Tensor, quality: int, subsampling: str) -> Tensor:
    """The steps of JPEG on Tensors (N, C, H, W), with `soft_round` where numbers are rounded."""
    def here(*arrays: np.ndarray) -> list[Array]:
        return [move(array.astype(x.dtype), like=x.data) for array in arrays]

    def plane(levels: Tensor, table: np.ndarray, factors: tuple[int, int]) -> Tensor:
        rows, columns = (axis(n, factor) for n, factor in zip(x.shape[2:], factors, strict=True))
        tiled = np.tile(table, (len(rows[0]) // 8, len(columns[0]) // 8))
        down, up, right, left, divisors = here(*rows, *columns, tiled)
        waves = soft_round(ops.matmul(ops.matmul(down, levels), right.T) / divisors) * divisors
        return ops.matmul(ops.matmul(up, waves), left.T)

    def mixed(matrix: np.ndarray, parts: Tensor) -> Tensor:
        return ops.matmul(*here(matrix), parts.reshape(len(x), 3, math.prod(x.shape[2:]))).reshape(x.shape)

    (luminance, chrominance), levels = tables(quality), x * 255.0 - 128.0
    if x.shape[1] == 1:
        return (plane(levels, luminance, (1, 1)) + 128.0) / 255.0
    parts = mixed(YCBCR, levels)  # grey is 0 here, too, as the rows of YCBCR have the sums 1, 0 and 0
    read = [plane(parts[:, :1], luminance, (1, 1)), plane(parts[:, 1:], chrominance, FACTORS[subsampling])]
    return (mixed(np.linalg.inv(YCBCR), ops.concatenate(read, axis=1)) + 128.0) / 255.0


def tables(quality: int) -> tuple[np.ndarray, ...]:
    """By what the waves of luminance and chrominance are divided, (8, 8) each: those of libjpeg, and so of Pillow."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(np.clip((base * scale + 50) // 100, 1, 255) for base in (LUMINANCE, CHROMINANCE))


@cache
def axis(n: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Along an axis of n pixels: the matrices (m, n) from pixels to waves, and (n, m) back; m is a multiple of 8.

    There: the edge is repeated, `factor` pixels are averaged, and every 8 get a discrete cosine transform. Back: its
    inverse, and interpolation, in which the nearer of two counts three times.
    """
    m, k = 8 * -(-n // (8 * factor)), np.arange(8)
    means = np.repeat(np.eye(m), factor, axis=1) / factor @ np.eye(n)[np.minimum(np.arange(m * factor), n - 1)]
    cosines = np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos((2 * k[:, None] + 1) * k * np.pi / 16)
    blocks = np.kron(np.eye(m // 8), cosines.T)
    own, last = np.arange(n) // factor, -(-n // factor) - 1
    beside = np.clip(own + np.where(np.arange(n) % factor, 1, -1) * (factor - 1), 0, last)
    spread = 0.75 * np.eye(m)[own] + 0.25 * np.eye(m)[beside]
    return blocks @ means, spread @ blocks.T
