"""Wherever it starts, PGD reaches about the same loss; and with enough steps it leaves no image right.

Projected gradient descent (Madry et al. 2018, arXiv:1706.06083), x <- project(x + step_size * sign(gradient of the loss
at x)), starts from a random point within eps. The figure shows the loss at each step from many starts for each of a few
images, like the first figure of the paper, and the accuracy against the number of steps. The last line says whether the
claim holds: the loss from every start ends above half of the highest one, and less than 1% of the images are right.
"""

from dataclasses import replace

import numpy as np
from common import arguments, at_least, mnist_or_digits, slide_cnn

from tinyadv import attacks, evaluation, plots


def main(options):
    train, test = mnist_or_digits(options.limit)
    model = slide_cnn(train, test, options)
    attack = attacks.PGD(eps=options.eps, step_size=options.step_size, steps=max(options.steps))

    few = test[:3]
    rows = np.arange(len(few)).repeat(options.starts)  # a start is an example: each draws its own random numbers
    losses = np.empty((len(rows), attack.steps))

    def record(step):
        losses[step.examples, step.index] = step.losses.tolist()

    result = attack.run(model, few.images[rows], few.labels[rows], seed=options.seed, callback=record, progress=True)
    ways = losses.reshape(len(few), options.starts, attack.steps)
    for k, way in enumerate(ways):
        print(f"{test.name}  image {k}, a {few.labels[k]}: loss {way[:, 0].max():.3g} at most at the start, from "
              f"{way[:, -1].min():.3g} to {way[:, -1].max():.3g} after {attack.steps - 1} steps")
    print(f"{test.name}  of these {len(rows)} images {result.success.mean():.0%} are misclassified")

    subset = test[:options.images]
    accuracies = {0: evaluation.accuracy(model, subset)}
    for steps in options.steps:
        accuracies[steps] = evaluation.robust_accuracy(model, replace(attack, steps=steps), subset,
                                                       seed=options.seed, progress=True)
    print(f"\n{test.name}  steps  accuracy under PGD, eps {attack.eps:g}, on {len(subset):,} images")
    for steps, accuracy in accuracies.items():
        print(f"{test.name}  {steps:5}  {accuracy:.2%}")

    figure = plots.blank(5, 6.5)
    top, bottom = figure.subfigures(2, 1)
    curves = {f"image {k}, a {few.labels[k]}": (np.arange(attack.steps), way) for k, way in enumerate(ways)}
    plots.lines(curves, xlabel="steps", ylabel="cross entropy", figure=top,
                title=f"{test.name}: {options.starts} starts of PGD, ε = {attack.eps:g}")
    percents = [100 * accuracy for accuracy in accuracies.values()]
    plots.lines({"PGD": (list(accuracies), percents)}, xlabel="steps", ylabel="accuracy (%)", figure=bottom,
                title=f"{test.name}: accuracy under PGD, ε = {attack.eps:g}")
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    ends, left = ways[:, :, -1], accuracies[attack.steps]
    agreement = (ends.min(axis=1) / ends.max(axis=1)).min()
    verdict = "holds" if agreement > 0.5 and left < 0.01 else "does not hold: take more steps, raise eps"
    print(f"{test.name}  the loss ends above {agreement:.0%} of the highest, {left:.2%} are right: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="pgd_mnist.png")
    parser.add_argument("--eps", type=at_least(0, float), default=0.3, help="largest change of a pixel")
    parser.add_argument("--step-size", type=at_least(1e-9, float), default=0.01, help="of one step, for each pixel")
    parser.add_argument("--steps", type=at_least(1, int), nargs="+", default=[5, 10, 20, 40, 60, 80, 100],
                        help="an accuracy for each of these numbers of steps")
    parser.add_argument("--starts", type=at_least(1, int), default=20, help="random starts for each of 3 images")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    main(parser.parse_args())
