"""The nearest adversarial example beside adversarial-library (adv_lib), whose attacks are often their authors' own.

    python -m benchmarks.nearest [--networks mnist-slide-natural mnist-madry-linf] [--images 100] [--steps 100 400]

For each attack, from the same images and in as many steps: the share of successes, the median distance, and the seconds
a step of all images, best of the rounds, which run in turn; a ratio below 1 is in favour of tinyadv. adv_lib is not
among the installed peers, because it needs torchvision, which these attacks do not use: an empty one takes its place.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from typing import Any

import numpy as np
import torch

from benchmarks.networks import torch_twin
from tinyadv import attacks, backend, data, driver, models

NORMS = {"l0": 0, "l1": 1, "l2": 2, "linf": np.inf}
DUELS: list[tuple[str, str, str, dict[str, Any]]] = [  # our class, the norm, their function and its arguments
    ("DDN", "l2", "ddn", {"levels": None}),
    *(("FMN", norm, "fmn", {"norm": NORMS[norm], "α_init": 10 if norm == "linf" else 1}) for norm in NORMS),
    ("PDGD", "l2", "pdgd", {}),
    *(("PDPGD", norm, "pdpgd", {"norm": NORMS[norm]}) for norm in ("linf", "l2", "l1")),
    ("SigmaZero", "l0", "sigma_zero", {}),
]


def library() -> Any:
    for name in "torchvision", "torchvision.models", "visdom":
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]
    sys.modules["visdom"].Visdom = object  # type: ignore[attr-defined]
    import adv_lib.attacks
    return adv_lib.attacks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mnist-slide-natural", "mnist-madry-linf"])
    parser.add_argument("--attacks", nargs="+", help="such as DDN FMN; default: all")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 400])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    theirs_of = library()
    print(backend.describe(), f"\nPyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    for name in options.networks:
        ours, test = models.zoo.load(name), data.mnist()[1][:2 * options.images]
        right = np.flatnonzero(driver.logits(ours, test.images).argmax(axis=1) == test.labels)[:options.images]
        x, y, theirs = test.images[right], test.labels[right], torch_twin(ours).requires_grad_(False)
        given = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
        for kind, norm, function, arguments in DUELS:
            if options.attacks and kind not in options.attacks:
                continue
            for steps in options.steps:
                extra = {"norm": norm} if kind in ("FMN", "PDPGD") else {}
                attack = getattr(attacks, kind)(steps=steps, **extra)
                count = {"steps" if function in ("ddn", "fmn") else "num_steps": steps}
                seconds = np.full((2, options.rounds), np.inf)
                for k in range(options.rounds):
                    began = time.perf_counter()
                    result = attack.run(ours, x, y)
                    between = time.perf_counter()
                    found = getattr(theirs_of, function)(theirs, *given, **count, **arguments).detach()
                    seconds[:, k] = between - began, time.perf_counter() - between
                broken = (theirs(found).argmax(dim=1) != given[1]).numpy()
                distances = attacks.base.balls.ball_class(norm).distance(found.numpy().astype(np.float64) - x)
                medians = [np.median(np.where(success, far, np.inf)) for success, far in (
                    (result.success, result.distances), (broken, distances))]
                best = seconds.min(axis=1) / steps
                print(f"{name:20} {kind:9} {norm:4} {steps:4} steps: success {result.success.mean():.3f} beside "
                      f"{broken.mean():.3f}; median {medians[0]:.4g} beside {medians[1]:.4g}; "
                      f"ms a step {1000 * best[0]:.1f} beside {1000 * best[1]:.1f}, ratio {best[0] / best[1]:.2f}",
                      flush=True)


if __name__ == "__main__":
    main()
