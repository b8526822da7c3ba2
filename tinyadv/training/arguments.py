"""Checks of the arguments of `fit`, before training begins; each error says what to pass instead."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tinyadv.attacks import Attack
from tinyadv.backend import Array, is_array
from tinyadv.data import Dataset
from tinyadv.nn import Module
from tinyadv.nn.optim import Optimizer
from tinyadv.nn.state import recipe
from tinyadv.shapes import is_number, to_count
from tinyadv.spellings import foreign
from tinyadv.training.checkpoint import EXTENDABLE
from tinyadv.training.consistent import Consistent
from tinyadv.training.methods import Method


def check_fit(*, model: Any, train: Any, epochs: Any, batch_size: Any, optimizer: Any, method: Any, functions: tuple,
              clip_norm: Any, average: Any, validation: Any, validation_attack: Any, path: Path | None, minutes: Any,
              resume: bool, extend: Collection[str]) -> None:
    """Raise TypeError or ValueError for the first wrong argument of `fit`. functions: the schedules and augment."""
    to_count("epochs", epochs, least=0)
    to_count("batch_size", batch_size)
    for name, value, kind, example in (
            ("model", model, Module, "models.SmallCNN()"), ("train", train, Dataset, "data.Dataset(images, labels)"),
            ("validation", train if validation is None else validation, Dataset, "data.Dataset(images, labels)"),
            ("optimizer", optimizer, Optimizer, "nn.optim.SGD(model, lr=0.01)"),
            ("method", method, Method, "training.TRADES(eps=0.3)")):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be of the class {kind.__name__}, such as {example}; got {value!r:.80}, of "
                            f"the class {type(value).__module__}.{type(value).__qualname__}{foreign(value)}")
    if wrong := [each for each in functions if each is not None and not callable(each)]:
        raise TypeError(f"schedules and augment must be functions, such as nn.optim.cosine(); got {wrong[0]!r}")
    *_, augment = functions
    if isinstance(method, Consistent) and augment and recipe(method.votes.augment) in recipe(augment):
        raise ValueError("Consistent varies the images itself: leave out augment=votes.augment, which varies them, too")
    own, held = {id(p) for p in model.parameters()}, {id(p) for p in optimizer.parameters}
    if not held & own:
        raise ValueError(f"optimizer must hold the parameters of this model, but {optimizer} holds none of them")
    if held - own and own - held:  # a layer has been replaced, and would never be trained
        raise ValueError(f"optimizer must hold the parameters of this model, but {optimizer} lacks {len(own - held)}, "
                         f"and holds {len(held - own)} others: make it after the last change of the model")
    for name, images in (("training", train), ("validation", validation)):
        if images is not None and not len(images):
            raise ValueError(f"{name} needs at least one image, and {images.name} has none")
    if not (is_number(minutes) and minutes >= 0):
        raise ValueError(f"minutes must be a number >= 0, got {minutes!r}")
    if average is not None and not (is_number(average) and 0 < average < 1):
        raise ValueError(f"average must be a decay in (0, 1), such as 0.999, got {average!r}")
    if clip_norm is not None and not (is_number(clip_norm) and clip_norm > 0):
        raise ValueError(f"clip_norm must be a number above 0, got {clip_norm!r}")
    if validation_attack is not None and validation is None:
        raise ValueError("validation_attack needs a validation set: pass validation=, too")
    if validation_attack is not None and (not isinstance(validation_attack, Attack) or validation_attack.minimum_norm):
        raise ValueError(f"validation_attack must be an attack with a budget, such as PGD(eps=0.3); got "
                         f"{validation_attack!r}")
    if resume and path is None:
        raise ValueError("resume=True needs the file to go on from: pass checkpoint=, too")
    if path and path.exists() and not resume:
        raise ValueError(f"checkpoint {path} exists already: go on with resume=True, or remove it")
    if path and not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"checkpoint must be in a folder that exists, got {path}")
    if isinstance(extend, str):
        raise TypeError(f"extend must be a tuple of names, such as ({extend!r},), got {extend!r}")
    if unknown := set(extend) - set(EXTENDABLE):
        raise ValueError(f"extend may hold {' and '.join(map(repr, EXTENDABLE))}, got {', '.join(map(repr, unknown))}")


def check_augmented(found: Any, images: Array) -> Array:
    """What `augment` has made of the images: TypeError unless it is as many, in floating-point numbers."""
    fits = is_array(found) and found.ndim == images.ndim and len(found) == len(images)
    if not (fits and found.dtype.kind == "f"):
        made = f"{found.dtype} of shape {found.shape}" if is_array(found) else type(found).__name__
        raise TypeError(f"augment must return a floating-point array of {len(images)} images, as many as it is given; "
                        f"got {made}")
    return found
