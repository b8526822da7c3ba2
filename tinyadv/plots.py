"""Every figure. A function returns the Figure that it has drawn; save it with `figure.savefig("name.png")`.

matplotlib is imported here alone, and without pyplot: with no current figure and no display, all of this
works on a server and in threads. `figure=` draws into a part of a larger figure:

    both = plots.blank(9, 5)
    left, right = both.subfigures(1, 2)
    plots.epsilon_curve(curves, figure=left)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from tinyadv import ops
from tinyadv.attacks import driver
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset

# Colours of Okabe and Ito (2008), which every kind of colour vision tells apart; the markers serve in print.
BLUE, VERMILION = "#0072B2", "#D55E00"
LINES = ((BLUE, "o"), (VERMILION, "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#CC79A7", "v"))


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, on which nothing that is drawn will overlap."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def adversarial_triples(model: Callable, clean: Dataset, adversarial: Array, *, title: str | None = None,
                        figure: Figure | SubFigure | None = None) -> Figure:
    """A row for each example, as in Goodfellow et al. (2015), figure 1: clean + scale × noise = adversarial.

    adversarial: (N, C, H, W) in [0, 1], what an attack has made of clean.images; C is 1 (grey) or 3 (RGB).
    Below an image stand the class that the model predicts, in blue if it is the label and in vermilion if
    not, and its confidence (softmax). scale is the largest change of any pixel: the eps of an l-infinity
    attack. The noise goes from -1 (blue) to 1 (red); that of RGB images is RGB, with 0 as grey.
    Raises ValueError where the shapes do not fit, or there is no image.
    """
    x, x_adv = clean.images, to_host(adversarial)
    if not len(x) or x.shape[1] not in (1, 3):
        raise ValueError(f"clean must hold images (N, C, H, W), N >= 1 and C = 1 or 3, got shape {x.shape}")
    if x_adv.shape != x.shape:
        raise ValueError(f"adversarial must have the shape of the clean images, {x.shape}, got {x_adv.shape}")
    noise = x_adv.astype(np.float64) - x
    scale = abs(noise).max()
    noise /= scale or 1

    figure = figure or blank(5, 0.6 + 1.7 * len(x))
    figure.suptitle(title or f"{clean.name}: pixels change by at most {scale:.3g}")
    rows = figure.subplots(len(x), 3, squeeze=False)
    for axes, heading in zip(rows[0], ("clean", "noise", "adversarial"), strict=True):
        axes.set_title(heading, size="medium")
    for axes, image in zip(rows[:, 1], noise, strict=True):
        if len(image) == 1:
            _show(axes, image, cmap="RdBu_r", vmin=-1)
        else:
            _show(axes, (image + 1) / 2)
    for column, images in ((0, x), (2, x_adv)):
        probabilities = ops.softmax(driver.logits(model, images)).numpy()  # (N, K)
        for axes, image, p, label in zip(rows[:, column], images, probabilities, clean.labels, strict=True):
            _show(axes, image)
            caption = f"“{clean.classes[p.argmax()]}”\n{p.max():.1%}"
            axes.text(0.5, -0.05, caption, color=BLUE if p.argmax() == label else VERMILION,
                      ha="center", va="top", transform=axes.transAxes)
    for column, sign in ((1, f"+ {scale:.3g} ×"), (2, "=")):
        for axes in rows[:, column]:
            axes.set_ylabel(sign, rotation=0, ha="right", va="center", size="large")
    return figure.figure


def epsilon_curve(curves: Mapping[str, Mapping[float, float]], *, title: str | None = None,
                  figure: Figure | SubFigure | None = None) -> Figure:
    """Accuracy against the budget: a line for each {name: {eps: accuracy}}, as from evaluation.epsilon_curve.

    Raises ValueError where there is nothing to draw, or an accuracy is not a fraction in [0, 1].
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"curves must hold at least one name, and an accuracy for each, got {curves!r}")
    figure = figure or blank(5, 3.5)
    axes = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        epsilons, accuracies = np.array(sorted(curve.items())).T
        if not ((accuracies >= 0) & (accuracies <= 1)).all():
            raise ValueError(f"curves must hold accuracies in [0, 1], got {curve!r} for {name!r}")
        colour, marker = LINES[i % len(LINES)]
        axes.plot(epsilons, 100 * accuracies, color=colour, marker=marker, label=name, clip_on=False)
    axes.set_title(title or "", pad=12)
    axes.set(xlabel="budget ε", ylabel="accuracy (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure.figure


def _show(axes: Any, image: np.ndarray, cmap: str = "gray", vmin: float = 0) -> None:
    """An image (C, H, W) without ticks; a grey one in the colour map from vmin to 1."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    axes.imshow(pixels, cmap=cmap, vmin=vmin, vmax=1)
    axes.set(xticks=[], yticks=[])
