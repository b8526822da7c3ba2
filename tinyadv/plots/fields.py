"""Figures of fields: numbers over a plane, such as a loss around an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import ScalarFormatter

from tinyadv.backend import Array
from tinyadv.plots.style import canvas, check_named, finished, on_host


def surfaces(heights: Mapping[str, Array], x: Array, y: Array, *, xlabel: str, ylabel: str, title: str | None = None,
             figure: Figure | SubFigure | None = None) -> Figure:
    """Contour maps side by side, one for each {name: array (Y, X)} over x (X,) and y (Y,), with a common colour scale.

    Raises ValueError if there is nothing to draw or a shape does not fit.
    """
    check_named("heights", heights, "array (Y, X)")
    heights, x, y = {name: on_host(each) for name, each in heights.items()}, on_host(x), on_host(y)
    if min(y.size, x.size) < 2 or not heights or any(
            each.shape != (y.size, x.size) or not np.isfinite(each).all() for each in heights.values()):
        raise ValueError(f"heights must hold finite arrays of shape {(y.size, x.size)}, 2 x 2 or larger, at least one, "
                         f"got { {name: each.shape for name, each in heights.items()} }")
    figure = canvas(figure, 0.8 + 2.6 * len(heights), 3.2)
    figure.suptitle(title or "")
    places = figure.subplots(1, len(heights), sharey=True, squeeze=False)[0]
    low, high = (float(limit(list(heights.values()))) for limit in (np.min, np.max))
    levels = np.linspace(low, max(high, low + 1e-6 * max(1, abs(low))), 21)  # else equal levels, where all is flat
    for axes, (name, each) in zip(places, heights.items(), strict=True):
        drawn = axes.contourf(x, y, each, levels=levels, cmap="viridis")
        axes.contour(x, y, each, levels=levels[4::4], colors="white", linewidths=0.4)
        axes.set(xlabel=xlabel, title=name)
    places[0].set_ylabel(ylabel)
    figure.colorbar(drawn, ax=list(places), ticks=levels[::4], format=ScalarFormatter(useOffset=False))
    return finished(figure)


def heatmaps(values: Mapping[str, Array], *, xlabel: str, ylabel: str, label: str, signed: bool = False,
             title: str | None = None, figure: Figure | SubFigure | None = None) -> Figure:
    """Maps side by side, one for each {name: array (H, W)}, with 0 in the middle of both axes, such as spectra.

    All have one colour scale, named by `label`; it is symmetric around 0, from blue to red, if the values are `signed`.
    Raises ValueError if there is nothing to draw, or a value is NaN or infinite.
    """
    check_named("values", values, "array (H, W)")
    values = {name: on_host(each) for name, each in values.items()}
    if not values or any(each.ndim != 2 or not each.size or not np.isfinite(each).all() for each in values.values()):
        raise ValueError(f"values must hold finite arrays (H, W), at least one, got "
                         f"{ {name: each.shape for name, each in values.items()} }")
    figure = canvas(figure, 0.8 + 2.4 * len(values), 3)
    figure.suptitle(title or "")
    places = figure.subplots(1, len(values), squeeze=False)[0]
    low, high = float(min(map(np.min, values.values()))), float(max(map(np.max, values.values())))
    if signed:
        high = max(high, -low) or 1.0
        low = -high
    look = {"vmin": low, "vmax": high if high > low else low + 1, "cmap": "RdBu_r" if signed else "viridis"}
    for axes, (name, each) in zip(places, values.items(), strict=True):
        h, w = each.shape
        edges = -(w // 2) - 0.5, w - w // 2 - 0.5, h - h // 2 - 0.5, -(h // 2) - 0.5
        drawn = axes.imshow(each, extent=edges, **look)
        axes.set(xlabel=xlabel, title=name)
    places[0].set_ylabel(ylabel)
    figure.colorbar(drawn, ax=list(places), label=label)
    return finished(figure)
