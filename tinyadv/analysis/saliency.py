"""Which pixels decide: the slope of a logit at each pixel, plain or guided, and Grad-CAM.

Every map is (N, H, W), one for each image, as a NumPy array. The class of an image is the predicted one unless given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.attacks.base.arguments import check_images, check_target
from tinyadv.attacks.base.parameters import check_bounds
from tinyadv.backend import Array, is_array, move, on_its_device, to_host
from tinyadv.nn import Module
from tinyadv.nn.module import watching
from tinyadv.ops.elementwise import guided
from tinyadv.ops.movement import arranged
from tinyadv.random import Streams
from tinyadv.shapes import check_floating, instead
from tinyadv.tensor import Tensor, gradients, recording


def saliency(model: Callable, images: Array, classes: Any = None, *, batch_size: int | None = None,
             workers: int | None = None) -> np.ndarray:
    """The largest |d logit / d pixel| over the channels: (N, H, W) maps of the images (N, C, H, W).

    Simonyan et al. 2014, arXiv:1312.6034, section 3. It is the slope of the logit and not of the softmax, which is
    almost 0 where the model is sure. Of a linear model it is |row of the weight|.
    classes: (N,) integers, or one for all images; the predicted ones by default. ValueError for others.
    """
    classes = chosen(model, images, classes, batch_size=batch_size, workers=workers)
    slopes = driver.input_gradients(model, images, classes, loss=driver.own_logits, batch_size=batch_size,
                                    workers=workers)
    return abs(to_host(slopes)).max(axis=1)


def guided_saliency(model: Callable, images: Array, classes: Any = None, *, batch_size: int | None = None,
                    workers: int | None = None) -> np.ndarray:
    """As `saliency`, by guided back-propagation: each ReLU passes on only what raises the logit.

    Springenberg et al. 2015, arXiv:1412.6806, section 3.4. The map is sharper, but it is no gradient: it says less
    about the weights of the upper layers (Adebayo et al. 2018, arXiv:1810.03292).
    """
    classes = chosen(model, images, classes, batch_size=batch_size, workers=workers)
    with guided.within(True):
        return saliency(model, images, classes, batch_size=batch_size, workers=workers)


def grad_cam(model: Module, images: Array, classes: Any = None, layer: str | None = None, *,
             batch_size: int | None = None, workers: int | None = None) -> np.ndarray:
    """Grad-CAM: where a layer sees what raises the logit; (N, H, W) maps in [0, 1] of the images (N, C, H, W).

    Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2. With A_k the maps (h, w) of the layer, and a_k the mean
    over the positions of d logit / d A_k, it is relu(sum a_k A_k), enlarged bilinearly and divided by its largest
    value. A map is 0 everywhere where no position raises the logit.
    layer: a name from `model.named_modules()`; by default the last one whose output has more than one position.
    Raises TypeError if the model is no Module, ValueError for a layer that is not there or gives no maps.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be an nn.Module, whose layers have names, got {type(model).__name__}")
    parts = dict(model.named_modules())
    if layer is not None and layer not in parts:
        raise ValueError(f"layer must be a name from model.named_modules(), {', '.join(parts)}; got {layer!r}")
    classes = chosen(model, images, classes, batch_size=batch_size, workers=workers)
    found = np.empty((len(images), *images.shape[2:]), images.dtype)
    driver.run(partial(_grad_cam, None if layer is None else parts[layer]), model,
               (images, classes, driver.streams_of(images, 0)), found.__setitem__, batch_size=batch_size,
               workers=workers)
    return found


def _grad_cam(layer: Module | None, model: Module, x: Array, classes: Array, streams: Streams) -> np.ndarray:
    outputs: list[Tensor] = []  # of the layer, or of all layers that give maps

    def keep(module: Module, y: Tensor) -> None:
        if module is layer or (layer is None and y.ndim == 4 and y.shape[2] * y.shape[3] > 1):
            outputs.append(y)

    like = driver.memory_of(model, x)
    with recording(True), watching(keep):
        logits = driver.call(model, Tensor(arranged(move(x, like))), streams.of_pass(0), gradient=True)
    if not outputs or outputs[-1].ndim != 4:
        raise ValueError("layer must give maps (N, K, h, w) on the way to the logits, got "
                         + (f"shape {outputs[-1].shape}" if outputs else "no such output"))
    (slopes,) = gradients(driver.own_logits(logits, move(classes, like)), [outputs[-1]])
    weights = slopes.mean(axis=(2, 3), keepdims=True)                               # (N, K, 1, 1)
    maps = to_host((weights * outputs[-1].data).sum(axis=1)).clip(0)                # (N, h, w)
    rows, columns = (_bilinear(n, m) for n, m in zip(maps.shape[1:], x.shape[2:], strict=True))
    maps = rows @ maps @ columns.T                                                  # (N, H, W)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1)


def _bilinear(n: int, m: int) -> np.ndarray:
    """(m, n): row i holds the shares of n pixels in pixel i of m; all pixels cover the same length."""
    place = ((np.arange(m) + 0.5) * n / m - 0.5).clip(0, n - 1)
    return (1 - abs(place[:, None] - np.arange(n))).clip(0)


def correlation(noise: Array, maps: Array) -> np.ndarray:
    """Pearson's correlation of |noise| and the map over the pixels, (N,); 0 where one of the two is constant.

    noise: (N, C, H, W), what an attack has added; the largest |noise| over the channels counts. maps: (N, H, W), such
    as those of `saliency`. An attack that moves all pixels equally, such as FGSM, has little to correlate.
    It is NaN where one of the two has NaN.
    """
    noise, maps = (on_host(name, each).astype(np.float64) for name, each in (("noise", noise), ("maps", maps)))
    if noise.ndim != 4 or (len(noise), *noise.shape[2:]) != maps.shape:
        raise ValueError(f"maps must be (N, H, W), to match noise of shape {noise.shape}; got {maps.shape}")
    with np.errstate(invalid="ignore"):  # of infinities: NaN, as of NaN
        a, b = map(_centred, (abs(noise).max(axis=1), maps))
        norm = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
        return (a * b).sum(axis=(1, 2)) / np.where(norm == 0, 1, norm)


def _centred(maps: np.ndarray) -> np.ndarray:
    """The maps (N, H, W) less their means, in units of a power of two, so that no square overflows or vanishes."""
    maps = np.ldexp(maps, -np.frexp(abs(maps).max(axis=(1, 2), keepdims=True))[1])
    away = maps - maps.mean(axis=(1, 2), keepdims=True)
    return np.where(np.ptp(maps, axis=(1, 2), keepdims=True) == 0, 0, away)  # a mean of equals may round to another


@on_its_device
def chosen(model: Callable, images: Array, classes: Any, bounds: Any = None, **shards: Any) -> Array:
    """The classes (N,), one for each image, on the device of the images: those given, or else the predicted ones.

    Every analysis of images begins here: ValueError unless they are floating-point numbers, within the bounds if there
    are any, and have logits that are numbers where the classes are to be predicted.
    """
    check_floating(images)
    if bounds is not None:
        check_bounds(bounds)
        check_images(images, bounds, "images")
    if classes is not None:
        return check_target(classes, "classes", images)
    predicted = driver.classes(driver.logits(model, images, **shards))
    if lost := int((predicted < 0).sum()):
        raise ValueError(f"the model's logits are NaN at {lost} of {len(images)} images, so they have no class: mend "
                         "the model, or give the classes")
    return predicted


def on_host(name: str, value: Any) -> np.ndarray:
    """The array in the host's memory; ValueError for what is no array."""
    if not is_array(value):
        remedy = instead(value, name) or "an array"
        raise ValueError(f"{name} must be an array, got {type(value).__name__}: give {remedy}")
    return to_host(value)


def some(name: str, value: Any) -> np.ndarray:
    """The same; ValueError unless these are images, or like images, and there is one at least."""
    array = on_host(name, value)
    if array.ndim != 4 or not array.size:
        raise ValueError(f"{name} must be (N, C, H, W), with N >= 1, got shape {array.shape}")
    return array


def finite(name: str, value: Any) -> np.ndarray:
    """The same as `on_host`; ValueError for what is infinite or NaN."""
    array = on_host(name, value)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, and has values that are infinite or NaN")
    return array
