"""The gradient of a robust network follows the strokes of a digit, that of a natural one is scattered.

The script compares two networks of models.zoo, one of them adversarially trained. The upper figure shows the gradient
of the loss with respect to the image (as in Tsipras et al. 2019, arXiv:1805.12152, figure 2). The lower one shows the
loss of one image on the plane through it that is spanned by the sign of its gradient and by random signs, up to eps in
each direction (as in Tramer et al. 2018, arXiv:1705.07204, figure 4). The last line says whether the claim holds: a
larger part of the robust network's squared gradient lies within a pixel of a stroke, and its mean loss on such planes
is less than half of the other's.
"""

import numpy as np
from common import arguments, at_least, mnist_or_digits

from tinyadv import analysis, driver, evaluation, models, plots


def near_strokes(images):
    """(n, 1, H, W) bool: whether a pixel, or one of its eight neighbours, is brighter than 0.5."""
    h, w = images.shape[-2:]
    padded = np.pad(images > 0.5, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.any([padded[..., i:i + h, j:j + w] for i in range(3) for j in range(3)], axis=0)


def main(options):
    _, test = mnist_or_digits(options.limit)
    networks = {"natural": models.zoo.load(options.natural), "robust": models.zoo.load(options.robust)}
    many, gradients, shares = test[:options.images], {}, {}
    for name, model in networks.items():
        model.to(options.device)
        g = driver.input_gradients(model, many.images, many.labels)
        energy, near = (g.astype(np.float64) ** 2).sum(axis=(1, 2, 3)), near_strokes(many.images)
        shares[name] = ((g * near) ** 2).sum(axis=(1, 2, 3))[energy > 0] / energy[energy > 0]
        gradients[name] = g[:options.columns]
        print(f"{test.name}  {name} network: accuracy {evaluation.accuracy(model, test):.2%}; within a pixel of a "
              f"stroke lies {shares[name].mean():.0%} of the squared gradient, and {near.mean():.0%} of the image")

    reach, planes = np.linspace(-options.eps, options.eps, 41), {}
    for name, model in networks.items():
        rng = np.random.default_rng(options.seed)
        x, y, signs = many.images[:options.columns], many.labels[:options.columns], np.sign(gradients[name])
        random = rng.choice([-1, 1], x.shape)  # the same for both
        planes[name] = analysis.landscape(model, x, y, signs, random, reach)
        low, high = (end(planes[name].mean(axis=(1, 2))) for end in (np.min, np.max))
        print(f"{test.name}  {name} network: mean loss on {len(planes[name])} planes {low:.3g} to {high:.3g}")

    figure = plots.blank(1 + 0.9 * options.columns, 7)
    top, bottom = figure.subfigures(2, 1)
    shown = many.images[:options.columns]
    plots.grid(np.stack([shown, *gradients.values()]), rows=["image", *networks], noise=[[False], [True], [True]],
               title=f"{test.name}: images, and gradients of the loss (red: brighter raises it)", figure=top)
    plots.surfaces({name: each[0] for name, each in planes.items()}, reach, reach, figure=bottom,
                   xlabel="along the sign of the gradient", ylabel="along random signs",
                   title="The loss around the first image")
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    natural, robust = (shares[name].mean() for name in networks)
    ratio = planes["robust"].mean() / planes["natural"].mean()
    verdict = "holds" if robust > natural and ratio < 0.5 else "does not hold: take networks that differ more"
    print(f"{test.name}  {natural:.0%} and {robust:.0%} near strokes, a loss {ratio:.0%} as high: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="robust_features.png", natural="mnist-lenet-natural", robust="mnist-lenet-linf")
    parser.add_argument("--eps", type=at_least(0, float), default=0.3, help="how far the planes reach")
    parser.add_argument("--columns", type=at_least(1, int), default=8, help="images in the figure")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to measure, at most")
    main(parser.parse_args())
