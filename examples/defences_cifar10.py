"""On CIFAR-10, too, the accuracy that a defence in front of a network gives back is lost to attacks through it.

Kelley and Fritz (2021) put JPEG in front of their CIFAR-10 network, and Castro Ros et al. (2020) noise. Against patches
there are local gradients smoothing (Naseer et al. 2019, arXiv:1807.01216) and digital watermarking (Hayes 2018). Each
defence is attacked three ways with one budget: on the undefended network, through the defence (with the better of two
gradients), and without gradients. There is no JPEG 75: the files of the JPEG copy of CIFAR-10 have that quality, so it
would turn images with a small change back into those of the files (jpeg_cifar10.py). The last line says whether the
claim holds: JPEG gives back 10 points or more to who ignores it, and no defence is more than 3 points more robust than
none.
"""

import numpy as np
from common import arguments, at_least, cifar10_or_digits, conclude
from patches_mnist import Noise

from tinyadv import attacks, defenses, evaluation, models, nn, plots

WAYS = ["clean", "ignored", "through", "without gradients", "the least"]


def with_both(defence, **options):
    return [defence(**options, gradient=gradient) for gradient in ("identity", "smooth")]


def main(options):
    _, test = cifar10_or_digits(options.limit)
    few, model = test[:options.images], models.zoo.load(options.model).to(options.device)
    none, eps, side = [defenses.bpda(np.copy)], options.eps / 255, (options.side, options.side)
    square, noise = attacks.Square(eps, queries=options.queries), Noise(side, options.queries)
    pgd, averaged = (attacks.PGD(eps, steps=options.steps, eot=eot) for eot in (1, options.eot))
    patch = attacks.Patch(side, steps=options.steps, places="all")
    parts = {
        f"linf, {options.eps:g}/255": (square, {
            "none": (none, pgd), **{f"JPEG {q}": (with_both(defenses.JPEG, quality=q), pgd) for q in (90, 40, 20)},
            "SHIELD": (with_both(defenses.SHIELD), averaged),
            "noise of 0.05": ([nn.GaussianNoise(0.05, at_test=True)], averaged)}),
        f"patches of {side[0]}x{side[1]}": (noise, {
            "none": (none, patch), "LGS": (with_both(defenses.LGS, block=5, overlap=2), patch),
            "DW": ([defenses.DW(model)], patch)})}

    tables, gains, gaps, figure = {}, [], [], plots.blank(11, 7)
    for (title, (blind, defences)), panel in zip(parts.items(), figure.subfigures(2, 1), strict=True):
        rows = []
        for name, (several, attack) in defences.items():
            found = [evaluation.three_ways(model, nn.Sequential(each, model), attack, few, black_box=blind,
                                           seed=options.seed, progress=True) for each in several]
            least = min(found, key=lambda each: each.through)
            rows.append([name, least.clean, least.ignored, least.through, least.without_gradients, least.robustness])
            gains += [least.ignored - rows[0][2]] if name.startswith("JPEG") else []
            gaps.append(least.robustness - rows[0][5])
        tables[f"{title}, {len(few):,} images"] = [["defence", *WAYS], *rows]
        plots.bars({name: [100 * share for share in shares[:-1]] for name, *shares in rows}, WAYS[:-1], figure=panel,
                   ylabel="accuracy (%)", title=f"{test.name}: {title}")
    figure.savefig(options.out)
    verdict = "holds" if max(gains) >= 0.1 and max(gaps) <= 0.03 else "does not hold: take more steps"
    conclude(options, test, tables, f"JPEG gives back {max(gains):.2%} to who ignores it, and no defence more than "
             f"{max(gaps):.2%} in all: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="defences_cifar10.png", model="cifar10-base-natural")
    parser.add_argument("--eps", type=at_least(0, float), default=2, help="the budget in linf, in 255ths")
    parser.add_argument("--side", type=int, choices=range(1, 33), metavar="PIXELS", default=5, help="of the patches")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of PGD, and for each place of a patch")
    parser.add_argument("--eot", type=at_least(1, int), default=10, help="passes for each gradient of a random defence")
    parser.add_argument("--queries", type=at_least(1, int), default=500, help="without gradients")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images, at most")
    main(parser.parse_args())
