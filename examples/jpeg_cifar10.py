"""On CIFAR-10, too, JPEG gives accuracy back under an attack that ignores it, and takes it from clean images.

Figures 7, 10, 11 and 15 of Kelley and Fritz (2021), on CIFAR-10, for LeNet and a larger network: an image at several
qualities; accuracy by quality and budget of FGSM, which ignores JPEG; clean accuracy. What an attack through JPEG
leaves is told by defences_cifar10.py. Images that were JPEG files before are special: at the quality of the file, JPEG
hardly changes them, and turns those with a small change back into them. The table shows by how many of 255 levels it
changes a clean pixel on average; below 0.5, the quality does not count. The last line says whether the claim holds:
under FGSM of --eps, some quality gives each network back 5 points or more, and from 75 down every lower one leaves less
of the clean images.
"""

import numpy as np
from common import arguments, at_least, cifar10_or_digits, conclude
from jpeg_mnist import behind, draw

from tinyadv import attacks, data, defenses, evaluation, models, plots

QUALITIES = {"none": 0, **{str(q): q for q in (90, 75, 40, 20, 10, 5)}}
BUDGETS = (0, 0.5, 1, 2, 4, 8)  # in 255ths


def main(options):
    _, test = cifar10_or_digits(options.limit)
    subset, networks = test[:options.images], {name: models.zoo.load(name) for name in options.models}
    changed = {key: 255 * float(np.abs(defenses.JPEG(quality).transform(subset.images) - subset.images).mean())
               if quality else 0.0 for key, quality in QUALITIES.items()}
    figure = plots.blank(5 * len(networks) + 1, 11)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[2, 3, 3])
    tables, clean, gains, falls = {}, {}, {}, []
    panels = middle.subfigures(1, len(networks), squeeze=False)[0]
    for (name, model), panel in zip(networks.items(), panels, strict=True):
        model.to(options.device)
        sets = {eps: data.Dataset(attacks.FGSM(eps / 255)(model, subset.images, subset.labels), subset.labels,
                                  subset.name) for eps in sorted({*BUDGETS, options.eps})}
        curves = {key: {eps: evaluation.accuracy(behind(quality, model), each) for eps, each in sets.items()}
                  for key, quality in QUALITIES.items()}
        for key, curve in curves.items():
            print(f"{test.name}  {name}, quality {key}: accuracy {curve[0]:.2%}, under FGSM {curve[options.eps]:.2%}")
        if not tables:
            draw(QUALITIES, name, model, subset, sets[options.eps], top)
        plots.epsilon_curve(curves, title=f"{test.name}: {name}", xlabel="ε of FGSM, in 255ths", figure=panel)
        tables[f"{name}: accuracy by quality and budget of FGSM, which ignores JPEG, {len(subset):,} images"] = [
            ["quality", "change", *(f"{eps:g}/255" for eps in sets)],
            *([key, f"{changed[key]:.2f}", *curve.values()] for key, curve in curves.items())]
        clean[name] = list(QUALITIES.values())[1:], [100 * curve[0] for curve in curves.values()][1:]
        gains[name] = max([curves[key][options.eps] for key in curves if changed[key] > 0.5] or [0]) - (
            curves["none"][options.eps])
        falls.append((np.diff(clean[name][1][1:]) < 0).all())
    plots.lines(clean, xlabel="quality", ylabel="clean accuracy (%)", title=test.name, figure=bottom)
    figure.savefig(options.out)
    verdict = "holds" if min(gains.values()) >= 0.05 and all(falls) else "does not hold: take more images"
    conclude(options, test, tables, f"under FGSM of {options.eps:g}/255 JPEG gives back up to "
             f"{', '.join(f'{gain:.2%} to {name}' for name, gain in gains.items())}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="jpeg_cifar10.png", models=["cifar10-base-natural", "cifar10-lenet-natural"])
    parser.add_argument("--eps", type=at_least(0, float), default=2, help="the budget of the claim, in 255ths")
    parser.add_argument("--images", type=at_least(1, int), default=2000, help="test images, at most")
    main(parser.parse_args())
