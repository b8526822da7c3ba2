"""The measurements of a training run, epoch by epoch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tinyadv.nn.table import number, percent, table


@dataclass(frozen=True)
class Epoch:
    """The measurements of one epoch.

    loss, accuracy: means over the inputs that were trained on, adversarial images for example.
    validation, robust: the accuracy on the validation set, clean and under attack; None if it was not measured. If
    there is no validation set, `Fast` measures `robust` on training images.
    certified: the certified accuracy on the validation set; None unless the method is for certificates.
    lr, eps: the learning rate and the budget of the last step. seconds: the time of the training steps alone.
    """

    epoch: int
    loss: float
    accuracy: float
    validation: float | None
    lr: float
    seconds: float
    robust: float | None = None
    eps: float | None = None
    certified: float | None = None


class History(Sequence[Epoch]):
    """The epochs of a training run, as a sequence. It prints as a table."""

    def __init__(self, epochs: Sequence[Epoch] = ()):
        self.epochs = list(epochs)

    def __getitem__(self, index: Any) -> Any:
        return History(self.epochs[index]) if isinstance(index, slice) else self.epochs[index]

    def __len__(self) -> int:
        return len(self.epochs)

    def to_csv(self, path: str | Path) -> None:
        """Write a CSV file with one row for each epoch. A cell is empty if its value was not measured."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
            writer.writeheader()
            writer.writerows(asdict(epoch) for epoch in self.epochs)

    def __repr__(self) -> str:
        proven = any(e.certified is not None for e in self.epochs)
        attacked = any(e.robust is not None or e.eps is not None for e in self.epochs)
        rows = [["epoch", "  loss", "accuracy", "validation", *["robust", "  eps"] * attacked, *["certified"] * proven,
                 "     lr", "seconds"]]
        rows += [[str(e.epoch), f"{e.loss:.4f}", percent(e.accuracy), percent(e.validation),
                  *[percent(e.robust), number(e.eps)] * attacked, *[percent(e.certified)] * proven,
                  f"{e.lr:.2g}", f"{e.seconds:.1f}"]
                 for e in self.epochs]
        return "\n".join(table(rows, align=">"))
