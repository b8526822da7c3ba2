"""The result of a certification: what is proven, what an attack leaves, and what is right without one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tinyadv.attacks.base.result import same_fields
from tinyadv.backend import VERSION
from tinyadv.nn import archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.table import percent, table

KINDS = {"str": str, "int": int, "float": int | float, "np.ndarray": np.ndarray, "np.ndarray | None": np.ndarray | None}


@dataclass(frozen=True, eq=False)
class Saved:
    """The base class of results on N images. title: what it is, for errors; dtypes: the kind of each of its arrays."""

    title: ClassVar[str]
    dtypes: ClassVar[dict[str, str]]

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same, element by element."""
        return same_fields(self, other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # arrays can change

    def save(self, path: str | Path) -> None:
        """Write all of it to an .npz file, which is whole or not there at all."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        archive.write(path, {name: value for name, value in values.items() if name not in arrays}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What was saved at `path`; StateError if the file is damaged or something else."""
        header, arrays = archive.read(path, cls.title, "method")
        values = {name: value for name, value in header.items() if name != "format"} | arrays
        kinds = {each.name: KINDS[str(each.type)] for each in fields(cls)}
        if not (values.keys() == kinds.keys() and all(isinstance(values[name], kind) for name, kind in kinds.items())
                and all(array.dtype.kind == cls.dtypes[name] for name, array in arrays.items())
                and [len(shape) for shape in {array.shape for array in arrays.values()}] == [1]):
            raise StateError(f"{path}: not {cls.title} of tinyadv {VERSION}")
        return cls(**values)


@dataclass(frozen=True, eq=False)
class CertifiedReport(Saved):
    """Which of N images are proven to be classified correctly within a budget. It prints as a table.

    method: how it was proven; eps, norm: the budget; data: the name of the images. The following are (N,) bool:
    certified: no point within the budget is classified wrongly. clean: the image itself is classified correctly.
    attacked: the image is so before and after the attack; None without an attack. attack: its description, or "".
    seconds: the time of the certification. version: of the library. float(report) is the certified accuracy.
    """

    method: str
    eps: float
    norm: str
    data: str
    certified: np.ndarray
    clean: np.ndarray
    attacked: np.ndarray | None = None
    attack: str = ""
    seconds: float = 0.0
    version: str = VERSION

    title: ClassVar[str] = "a certified report"
    dtypes: ClassVar[dict[str, str]] = {"certified": "b", "clean": "b", "attacked": "b"}

    @property
    def certified_accuracy(self) -> float:
        """The fraction of images that are certified."""
        return float(self.certified.mean())

    @property
    def accuracy(self) -> float:
        """The fraction of images that are classified correctly."""
        return float(self.clean.mean())

    @property
    def robust_accuracy(self) -> float | None:
        """The fraction of images that the attack leaves; None without an attack."""
        return None if self.attacked is None else float(self.attacked.mean())

    @property
    def consistent(self) -> bool:
        """Whether certified implies attacked, and attacked implies clean, for each image: else there is a bug."""
        attacked = self.clean if self.attacked is None else self.attacked
        return bool((self.certified <= attacked).all() and (attacked <= self.clean).all())

    def __float__(self) -> float:
        return self.certified_accuracy

    def __str__(self) -> str:
        rows = [("clean", self.clean), (self.attack, self.attacked), (f"certified by {self.method}", self.certified)]
        lines = table([(name, percent(float(hits.mean())), f"{hits.sum():,} of {len(hits):,}") for name, hits in rows
                       if hits is not None], "<>>")
        return "\n  ".join([f"{self.data}, {self.norm} eps={self.eps:g}, {self.seconds:.1f} s", *lines])

    __repr__ = __str__
