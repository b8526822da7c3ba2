"""How strongly a layer or a network answers to stripes of each frequency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tinyadv import driver
from tinyadv.analysis.saliency import some
from tinyadv.backend import Array, move, to_host
from tinyadv.random import drawing_from
from tinyadv.shapes import check_floating
from tinyadv.tensor import Tensor, no_grad


def transfer_function(layer: Callable, frequencies: Sequence[float], amplitude: float,
                      through: Callable | None = None, base: Array | None = None) -> np.ndarray:
    """The gain of a layer or a model at each frequency, (F,): how much of stripes there is in its output.

    Kelley and Fritz 2021, "Interpretabilidad de los Ataques Adversarios", section 3.1, take the l2 norm of the output
    of the first layer. But most of that comes from the mean of the image and from the bias. So here it is the l2 norm
    of the change, L(base + stripes) - L(base). The root mean square over a sine and a cosine is taken, so that no
    frequency is lost between the pixels, and divided by the same norm of the stripes. Both norms are those of a mean
    pixel: squares are summed over the channels of the output and averaged over its positions and the images.
    Of a convolution with kernels K it is, away from the border, the root of the sum over the filters of |the sum over
    channels, rows and columns l of K exp(-2 pi i f l / W)|²: the length of the Fourier transform of its kernels.

    layer: a layer, such as the first one of a model before its activation, or a model: any function on Tensors.
    frequencies: cycles per image, from left to right; the stripes are the same in all rows and channels. amplitude: of
    the stripes, in the units of the data. through: a layer that the images pass first, such as defenses.JPEG(10). Both
    are in evaluation mode, and random layers draw the same with and without stripes.
    base: images (N, C, H, W) to put the stripes on; by default one of 1/2 everywhere, of the layer's `input_shape` or
    28 x 28. ValueError if the amplitude is not above 0 or, without a base, is above 1/2.
    """
    if not 0 < amplitude <= (0.5 if base is None else math.inf):
        raise ValueError(f"amplitude must be above 0 and, on a grey image, at most 0.5; got {amplitude!r}")
    if base is None:
        shape = getattr(layer, "input_shape", None) or (getattr(layer, "in_channels", 1), 28, 28)
        base = move(np.full((1, *shape), 0.5, np.float32), driver.memory_of(layer, np.zeros(0)))
    check_floating(base)
    if np.ndim(frequencies) != 1:
        raise ValueError(f"frequencies must be a list of cycles per image, such as [1, 2, 3], got {frequencies!r}")
    x, like, streams = some("base", base), driver.memory_of(layer, base), driver.streams_of(base, 0)
    places = 2 * math.pi * np.arange(x.shape[3]) / x.shape[3]

    def output(images: np.ndarray) -> np.ndarray:
        same = drawing_from(streams.of_pass(0))  # what random layers draw: the difference is that of the stripes alone
        with no_grad(), driver.evaluation_mode(layer), driver.evaluation_mode(through), same:
            seen = Tensor(move(images.astype(x.dtype), like))
            return to_host(layer(seen if through is None else through(seen)).data).astype(np.float64)

    def energy(change: np.ndarray) -> float:
        return (change.reshape(*change.shape[:2], -1) ** 2).mean(axis=2).sum(axis=1).mean()

    before, gains = output(x), []
    for frequency in frequencies:
        waves = [amplitude * phase(frequency * places) for phase in (np.sin, np.cos)]
        answers = [energy(output(x + wave) - before) for wave in waves]
        gains.append(math.sqrt(sum(answers) / sum((wave * wave).mean() for wave in waves)))
    return np.array(gains)
