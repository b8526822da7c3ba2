"""Every figure. A function returns the Figure that it has drawn; save it with `figure.savefig("name.png")`.

matplotlib is imported here alone, and without pyplot: with no current figure and no display, all of this
works on a server and in threads. `figure=` draws into a part of a larger figure:

    both = plots.blank(9, 5)
    left, right = both.subfigures(1, 2)
    plots.epsilon_curve(curves, figure=left)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator

from tinyadv import driver, ops
from tinyadv.backend import Array, to_host
from tinyadv.data import Dataset

# Colours of Okabe and Ito (2008), which every kind of colour vision tells apart; the markers serve in print.
BLUE, VERMILION = "#0072B2", "#D55E00"
LINES = ((BLUE, "o"), (VERMILION, "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"),
         ("#000000", "X"))


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
        _show(axes, image, noise=True)
    for column, images in ((0, x), (2, x_adv)):
        probabilities = ops.softmax(driver.logits(model, images)).numpy()  # (N, K)
        for axes, image, p, label in zip(rows[:, column], images, probabilities, clean.labels, strict=True):
            _show(axes, image)
            caption = f"“{clean.classes[p.argmax()]}”\n{p.max():.1%}"
            _write_below(axes, caption, color=BLUE if p.argmax() == label else VERMILION)
    for column, sign in ((1, f"+ {scale:.3g} ×"), (2, "=")):
        for axes in rows[:, column]:
            axes.set_ylabel(sign, rotation=0, ha="right", va="center", size="large")
    return figure.figure


def grid(images: Array, *, rows: Sequence[str] = (), columns: Sequence[str] = (), captions: Any = "",
         noise: Any = False, title: str | None = None, figure: Figure | SubFigure | None = None) -> Figure:
    """Images (R, K, C, H, W) in R rows and K columns, in [0, 1]; C is 1 (grey) or 3 (RGB).

    rows, columns: labels on the left and on top; captions: texts (R, K), or what NumPy broadcasts to that, below.
    noise: bool (R, K) likewise: where an image is a perturbation. It is drawn relative to its largest |value|, from
    blue (below 0) to red (above); that of an RGB image is RGB, with 0 as grey. An image with a NaN is left out.
    Raises ValueError where a shape does not fit.
    """
    images = to_host(images)
    if images.ndim != 5 or not images.size or images.shape[2] not in (1, 3):
        raise ValueError(f"images must be (R, K, C, H, W), R and K >= 1, C = 1 or 3, got shape {images.shape}")
    shape = images.shape[:2]
    for name, labels, count in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
        if len(labels) not in (0, count):
            raise ValueError(f"{name} must hold {count} labels, or none, got {len(labels)}")
    texts, noise = (np.broadcast_to(np.asarray(each, object), shape) for each in (captions, noise))

    text_lines = sum(max(text.count("\n") + bool(text) for text in row) for row in texts)
    figure = figure or blank(0.3 + 0.75 * shape[1], 0.6 + 0.75 * shape[0] + 0.13 * text_lines)
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
    return figure.figure


def lines(curves: Mapping[str, tuple[Any, Any]], *, xlabel: str, ylabel: str, title: str | None = None,
          log: str = "", figure: Figure | SubFigure | None = None) -> Figure:
    """A line for each {name: (x, y)} of numbers (n,); with y (m, n), and x too or not, m thin ones of one colour.

    log: "x", "y" or "xy", the axes that are logarithmic. Raises ValueError where there is nothing to draw.
    """
    if not curves:
        raise ValueError(f"curves must hold at least one name with its x and y, got {curves!r}")
    figure = figure or blank(5, 3.5)
    axes = figure.subplots()
    for i, (name, (x, y)) in enumerate(curves.items()):
        colour, marker = LINES[i % len(LINES)]
        look = {"marker": marker} if np.ndim(y) == 1 else {"linewidth": 0.6}
        first, *_ = axes.plot(np.transpose(x), np.transpose(y), color=colour, clip_on=False, **look)
        first.set_label(name)
    axes.set_title(title or "", pad=12)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if all(np.all(np.mod(x, 1) == 0) for x, _ in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # epochs, steps, starts
    for name in log:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_view_interval()
        numbered = (1, 2, 5) if high < 1000 * low else (1,)  # of each decade
        axis.set(major_locator=LogLocator(subs=numbered), major_formatter="{x:g}", minor_formatter="")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(framealpha=0.8, edgecolor="none")  # a curve may pass below it
    return figure.figure


def surfaces(heights: Mapping[str, Array], x: Array, y: Array, *, xlabel: str, ylabel: str, title: str | None = None,
             figure: Figure | SubFigure | None = None) -> Figure:
    """Side by side a map for each {name: (Y, X)} of numbers over x (X,) and y (Y,), with one scale of colours for all.

    Raises ValueError where there is nothing to draw, or a shape does not fit.
    """
    if not heights or any(np.shape(each) != (len(y), len(x)) for each in heights.values()):
        raise ValueError(f"heights must hold arrays of shape {(len(y), len(x))}, at least one, got "
                         f"{ {name: np.shape(each) for name, each in heights.items()} }")
    figure = figure or blank(0.8 + 2.6 * len(heights), 3.2)
    figure.suptitle(title or "")
    places = figure.subplots(1, len(heights), sharey=True, squeeze=False)[0]
    low, high = np.min(list(heights.values())), np.max(list(heights.values()))
    levels = np.linspace(low, high if high > low else low + 1, 21)
    for axes, (name, each) in zip(places, heights.items(), strict=True):
        drawn = axes.contourf(x, y, each, levels=levels, cmap="viridis")
        axes.contour(x, y, each, levels=levels[4::4], colors="white", linewidths=0.4)
        axes.set(xlabel=xlabel, title=name)
    places[0].set_ylabel(ylabel)
    figure.colorbar(drawn, ax=list(places), ticks=levels[::4], format="%.2g")
    return figure.figure


def histograms(values: Mapping[str, Sequence[Array]], names: Sequence[str], *, xlabel: str, title: str | None = None,
               figure: Figure | SubFigure | None = None) -> Figure:
    """Side by side for each {heading: one array (n,) of numbers for each name} their distributions, with the same bins.

    Raises ValueError where there is nothing to draw, or arrays and names do not fit.
    """
    if not values or any(len(several) != len(names) for several in values.values()):
        raise ValueError(f"values must hold at least one heading, with {len(names)} arrays for each, got {values!r}")
    figure = figure or blank(2 * len(values), 3)
    figure.suptitle(title or "")
    for axes, (heading, several) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        bins = np.linspace(min(map(np.min, several)), max(map(np.max, several)), 41)
        for each, name, (colour, _) in zip(several, names, cycle(LINES), strict=False):
            axes.hist(each, bins=bins if bins[-1] > bins[0] else 1, color=colour, alpha=0.7, label=name)
        axes.set(title=heading, yticks=[])
        axes.spines[["top", "left", "right"]].set_visible(False)
    figure.supxlabel(xlabel, size="medium")
    axes.legend(frameon=False)
    return figure.figure


def epsilon_curve(curves: Mapping[str, Mapping[float, float]], *, title: str | None = None,
                  figure: Figure | SubFigure | None = None) -> Figure:
    """Accuracy against the budget: a line for each {name: {eps: accuracy}}, as from evaluation.epsilon_curve.

    Raises ValueError where there is nothing to draw, or an accuracy is not a fraction in [0, 1].
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"curves must hold at least one name, and an accuracy for each, got {curves!r}")
    percents = {}
    for name, curve in curves.items():
        epsilons, accuracies = np.array(sorted(curve.items())).T
        if not ((accuracies >= 0) & (accuracies <= 1)).all():
            raise ValueError(f"curves must hold accuracies in [0, 1], got {curve!r} for {name!r}")
        percents[name] = epsilons, 100 * accuracies
    figure = figure or blank(5, 3.5)
    lines(percents, xlabel="budget ε", ylabel="accuracy (%)", title=title, figure=figure)
    figure.axes[-1].set_ylim(0, 100)
    return figure.figure


def history(epochs: Sequence[Any], *, title: str | None = None, figure: Figure | SubFigure | None = None) -> Figure:
    """Accuracies, loss, learning rate and seconds by epoch, of the History of `training.fit`; ValueError if empty."""
    if not len(epochs):
        raise ValueError("epochs must hold at least one epoch, got none")
    figure = figure or blank(8, 6.5)
    quarters: Any = figure.subfigures(2, 2)
    first, *parts = quarters.ravel()
    names = {"accuracy": "as trained on", "validation": "held out", "robust": "attacked"}
    others = {"loss": "mean loss", "lr": "learning rate", "seconds": "seconds"}
    columns = {name: [getattr(epoch, name) for epoch in epochs] for name in ("epoch", *names, *others)}
    known = {label: 100 * np.array(columns[name]) for name, label in names.items() if None not in columns[name]}
    lines({label: (columns["epoch"], percents) for label, percents in known.items()}, xlabel="epoch",
          ylabel="accuracy (%)", title=title, figure=first)
    for part, (name, label) in zip(parts, others.items(), strict=True):
        lines({name: (columns["epoch"], columns[name])}, xlabel="epoch", ylabel=label, title=" ", figure=part)
    return figure.figure


def _show(axes: Any, image: np.ndarray, noise: bool = False) -> None:
    """An image (C, H, W) without ticks, from 0 to 1 or, if it is noise, from -1 to 1."""
    if noise and len(image) == 3:
        image, noise = (image + 1) / 2, False
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    axes.imshow(pixels, cmap="RdBu_r" if noise else "gray", vmin=-1 if noise else 0, vmax=1)
    axes.set(xticks=[], yticks=[])


def _write_below(axes: Any, text: str, **look: Any) -> None:
    axes.text(0.5, -0.05, text, ha="center", va="top", transform=axes.transAxes, **look)
