"""The loss of images on planes through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.analysis.saliency import chosen, finite
from tinyadv.backend import Array, move, on_its_device, to_host
from tinyadv.ops.loss import cross_entropy
from tinyadv.shapes import check_several
from tinyadv.tensor import no_grad


@on_its_device
def landscape(model: Callable, images: Array, labels: Any, across: Array, along: Array, reach: Any, *,
              bounds: tuple[float, float] = (0.0, 1.0), batch_size: int | None = None,
              workers: int | None = None) -> np.ndarray:
    """The cross entropy at clip(image + a * across + b * along), for all a and b in reach: (N, R, R), [n, b, a].

    It shows whether the loss is smooth around an image, or has cliffs that a gradient does not see (Tramer et al. 2018,
    arXiv:1705.07204, figure 4). images, across, along: (N, C, H, W). labels: (N,), or None for the predicted classes.
    reach: (R,) numbers, in the units of the data if the directions are signs. ValueError if a shape does not fit, or an
    image is outside of the bounds.
    """
    labels = chosen(model, images, labels, bounds, batch_size=batch_size, workers=workers)
    x, one, other = to_host(images), finite("across", across), finite("along", along)
    reach, streams = finite("reach", np.asarray(to_host(reach))), driver.streams_of(x, 0)
    if one.shape != x.shape or other.shape != x.shape or reach.ndim != 1:
        raise ValueError(f"across and along must have the shape of the images, {x.shape}, and reach one axis; got "
                         f"{one.shape}, {other.shape} and {reach.shape}")
    b, a = (each.ravel().reshape(-1, *(1 for _ in x.shape[1:])) for each in np.meshgrid(reach, reach, indexing="ij"))
    planes = []
    for k, image in enumerate(x):
        points = move((image + a * one[k] + b * other[k]).clip(*bounds).astype(x.dtype), images)  # (R * R, C, H, W)
        drawn = streams[np.full(len(points), k)]  # so that random layers draw the same at all points
        logits = driver.logits(model, points, seed=drawn, batch_size=batch_size, workers=workers)
        check_several(logits)
        with no_grad():
            losses = cross_entropy(logits, labels[[k] * len(points)], "none")
        planes.append(losses.numpy().reshape(len(reach), len(reach)))
    return np.array(planes).reshape(len(x), len(reach), len(reach))
