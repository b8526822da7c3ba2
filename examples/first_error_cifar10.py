"""On CIFAR-10 LeNet's first error along a gradient is nearly the nearest there is, a robust network's is not.

Figures 13 and 14 of Kelley and Fritz (2021), on CIFAR-10: the first eps at which an image is misclassified on its way
along the sign of its gradient (FGSM) and along the gradient over its norm (FGM), for their LeNet and for a robust
network. Beside it stands the nearest error that FAB finds (Croce and Hein 2020, arXiv:1907.02044). On MNIST both are
far: first_error_mnist.py. The last line says whether the claim holds: in both norms, the median of LeNet's first errors
is less than 1.25 times that of FAB, and the robust network's is more.
"""

import numpy as np
from common import arguments, at_least, cifar10_or_digits, conclude
from first_error_mnist import NORMS, draw_one

from tinyadv import analysis, attacks, evaluation, models, plots


def main(options):
    _, test = cifar10_or_digits(options.limit)
    few, curves, rows = test[:options.images], {norm: {} for norm in NORMS}, []
    figure = plots.blank(11, 7)
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 3])
    for name in options.natural, options.robust:
        model = models.zoo.load(name).to(options.device)
        print(f"{test.name}  {name}: accuracy {evaluation.accuracy(model, test):.2%}")
        first = {norm: analysis.first_error(model, few.images, norm, few.labels) for norm in NORMS}
        if not rows:
            draw_one(model, few, first, top)
        for norm, way in NORMS.items():
            fab = attacks.FAB(steps=options.steps, norm=norm).run(model, few.images, few.labels, seed=options.seed,
                                                                   progress=True)
            nearest = np.where(fab.success, fab.distances, np.inf)
            rows.append([name, way, np.median(first[norm]), np.isinf(first[norm]).mean(), np.median(nearest)])
            for what, where in (way, first[norm]), ("FAB", nearest):
                eps = np.append(0, np.sort(where[np.isfinite(where)])[:int(0.95 * len(where))])
                curves[norm][f"{name}, {what}"] = eps, [100 * float((where <= each).mean()) for each in eps]
    for part, (norm, lines) in zip(bottom.subfigures(1, 2), curves.items(), strict=True):
        plots.lines(lines, xlabel=f"eps, {norm}", ylabel="images with an error (%)", figure=part,
                    title=f"Along the direction of {NORMS[norm]}, and nearest")
    figure.savefig(options.out)
    ratios = [min(row[2], 1e9) / max(row[4], 1e-9) for row in rows]  # LeNet's, then the robust network's
    table = [[*names, f"{first:.3g}", float(missing), f"{nearest:.3g}"] for *names, first, missing, nearest in rows]
    verdict = "holds" if max(ratios[:2]) < 1.25 < min(ratios[2:]) else "does not hold: take more images"
    conclude(options, test, {f"First errors along a gradient, and the nearest by FAB, {len(few)} images": [
        ["network", "direction", "median eps", "without error", "median of FAB"], *table]},
        f"along the gradient, LeNet's medians are up to {max(ratios[:2]):.2f} times those of FAB, the robust network's "
        f"{min(ratios[2:]):.2f} times and more: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="first_error_cifar10.png", natural="cifar10-lenet-natural",
                       robust="cifar10-resnet20-linf")
    parser.add_argument("--steps", type=at_least(1, int), default=50, help="of FAB")
    parser.add_argument("--images", type=at_least(1, int), default=100, help="test images, at most")
    main(parser.parse_args())
