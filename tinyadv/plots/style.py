"""What all figures share: an empty figure, and the colours."""

from matplotlib.figure import Figure

# Colours of Okabe and Ito (2008), which people with any colour vision can tell apart; the markers are for print.
BLUE, VERMILION = "#0072B2", "#D55E00"
LINES = ((BLUE, "o"), (VERMILION, "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"),
         ("#000000", "X"))


def blank(width: float, height: float) -> Figure:
    """An empty figure of width x height inches, whose layout keeps axes and texts from overlapping."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")
