"""What all figures share: an empty figure without overlaps, and colours."""

from matplotlib.figure import Figure

# Colours of Okabe and Ito (2008), which every kind of colour vision tells apart; the markers serve in print.
BLUE, VERMILION = "#0072B2", "#D55E00"
LINES = ((BLUE, "o"), (VERMILION, "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"),
         ("#000000", "X"))


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches, on which nothing that is drawn will overlap."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")
