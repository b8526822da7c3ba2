"""Checks of the arguments of an attack, once for each run; each error says what to pass instead."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from tinyadv.backend import Array, is_array, move, to_host
from tinyadv.driver import streams_of
from tinyadv.ops.loss import check_labels
from tinyadv.random import Streams
from tinyadv.ranks import told
from tinyadv.shapes import check_several, flat_labels, instead


@told
def check_arguments(x: Any, y: Any, target: Any, seed: int | Streams,
                    bounds: tuple[float, float]) -> tuple[Array, Array, Array | None, Streams]:
    """x, y and target as arrays on the device of x, and the random streams; ValueError for a wrong argument."""
    check_images(x, bounds)
    x = x.view(np.ndarray) if isinstance(x, np.ndarray) else x  # a memmap is read all the same, as it is needed
    y = check_classes(y, "y", x)
    if target is not None:
        target = check_target(target, "target", x)
    return x, y, target, streams_of(x, seed)


def check_images(x: Any, bounds: tuple[float, float], name: str = "x") -> None:
    """Raise ValueError unless x is a floating-point array (N, ...) with all values within the bounds."""
    if not is_array(x) or x.dtype.kind != "f" or x.ndim < 2:
        what = f"{x.dtype} of shape {x.shape}" if is_array(x) else type(x).__name__
        if meant := instead(x, name):
            remedy = meant
        elif not is_array(x) or (x.ndim < 2 and x.dtype.kind != "f"):
            remedy = "the order is (model, x, y)"
        elif x.dtype.kind != "f":
            remedy = f"{name}.astype(np.float32){' / 255, for 8-bit images' * (x.dtype == np.uint8)}"
        else:
            remedy = f"for one image, give {name}[None]"
        raise ValueError(f"{name} must be a floating-point array (N, C, H, W) in {bounds}, got {what}: {remedy}")
    if 0 in x.shape[1:]:
        raise ValueError(f"{name} must have pixels, got shape {x.shape}")
    low, high = bounds
    if x.size and not (float(x.min()) >= low and float(x.max()) <= high):  # also False for NaN
        if missing := int((x != x).reshape(len(x), -1).any(axis=1).sum()):
            raise ValueError(f"{name} must be numbers, but {missing} of its {len(x)} images contain NaN: leave them "
                             "out")
        few, most = float(x.min()), float(x.max())
        grey = f"for grey levels of 0 to 255, give {name} / 255; otherwise, " if few >= 0 and 2 < most <= 255 else ""
        raise ValueError(f"{name} must lie in bounds={bounds}, got values from {few} to {most}: {grey}pass "
                         "the bounds of your data, and normalise inside the model (nn.Normalize)")


def check_target(classes: Any, name: str, x: Array) -> Array:
    """As `check_classes`; `classes` is an array (N,), or one class for all examples of x."""
    array = classes if is_array(classes) else np.asarray(classes)
    return check_classes(classes if array.ndim else np.full(len(x), to_host(array)), name, x)


def check_classes(labels: Any, name: str, x: Array) -> Array:
    """The labels as an integer array (N,) on the device of x; ValueError otherwise. See `check_range`, too."""
    empty = isinstance(labels, list | tuple) and not labels  # which NumPy takes for floats
    array = labels if is_array(labels) else np.asarray(labels, np.int64 if empty else None)
    if array.dtype.kind not in "iu" or array.shape != (len(x),):
        remedy = f": for one image, give x[:1] and {name}[:1]" if array.ndim == 0 else flat_labels(array, name)
        raise ValueError(f"{name} must be integer classes of shape ({len(x)},), one for each example of x; "
                         f"got {array.dtype} of shape {array.shape}{remedy}")
    return move(array, like=x)


def check_range(logits: Array, y: Array, target: Array | None) -> None:
    """Raise ValueError unless K >= 2 in logits (N, K), and y and target (N,) are in 0 ... K - 1."""
    check_several(logits)
    for name, classes in (("y", y), ("target", target)):
        if classes is not None:
            check_labels(classes, logits.shape[1], name)


def are_probabilities(logits: Array) -> bool:
    """Whether the rows (N, K) look like a softmax: numbers in [0, 1] with sum 1, not all of them 0 or 1."""
    inside = ((logits >= 0) & (logits <= 1)).all() and ((logits > 0) & (logits < 1)).any()
    return bool(inside and (abs(logits.sum(axis=1) - 1) < 1e-3).all())


def doubt_eps(eps: float, norm: str, bounds: tuple[float, float]) -> None:
    """Warn if a budget seems to be in other units: linf, such as 8 instead of 8/255; l0, less than one pixel."""
    span, levels = bounds[1] - bounds[0], eps * 255
    if norm == "linf" and eps >= 2 * span:
        warn(f"eps={eps:g} lets every image become any other, as the bounds are {bounds}: for {eps:g} of 255 grey "
             f"levels, give eps={eps:g}/255")
    if norm == "linf" and span == 255 and 0 < eps < 1 and abs(levels - round(levels)) < 1e-6:
        warn(f"eps={eps:g} is less than a grey level, as the bounds are {bounds}: give eps={levels:g}")
    if norm == "l0" and 0 < eps < 1:
        warn(f"eps={eps:g} is less than one pixel: l0 counts pixels, so give eps=10, say")


def whole_pixels(eps: float, norm: str, largest: float) -> float:
    """eps; in l0, 0 for less than a pixel, if the largest of several budgets shows that pixels are meant."""
    return 0.0 if norm == "l0" and 0 < eps < 1 <= largest else eps


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and show the line of the user's code that called the library."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals["__name__"].startswith("tinyadv."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
