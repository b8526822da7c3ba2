"""Moving figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tinyadv.shapes import is_number


def animate(figures: Sequence[Figure], path: str | Path, *, seconds: float = 0.5) -> None:
    """Save the figures, all of one size, as a GIF that shows each for so many seconds and begins again.

    seconds: from 0.01 to 655, as GIF counts them in hundredths. A single frame is saved by `figure.savefig`.
    ValueError if there is none, they differ in size, or the file does not end in .gif.
    """
    if not figures or Path(path).suffix.lower() != ".gif":
        raise ValueError(f"figures must be one or more, and path end in .gif; got {len(figures)} and {path}")
    if not is_number(seconds) or not 0.01 <= seconds <= 655:
        raise ValueError(f"seconds must be a number from 0.01 to 655, got {seconds!r}")
    frames = []
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(32))
    if len(sizes := {frame.size for frame in frames}) > 1:
        raise ValueError(f"figures must all have one size, got {sorted(sizes)} pixels: draw each with "
                         "figure=plots.blank(width, height)")
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0)
