"""What the examples share: the data, the trained network of fgsm_mnist.py, and saved tables."""

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import numpy as np
from checks import Ascending as Ascending
from checks import all_classes as all_classes
from checks import at_least as at_least
from checks import right_ones as right_ones
from options import arguments as arguments

from tinyadv import backend, data, evaluation, models, nn, training
from tinyadv.nn.table import percent, table

STARTED = time.perf_counter()


def mnist_or_digits(limit):
    """The training set and the test set of MNIST; if MNIST cannot be found, those of the built-in digits."""
    try:
        train, test = data.mnist()
    except data.DataUnavailable as error:
        print(f"{error}\n\nMNIST was not found: going on with the built-in digits instead.\n")
        train, test = data.digits()
    print(f"{train[:limit]}\n{test[:limit]}\n")
    return train[:limit], test[:limit]


def cifar10_or_digits(limit):
    """The training set and the test set of CIFAR-10; if it cannot be found, the built-in digits in its shape."""
    try:
        sets = data.cifar10()
    except data.DataUnavailable as error:
        print(f"{error}\n\nCIFAR-10 was not found: going on with the built-in digits instead.\n")
        sets = [replace(digits, images=np.pad(digits.images, ((0, 0), (0, 0), (2, 2), (2, 2))).repeat(3, axis=1))
                for digits in data.digits()]  # (N, 3, 32, 32)
    train, test = (each[:limit] for each in sets)
    print(f"{train}\n{test}\n")
    return train, test


def spread(dataset, count):
    """So many images, or all if there are fewer: every k-th, because the first test images are not like the rest."""
    return dataset[::max(1, len(dataset) // count)][:count]


def slide_cnn(train, test, options):
    """The "slide CNN", the network of fgsm_mnist.py (see models.SmallCNN), trained in the same way."""
    model = models.SmallCNN(seed=options.seed).to(options.device)
    history = training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.SGD(model, lr=0.01),
                           batch_size=32, seed=options.seed, progress=True)
    print(indent(repr(history), f"{train.name}  "))
    print(f"\n{test.name}  accuracy on {len(test):,} images: {evaluation.accuracy(model, test):.2%}\n")
    return model


def conclude(options, dataset, tables, verdict):
    """Print the tables, {title: rows with the head first}, and the verdict; save both beside the figure."""
    for title, rows in tables.items():
        lines = table([[percent(cell) if isinstance(cell, float) else cell for cell in row] for row in rows], "<")
        print(*(f"{dataset.name}  {line}" for line in (title, *lines)), "", sep="\n")
    command = re.sub(r" --out[ =]\S+", "", " ".join(["python", f"examples/{Path(sys.argv[0]).name}", *sys.argv[1:]]))
    facts = {"data": repr(dataset), "verdict": verdict, "tables": tables, "command": command, "seed": options.seed,
             "seconds": round(time.perf_counter() - STARTED), "machine": backend.describe().splitlines()}
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{dataset.name}  figure: {options.out}\n{dataset.name}  {verdict}")
