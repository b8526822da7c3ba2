"""The first error along one gradient is no distance: where images seem to have none, a search finds one nearby.

Figures 13 and 14 of Kelley and Fritz (2021), on MNIST: the first eps at which an image is misclassified on its way
along the sign of its gradient (FGSM) and along the gradient over its norm (FGM). They remark that FGM needs the larger
eps: but its eps is the l2 norm of the whole change, that of FGSM the largest change. Beside it stands the nearest error
that FAB finds (Croce and Hein 2020, arXiv:1907.02044). The last line says whether the claim holds: for the network that
is not robust, the median of the first errors is in both norms at least 1.25 times that of FAB; for the robust one, half
of the images or more have no error along the gradient in l2, but FAB finds one for each of them.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import analysis, attacks, evaluation, models, plots

NORMS, FARTHEST, SHARES = {"linf": "FGSM", "l2": "FGM"}, {"linf": 0.6, "l2": 6}, (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3)


def draw_one(model, dataset, first, figure):
    """The first image that errs in both directions, and not from the beginning: up to its first error and beyond."""
    k = ((first["linf"] > 0) & np.isfinite(first["linf"]) & np.isfinite(first["l2"])).argmax(keepdims=True)
    one, images, texts = dataset[k], [], []
    for norm in NORMS:
        for share in SHARES:
            eps = share * min(float(first[norm][k[0]]), FARTHEST[norm])
            images.append(attacks.FGSM(eps, norm=norm)(model, one.images, one.labels)[0])
            texts.append(f"eps {eps:.3g}: {evaluation.predict(model, images[-1][None])[0]}")
    shape = len(NORMS), len(SHARES)
    plots.grid(np.reshape(images, (*shape, *one.images.shape[1:])), rows=list(NORMS.values()), figure=figure,
               columns=[f"× {share:g}" for share in SHARES], captions=np.reshape(texts, shape),
               title=f"{dataset.name}, natural network: shares of the eps of the first error, and the predicted class")


def main(options):
    _, test = mnist_or_digits(options.limit)
    few, networks = test[:options.images], {"natural": options.natural, "robust": options.robust}
    figure, curves, found = plots.blank(11, 7), {norm: {} for norm in NORMS}, {}
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 3])
    for name, file in networks.items():
        model = models.zoo.load(file).to(options.device)
        print(f"{test.name}  {name} network: accuracy {evaluation.accuracy(model, test):.2%}")
        first = {norm: analysis.first_error(model, few.images, norm, few.labels) for norm in NORMS}
        if name == "natural":
            draw_one(model, few, first, top)
        for norm, way in NORMS.items():
            fab = attacks.FAB(steps=options.steps, norm=norm).run(model, few.images, few.labels, seed=options.seed,
                                                                   progress=True)
            found[name, way] = each = first[norm], np.where(fab.success, fab.distances, np.inf)
            eps = np.linspace(0, FARTHEST[norm], 16)
            curves[norm] |= {f"{name}, {what}": (eps, 100 * (eps[:, None] < where).mean(axis=1))
                             for what, where in zip((way, "FAB"), each, strict=True)}
    for part, (norm, lines) in zip(bottom.subfigures(1, 2), curves.items(), strict=True):
        plots.lines(lines, xlabel=f"eps, {norm}", ylabel="images without error so far (%)", figure=part,
                    title=f"Along the direction of {NORMS[norm]}, and nearest")
    figure.savefig(options.out)
    rows = [[*key, *(cell for each in pair for cell in (f"{np.median(each):.3g}", float(np.isinf(each).mean())))]
            for key, pair in found.items()]
    ratio = min(np.median(first) / np.median(nearest) for (name, _), (first, nearest) in found.items()
                if name == "natural")
    none, fails = (float(np.isinf(each).mean()) for each in found["robust", "FGM"])
    verdict = "holds" if ratio >= 1.25 and none >= 0.5 and fails == 0 else "does not hold: take more steps of FAB"
    conclude(options, test, {f"First errors along a gradient, and the nearest by FAB, {len(few)} images": [
        ["network", "direction", "median eps", "without error", "median of FAB", "FAB fails"], *rows]},
        f"along the gradient first errors are {ratio:.2f} times as far as FAB's; of the robust network's images "
        f"{none:.2%} have none in l2, FAB fails on {fails:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="first_error_mnist.png", natural="mnist-lenet-natural", robust="mnist-lenet-linf")
    parser.add_argument("--steps", type=at_least(1, int), default=50, help="of FAB")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images, at most")
    main(parser.parse_args())
