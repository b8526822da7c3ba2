"""Trained networks, each with a card that says how it was trained and what was measured on it.

A card may come without weights, where they would make the package too large: it says how to train them.

    model = models.zoo.load("mnist-madry-linf")
    print(models.zoo.card("mnist-madry-linf"))
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyadv import nn
from tinyadv.nn import archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.state import built_from, defined_subclasses, rebuilt
from tinyadv.nn.table import percent, table
from tinyadv.shapes import check_fraction, check_positive, to_count

FOLDER = Path(__file__).with_name("weights")
LONGEST_LINE = 500  # characters; tomllib takes 10 seconds and 400 MB for one key of 10,000 parts
CARD = {
    "name": str, "summary": str, "model": str, "parameters": int, "training": str, "settings": dict, "seconds": float,
    "machine": str, "data": str, "sha256": str, "version": str,
    "results": [{"attack": str, "images": int, "accuracy": float, "seed": int}],
    "autoattack": ({"images": int, "seed": int, "accuracy": float, "pgd": float, "beyond": str,
                    "accuracy_beyond": float, "warnings": [str]},),
    "checks": [{"name": str, "passed": bool}],
    "certificates": [{"method": str, "norm": str, "radius": float, "images": int, "accuracy": float, "seed": int}],
}
SETTINGS = {
    "summary": str, "held_out": int, "model": {"class": str, "seed": int}, "method": {"class": str},
    "optimizer": {"class": str}, "schedule": {"class": str}, "training": {"epochs": int, "batch_size": int},
    "evaluation": {"eps": float, "norm": str},
}

NUMBERS: dict[str, Callable[[str, Any], object]] = {  # of [training], and what checks them
    "average": check_fraction, "batch_size": to_count, "clip_norm": check_positive, "epochs": to_count,
    "seed": partial(to_count, least=0),
}


@dataclass(frozen=True, repr=False)
class Card:
    """The facts about a trained network; `print(card)` shows them.

    summary: one sentence. model: the name of its class. parameters: their number. training: the command that trains
    it. settings: the contents of the file of settings for that command. seconds: the time of the training steps on
    `machine`, without validation. data: the training set. sha256: that of the file of weights. version: tinyadv's.
    results: rows {"attack", "images", "accuracy", "seed"}, measured on the first images of the test set.
    autoattack: on the first "images" of the test set, the accuracy that AutoAttack leaves ("accuracy"), the one that
    PGD with 100 steps leaves ("pgd"), the one that AutoAttack leaves with 4/3 of the budget ("accuracy_beyond", and
    "beyond" is that attack), and the "warnings" of AutoAttack. checks: those of `evaluation.sanity_checks`.
    certificates: the accuracy that is proven within each radius. A network for votes (`certify.Smoothing`,
    `certify.Ablation`) has only these; its accuracy without an attack is that of the vote.
    """

    name: str
    summary: str
    model: str
    parameters: int
    training: str
    settings: dict[str, Any]
    seconds: float
    machine: str
    data: str
    sha256: str
    version: str
    results: list[dict[str, Any]]
    autoattack: dict[str, Any]
    checks: list[dict[str, Any]]
    certificates: list[dict[str, Any]]

    def __repr__(self) -> str:
        facts = {
            "model": f"{self.model}, {self.parameters:,} parameters", "training": self.training, "data": self.data,
            "took": f"{self.seconds:,.0f} s on {self.machine}", "tinyadv": self.version, "sha256": self.sha256,
        }
        rows = [(row["attack"], percent(row["accuracy"]), f"of {row['images']:,} images, seed {row['seed']}")
                for row in self.results]
        return "\n  ".join([f"{self.name}: {self.summary}", *table(list(facts.items()), "<"), *table(rows, "<><"),
                            *self.limits, *([f"sanity checks: {self.passed}"] if self.checks else [])])

    @property
    def limits(self) -> list[str]:
        """The limits of the figures in sentences: PGD's gap to AutoAttack, its warnings, certificates."""
        certified = [f"{row['method']} certifies {percent(row['accuracy'])} of the first {row['images']:,} images "
                     f"within {row['norm']} {row['radius']:g}, with seed {row['seed']}." for row in self.certificates]
        if not (found := self.autoattack):
            return certified
        if certified:
            certified.append("Certified images count as right under attack: the attacks ran on the others.")
        images, gap = f"{found['images']:,} images", 100 * (found["pgd"] - found["accuracy"])
        return [
            f"AutoAttack leaves {percent(found['accuracy'])} of the first {images}, with seed {found['seed']}.",
            f"PGD with 100 steps leaves {percent(found['pgd'])} of them, and so overstates it by {gap:.2f} points.",
            f"Just beyond the budget, {found['beyond']} leaves {percent(found['accuracy_beyond'])} of them.",
            *([f"AutoAttack warns: {warning}." for warning in found["warnings"]] or ["AutoAttack gives no warning."]),
            *certified]

    @property
    def passed(self) -> str:
        """How many of the checks passed, and which failed."""
        failed = [check["name"] for check in self.checks if not check["passed"]]
        count = f"{len(self.checks) - len(failed)} of {len(self.checks)} passed"
        return f"{count}, failed: {', '.join(failed)}" if failed else count


def names() -> list[str]:
    """The names of the networks that can be loaded."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def cards() -> list[str]:
    """The names of all cards: those of `names`, and those of networks that have to be trained first."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def card(name: str) -> Card:
    """The card of a network; ValueError lists the known names, StateError says what is wrong with the file."""
    if name not in cards():
        raise ValueError(f"name must be one of {', '.join(cards())}; got {name!r}")
    path = FOLDER / f"{name}.json"
    try:
        return Card(**archive.read_text(path, json.loads, CARD))
    except TypeError as error:  # a name too many
        raise StateError(f"{path} cannot be used: {error}") from error


def settings(path: Path) -> dict[str, Any]:
    """The settings of a training, from a TOML file such as those in examples/configs/; StateError if they are wrong."""
    table = archive.read_text(path, _toml, SETTINGS)
    if unknown := (table.keys() - {*SETTINGS, "augment", "certificate", "data", "ramp"}) | (
            table["training"].keys() - NUMBERS.keys()):
        raise StateError(f"{path} cannot be used: {', '.join(sorted(unknown))} is unknown")
    if table["held_out"] < 1:
        raise StateError(f"{path} cannot be used: held_out must be at least 1, got {table['held_out']}")
    changes = table.get("augment", [])
    if not (isinstance(changes, list) and all(isinstance(each, dict) for each in changes)):
        raise StateError(f"{path} cannot be used: augment must be tables, each headed [[augment]]")
    try:
        for name, value in table["training"].items():
            NUMBERS[name](name, value)
    except ValueError as error:
        raise StateError(f"{path} cannot be used: in [training], {error}") from error
    return table


def _toml(text: str) -> dict[str, Any]:
    if any(len(line) > LONGEST_LINE for line in text.splitlines()):
        raise ValueError(f"a line has more than {LONGEST_LINE} characters")
    return tomllib.loads(text)


def load(name: str) -> nn.Module:
    """The trained network, in float32 and in evaluation mode.

    Raises StateError if its file does not match the card, and ValueError if it is not in the package.
    """
    path, facts = FOLDER / f"{name}.npz", card(name)
    if not path.exists():
        raise ValueError(f"the weights of {name} would make the package too large: train it with "
                         f"`{facts.training}`, and load what this saves with nn.load")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != facts.sha256:
        raise StateError(f"{path} is damaged: its SHA-256 is {found}, the card says {facts.sha256}: reinstall tinyadv")
    classes = defined_subclasses(nn.Module, facts.model).items()  # the user may have a class of that name, too
    ours = [made for full, made in classes if full.startswith(f"{__package__}.")]
    if not ours:
        raise StateError(f"{FOLDER / name}.json cannot be used: its model, {facts.model}, is not in {__package__}")
    header, _ = archive.read(path, "a model file", "class", oldest=1)
    return nn.load(path, into=rebuilt(ours[0], header)).eval()


def publish(model: nn.Module, name: str, folder: Path = FOLDER, **facts: Any) -> Card:
    """Write the rounded weights and the card, and return the card; facts: its other fields. The model is unchanged.

    Raises ValueError if a weight is too large for float16.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.npz"
    state = {key: rounded(array) if array.dtype.kind == "f" else array for key, array in model.state_dict().items()}
    archive.write(path, built_from(model), state, compress=True)
    archive.read(path, "a model file", "class", oldest=1)  # before there is a card: weights of zeros expand too far
    made = Card(name=name, model=type(model).__name__, parameters=sum(p.size for p in model.parameters()),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), **facts)
    write(made, folder)
    return made


def write(card: Card, folder: Path = FOLDER) -> None:
    """Write the card into its file, NAME.json."""
    (folder / f"{card.name}.json").write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")


def rounded(weights: np.ndarray) -> np.ndarray:
    """The weights in float16, rounded to 9 of its 11 significant bits.

    The error is far below the difference between two training runs. The last two bits are zero, which makes the
    compressed file a tenth smaller.
    """
    if not (abs(weights) < 65_000).all():
        raise ValueError("weights must be numbers below 65,000, the range of float16")
    bits = weights.astype(np.float16).view(np.uint16)
    return ((bits + 2) & 0xFFFC).view(np.float16)
