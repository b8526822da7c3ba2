"""What the examples share: the digits, the network of fgsm_mnist.py, ready trained, and the options of all."""

import argparse
import json
import re
import sys
import time
from pathlib import Path
from textwrap import indent

from tinyadv import backend, data, evaluation, models, nn, training
from tinyadv.nn.table import percent, table

STARTED = time.perf_counter()


def mnist_or_digits(limit):
    """The training and the test set of MNIST or, where it is not to be had, of the built-in digits."""
    try:
        train, test = data.mnist()
    except data.DataUnavailable as error:
        print(f"{error}\n\nMNIST is not to be had here: going on with the built-in digits instead.\n")
        train, test = data.digits()
    print(f"{train[:limit]}\n{test[:limit]}\n")
    return train[:limit], test[:limit]


def slide_cnn(train, test, options):
    """The network of fgsm_mnist.py, trained as it is there."""
    model = models.SmallCNN(seed=options.seed).to(options.device)
    history = training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.SGD(model, lr=0.01),
                           batch_size=32, seed=options.seed, progress=True)
    print(indent(repr(history), f"{train.name}  "))
    print(f"\n{test.name}  accuracy on {len(test):,} images: {evaluation.accuracy(model, test):.2%}\n")
    return model


def conclude(options, dataset, tables, verdict):
    """Print tables {title: rows, the first of them the head} and the verdict; keep them in a file beside the figure."""
    for title, rows in tables.items():
        lines = table([[percent(cell) if isinstance(cell, float) else cell for cell in row] for row in rows], "<")
        print(*(f"{dataset.name}  {line}" for line in (title, *lines)), "", sep="\n")
    command = re.sub(r" --out[ =]\S+", "", " ".join(["python", f"examples/{Path(sys.argv[0]).name}", *sys.argv[1:]]))
    facts = {"data": repr(dataset), "verdict": verdict, "tables": tables, "command": command, "seed": options.seed,
             "seconds": round(time.perf_counter() - STARTED), "machine": backend.describe().splitlines()}
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{dataset.name}  figure: {options.out}\n{dataset.name}  {verdict}")


def arguments(description, out, **networks):
    """A parser of the options that all examples have; without a network of the zoo for an option, --epochs too."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in networks.items():
        parser.add_argument(f"--{name}", choices=models.zoo.names(), default=default, help="a network of models.zoo")
    if not networks:
        parser.add_argument("--epochs", type=at_least(1, int), default=3, help="passes over the training images")
    parser.add_argument("--limit", type=at_least(1, int), default=60_000, help="images of each set, at most")
    parser.add_argument("--device", type=device, default="cpu", help="where to compute: cpu or cuda")
    parser.add_argument("--seed", type=at_least(0, int), default=42, help="of initial weights and all else drawn")
    parser.add_argument("--out", type=Path, default=out, help="file of the figure")
    return parser


def at_least(low, kind):
    """An argparse type: a finite number of this kind, from `low` up."""
    def number(text):
        if low <= (value := kind(text)) < float("inf"):
            return value
        raise argparse.ArgumentTypeError(f"must be a number >= {low}, got {text}")
    return number


def device(name):
    """An argparse type: a device that is there."""
    try:
        nn.Linear(1, 1).to(name)
    except (RuntimeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # it says what is missing
    return name
