"""The result of a series of checks, as a table to print."""

from __future__ import annotations

from dataclasses import dataclass

from tinyadv.nn.table import table


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it passed, the number that decided, and what that number means."""

    name: str
    passed: bool
    figure: float
    explanation: str


@dataclass(frozen=True)
class Report:
    """The checks of one subject. It prints one line per check, and `report[name]` is the check of that name."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    def require(self) -> None:
        """Raise ValueError with the whole report unless all checks passed."""
        if not self.passed:
            raise ValueError(str(self))

    def __getitem__(self, name: str) -> Check:
        return {check.name: check for check in self.checks}[name]

    def __str__(self) -> str:
        lines = table([("passed" if check.passed else "FAILED", check.name, f"{check.figure:.4g}", check.explanation)
                       for check in self.checks], align="<")
        return "\n  ".join([f"{self.subject}: {sum(c.passed for c in self.checks)} of {len(lines)} passed", *lines])

    __repr__ = __str__
