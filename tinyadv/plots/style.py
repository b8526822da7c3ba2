"""What all figures share: where they are drawn, their legends and texts, the arrays they take, and the colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from tinyadv.backend import to_host

# Colours of Okabe and Ito (2008), which people with any colour vision can tell apart; the markers are for print.
BLUE, VERMILION = "#0072B2", "#D55E00"
LINES = ((BLUE, "o"), (VERMILION, "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"),
         ("#000000", "X"))


def blank(width: float, height: float) -> Figure:
    """An empty figure of width x height inches, whose layout keeps axes and texts from overlapping."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def canvas(figure: Figure | SubFigure | None, width: float, height: float, names: Sequence[str] = ()) -> Any:
    """Where to draw: `figure`, from `blank`, or a blank one of that size with room below for a legend of the names.

    Raises ValueError if the figure holds a drawing: a second one would lie on top of it.
    """
    if figure is None:
        width = max([width, *map(_entry, names)])
        return blank(width, height + 0.21 * -(-len(names) // _columns(names, width)))
    if figure.axes or figure.subfigs:
        raise ValueError("figure holds a drawing, or parts: give each drawing a part of its own, as in "
                         "left, right = plots.blank(9, 5).subfigures(1, 2)")
    return figure


def legend(figure: Figure | SubFigure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below all that is in the figure, where it hides nothing."""
    columns = _columns(names, figure.bbox.width / figure.dpi)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.4)


def _columns(names: Sequence[str], width: float) -> int:
    """How many entries of a legend stand side by side in so many inches."""
    return min(max(1, len(names)), max(1, int((width + 0.2) / (max(map(_entry, names), default=1) + 0.2))))


def _entry(name: str) -> float:
    """About how many inches wide a name is in a legend."""
    return 0.5 + 0.088 * max(map(len, str(name).split("\n")))


def finished(figure: Figure | SubFigure) -> Figure:
    """The whole figure, after its texts are set to be shown as they were given: "$" in a name begins no formula."""
    numbers: set[Text] = set()  # which matplotlib itself may write as formulas
    for axis in figure.findobj(Axis):
        texts = axis.get_ticklabels(which="both")  # made here
        if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter | StrCategoryFormatter):
            numbers |= {*texts, axis.get_offset_text()}
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)
    return figure.figure


def on_host(value: Any) -> np.ndarray:
    """A list, or an array on any device, as a NumPy array."""
    return np.asarray(to_host(value))


def check_named(argument: str, values: Any, each: str) -> None:
    """TypeError unless the argument of that name is a dict; `each` says what it holds for a name."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{argument} must be a dict {{name: {each}}}, got {type(values).__name__}: give "
                        f'{{"a name": ...}}')
