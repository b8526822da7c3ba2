"""How far an image can move in a direction until the network errs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.analysis.saliency import chosen, finite
from tinyadv.attacks.base.balls import ball_class
from tinyadv.backend import Array, is_array, move, to_host
from tinyadv.ops.loss import check_labels
from tinyadv.shapes import to_count


def first_error(model: Callable, images: Array, direction: Any, labels: Any = None, *, cells: int = 100,
                tolerance: float = 1e-4, bounds: tuple[float, float] = (0.0, 1.0), batch_size: int | None = None,
                workers: int | None = None) -> np.ndarray:
    """The first eps at which clip(image + eps * direction) is misclassified: (N,) float64, inf where there is none.

    direction: an array like the images (N, C, H, W), or the norm of a step of FGSM: "linf" for the sign of the gradient
    of the cross entropy (FGSM), "l2" for the gradient over its norm (FGM). It stays the same for all eps.
    Farther out the prediction may be right again. So `cells` equal steps are tried, up to a root mean square change of
    the whole range of the bounds: in [0, 1], eps 1 for FGSM, and the root of the number of values C H W for FGM. The
    first step that errs is then halved until it is known up to `tolerance`, or to the last bit. At the returned eps the
    prediction is wrong; eps is 0 if the clean image is misclassified. Logits that are NaN are no error. An error that
    begins and ends within one step is not seen.
    labels: (N,), the predicted classes by default. Raises ValueError for arguments that do not fit.
    """
    if cells < 1 or not tolerance > 0:
        raise ValueError(f"cells must be >= 1 and tolerance > 0, got {cells!r} and {tolerance!r}")
    cells = to_count("cells", cells)
    if not (isinstance(direction, str) or is_array(direction)):
        raise ValueError(f'direction must be an array like the images, or "linf" or "l2", got {direction!r}')
    shards: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
    labels = chosen(model, images, labels, bounds, **shards)
    if isinstance(direction, str):
        direction = ball_class(direction).steepest(to_host(driver.input_gradients(model, images, labels, **shards)))
    x, way, y = (to_host(each) for each in (images, direction, labels))
    if way.shape != x.shape:
        raise ValueError(f"direction must have the shape of the images, {x.shape}, got {way.shape}")
    axes, streams = tuple(range(1, x.ndim)), driver.streams_of(x, 0)
    length = ball_class("l2").distance(finite("direction", way))  # whose squares neither overflow nor vanish
    farthest = (bounds[1] - bounds[0]) * math.sqrt(math.prod(x.shape[1:])) / np.where(length > 0, length, 1)  # (N,)

    def wrong(rows: np.ndarray, eps: np.ndarray) -> np.ndarray:
        points = x[rows] + eps.reshape(-1, *(1 for _ in axes)) * way[rows]
        points = move(points.clip(*bounds).astype(x.dtype), images)
        logits = to_host(driver.logits(model, points, seed=streams[rows], **shards))
        predicted = driver.classes(logits)
        check_labels(y, logits.shape[1], "first_error")
        return (predicted >= 0) & (predicted != y[rows])

    found, left = np.full(len(x), np.inf), np.arange(len(x))
    for k in range(cells + 1):
        hit = wrong(left, k / cells * farthest[left])
        found[left[hit]] = k / cells * farthest[left[hit]]
        left = left[~hit & (length[left] > 0)]
    rows = np.flatnonzero(np.isfinite(found) & (found > 0))
    low = found[rows] - farthest[rows] / cells  # right there, wrong at `found`
    while True:
        middle = (low + found[rows]) / 2
        wide = (found[rows] - low > tolerance) & (low < middle) & (middle < found[rows])  # else no bit is left
        if not wide.any():
            return found
        hit = wrong(rows, middle)
        found[rows] = np.where(hit & wide, middle, found[rows])
        low = np.where(~hit & wide, middle, low)
