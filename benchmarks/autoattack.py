"""AutoAttack beside the same attacks of torchattacks: robust accuracy and seconds, attack by attack.

    python -m benchmarks.autoattack --weights madry.npz --images 200 --eps 0.3

The weights are a model's saved by tinyadv, copied into PyTorch. torchattacks' own AutoAttack leaves its attacks at 10
steps, so they are put together here with the parameters of the paper: each on the images that none before has broken,
all of them in one batch, on as many threads as ours.
"""

from __future__ import annotations

import tinyadv  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import time

import numpy as np
import torch
import torchattacks

from benchmarks.networks import torch_twin
from tinyadv import attacks, data, nn
from tinyadv.backend import usable_cores


def ensemble(network: torch.nn.Module, eps: float, classes: int) -> dict[str, torchattacks.attack.Attack]:
    """The standard AutoAttack (Croce and Hein 2020, arXiv:2003.01690) in linf."""
    aimed = {"norm": "Linf", "eps": eps, "steps": 100, "n_classes": min(10, classes)}
    return {
        "APGD-CE": torchattacks.APGD(network, norm="Linf", eps=eps, steps=100, loss="ce"),
        "APGD-T": torchattacks.APGDT(network, **aimed),
        "FAB-T": torchattacks.FAB(network, **aimed, multi_targeted=True),
        "Square": torchattacks.Square(network, norm="Linf", eps=eps, n_queries=5000, resc_schedule=False),
    }


def by_torchattacks(network: torch.nn.Module, x: np.ndarray, y: np.ndarray, eps: float) -> list[tuple]:
    """A row for each attack, and one for all: its name, how many images are left, how many it broke, its seconds."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)

    def right(points: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network(points).argmax(dim=1) == classes

    with torch.no_grad():
        classes = network(images[:1]).shape[1]
    left = right(images, labels).nonzero()[:, 0]
    rows, first = [], len(left)
    for name, attack in ensemble(network, eps, classes).items():
        started, before = time.perf_counter(), len(left)
        if before:
            left = left[right(attack(images[left], labels[left]), labels[left])]
        rows.append((name, len(left), before - len(left), time.perf_counter() - started))
    return [*rows, ("all", len(left), first - len(left), sum(row[3] for row in rows))]


def main() -> None:
    """Parse the command line, run both, and print their tables and the ratio of their seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoattack", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", required=True, help="an .npz file of nn.save")
    parser.add_argument("--images", type=int, default=200, help="the first of the MNIST test images")
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0, help="of ours")
    args = parser.parse_args()
    torch.set_num_threads(usable_cores())
    model = nn.load(args.weights).eval()
    test = data.mnist()[1][: args.images]
    x, y = test.images, test.labels
    attack = attacks.AutoAttack(args.eps)
    result = attack.run(model, x, y, seed=args.seed, skip_misclassified=True, progress=True)
    print(f"tinyadv {tinyadv.__version__}, {usable_cores()} cores: {result.summary()}")
    rows = by_torchattacks(torch_twin(model), x, y, args.eps)
    print(f"\n{'':8}{'tinyadv':>18}{'torchattacks':>24}{'tinyadv is':>16}")
    print(f"{'':8}{'left':>8}{'seconds':>10}{'left':>14}{'seconds':>10}{'faster by':>16}")
    for (name, left, _, seconds, *_), (_, their_left, _, their_seconds) in zip(result.table, rows, strict=True):
        ratio = f"{their_seconds / seconds:.2f}" if seconds else "-"
        print(f"{name:8}{left:8}{seconds:10.1f}{their_left:14}{their_seconds:10.1f}{ratio:>16}")
    print(f"robust accuracy: {result.table[-1][1] / len(y):.4f} and {rows[-1][1] / len(y):.4f}")


if __name__ == "__main__":
    main()
