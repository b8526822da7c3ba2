"""Every figure. A function returns what it has drawn on; save it with `figure.savefig("name.png")`.

matplotlib is imported here alone, and without pyplot: there is no global figure and no display, so it works
on a server and in threads. With `figure=` a function draws into a given Figure or SubFigure instead of a new one:

    figure = plots.Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    plots.epsilon_curve(curves, figure=left)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure, FigureBase

from tinyadv import ops
from tinyadv.attacks import driver
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset

# Okabe and Ito's colours (2008), told apart with any kind of colour vision; by lightness and marker in grey.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
LINES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (ORANGE, "D"), (PURPLE, "v"), (SKY, "P"))
RIGHT, WRONG = BLUE, VERMILION


def adversarial_triples(model: Callable, clean: Dataset, adversarial: Array, *, title: str | None = None,
                        figure: FigureBase | None = None) -> FigureBase:
    """A row for each example, as in Goodfellow et al. (2015), figure 1: clean + scale × noise = adversarial.

    adversarial: (N, C, H, W), what an attack has made of clean.images; C is 1 (grey) or 3 (RGB), values in [0, 1].
    Below an image stand the class that the model predicts, blue if it is the label and vermilion if not, and
    its confidence (softmax). scale is the largest change of any pixel: for an l-infinity attack, its eps. The
    noise is shown between -1 (blue) and 1 (red); in colour images, 0 is grey.
    Raises ValueError where there is no image, or where shapes do not fit.
    """
    images, changed = clean.images, to_host(adversarial)
    if changed.shape != images.shape:
        raise ValueError(f"adversarial must have the shape of the clean images, {images.shape}, got {changed.shape}")
    if not len(images) or images.shape[1] not in (1, 3):
        raise ValueError("clean must hold at least one image, (N, 1, H, W) or (N, 3, H, W), got shape "
                         f"{images.shape}")
    noise = changed.astype(np.float64) - images
    scale = np.abs(noise).max()
    noise = noise / (scale or 1)
    confidences = [to_host(ops.softmax(driver.logits(model, x)).data) for x in (images, changed)]  # (N, K) each

    figure = figure or Figure(figsize=(5.2, 0.7 + 1.55 * len(images)), layout="constrained")
    figure.suptitle(title or f"{clean.name}: pixels change by at most {scale:.3g}")
    rows = figure.subplots(len(images), 3, squeeze=False)
    for (left, middle, right), x, d, x_adv, p, p_adv, label in zip(
            rows, images, noise, changed, *confidences, clean.labels, strict=True):
        _show(left, x)
        _show(middle, d if len(d) == 1 else (d + 1) / 2, cmap="RdBu_r", vmin=-1)
        _show(right, x_adv)
        middle.set_ylabel(f"+ {scale:.3g} ×", rotation=0, ha="right", va="center", size="large")
        right.set_ylabel("=", rotation=0, ha="right", va="center", size="large")
        for axes, probabilities in ((left, p), (right, p_adv)):
            predicted = int(probabilities.argmax())
            axes.set_xlabel(f"“{clean.classes[predicted]}”  {probabilities[predicted]:.1%}",
                            color=RIGHT if predicted == label else WRONG)
    for axes, heading in zip(rows[0], ("clean", "noise", "adversarial"), strict=True):
        axes.set_title(heading, size="medium")
    return figure


def epsilon_curve(curves: Mapping[str, Mapping[float, float]], *, title: str | None = None,
                  figure: FigureBase | None = None) -> FigureBase:
    """Accuracy against the budget eps: a line for each {name: {eps: accuracy}}, as `evaluation.epsilon_curve` returns.

    Accuracies are fractions. Raises ValueError where there is nothing to draw or an accuracy is no fraction.
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"curves must be {{name: {{eps: accuracy}}}}, at least one of each, got {curves!r}")
    figure = figure or Figure(figsize=(5.2, 3.6), layout="constrained")
    if title:
        figure.suptitle(title)
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        epsilons = sorted(curve)
        accuracies = [curve[eps] for eps in epsilons]
        if not all(0 <= accuracy <= 1 for accuracy in accuracies):
            raise ValueError(f"curves must hold accuracies as fractions in [0, 1], got {accuracies} for {name!r}")
        colour, marker = LINES[i % len(LINES)]
        axes.plot(epsilons, [100 * accuracy for accuracy in accuracies], color=colour, marker=marker, label=name,
                  clip_on=False, zorder=3)
    axes.set(xlabel="budget ε", ylabel="accuracy (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def _show(axes: Any, image: np.ndarray, cmap: str = "gray", vmin: float = 0) -> None:
    """One image (C, H, W), without ticks; the colour map and its range [vmin, 1] apply to a grey one."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    axes.imshow(pixels, cmap=cmap, vmin=vmin, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
