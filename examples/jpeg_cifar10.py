"""On CIFAR-10, too, JPEG gives accuracy back under an attack that ignores it, and takes it from clean images.

Figures 7, 10, 11 and 15a of Kelley and Fritz (2021), on CIFAR-10: an image at several qualities; accuracy by quality
and budget of FGSM, which ignores JPEG; clean accuracy. What an attack through JPEG leaves is told by
defences_cifar10.py. Images that were JPEG files before are special: at the quality of the file, JPEG hardly changes
them, and turns those with a small change back into them. The table shows by how many of 255 levels it changes a clean
pixel on average; below 0.5, the quality does not count. The last line says whether the claim holds: under FGSM of
--eps, some quality gives back 5 points or more, and below 75 every lower one leaves less of the clean images.
"""

import numpy as np
from common import arguments, at_least, cifar10_or_digits, conclude
from jpeg_mnist import behind, draw

from tinyadv import attacks, data, defenses, evaluation, models, plots

QUALITIES = {"none": 0, **{str(q): q for q in (90, 75, 40, 20, 10, 5)}}
BUDGETS = (0, 0.5, 1, 2, 4, 8)  # in 255ths


def main(options):
    _, test = cifar10_or_digits(options.limit)
    subset, model = test[:options.images], models.zoo.load(options.model).to(options.device)
    sets = {eps: data.Dataset(attacks.FGSM(eps / 255)(model, subset.images, subset.labels), subset.labels, subset.name)
            for eps in sorted({*BUDGETS, options.eps})}
    curves = {key: {eps: evaluation.accuracy(behind(quality, model), each) for eps, each in sets.items()}
              for key, quality in QUALITIES.items()}
    for key, curve in curves.items():
        print(f"{test.name}  quality {key}: accuracy {curve[0]:.2%}, under FGSM {curve[options.eps]:.2%}")

    figure = plots.blank(11, 7)
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 3])
    left, right = bottom.subfigures(1, 2)
    draw(QUALITIES, "the network", model, subset, sets[options.eps], top)
    plots.epsilon_curve(curves, title=f"{test.name}: FGSM ignores JPEG", xlabel="ε in 255ths", figure=left)
    clean = [100 * curve[0] for curve in curves.values()]
    plots.lines({"clean": (list(QUALITIES.values())[1:], clean[1:])}, xlabel="quality", ylabel="accuracy (%)",
                title="clean", figure=right)
    figure.savefig(options.out)

    lost = bool((np.diff([curve[0] for curve in list(curves.values())[2:]]) < 0).all())
    changed = {key: 255 * float(np.abs(defenses.JPEG(quality).transform(subset.images) - subset.images).mean())
               if quality else 0.0 for key, quality in QUALITIES.items()}
    gain = max([curves[key][options.eps] for key in curves if changed[key] > 0.5] or [0]) - curves["none"][options.eps]
    rows = [["quality", "change", *(f"{eps:g}/255" for eps in sets)],
            *([key, f"{changed[key]:.2f}", *curve.values()] for key, curve in curves.items())]
    title = f"Accuracy by quality and by the budget of FGSM, which ignores JPEG, {len(subset):,} images"
    conclude(options, test, {title: rows}, f"under FGSM of {options.eps:g}/255 JPEG gives back up to {gain:.2%}; "
             f"clean, quality 5 leaves {clean[-1]:.2f}%: the claim "
             f"{'holds' if gain >= 0.05 and lost else 'does not hold: take more images'}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="jpeg_cifar10.png", model="cifar10-base-natural")
    parser.add_argument("--eps", type=at_least(0, float), default=2, help="the budget of the claim, in 255ths")
    parser.add_argument("--images", type=at_least(1, int), default=2000, help="test images, at most")
    main(parser.parse_args())
