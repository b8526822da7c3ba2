"""What the examples check: their options, before the work begins, and that there are images enough for it."""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from tinyadv import evaluation, nn


def at_least(low, kind):
    """An argparse type: a finite number of this kind, at least `low`."""
    def number(text):
        if low <= (value := kind(text)) < float("inf"):
            return value
        raise argparse.ArgumentTypeError(f"must be a number >= {low}, got {text}")
    return number


def device(name):
    """An argparse type: a device that can be used."""
    try:
        nn.Linear(1, 1).to(name)
    except (RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # it says what is missing
    return name


def figure(name):
    """An argparse type: a file for a figure, in a folder where files can be written."""
    path = Path(name)
    if path.suffix not in (".pdf", ".png", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .pdf, .png or .svg, got {name}")
    folder = path.parent  # other files go there, too
    for where, place in ("a file in a folder", folder), ("a file", path if path.exists() else folder):
        if path.is_dir() or not os.access(place, os.W_OK):
            raise argparse.ArgumentTypeError(f"must be {where} that can be written to, got {name}")
    return path


class Ascending(argparse.Action):
    """For an option of several numbers to compare: sorted, each once, and at least two."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(set(values)) < 2:
            parser.error(f"{option_string} needs two different numbers or more, to compare")
        setattr(namespace, self.dest, sorted(set(values)))


def all_classes(*sets, raised="--limit"):
    """End the example, before its training, if a data set lacks a class; raised: the option that gives it more."""
    for each in sets:
        if missing := sorted(set(range(10)) - set(each.labels.tolist())):
            sys.exit(f"{each.name}: no image of class {', '.join(map(str, missing))} among {len(each)}: raise {raised}")


def right_ones(model, test, count):
    """The first so many of the test images that the model gets right; without any, the example ends."""
    right = np.flatnonzero(evaluation.predict(model, test.images) == test.labels)[:count]
    if not len(right):
        sys.exit("no test image is right: train longer, or raise --limit")
    return test[right]
