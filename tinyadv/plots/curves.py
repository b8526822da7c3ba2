"""Figures of numbers: curves, and the distributions of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from tinyadv.backend import Array
from tinyadv.plots.style import LINES, canvas, check_named, finished, legend, on_host


def lines(curves: Mapping[str, tuple[Any, Any]], *, xlabel: str, ylabel: str, title: str | None = None,
          log: str = "", figure: Figure | SubFigure | None = None) -> Figure:
    """One line for each {name: (x, y)}, both of shape (n,); dashed and hollow, if it lies on an earlier one.

    y, and also x, may have shape (m, n): that gives m thin lines of one colour. x may also be texts.
    log: "x", "y" or "xy", the axes with a logarithmic scale. Raises ValueError if curves is empty, a shape does not
    fit, or a number on such an axis is not above 0.
    """
    check_named("curves", curves, "(x, y)")
    if not curves:
        raise ValueError(f"curves must hold at least one name with its x and y, got {curves!r}")
    if log not in ("", "x", "y", "xy"):
        raise ValueError(f'log must be "x", "y" or "xy", got {log!r}')
    pairs = [_pair(name, pair) for name, pair in curves.items()]
    for name in log:
        if any(np.any(pair["xy".index(name)] <= 0) for pair in pairs):
            raise ValueError(f"{name} must be above 0 on a logarithmic axis: leave out what is not, or the scale")
    names = list(curves) if len(curves) > 1 else []
    figure = canvas(figure, 5, 3.5, names)
    axes, handles = figure.subplots(), []
    for i, (name, (x, y)) in enumerate(zip(curves, pairs, strict=True)):
        colour, marker = LINES[i % len(LINES)]
        look: dict[str, Any] = {"marker": marker} if y.ndim == 1 else {"linewidth": 0.6}
        look["linestyle"] = ("-", "--", ":", "-.")[i // len(LINES) % 4]  # another one when the colours come again
        if any(_same(x, other_x) and _same(y, other_y) for other_x, other_y in pairs[:i]):
            look |= {"linestyle": "--", "markerfacecolor": "none"}  # so the other one is seen below it
        first, *_ = axes.plot(x.T, y.T, color=colour, clip_on=False, **look)
        first.set_label(name)
        handles.append(first)
    axes.set_title(title or "", pad=12)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    points = np.unique(np.concatenate([np.ravel(x) for x, _ in pairs]))
    if whole := points.dtype.kind in "iuf" and bool(np.all(np.mod(points, 1) == 0)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # epochs, steps, starts
    for name in log:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_view_interval()
        numbered = (1, 2, 5) if high < 1000 * low else (1,)  # of each decade
        own = name == "x" and whole and len(points) < 9  # a few widths, say: each has its tick
        locator = FixedLocator(points.tolist()) if own else LogLocator(subs=numbered)
        axis.set(major_locator=locator, major_formatter="{x:g}", minor_formatter="")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        legend(figure, handles, names)
    return finished(figure)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def _pair(name: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a curve, as arrays; ValueError unless they fit."""
    parts = [on_host(part) for part in pair] if np.iterable(pair) else []
    shapes = [part.shape for part in parts]
    if len(parts) != 2 or parts[1].ndim not in (1, 2) or 0 in shapes[1][:-1] or shapes[0] not in (
            shapes[1], shapes[1][-1:]):
        raise ValueError(f"curves must hold a pair (x, y) for each name, x of shape (n,), and y of shape (n,) or "
                         f"(m, n); got {' and '.join(map(str, shapes)) or repr(pair)} for {name!r}")
    return parts[0], parts[1]


def epsilon_curve(curves: Mapping[str, Mapping[float, float]], *, title: str | None = None, xlabel: str = "budget ε",
                  figure: Figure | SubFigure | None = None) -> Figure:
    """Accuracy against the budget, one line for each {name: {eps: accuracy}}, as evaluation.epsilon_curve returns it.

    Certified accuracies (`CertifiedRadii.curve`) look the same; the curve of an attack is above them. Raises ValueError
    if there is nothing to draw or an accuracy is not in [0, 1].
    """
    if not isinstance(curves, Mapping) or not all(isinstance(curve, Mapping) for curve in curves.values()):
        raise TypeError(f'a curve needs a name: give {{"FGSM": curve}} instead of {curves!r}')
    if not curves or not all(curves.values()):
        raise ValueError(f"curves must hold at least one name, and an accuracy for each, got {curves!r}")
    percents = {}
    for name, curve in curves.items():
        epsilons, accuracies = np.array(sorted(curve.items())).T
        if not ((accuracies >= 0) & (accuracies <= 1)).all():
            raise ValueError(f"curves must hold accuracies in [0, 1], got {curve!r} for {name!r}")
        percents[name] = epsilons, 100 * accuracies
    whole = lines(percents, xlabel=xlabel, ylabel="accuracy (%)", title=title, figure=figure)
    (figure or whole).axes[-1].set_ylim(0, 100)
    return whole


def history(epochs: Sequence[Any], *, title: str | None = None, figure: Figure | SubFigure | None = None) -> Figure:
    """Accuracies, loss, learning rate and seconds against the epoch.

    epochs: the History that `training.fit` returns; what an epoch has not measured is a gap in the curve. Raises
    ValueError if there is none.
    """
    if not len(epochs):
        raise ValueError("epochs must hold at least one epoch, got none")
    figure = canvas(figure, 8, 6.5)
    quarters: Any = figure.subfigures(2, 2)
    first, *parts = quarters.ravel()
    names = {"accuracy": "as trained on", "validation": "held out", "robust": "attacked", "certified": "certified"}
    others = {"loss": "mean loss", "lr": "learning rate", "seconds": "seconds"}
    columns = {name: [getattr(epoch, name) for epoch in epochs] for name in ("epoch", *names, *others)}
    known = {label: 100 * np.array(columns[name], float) for name, label in names.items()  # None becomes NaN
             if any(each is not None for each in columns[name])}
    lines({label: (columns["epoch"], percents) for label, percents in known.items()}, xlabel="epoch",
          ylabel="accuracy (%)", title=title, figure=first)
    for part, (name, label) in zip(parts, others.items(), strict=True):
        lines({name: (columns["epoch"], columns[name])}, xlabel="epoch", ylabel=label, title=" ", figure=part)
    return figure.figure


def bars(heights: Mapping[str, Sequence[float]], names: Sequence[str], *, ylabel: str, title: str | None = None,
         figure: Figure | SubFigure | None = None) -> Figure:
    """Bars side by side at each of `names`, one for each {label: heights (n,)}.

    Raises ValueError if there is nothing to draw, or the number of heights is not the number of names.
    """
    check_named("heights", heights, "numbers, one for each name")
    rows = [on_host(each) for each in heights.values()]
    if not rows or not names or any(row.shape != (len(names),) for row in rows):
        raise ValueError(f"heights must hold at least one label, with {len(names)} numbers for each, got {heights!r}")
    labels = list(heights) if len(rows) > 1 else []
    figure = canvas(figure, 1 + len(names) * max(0.6, *(0.1 * len(name) for name in names)), 3, labels)
    axes, width, handles = figure.subplots(), 0.8 / len(rows), []
    for k, (label, row, (colour, _)) in enumerate(zip(heights, rows, cycle(LINES), strict=False)):
        places = np.arange(len(names)) + (k - (len(rows) - 1) / 2) * width
        handles.append(axes.bar(places, row, width, color=colour, hatch="//" * k, edgecolor="white", label=label))
    axes.set_xticks(range(len(names)), names)
    axes.set_title(title or "", pad=12)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    if labels:
        legend(figure, handles, labels)
    return finished(figure)


def histograms(values: Mapping[str, Sequence[Array]], names: Sequence[str], *, xlabel: str, title: str | None = None,
               log: bool = False, figure: Figure | SubFigure | None = None) -> Figure:
    """Histograms side by side, one for each {heading: arrays}, with the same bins for all arrays of a heading.

    arrays: one array (n,) of numbers for each of `names`. log: a logarithmic axis of the values, which are above 0.
    Raises ValueError if there is nothing to draw, a number is NaN or infinite, or the number of arrays is not that of
    names.
    """
    check_named("values", values, "arrays, one for each of names")
    if not values or not names or any(len(several) != len(names) for several in values.values()):
        raise ValueError(f"values must hold at least one heading, with {len(names)} arrays for each, got {values!r}")
    values = {heading: [on_host(each).ravel() for each in several] for heading, several in values.items()}
    for heading, several in values.items():
        if not sum(map(np.size, several)) or not all(np.isfinite(each).all() for each in several):
            raise ValueError(f"values must be finite numbers, at least one for each heading: see those of {heading!r}")
    if log and not all(np.all(each > 0) for several in values.values() for each in several):
        raise ValueError("values must be above 0 for a logarithmic axis")
    figure = canvas(figure, 1 + 2 * len(values), 3)
    figure.suptitle(title or "")
    for axes, (heading, several) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        every = np.concatenate(several)
        bins = (np.geomspace if log else np.linspace)(every.min(), every.max(), 41)
        handles = [axes.hist(each, bins=bins if bins[-1] > bins[0] else 1, color=colour, alpha=0.7, label=name)[2]
                   for name, each, (colour, _) in zip(names, several, cycle(LINES), strict=False)]
        axes.set(title=heading, yticks=[], xscale="log" if log else "linear")
        axes.spines[["top", "left", "right"]].set_visible(False)
    figure.supxlabel(xlabel, size="medium")
    figure.legend(handles, names, loc="outside right center", frameon=False)  # below is the label of all axes
    return finished(figure)
