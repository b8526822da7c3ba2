"""One step along the sign of the gradient halves the accuracy of a network that reads digits well.

The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572), x_adv = x + eps * sign(gradient of
the loss at x), against a small CNN trained on MNIST, with one eps after the other. The last line says
whether the first is true: over 90% of the clean images right, and less than half of that at the largest eps.
"""

import argparse
import math
import sys
from pathlib import Path
from textwrap import indent

from tinyadv import attacks, data, evaluation, models, nn, plots, training


def main(options):
    try:
        train, test = data.mnist()
    except data.DataUnavailable as error:
        print(f"{error}\n\nMNIST is not to be had here: going on with the built-in digits instead.\n")
        train, test = data.digits()
    train, test = train[:options.limit], test[:options.limit]
    print(f"{train}\n{test}\n")

    try:
        model = models.SmallCNN(seed=options.seed).to(options.device)
    except RuntimeError as error:  # no such device: the message says what is missing
        sys.exit(str(error))
    model.summary()

    optimizer = nn.optim.SGD(model, lr=0.01)
    history = training.fit(model, train, epochs=options.epochs, optimizer=optimizer, batch_size=32,
                           seed=options.seed, progress=True)
    clean = evaluation.accuracy(model, test)
    print("\n" + indent(repr(history), f"{train.name}  "))
    print(f"\n{test.name}  accuracy on {len(test):,} images: {clean:.2%}")

    eps = max(options.eps)
    attack = attacks.FGSM(eps=eps)
    examples = test[:3]
    adversarial = attack(model, examples.images, examples.labels)
    curve = evaluation.epsilon_curve(model, attack, test, options.eps)
    print(f"\n{test.name}     eps  accuracy under FGSM")
    for budget, accuracy in curve.items():
        print(f"{test.name}  {budget:6g}  {accuracy:.2%}")

    figure = plots.blank(9, 5)
    left, right = figure.subfigures(1, 2)
    title = f"{test.name}: FGSM, ε = {eps:g}"
    plots.adversarial_triples(model, examples, adversarial, title=title, figure=left)
    plots.epsilon_curve({"FGSM": curve}, title=f"{test.name}: accuracy under FGSM", figure=right)
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    verdict = "holds" if clean > 0.9 and curve[eps] < clean / 2 else "does not hold: train longer, raise eps"
    print(f"{test.name}  accuracy {clean:.2%}, with eps {eps:g} {curve[eps]:.2%}: the claim {verdict}")


def at_least(low, kind):
    """An argparse type: a finite number of this kind, from `low` up."""
    def number(text):
        value = kind(text)
        if not low <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be a number >= {low}, got {text}")
        return value
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=at_least(1, int), default=3, help="passes over the training images")
    parser.add_argument("--eps", type=at_least(0, float), nargs="+", help="largest change of a pixel",
                        default=[0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    parser.add_argument("--limit", type=at_least(1, int), default=60_000, help="images of each set, at most")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    parser.add_argument("--seed", type=at_least(0, int), default=42, help="of initial weights and shuffling")
    parser.add_argument("--out", type=Path, default="fgsm_mnist.png", help="file of the figure")
    main(parser.parse_args())
