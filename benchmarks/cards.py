"""A trained network measured and put into the zoo, with its card.

    python examples/madry_mnist.py --config examples/configs/mnist-madry-linf.toml
    python -m benchmarks.cards examples/configs/mnist-madry-linf.toml --weights mnist-madry-linf.npz

Measures the clean accuracy on the test set, PGD of 20, 40 and 100 steps, FGSM and MI-FGSM on its first --images, PGD
on the margin loss and with restarts on --few, and AutoAttack on --autoattack, and runs the sanity checks; the weights
are those of the file as the zoo rounds them. The settings give the budget ([evaluation] eps, norm) and the summary; the
seconds of training are those of the history beside the weights, a .csv file of the same name.
"""

from __future__ import annotations

import tinyadv  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import csv
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

from tinyadv import attacks, backend, data, evaluation, nn
from tinyadv.models import zoo


def table(eps: float, norm: str, options: argparse.Namespace) -> list[tuple[attacks.Attack, int]]:
    """The attacks of a card, each with the number of images that it is measured on."""
    step = {"step_size": 0.01} if norm == "linf" else {}
    pgd = [(attacks.PGD(eps=eps, steps=steps, norm=norm, **step), options.images) for steps in (20, 40, 100)]
    others = [
        (attacks.FGSM(eps=eps, norm=norm), options.images),
        (attacks.MIFGSM(eps=eps, norm=norm), options.images),
        (attacks.PGD(eps=eps, steps=100, norm=norm, loss="margin", **step), options.few),
        (attacks.PGD(eps=eps, steps=100, norm=norm, restarts=20, **step), options.few),
        (attacks.AutoAttack(eps=eps, norm=norm), options.autoattack),
    ]
    return pgd + others


def main(options: argparse.Namespace) -> None:
    name, settings = options.config.stem, zoo.settings(options.config)
    measured, summary = settings.pop("evaluation"), settings.pop("summary")
    here = f"{platform.processor() or platform.machine()}, {backend.usable_cores()} cores"
    with options.weights.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    options.folder.mkdir(exist_ok=True)  # before the hours of attacks
    train, test = data.mnist()
    model = nn.load(options.weights)
    facts = {"summary": summary, "settings": settings, "seconds": round(seconds), "version": tinyadv.__version__,
             "training": f"python examples/madry_mnist.py --config examples/configs/{options.config.name}",
             "machine": options.machine or here,
             "data": f"{train.name}, the first {len(train) - settings['held_out']:,} images"}
    with tempfile.TemporaryDirectory() as folder:  # what is measured is what is shipped
        zoo.publish(model, name, Path(folder), results=[], checks=[], **facts)
        model = nn.load(Path(folder) / f"{name}.npz")
    rows = [{"attack": "none", "images": len(test), "accuracy": evaluation.accuracy(model, test), "seed": 0}]
    for attack, images in table(measured["eps"], measured["norm"], options):
        subset = test[:images]
        accuracy = evaluation.robust_accuracy(model, attack, subset, seed=options.seed, progress=True)
        rows.append({"attack": str(attack), "images": len(subset), "accuracy": accuracy, "seed": options.seed})
        print(rows[-1], flush=True)
    checks = evaluation.sanity_checks(model, test[:200], seed=options.seed, **measured).checks
    print(zoo.publish(model, name, options.folder, results=rows, checks=[asdict(check) for check in checks], **facts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("config", type=Path, help="file of settings")
    parser.add_argument("--weights", type=Path, required=True, help="what the training has saved")
    parser.add_argument("--images", type=int, default=10_000, help="test images for the cheaper attacks")
    parser.add_argument("--few", type=int, default=1000, help="for the margin loss and for restarts")
    parser.add_argument("--autoattack", type=int, default=1000, help="for AutoAttack; 10,000 take an hour or two")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks")
    parser.add_argument("--machine", default="", help="on which it was trained, for the card")
    parser.add_argument("--folder", type=Path, default=zoo.FOLDER, help="of the zoo")
    main(parser.parse_args())
