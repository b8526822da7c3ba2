"""What the tests of defences share: the table of defences, and images for them.

A new defence is one line of CASES. test_defenses.py runs its properties over all.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tinyadv import Tensor, defenses, nn, ops
from tinyadv.backend import array_module

GRADIENTS = ("identity", "smooth", "zero")
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 9, 13)]


@dataclass(frozen=True)
class Case:
    """A defence: how it is made, and what it must compute.

    make: the layer, for the name of a gradient. plain: the same on a NumPy array (N, C, H, W), written apart from the
    library; None for a random defence. gradients: the names that it offers. identity: the settings with which it
    changes nothing, if there are such. span: the values that it may return.
    """

    name: str
    make: Callable[[str], Callable[[Tensor], Tensor]]
    plain: Callable[[np.ndarray], np.ndarray] | None
    gradients: tuple[str, ...] = ("identity", "zero")
    identity: Callable[[], Callable[[Tensor], Tensor]] | None = None
    span: tuple[float, float] = (0.0, 1.0)


def steps(x):
    """Five levels: of any array library."""
    return array_module(x).rint(4 * x) / 4


def curved(x):
    """On arrays and on Tensors, but for the rounding of the square: a transform and its smooth stand-in in one."""
    return x * x


def smoothed(x, strength=2.3, side=5, overlap=2, threshold=0.1):
    """Local gradients smoothing, for one image and one block at a time."""
    found = []
    for image in x.astype(np.float64):
        grey = image.mean(axis=0)
        down, right = np.diff(grey, axis=0, append=grey[-1:]), np.diff(grey, axis=1, append=grey[:, -1:])
        g = np.sqrt(down**2 + right**2)
        g = (g - g.min()) / (g.max() - g.min() or 1)
        noisy, step = np.zeros(g.shape, bool), side - overlap
        for top in range(0, max(1, len(g) - overlap), step):
            for left in range(0, max(1, g.shape[1] - overlap), step):
                block = np.s_[top:top + side, left:left + side]
                noisy[block] |= g[block].mean() > threshold
        found.append((1 - np.clip(strength * g * noisy, 0, 1)).astype(x.dtype))
    return x * np.array(found).reshape(len(x), 1, *x.shape[2:])


def brightest(x):
    """A model whose logits are the pixels: its saliency is 1 at the brightest one."""
    return ops.flatten(x)


def without_the_brightest(x):
    """The square of 3 x 3 around the brightest pixel, filled in: its middle in the second sweep, all in every one."""
    found = x.copy()
    for image, result in zip(x.astype(np.float64), found, strict=True):
        _, row, column = np.unravel_index(image.argmax(), image.shape)
        mask = np.zeros(image.shape[1:], bool)
        mask[max(0, row - 1):row + 2, max(0, column - 1):column + 2] = True
        known, values = ~mask, image * ~mask
        for _ in range(9):
            before, seen = values.copy(), known.copy()
            for i, j in zip(*np.nonzero(mask), strict=True):
                beside = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                beside = [(a, b) for a, b in beside if 0 <= a < len(mask) and 0 <= b < mask.shape[1] and seen[a, b]]
                if beside:
                    values[:, i, j], known[i, j] = sum(before[:, a, b] for a, b in beside) / len(beside), True
        result[:, mask] = values[:, mask]
    return found


def from_pillow(x, quality, subsampling="4:2:0"):
    """The images (N, C, H, W), one by one through a file in memory."""
    found = []
    for image in x:
        levels, file = np.rint(255 * image.astype(np.float64)).astype(np.uint8), io.BytesIO()
        channels = [Image.fromarray(channel) for channel in levels]
        picture = channels[0] if len(channels) == 1 else Image.merge("RGB", channels)
        picture.save(file, format="jpeg", quality=quality, subsampling=subsampling)
        found.append(np.array(Image.open(file)).reshape(*levels.shape[1:], -1).transpose(2, 0, 1))
    return np.array(found).reshape(x.shape) / 255


CASES = [
    Case("bpda", lambda gradient: defenses.bpda(steps, gradient=gradient), lambda x: np.rint(4 * x) / 4,
         identity=lambda: defenses.bpda(lambda x: x)),
    Case("JPEG", lambda gradient: defenses.JPEG(50, gradient=gradient), partial(from_pillow, quality=50),
         gradients=GRADIENTS),
    Case("JPEG: of low quality", lambda gradient: defenses.JPEG(5, "4:4:4", gradient),
         partial(from_pillow, quality=5, subsampling="4:4:4"), gradients=GRADIENTS),
    Case("SHIELD", lambda gradient: defenses.SHIELD(gradient=gradient, seed=0), None, gradients=GRADIENTS),
    Case("GaussianNoise", lambda gradient: nn.GaussianNoise(0.1, at_test=True, seed=0), None, gradients=("identity",),
         identity=lambda: nn.GaussianNoise(0.0, at_test=True), span=(-2.0, 3.0)),
    Case("bpda: with a stand-in", lambda gradient: defenses.bpda(steps, curved, gradient), lambda x: np.rint(4 * x) / 4,
         gradients=GRADIENTS),
    Case("LGS", lambda gradient: defenses.LGS(block=5, overlap=2, gradient=gradient), smoothed,
         gradients=GRADIENTS, identity=lambda: defenses.LGS(0)),
    Case("DW", lambda gradient: defenses.DW(brightest, 0.5, 1, 3, 9, gradient), without_the_brightest,
         identity=lambda: defenses.DW(brightest, 1)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_exact_case = pytest.mark.parametrize("case", [c for c in CASES if c.plain], ids=lambda case: case.name)
every_identity = pytest.mark.parametrize("case", [c for c in CASES if c.identity], ids=lambda case: case.name)
every_random_case = pytest.mark.parametrize("case", [c for c in CASES if not c.plain], ids=lambda case: case.name)
every_chosen_gradient = pytest.mark.parametrize("case", [c for c in CASES if "zero" in c.gradients],
                                                ids=lambda case: case.name)
every_gradient = pytest.mark.parametrize(
    ("case", "gradient"), [(c, gradient) for c in CASES for gradient in c.gradients],
    ids=lambda value: value if isinstance(value, str) else value.name)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pictures(count, shape, dtype=np.float32, seed=0):
    """Smooth images with flat parts, black and white ones among them: noise alone is no picture."""
    rng = np.random.default_rng(seed)
    c, h, w = shape
    rows, columns = np.arange(h)[:, None] / h, np.arange(w) / w
    waves = [np.sin(6 * a * rows + b) * np.cos(6 * b * columns + a) for a, b in rng.random((count * c, 2)) * 2]
    return np.clip(0.5 + np.reshape(waves, (count, *shape)) * 0.8, 0, 1).astype(dtype)


def linear(shape, classes=5, dtype=np.float32, seed=1):
    """A linear model of images of this shape, in the memory that they are in."""
    weight = np.random.default_rng(seed).normal(size=(classes, int(np.prod(shape)))).astype(dtype)
    return lambda x: ops.linear(ops.flatten(x), array_module(x.data).asarray(weight))
