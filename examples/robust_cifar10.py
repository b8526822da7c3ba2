"""On CIFAR-10, too, PGD ends at about the same loss from every start, and more steps break few more images.

Table III and figure 6 of "Adversarial Machine Learning" (Vasquez Auqui, Chahua Salguera and Guimarey Saavedra,
undated): a robust ResNet under PGD within 8/255, by the number of steps of 2/255, and its loss at each. Figures 1, 2
and 6 of Madry et al. (2018, arXiv:1706.06083): the loss from many random starts, and accuracy by the budget, in l2 also
under the boundary attack (Brendel et al. 2018, arXiv:1712.04248). The last line says whether the claim holds: the
robust losses of an image deviate by less than 10% of their mean, and 100 steps break under 2 points more than 20.
"""

import numpy as np
from common import Ascending, arguments, at_least, cifar10_or_digits, conclude
from loss_starts_mnist import losses_by_step

from tinyadv import attacks, evaluation, models, plots

EPS = 8 / 255
PUBLISHED = {20: 0.425, 40: 0.468, 60: 0.446, 80: 0.416, 100: 0.415}
WAYS = 20  # starts of one image whose loss is drawn at each step
BUDGETS = {"linf": [k / 255 for k in (0, 1, 2, 4, 8, 12, 16, 24)], "l2": [0, 0.25, 0.5, 1, 1.5, 2, 3]}


def main(options):
    _, test = cifar10_or_digits(options.limit)
    networks = {name: models.zoo.load(getattr(options, name)).to(options.device) for name in ("natural", "robust")}
    subset, few, curves, ways, ends = test[:options.images], test[:options.few], {"linf": {}, "l2": {}}, {}, {}
    pgd, drawn = attacks.PGD(EPS, EPS / 4, options.steps[-1] + 1), min(WAYS, options.starts)
    for name, model in networks.items():
        print(f"{test.name}  {name}: accuracy on {len(test):,} images {evaluation.accuracy(model, test):.2%}")
        rows = np.arange(min(5, len(test))).repeat(options.starts)
        found = losses_by_step(pgd, model, test.images[rows], test.labels[rows], options)
        ends[name] = found[:, -1].reshape(-1, options.starts)
        ways[f"{name}: one image, {drawn} starts"] = np.arange(found.shape[1]), found[:drawn]
        mean = losses_by_step(pgd, model, subset.images, subset.labels, options).mean(axis=0)
        ways[f"{name}: mean of {len(subset):,} images"] = np.arange(len(mean)), mean
        for norm, budgets in BUDGETS.items():
            attack = attacks.PGD(budgets[-1], steps=options.steps[0], norm=norm)
            curves[norm][f"{name}: PGD"] = evaluation.epsilon_curve(model, attack, subset, budgets, seed=options.seed)
        curves["l2"][f"{name}: boundary, {len(few):,} images"] = evaluation.security_curve(
            model, attacks.BoundaryAttack(queries=options.queries), few, BUDGETS["l2"], seed=options.seed)
    left = {steps: evaluation.robust_accuracy(networks["robust"], attacks.PGD(EPS, EPS / 4, steps), subset,
                                              seed=options.seed, progress=True) for steps in options.steps}

    *rows, last = (figure := plots.blank(11, 10)).subfigures(3, 1)
    parts = [part for row in rows for part in row.subfigures(1, 2)]
    for part, name in zip(parts, networks, strict=False):
        plots.lines({way: line for way, line in ways.items() if way.startswith(name)}, xlabel="steps of PGD",
                    ylabel="cross entropy", title=f"{test.name}: {name}", figure=part)
    for part, (norm, several) in zip(parts[2:], curves.items(), strict=True):
        plots.epsilon_curve(several, title=f"{test.name}: {norm}, PGD with {options.steps[0]} steps", figure=part)
    plots.histograms({f"image {k + 1}": [ends[name][k] for name in networks] for k in range(len(ends["robust"]))},
                     list(networks), xlabel=f"cross entropy after {options.steps[-1]} steps", figure=last,
                     title=f"{test.name}: {options.starts} starts")
    figure.savefig(options.out)

    spread = max(float(each.std() / each.mean()) for each in ends["robust"])
    fall = left[options.steps[0]] - left[options.steps[-1]]
    verdict = "holds" if spread < 0.1 and fall < 0.02 else "does not hold: train longer"
    tables = {f"Within 8/255, {len(subset):,} images": [
        ["", *(f"{steps} steps" for steps in options.steps)], [options.robust, *left.values()],
        ["table III", *(PUBLISHED.get(steps, "") for steps in options.steps)]]}
    tables |= {f"PGD with {options.steps[0]} steps of 2.5 eps / {options.steps[0]}, {norm}, {len(subset):,} images": [
        ["network: attack", *(f"{255 * eps:g}/255" if norm == "linf" else f"{eps:g}" for eps in BUDGETS[norm])],
        *([name, *curve.values()] for name, curve in several.items())] for norm, several in curves.items()}
    tables[f"Loss after {options.steps[-1]} steps from {options.starts} starts"] = [
        ["network", "image", "lowest", "mean", "highest", "deviation"],
        *([name, f"{k + 1}", *(f"{number:.4g}" for number in (each.min(), each.mean(), each.max(), each.std()))]
          for name, several in ends.items() for k, each in enumerate(several))]
    conclude(options, test, tables, f"the robust network's losses of an image deviate by up to {spread:.1%} of their "
             f"mean, from {options.steps[0]} to {options.steps[-1]} steps it loses {fall:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="robust_cifar10.png", natural="cifar10-base-natural",
                       robust="cifar10-resnet20-linf")
    parser.add_argument("--steps", type=at_least(1, int), nargs="+", action=Ascending, default=[*PUBLISHED], help="PGD")
    parser.add_argument("--starts", type=at_least(1, int), default=200, help="random starts for each of five images")
    parser.add_argument("--queries", type=at_least(2, int), default=2000, help="of the boundary attack")
    parser.add_argument("--few", type=at_least(1, int), default=50, help="images for the boundary attack, at most")
    parser.add_argument("--images", type=at_least(1, int), default=400, help="test images to attack, at most")
    main(parser.parse_args())
