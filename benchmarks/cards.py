"""Measure a trained network and publish it in the zoo, with its card; or measure AutoAttack's part of a card again.

    python examples/madry_mnist.py --config examples/configs/mnist-madry-linf.toml
    python -m benchmarks.cards examples/configs/mnist-madry-linf.toml --weights mnist-madry-linf.npz

The first command trains. The second measures the clean accuracy on the test set; PGD with 20, 40 and 100 steps, FGSM,
and MI-FGSM on the first --images; PGD on the margin loss and with restarts on the first --few; AutoAttack on the first
--autoattack; and the sanity checks. It measures the weights as the zoo rounds them. The settings give the budget
([evaluation] eps, norm) and the summary. The seconds of training come from the .csv file beside the weights, which has
the same name.

    python -m benchmarks.cards examples/configs/mnist-madry-linf.toml --autoattack 200

Without --weights, it measures only AutoAttack's part of the card, on the weights that the zoo ships: the accuracy that
AutoAttack leaves, its warnings, the accuracy that PGD with 100 steps leaves of the same images, and the accuracy that
AutoAttack leaves with 4/3 of the budget. Each card says of how many images.

If the training was for a certificate, it is measured, too: interval bounds on the test set. The attacks then run only
on images that are not certified: no attack within the budget changes the others. If the settings have a [certificate]
by votes, only that is measured, on the first --votes, at 0, which stands for the clean accuracy, and at half, once and
1.5 times [evaluation] eps.
"""

from __future__ import annotations

import tinyadv  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import csv
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyadv import attacks, backend, certify, data, evaluation, nn, training
from tinyadv.models import zoo
from tinyadv.random import Streams
from tinyadv.shapes import to_count

STEPS = {"mnist": 0.01, "cifar10": 2 / 255}  # of PGD in linf, as in Madry et al. (2018)


def table(pgd: attacks.PGD, options: argparse.Namespace) -> list[tuple[attacks.Attack, int]]:
    """The attacks of a card, each with the number of images that it is measured on; pgd has 100 steps."""
    return [
        *((replace(pgd, steps=steps), options.images) for steps in (20, 40, 100)),
        (attacks.FGSM(eps=pgd.eps, norm=pgd.norm), options.images),
        (attacks.MIFGSM(eps=pgd.eps, norm=pgd.norm), options.images),
        (replace(pgd, loss="margin"), options.few),
        (replace(pgd, restarts=20), options.few),
    ]


def left(model: nn.Module, attack: attacks.Attack, test: data.Dataset, proven: np.ndarray,
         seed: int) -> tuple[float, attacks.AttackResult]:
    """The fraction of the images that are right under the attack, and its result on those that are not proven to be.

    Each image draws what it would draw if all were attacked. AutoAttack's warnings are about the images it attacked.
    """
    others = np.flatnonzero(~proven[:len(test)])
    result = attack.run(model, test.images[others], test.labels[others], seed=Streams(seed, others),
                        skip_misclassified=True, progress=True)
    return (len(test) - len(others) + int(result.robust.sum())) / len(test), result


def autoattack(model: nn.Module, test: data.Dataset, pgd: attacks.PGD, proven: np.ndarray, seed: int) -> dict[str, Any]:
    """AutoAttack's part of a card: see zoo.Card."""
    attack = attacks.AutoAttack(eps=pgd.eps, norm=pgd.norm)
    accuracy, result = left(model, attack, test, proven, seed)
    beyond = attack.with_eps(float(f"{pgd.eps * 4 / 3:.3g}"))
    return {"images": len(test), "seed": seed, "accuracy": accuracy, "pgd": left(model, pgd, test, proven, seed)[0],
            "beyond": str(beyond),
            "accuracy_beyond": evaluation.robust_accuracy(model, beyond, test, seed=seed, progress=True),
            "warnings": list(result.warnings)}


def row(pgd: attacks.PGD, found: dict[str, Any]) -> dict[str, Any]:
    """AutoAttack's row among the results of a card."""
    return {"attack": str(attacks.AutoAttack(eps=pgd.eps, norm=pgd.norm)),
            **{key: found[key] for key in ("images", "accuracy", "seed")}}


def with_intervals(settings: dict[str, Any]) -> bool:
    """Whether the network was trained with interval bounds."""
    return issubclass(getattr(training, settings["method"]["class"]), training.Certified)


def intervals(model: nn.Module, test: data.Dataset, settings: dict[str, Any], eps: float) -> np.ndarray:
    """(N,) bool: the images that interval bounds prove, if the network was trained with them; else none."""
    if not with_intervals(settings):
        return np.zeros(len(test), bool)
    return certify.certified_accuracy(model, test, eps).certified


def certificates(model: nn.Module, test: data.Dataset, settings: dict[str, Any], options: argparse.Namespace,
                 proven: np.ndarray, *, eps: float, norm: str) -> list[dict[str, Any]]:
    """The rows of what is proven: by the votes of the settings, or by intervals."""
    if (votes := settings.get("certificate")) is not None:
        certificate = getattr(certify, votes["class"])(**{key: votes[key] for key in votes if key != "class"})
        subset, radii = test[:options.votes], [0, eps / 2, eps, eps * 1.5]
        method = str(certificate)
        shares = certificate.certify(model, subset, seed=options.seed, progress=True).curve(radii)
    else:
        subset, method, shares = test, "ibp", {eps: float(proven.mean())} if with_intervals(settings) else {}
    return [{"method": method, "norm": norm, "radius": float(radius), "images": len(subset), "accuracy": share,
             "seed": options.seed} for radius, share in shares.items()]


def attacked(model: nn.Module, test: data.Dataset, pgd: attacks.PGD, proven: np.ndarray,
             options: argparse.Namespace) -> dict[str, Any]:
    """The other fields of a card that are measured, on a network that classifies images as they are."""
    rows = [{"attack": "none", "images": len(test), "accuracy": evaluation.accuracy(model, test), "seed": 0}]
    for attack, images in table(pgd, options):
        subset = test[:images]
        rows.append({"attack": str(attack), "images": len(subset), "seed": options.seed,
                     "accuracy": left(model, attack, subset, proven, options.seed)[0]})
        print(rows[-1], flush=True)
    found = autoattack(model, test[:options.autoattack], pgd, proven, options.seed)
    rows.append(row(pgd, found))
    checks = evaluation.sanity_checks(model, test[:200], seed=options.seed, eps=pgd.eps, norm=pgd.norm).checks
    return {"results": rows, "autoattack": found, "checks": [asdict(check) for check in checks]}


def main(options: argparse.Namespace) -> None:
    name = options.config.stem
    try:  # what can be wrong before the hours of attacks
        for count in ("images", "few", "autoattack", "votes"):
            to_count(f"--{count}", getattr(options, count))
        settings, epochs = zoo.settings(options.config), []
        if options.weights is None:
            zoo.card(name)
        else:
            options.weights.stat()  # the error is to name the file that was given
            epochs = list(csv.DictReader(options.weights.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    measured, summary = settings.pop("evaluation"), settings.pop("summary")
    source, votes = settings.get("data", "mnist"), "certificate" in settings
    train, test = getattr(data, source)()
    pgd = None if votes else attacks.PGD(
        **measured, steps=100, step_size=STEPS[source] if measured["norm"] == "linf" else None)
    if options.weights is None and pgd is None:
        sys.exit(f"{options.config}: a network for votes has no part of AutoAttack; give its --weights")
    if options.weights is None:
        model, subset = zoo.load(name), test[:options.autoattack]
        found = autoattack(model, subset, pgd, intervals(model, subset, settings, pgd.eps), options.seed)
        card, anew = zoo.card(name), row(pgd, found)
        rows = [max(anew, each, key=lambda one: one["images"]) if each["attack"] == anew["attack"] else each
                for each in card.results]  # of AutoAttack that of more images
        zoo.write(card := replace(card, autoattack=found, results=rows), options.folder)
        print(card)
        return
    here = f"{platform.processor() or platform.machine()}, {backend.usable_cores()} cores"
    seconds = sum(float(epoch["seconds"]) for epoch in epochs)
    options.folder.mkdir(exist_ok=True)  # before the hours of attacks
    model = nn.load(options.weights)
    facts = {"summary": summary, "settings": settings, "seconds": round(seconds), "version": tinyadv.__version__,
             "training": f"python examples/madry_{source}.py --config examples/configs/{options.config.name}",
             "machine": options.machine or here,
             "data": f"{train.name}, the first {len(train) - settings['held_out']:,} images"}
    with tempfile.TemporaryDirectory() as folder:  # what is measured is what is shipped
        zoo.publish(model, name, Path(folder), results=[], autoattack={}, checks=[], certificates=[], **facts)
        model = nn.load(Path(folder) / f"{name}.npz")
    proven = intervals(model, test, settings, measured["eps"])
    certified = certificates(model, test, settings, options, proven, **measured)
    if pgd is None:
        rows = [{"attack": "none", **{key: certified[0][key] for key in ("images", "accuracy", "seed")}}]
        facts |= {"results": rows, "autoattack": {}, "checks": []}
    else:
        facts |= attacked(model, test, pgd, proven, options)
    print(zoo.publish(model, name, options.folder, certificates=certified, **facts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("config", type=Path, help="file of settings")
    parser.add_argument("--weights", type=Path, help="what the training has saved; without it, see above")
    parser.add_argument("--images", type=int, default=10_000, help="test images for the cheaper attacks")
    parser.add_argument("--few", type=int, default=1000, help="for the margin loss and for restarts")
    parser.add_argument("--autoattack", type=int, default=1000, help="for AutoAttack; 10,000 take an hour or two")
    parser.add_argument("--votes", type=int, default=500, help="for a certificate by votes")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks and votes")
    parser.add_argument("--machine", default="", help="on which it was trained, for the card")
    parser.add_argument("--folder", type=Path, default=zoo.FOLDER, help="of the zoo")
    main(parser.parse_args())
