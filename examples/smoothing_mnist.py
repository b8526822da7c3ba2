"""Noise and a majority vote prove robustness in l2.

Randomised smoothing (Cohen et al. 2019, arXiv:1902.02918): a network trained on noisy images votes on many noisy
versions of each image. The figure shows the fraction of images that are certified, by radius, for each sigma. For LeNet
Zhai et al. (2020, arXiv:2001.02378) report 99.2% at radius 0, 98.5% at 0.25, 96.7% at 0.5 and 93.3% at 0.75, with sigma
0.25. The last line says whether the claim holds: with the first sigma, the fractions are within two points of these.
"""

from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import certify, models, nn, plots, training

RADII, PUBLISHED = (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.992, 0.985, 0.967, 0.933)  # for sigma 0.25


def main(options):
    train, test = mnist_or_digits(options.limit)
    subset = test[:options.images]
    rows, curves = [["sigma", "clean", "abstained", *(f"at {radius:g}" for radius in RADII)]], {}
    for sigma in options.sigma:
        smoothing = certify.Smoothing(sigma, samples=options.samples)
        model = models.LeNet(seed=options.seed).to(options.device)
        training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=2e-3), batch_size=100,
                     schedule=nn.optim.one_cycle(), augment=smoothing.augment, seed=options.seed, progress=True)
        found = smoothing.certify(model, subset, seed=options.seed, progress=True)
        curves[f"sigma {sigma:g}"] = curve = found.curve(RADII)
        print(f"{test.name}  sigma {sigma:g}: {found.accuracy:.2%} of {len(subset):,} images are right")
        rows.append([f"{sigma:g}", found.accuracy, float((found.predictions == -1).mean()), *curve.values()])

    plots.lines({name: (list(curve), [100 * share for share in curve.values()]) for name, curve in curves.items()},
                xlabel="l2 radius", ylabel="certified (%)",
                title=f"{test.name}, {len(subset):,} images").savefig(options.out)
    far = max(abs(here - there) for here, there in zip(rows[1][3:], PUBLISHED, strict=False))
    verdict = "holds" if far <= 0.02 else "does not hold: train longer"
    conclude(options, test, {f"{len(subset):,} images, {options.samples:,} samples, alpha 0.001": rows},
             f"{100 * far:.1f} points or less from the published: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="smoothing_mnist.png")
    parser.set_defaults(epochs=8)
    parser.add_argument("--sigma", type=at_least(0, float), nargs="+", default=[0.25, 0.5], help="of the noise")
    parser.add_argument("--samples", type=at_least(1, int), default=10_000, help="noisy versions of each image")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to certify, at most")
    main(parser.parse_args())
