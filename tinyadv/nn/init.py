"""Initial weights by name: each initialiser maps (shape, generator) to float32 (weight, bias).

The shape is (out, in) or (F, C, kh, kw). Fan-in is the number of inputs that each output depends on, fan-out the
number of outputs that each input affects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from tinyadv.parallel import Setting
from tinyadv.shapes import Shape

_left: Setting[list[int] | None] = Setting("left", None)  # numbers that layers may still have
Initializer = Callable[[Shape, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def he_normal(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 2 / fan-in), zero bias (He et al. 2015, arXiv:1502.01852, eq. 10)."""
    return _float32(rng.normal(0, math.sqrt(2 / _fans(shape)[0]), shape)), np.zeros(shape[0], np.float32)


def he_normal_out(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 2 / fan-out), zero bias (He et al. 2015, eq. 14): keeps the variance of gradients instead of values."""
    return _float32(rng.normal(0, math.sqrt(2 / _fans(shape)[1]), shape)), np.zeros(shape[0], np.float32)


def he_uniform(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform with variance 2 / fan-in, zero bias (He et al. 2015)."""
    return _uniform(shape, rng, math.sqrt(6 / _fans(shape)[0])), np.zeros(shape[0], np.float32)


def lecun_uniform(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform with variance 1 / fan-in, zero bias (LeCun et al. 1998, "Efficient BackProp", eq. 16)."""
    return _uniform(shape, rng, math.sqrt(3 / _fans(shape)[0])), np.zeros(shape[0], np.float32)


def glorot_normal(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 2 / (fan-in + fan-out)), zero bias (Glorot and Bengio 2010, eq. 12)."""
    return _float32(rng.normal(0, math.sqrt(2 / sum(_fans(shape))), shape)), np.zeros(shape[0], np.float32)


def glorot_uniform(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform with variance 2 / (fan-in + fan-out), zero bias (Glorot and Bengio 2010, eq. 16): Keras's default."""
    return _uniform(shape, rng, math.sqrt(6 / sum(_fans(shape)))), np.zeros(shape[0], np.float32)


def pytorch(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias uniform within 1 / sqrt(fan-in): the default of PyTorch's Linear and Conv2d."""
    bound = 1 / math.sqrt(_fans(shape)[0])
    return _uniform(shape, rng, bound), _uniform(shape[:1], rng, bound)


def madry(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 0.1²) truncated at two standard deviations, bias 0.1, as in Madry et al. (arXiv:1706.06083)."""
    weight = rng.standard_normal(shape)
    while (outside := np.abs(weight) > 2).any():
        weight[outside] = rng.standard_normal(outside.sum())
    return _float32(0.1 * weight), np.full(shape[0], 0.1, np.float32)


def vgg(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 0.01²), zero bias: Simonyan and Zisserman 2015, arXiv:1409.1556, section 3.1."""
    return 0.01 * rng.standard_normal(shape, np.float32), np.zeros(shape[0], np.float32)


def ibp(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """N(0, 2 pi / fan-in²), zero bias: keeps the width of intervals (Shi et al. 2021, arXiv:2103.17268)."""
    return _float32(rng.normal(0, math.sqrt(2 * math.pi) / _fans(shape)[0], shape)), np.zeros(shape[0], np.float32)


INITIALIZERS: dict[str, Initializer] = {
    "he_normal": he_normal,
    "he_normal_out": he_normal_out,
    "he_uniform": he_uniform,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "keras": glorot_uniform,
    "pytorch": pytorch,
    "madry": madry,
    "vgg": vgg,
    "ibp": ibp,
}


def initializer(name: str) -> Initializer:
    """The initialiser of that name; ValueError lists the known names."""
    if name not in INITIALIZERS:
        raise ValueError(f"init must be one of {', '.join(INITIALIZERS)}; got {name!r}")

    def draw(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        reserve(shape)
        return INITIALIZERS[name](shape, rng)

    return draw


def at_most(numbers: int) -> AbstractContextManager[None]:
    """Within the block all layers together may have so many numbers: more are a ValueError, before there is memory."""
    return _left.within([numbers])


def reserve(shape: Shape) -> None:
    """Say that an array of that shape is about to be made."""
    if (left := _left.get()) is not None:
        left[0] -= math.prod(shape)
        if left[0] < 0:
            raise ValueError(f"it asks for an array {shape}, more than the file holds: load(path, into=model) instead")


def _fans(shape: Shape) -> tuple[int, int]:
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _uniform(shape: Shape, rng: np.random.Generator, bound: float) -> np.ndarray:
    return _float32(rng.uniform(-bound, bound, shape))


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)
