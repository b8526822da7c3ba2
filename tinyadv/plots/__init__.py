"""Figures. Each function returns a matplotlib Figure; save it with `figure.savefig("name.png")`.

Only this folder imports matplotlib, and it does not use pyplot. So there is no current figure and no display is
needed: it works on a server and in threads. `figure=` draws into a part of a larger figure:

    both = plots.blank(9, 5)
    left, right = both.subfigures(1, 2)
    plots.epsilon_curve(curves, figure=left)
"""

from tinyadv.plots.animation import animate
from tinyadv.plots.curves import bars, epsilon_curve, histograms, history, lines
from tinyadv.plots.fields import heatmaps, surfaces
from tinyadv.plots.images import adversarial_triples, grid
from tinyadv.plots.style import blank
from tinyadv.spellings import missing

__all__ = [
    "adversarial_triples", "animate", "bars", "blank", "epsilon_curve", "grid", "heatmaps", "histograms", "history",
    "lines", "surfaces",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
