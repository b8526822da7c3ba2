"""Noise lies on an image's own salient pixels more than on another image's, but not where Grad-CAM looks.

Figures 20 to 25 of Kelley and Fritz (2021): saliency, guided saliency and Grad-CAM of digits, clean and attacked. They
see that noise attacks the parts that make one digit of another. FGSM changes all pixels alike, so the attack here is
that of Carlini and Wagner. The bars are mean correlations of |noise| with the maps; the saliency of another image shows
how much of that comes from where digits are at all. The last line says whether the claim holds. On a natural and on a
robust network, the correlation with saliency is at least 0.25; with Grad-CAM, or with the saliency of another image, it
is at most half as high.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import analysis, attacks, evaluation, models, plots

MAPS = {"saliency": analysis.saliency, "guided": analysis.guided_saliency, "Grad-CAM": analysis.grad_cam}


def shown(maps):
    """Maps (N, H, W) as images (N, 1, H, W): the brightest hundredth of each is white."""
    highest = np.quantile(maps, 0.99, axis=(1, 2), keepdims=True)
    return (maps / np.where(highest > 0, highest, 1)).clip(0, 1)[:, None]


def main(options):
    _, test = mnist_or_digits(options.limit)
    few, networks = test[:options.images], {"natural": options.natural, "robust": options.robust}
    attack = attacks.CarliniWagner(binary_search_steps=5, steps=100, lr=0.05, initial_c=1.0)
    x, y, means, rows = few.images, few.labels, {}, []
    figure = plots.blank(10, 5 + 1.7 * options.rows)
    *grids, last = figure.subfigures(3, 1, height_ratios=[1 + options.rows, 1 + options.rows, 3])
    for part, (name, file) in zip(grids, networks.items(), strict=True):
        model = models.zoo.load(file).to(options.device)
        print(f"{test.name}  {name} network: accuracy {evaluation.accuracy(model, test):.2%}")
        x_adv = attack(model, x, y, seed=options.seed, progress=True)
        seen, noise = evaluation.predict(model, x_adv), x_adv - x
        clean, attacked = ({key: each(model, images, y) for key, each in MAPS.items()} for images in (x, x_adv))
        broken = (seen != y) & (noise != 0).any(axis=(1, 2, 3))
        compared = clean | {"saliency of another": np.roll(clean["saliency"], 1, axis=0)}
        means[name] = {key: float(analysis.correlation(noise, each)[broken].mean()) for key, each in compared.items()}
        stay = [analysis.correlation(attacked[key][:, None], clean[key])[broken].mean() for key in MAPS]
        rows.append([name, f"{broken.sum()} of {len(x)}", *(f"{each:.2f}" for each in (*means[name].values(), *stay))])
        first = np.argsort(~broken, kind="stable")[:options.rows]  # those that the attack has broken, if there are any
        images = np.stack([x, *map(shown, clean.values()), noise, x_adv, *map(shown, attacked.values())], axis=1)
        captions = [[f"a {y[k]}", *[""] * 4, f"seen as {seen[k]}", *[""] * 3] for k in first]
        plots.grid(images[first], columns=["clean", *MAPS, "noise", "attacked", *MAPS], captions=captions, figure=part,
                   noise=[[False] * 4 + [True] + [False] * 4], title=f"{few.name}, {name} network")
    names = list(compared)
    plots.bars({name: list(each.values()) for name, each in means.items()}, names, figure=last,
               ylabel="correlation with |noise|")
    figure.savefig(options.out)
    own, other = (min(each["saliency"] for each in means.values()), max(
        each[key] / each["saliency"] for each in means.values() for key in ("saliency of another", "Grad-CAM")))
    head = ["network", "broken", *names, *(f"{key}, clean and attacked" for key in MAPS)]
    verdict = "holds" if own >= 0.25 and other <= 0.5 else "does not hold: take more steps"
    conclude(options, test, {"Mean correlations of |noise| with a map, and of clean with attacked maps": [head, *rows]},
             f"noise and saliency correlate by {own:.2f} or more, noise and Grad-CAM, or another image's saliency, by "
             f"{other:.0%} of that or less: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="saliency_mnist.png", natural="mnist-lenet-natural", robust="mnist-lenet-linf")
    parser.add_argument("--rows", type=at_least(1, int), default=3, help="images in the figure, of each network")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images, at most")
    main(parser.parse_args())
