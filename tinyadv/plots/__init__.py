"""Every figure. A function returns the Figure that it has drawn; save it with `figure.savefig("name.png")`.

matplotlib is imported here alone, and without pyplot: with no current figure and no display, all of this
works on a server and in threads. `figure=` draws into a part of a larger figure:

    both = plots.blank(9, 5)
    left, right = both.subfigures(1, 2)
    plots.epsilon_curve(curves, figure=left)
"""

from tinyadv.plots.curves import epsilon_curve, histograms, history, lines
from tinyadv.plots.fields import surfaces
from tinyadv.plots.images import adversarial_triples, grid
from tinyadv.plots.style import blank

__all__ = ["adversarial_triples", "blank", "epsilon_curve", "grid", "histograms", "history", "lines", "surfaces"]
