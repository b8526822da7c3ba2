"""Wherever PGD starts, it ends at a loss of the same size; and on a robust network at a far lower one.

Figures 1 and 2 of Madry et al. (2018, arXiv:1706.06083): the loss at each step of PGD from 20 random starts for one
image, for a network trained on clean images and for an adversarially trained one; then, for five images, the final loss
from many starts. The last line says whether the claim holds: for each image and network, the standard deviation over
the starts is less than half of the mean, and the robust network's mean loss is less than a tenth of the other's.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots


def losses_by_step(attack, model, images, labels, options):
    """(N, steps): the losses of N images along PGD. A start is an example: each draws its own random numbers."""
    losses = np.empty((len(images), attack.steps))

    def watch(step):
        losses[step.examples, step.index] = step.losses.tolist()

    attack.run(model, images, labels, seed=options.seed, callback=watch, progress=True)
    return losses


def main(options):
    _, test = mnist_or_digits(options.limit)
    attack, few = attacks.PGD(eps=0.3, step_size=0.01, steps=options.steps + 1), test[:5]
    names = {"natural": options.natural, "robust": options.robust}
    ways, ends = {}, {}
    table = [["network", "image", "starts", "lowest", "median", "mean", "highest", "deviation"]]
    for name, file in names.items():
        model = models.zoo.load(file).to(options.device)
        print(f"{test.name}  {name} network: accuracy {evaluation.accuracy(model, test):.2%}")
        one, rows = np.zeros(options.ways, int), np.arange(len(few)).repeat(options.starts)
        ways[name] = np.arange(attack.steps), losses_by_step(attack, model, few.images[one], few.labels[one], options)
        final = losses_by_step(attack, model, few.images[rows], few.labels[rows], options)[:, -1]
        ends[name] = final.reshape(len(few), options.starts)
        table += [[name, f"a {label}", f"{options.starts:,}", *(f"{number:.3g}" for number in (
            each.min(), np.median(each), each.mean(), each.max(), each.std()))]
            for label, each in zip(few.labels, ends[name], strict=True)]

    figure = plots.blank(10, 7)
    top, bottom = figure.subfigures(2, 1)
    for part, (name, way) in zip(top.subfigures(1, 2), ways.items(), strict=True):
        plots.lines({name: way}, xlabel="steps", ylabel="cross entropy", figure=part,
                    title=f"{test.name}, a {few.labels[0]}: {options.ways} starts, {name} network")
    plots.histograms({f"a {label}": [ends[name][k] for name in names] for k, label in enumerate(few.labels)},
                     list(names), xlabel=f"cross entropy after {options.steps} steps", figure=bottom,
                     log=min(each.min() for each in ends.values()) > 0,
                     title=f"{test.name}: {options.starts:,} starts")
    figure.savefig(options.out)

    spread = max((each.std(axis=1) / each.mean(axis=1)).max() for each in ends.values())
    ratio = ends["robust"].mean() / ends["natural"].mean()
    verdict = "holds" if spread < 0.5 and ratio < 0.1 else "does not hold: take more steps, or train longer"
    conclude(options, test, {f"Loss after {options.steps} steps of PGD, eps 0.3, step 0.01": table},
             f"the losses deviate by up to {spread:.0%} of their mean, the robust network's mean loss is "
             f"{100 * ratio:.2g}% of the other's: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="loss_starts_mnist.png", natural="mnist-madry-natural", robust="mnist-madry-linf")
    parser.add_argument("--steps", type=at_least(1, int), default=100, help="of PGD, each of 0.01")
    parser.add_argument("--ways", type=at_least(1, int), default=20, help="starts whose loss is recorded at each step")
    parser.add_argument("--starts", type=at_least(1, int), default=1000, help="starts for each of five images")
    main(parser.parse_args())
