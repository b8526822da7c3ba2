"""Compare FGSM pixel by pixel with torchattacks and foolbox, on the slide CNN and all 10,000 MNIST test images.

    python -m benchmarks.fgsm_pixels --seeds 42 43 44     # trains for 3 epochs with each seed; compares with the first

A pixel may differ because a peer leaves the budget by a rounding (|x_adv - x| > eps in float64), which is counted, or
because its gradient is zero but for rounding: then a float64 gradient is the judge of whose sign is right.
"""

from __future__ import annotations

import argparse

import foolbox
import numpy as np
import torch
import torchattacks

from benchmarks.networks import torch_twin
from tinyadv import Tensor, attacks, data, evaluation, gradients, models, nn, ops, training


def trained(seed: int, train: data.Dataset, epochs: int) -> nn.Module:
    """The slide CNN after SGD of rate 0.01 on batches of 32."""
    model = models.SmallCNN(seed=seed)
    training.fit(model, train, epochs=epochs, optimizer=nn.optim.SGD(model, lr=0.01), batch_size=32, seed=seed)
    return model


def signs64(model: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sign of the loss gradient in float64 arithmetic."""
    wide = models.SmallCNN()
    for mine, its in zip(wide.parameters(), model.parameters(), strict=True):
        mine.data = its.data.astype(np.float64)
    signs = []
    for start in range(0, len(x), 100):
        part = Tensor(x[start : start + 100].astype(np.float64))
        loss = ops.cross_entropy(wide(part), y[start : start + 100], reduction="sum")
        signs.append(np.sign(gradients(loss, [part])[0]))
    return np.concatenate(signs)


def main() -> None:
    """Train, compare, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fgsm_pixels", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, help="number of test images")
    args = parser.parse_args()
    train, test = data.mnist()
    test = test[: args.limit]
    found = []
    for seed in args.seeds:
        found.append(trained(seed, train, args.epochs))
        print(f"{test.name}: seed {seed}, {args.epochs} epochs, accuracy {evaluation.accuracy(found[-1], test):.2%}")
    model, x, y = found[0], test.images, test.labels
    twin, judge = torch_twin(model), signs64(model, x, y)
    tx, ty = torch.tensor(x), torch.tensor(y)
    wrapped = foolbox.PyTorchModel(twin, bounds=(0, 1), device="cpu")
    for eps in (0.3, 0.1, 8 / 255):
        ours = attacks.FGSM(eps)(model, x, y)
        wide = ours.astype(np.float64) - x
        print(f"eps {eps:.4f}: max |x_adv - x| = {abs(wide).max()!r} <= eps: {abs(wide).max() <= eps}; "
              f"batch sizes 1, 7, 200 change "
              f"{[int((attacks.FGSM(eps)(model, x, y, batch_size=b) != ours).sum()) for b in (1, 7, 200)]} "
              f"of {ours.size:,} pixels; workers 1 and 2 agree: "
              f"{np.array_equal(attacks.FGSM(eps)(model, x, y, workers=1), attacks.FGSM(eps)(model, x, y, workers=2))}")
        peers = {"torchattacks": torchattacks.FGSM(twin, eps=eps)(tx, ty).detach().numpy()}
        fast = foolbox.attacks.LinfFastGradientAttack()
        peers["foolbox"] = fast(wrapped, tx, ty, epsilons=eps)[1].numpy()
        for name, theirs in peers.items():
            outside = abs(theirs.astype(np.float64) - x) > eps
            # Within the rounding of the box (an ulp of 1 is 1.2e-7) the two took the same step.
            other_step = abs(theirs - ours) > 2e-7
            own, their = (np.sign(z.astype(np.float64) - x)[other_step] for z in (ours, theirs))
            true = judge[other_step]
            print(f"  {name:12}: {int(outside.sum()):,} pixels outside the budget, by at most "
                  f"{(abs(theirs.astype(np.float64) - x) - eps).max():.1e}; {int((theirs != ours).sum()):,} differ, "
                  f"{int(other_step.sum())} by another step, where float64 sides with us in "
                  f"{int((own == true).sum())} and with them in {int((their == true).sum())}")


if __name__ == "__main__":
    main()
