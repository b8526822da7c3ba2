"""Figures of images: clean beside adversarial, and grids with captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from tinyadv import driver, ops
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset
from tinyadv.plots.style import BLUE, VERMILION, canvas, finished
from tinyadv.shapes import check_floating


def adversarial_triples(model: Callable, clean: Dataset, adversarial: Array, *, title: str | None = None,
                        figure: Figure | SubFigure | None = None) -> Figure:
    """One row per example: clean + scale × noise = adversarial (figure 1 of Goodfellow et al. 2015, arXiv:1412.6572).

    adversarial: (N, C, H, W) in [0, 1], the images that an attack made from clean.images; C is 1 (grey) or 3 (RGB).
    The text below an image is the predicted class, blue if it is right and vermilion if it is wrong, and its softmax
    probability. scale is the largest change of any pixel: the eps of an l-infinity attack. Grey noise is drawn from
    -1 (blue) to 1 (red), RGB noise in RGB with 0 as grey.
    A value that is NaN or infinite counts as no change.
    Raises ValueError if the shapes do not fit, there is no image, or adversarial holds integers.
    """
    check_floating(adversarial, "adversarial")
    x, x_adv = clean.images, to_host(adversarial)
    if not len(x) or x.shape[1] not in (1, 3):
        raise ValueError(f"clean must hold images (N, C, H, W), N >= 1 and C = 1 or 3, got shape {x.shape}")
    if x_adv.shape != x.shape:
        raise ValueError(f"adversarial must have the shape of the clean images, {x.shape}, got {x_adv.shape}")
    noise = x_adv.astype(np.float64) - x
    scale = abs(noise[np.isfinite(noise)]).max(initial=0)
    noise /= scale or 1

    figure = canvas(figure, 5, 0.6 + 1.7 * len(x))
    figure.suptitle(title or f"{clean.name}: pixels change by at most {scale:.3g}")
    rows = figure.subplots(len(x), 3, squeeze=False)
    for axes, heading in zip(rows[0], ("clean", "noise", "adversarial"), strict=True):
        axes.set_title(heading, size="medium")
    for axes, image in zip(rows[:, 1], noise, strict=True):
        _show(axes, image, noise=True)
    for column, images in ((0, x), (2, x_adv)):
        logits = driver.logits(model, images)
        with np.errstate(invalid="ignore"):  # of an infinite logit it is NaN
            probabilities, classes = ops.softmax(logits).numpy(), driver.classes(logits)  # (N, K), (N,)
        for axes, image, p, k, label in zip(rows[:, column], images, probabilities, classes, clean.labels, strict=True):
            _show(axes, image)
            name = "NaN" if k < 0 else f"“{clean.classes[k] if k < len(clean.classes) else k}”\n{p[k]:.1%}"
            _write_below(axes, name, color=BLUE if k == label else VERMILION)
    for column, sign in ((1, f"+ {scale:.3g} ×"), (2, "=")):
        for axes in rows[:, column]:
            axes.set_ylabel(sign, rotation=0, ha="right", va="center", size="large")
    return finished(figure)


def grid(images: Array, *, rows: Sequence[str] = (), columns: Sequence[str] = (), captions: Any = "",
         noise: Any = False, title: str | None = None, figure: Figure | SubFigure | None = None) -> Figure:
    """Images (R, K, C, H, W) with values in [0, 1] in R rows and K columns; C is 1 (grey) or 3 (RGB).

    rows, columns: labels on the left and on top. captions: texts below the images, broadcast to (R, K).
    noise: bool, broadcast to (R, K), True for a perturbation. It is divided by its largest |value| and drawn from blue
    (-1) to red (1), or in RGB with 0 as grey. An image that contains a NaN is left out.
    Raises ValueError if a shape does not fit, or the images are integers.
    """
    check_floating(images)
    images = to_host(images)
    if images.ndim != 5 or not images.size or images.shape[2] not in (1, 3):
        raise ValueError(f"images must be (R, K, C, H, W), R and K >= 1, C = 1 or 3, got shape {images.shape}")
    shape = images.shape[:2]
    for name, labels, count in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        if len(labels) not in (0, count):
            raise ValueError(f"{name} must hold {count} labels, or none, got {len(labels)}")
    texts, noise = (np.broadcast_to(np.asarray(each, object), shape) for each in (captions, noise))

    text_lines = sum(max(str(text).count("\n") + bool(str(text)) for text in row) for row in texts)
    figure = canvas(figure, 0.3 + 0.75 * shape[1], 0.6 + 0.75 * shape[0] + 0.13 * text_lines)
    figure.suptitle(title or "")
    places = figure.subplots(*shape, squeeze=False)
    for place, axes in np.ndenumerate(places):
        image = images[place]
        if np.isnan(image).any():
            axes.set_axis_off()
            continue
        _show(axes, image / (abs(image).max() or 1) if noise[place] else image, noise=noise[place])
        _write_below(axes, str(texts[place]), size="x-small")
    for axes, label in zip(places[:, 0], rows, strict=False):
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, label in zip(places[0], columns, strict=False):
        axes.set_title(label, size="medium")
    return finished(figure)


def _show(axes: Any, image: np.ndarray, noise: bool = False) -> None:
    """Draw an image (C, H, W) without ticks; its values are in [0, 1], or in [-1, 1] if it is noise."""
    if noise and len(image) == 3:
        image, noise = (image + 1) / 2, False
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    axes.imshow(pixels, cmap="RdBu_r" if noise else "gray", vmin=-1 if noise else 0, vmax=1)
    axes.set(xticks=[], yticks=[])


def _write_below(axes: Any, text: str, **look: Any) -> None:
    axes.text(0.5, -0.05, text, ha="center", va="top", transform=axes.transAxes, **look)
