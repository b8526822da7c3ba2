"""What is printed: tables of layers, of epochs, of results and of checks; and progress bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[object]], align: str = "<>") -> list[str]:
    """The rows as lines of columns, as wide as their widest cell, two spaces apart.

    align: "<" or ">" for each column, to the left or to the right; the last one is that of all columns that follow.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    align = align.ljust(max(map(len, cells), default=0), align[-1])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=False)).rstrip()
            for row in cells]


def percent(fraction: float | None) -> str:
    """The fraction in percent with two decimals; "-" for what was not measured."""
    return "-" if fraction is None else f"{fraction:.2%}"


def number(value: float | None) -> str:
    """The number in four significant digits; "-" for what was not measured."""
    return "-" if value is None else f"{value:.4g}"


def progress_bar(total: int, name: str, enabled: bool, leave: bool = True) -> Any:
    """A bar over `total` images on the terminal, which stays there afterwards or does not; silent unless enabled."""
    from tqdm import tqdm
    return tqdm(total=total, desc=name, unit="image", disable=not enabled, leave=leave)
