"""The digits of MNIST are not equally frequent, the classes of CIFAR-10 are.

Figures 1 to 4 of Kelley and Fritz (2021): images of both training sets, drawn at random, with their labels, and the
distribution of the classes. They say that the 1 is the most frequent digit, and that each class of CIFAR-10 has exactly
as many images as any other. The last line says whether the claim holds, for the training and the test sets: the 1 is
the most frequent digit of both sets of MNIST, and all classes of CIFAR-10 have the same number of images.
"""

import numpy as np
from common import all_classes, arguments, at_least, cifar10_or_digits, conclude, mnist_or_digits

from tinyadv import plots


def draw(train, counts, options, figure):
    """Random images with their labels on the left, the share of each class on the right."""
    left, right = figure.subfigures(1, 2, width_ratios=[7, 5])
    columns = min(10, len(train))
    shape = min(options.rows, len(train) // columns), columns
    some = train[np.random.default_rng(options.seed).choice(len(train), shape, replace=False).ravel()]
    names = np.array(train.classes)
    plots.grid(some.images.reshape(*shape, *some.images.shape[1:]), figure=left, title=train.name,
               captions=names[some.labels].reshape(shape))
    shares = {name: 100 * count / sum(count) for name, count in zip(("training", "test"), counts, strict=True)}
    staggered = [name if k % 2 == 0 or len(name) < 3 else f"\n{name}" for k, name in enumerate(names)]
    plots.bars(shares, staggered, ylabel="share of the images (%)", figure=right)


def main(options):
    sets = {"CIFAR-10": cifar10_or_digits(options.limit), "MNIST": mnist_or_digits(options.limit)}
    all_classes(*sets["CIFAR-10"], *sets["MNIST"])
    counts = {name: [np.bincount(each.labels, minlength=10) for each in both] for name, both in sets.items()}
    figure, tables = plots.blank(12, 1 + 1.4 * options.rows), {}
    for part, name in zip(figure.subfigures(2, 1), ("MNIST", "CIFAR-10"), strict=True):
        both = sets[name]
        draw(both[0], counts[name], options, part)
        tables[f"Images of each class, {both[0].name} and {both[1].name}"] = [
            ["class", "training", "share", "test", "share"],
            *([label, f"{a:,}", a / len(both[0]), f"{b:,}", b / len(both[1])]
              for label, a, b in zip(both[0].classes, *(each.tolist() for each in counts[name]), strict=True))]
    figure.savefig(options.out)
    ones = all(count.argmax() == 1 for count in counts["MNIST"])
    ratio, other = (max(count.max() / count.min() for count in counts[name]) for name in ("MNIST", "CIFAR-10"))
    verdict = "holds" if ones and other == 1 else "does not hold: take all images of both sets"
    conclude(options, sets["MNIST"][1], tables, f"the most frequent digit has {ratio:.2f} times the images of the "
             f"rarest one, the classes of the photographs differ by a factor of {other:.2f}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="data_sets.png", trains=False)
    parser.add_argument("--rows", type=at_least(1, int), default=3, help="rows of ten images of each set")
    main(parser.parse_args())
