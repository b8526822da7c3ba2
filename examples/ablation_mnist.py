"""A few pixels and a majority vote prove robustness in l0.

Randomised ablation (Levine and Feizi 2020, arXiv:1911.09272): a network sees 45 of the 784 pixels, and votes on many
choices of them. No change of so many pixels as the figure shows can alter the vote. Levine and Feizi report about 97%
of the images right and a median certified radius of 8 pixels, for a network of 3,320,922 parameters, trained for 400
epochs. The last line says whether the claim holds: at least 96% are right, and the median is 8 or more.
"""

from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import certify, nn, plots, training


def network(rng):
    """Two strided convolutions and a dense layer, for the two channels of an ablated image."""
    rng = {"init": "he_uniform", "rng": rng}
    return nn.Sequential(
        nn.Conv2d(2, 32, 4, stride=2, padding=1, **rng), nn.ReLU(),   # (N, 32, 14, 14)
        nn.Conv2d(32, 64, 4, stride=2, padding=1, **rng), nn.ReLU(),  # (N, 64, 7, 7)
        nn.Flatten(), nn.Linear(3136, 256, **rng), nn.ReLU(), nn.Linear(256, 10, **rng))


def main(options):
    train, test = mnist_or_digits(options.limit)
    subset, ablation = test[:options.images], certify.Ablation(options.keep, choose=1000, samples=options.samples,
                                                               alpha=0.05)
    model = network(options.seed).to(options.device)
    history = training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=100,
                           schedule=nn.optim.one_cycle(), augment=ablation.augment, seed=options.seed, progress=True)
    print(f"{train.name}  {history[-1].accuracy:.2%} of the ablated images are right in the last epoch\n")
    found = ablation.certify(model, subset, seed=options.seed, progress=True)

    radii = range(int(found.radii.max()) + 2)
    curve = found.curve(radii)
    plots.lines({"certified": (list(curve), [100 * share for share in curve.values()])}, xlabel="changed pixels",
                ylabel="certified (%)", title=f"{test.name}, {len(subset):,} images").savefig(options.out)
    rows = [["pixels", "certified"], *([f"{radius:.0f}", share] for radius, share in curve.items())]
    verdict = "holds" if found.accuracy >= 0.96 and found.median_radius >= 8 else "does not hold: train longer"
    conclude(options, test, {f"{len(subset):,} images, {options.samples:,} samples, alpha 0.05": rows},
             f"{found.accuracy:.2%} right, median radius {found.median_radius:.0f}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="ablation_mnist.png")
    parser.set_defaults(epochs=20)
    parser.add_argument("--keep", type=at_least(1, int), default=45, help="pixels that a version shows")
    parser.add_argument("--samples", type=at_least(1, int), default=1000, help="versions of each image")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to certify, at most")
    main(parser.parse_args())
