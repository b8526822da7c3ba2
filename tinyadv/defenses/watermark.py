"""Digital watermarking: where a network looks too closely, the image is filled in from around, like a watermark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyadv import ops
from tinyadv.backend import Array, array_module
from tinyadv.defenses.bpda import Defense
from tinyadv.driver import evaluation_mode, own_logits
from tinyadv.ops.elementwise import guided
from tinyadv.shapes import check_not_negative, to_count
from tinyadv.tensor import Tensor, gradients, recording


class DW(Defense):
    """A patch shows as a dense cluster in the saliency of a model, and is filled in: Hayes 2018, CVPR workshops.

    The blind variant of "On visible adversarial perturbations and digital watermarking": 1. the saliency of the
    predicted class by guided back-propagation, the largest |slope| of the channels, divided by its maximum. 2. Pixels
    above `threshold` are the mask. An erosion drops those that are alone, and a dilation merges dense ones. 3. The
    mask is filled by diffusion: from its rim inwards, a pixel becomes the mean of its neighbours (the paper uses the
    fast marching of Telea 2004). Pixels outside of the mask do not change; an image that is all mask does not either.

    model: the network whose saliency is used, usually the one behind the layer: nn.Sequential(DW(model), model).
    erosion, dilation: sides of the square windows, odd, 1 for none; sweeps: of the diffusion, over all pixels.
    gradient: see `Defense`. The mask is made anew in every forward pass.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], threshold: float = 0.3, erosion: int = 3, dilation: int = 3,
                 sweeps: int = 100, gradient: str = "identity"):
        super().__init__(gradient)
        if not callable(model):
            raise TypeError(f"model must be a function of images, got {type(model).__name__}")
        for name, side in ("erosion", erosion), ("dilation", dilation):
            if not to_count(name, side) % 2:
                raise ValueError(f"{name} must be an odd number of pixels, got {side!r}")
        check_not_negative("threshold", threshold)
        self.model, self.threshold, self.erosion, self.dilation = model, threshold, erosion, dilation
        self.sweeps = to_count("sweeps", sweeps, least=0)

    def transform(self, images: Array) -> Array:
        return filled(images, self.mask(images), self.sweeps)

    def mask(self, images: Array) -> Array:
        """The pixels that are filled in: (N, 1, H, W), bool."""
        slope = abs(guided_gradient(self.model, images)).max(axis=1, keepdims=True)
        largest = slope.max(axis=(1, 2, 3), keepdims=True)
        dense = (slope > self.threshold * largest).astype(images.dtype)
        return _dilated(1 - _dilated(1 - dense, self.erosion), self.dilation) > 0


def guided_gradient(model: Callable[[Tensor], Tensor], images: Array) -> Array:
    """The gradients of the predicted classes' logits at images (N, ...), with the guided rule for each ReLU."""
    x = Tensor(images)
    with recording(True), guided.within(True), evaluation_mode(model):
        logits = model(x)
        return gradients(own_logits(logits, logits.data.argmax(axis=1)), [x])[0]


def _dilated(mask: Array, side: int) -> Array:
    """The largest of the numbers (N, 1, H, W) in a window around each pixel."""
    return ops.max_pool2d(Tensor(mask), side, stride=1, padding=side // 2).data


def filled(images: Array, mask: Array, sweeps: int) -> Array:
    """Images (N, C, H, W) with the pixels of a mask (N, 1, H, W) filled in from its rim, by so many sweeps.

    In each sweep, a pixel of the mask becomes the mean of its four neighbours, of those that are known: outside of the
    mask, or filled by an earlier sweep. So it lies between the smallest and the largest pixel of the rim. The first
    sweeps fill the mask, the others smooth it. What no rim reaches in these sweeps does not change.
    """
    xp, known = array_module(images), (~mask).astype(np.float64)
    values = images.astype(np.float64) * known
    for _ in range(sweeps):
        if not mask.any():
            break
        total, count = _neighbours(values * known), _neighbours(known)
        reached = mask & (count > 0)
        values = xp.where(reached, total / xp.where(count > 0, count, 1), values)
        known = xp.where(reached, 1.0, known)
    return xp.where(mask & (known > 0), values.astype(images.dtype), images)


def _neighbours(values: Array) -> Array:
    """The sum of the four neighbours of each pixel (N, C, H, W), of those inside the image."""
    total = array_module(values).zeros_like(values)
    total[:, :, 1:] += values[:, :, :-1]
    total[:, :, :-1] += values[:, :, 1:]
    total[..., 1:] += values[..., :-1]
    total[..., :-1] += values[..., 1:]
    return total
