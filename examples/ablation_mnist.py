"""A few pixels and a majority vote prove robustness in l0.

Randomised ablation (Levine and Feizi 2020, arXiv:1911.09272): a network sees 45 of the 784 pixels, and votes on many
choices of them. The figure shows how many pixels may change without altering the vote. Levine and Feizi report about
97% of the images right and a median certified radius of 8 pixels, for a network of 3,320,922 parameters, trained for
400 epochs. The certificate here is that of Jia et al. (2022, arXiv:2011.07633), which mostly proves more from the same
votes. Beside it are two attacks on the vote that count pixels: sigma-zero (Cinà et al. 2024), with gradients, and
Sparse-RS (Croce et al. 2022), without; and what is certified of the few images that they attack. Within 0 pixels fewer
are certified than right, as the bounds need more votes than the prediction. The images are every 20th of the test set,
and the prediction, the certificate and each attack have samples of their own. The last line says whether the claim
holds: at least 96% are right, the median is 8 or more, and no attack breaks a certified image.
"""

from dataclasses import replace

from common import arguments, at_least, conclude, mnist_or_digits, spread

from tinyadv import attacks, certify, models, plots


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset = spread(test, options.images)
    few = subset[:options.few]
    model = models.zoo.load("mnist-ablation-l0").to(options.device)
    ablation = certify.Ablation(45, choose=100, samples=options.samples, alpha=0.05)
    right = ablation.predict(model, subset, seed=options.seed, progress=True).accuracy
    found = ablation.certify(model, subset, seed=options.seed, progress=True)
    own = replace(found, labels=few.labels, predictions=found.predictions[:len(few)], radii=found.radii[:len(few)])

    def judged(attack):
        """What the vote says of the few images after the attack, and how many pixels of each it has changed."""
        result = attack.run(vote, few.images, few.labels, seed=options.seed, progress=True)
        moved = ablation.predict(model, replace(few, images=result.x_adv), seed=options.seed)
        return moved, (result.x_adv != few.images).any(axis=1).sum(axis=(1, 2))

    def sound(moved, pixels):
        """Whether no image within its certified radius has another class; the vote may abstain."""
        return not ((pixels <= own.radii) & own.correct & ~moved.correct & ~moved.abstained).any()

    vote, clean = ablation.smoothed(model, samples=options.versions), ablation.predict(model, few, seed=options.seed)
    moved, pixels = judged(attacks.SigmaZero(steps=options.steps))
    searched = {radius: judged(attacks.SparseRS(radius, queries=options.queries)) for radius in options.pixels}
    radii = sorted({*range(int(found.radii.max()) + 2), *options.pixels})
    curves = {"sigma-zero": {radius: float((clean.correct & (moved.correct | (pixels > radius))).mean())
                             for radius in radii},
              "Sparse-RS": {0: clean.accuracy} | {radius: each.accuracy for radius, (each, _) in searched.items()},
              "certified, of these": own.curve(radii), "certified": found.curve(radii)}
    plots.epsilon_curve(curves, title=f"{test.name}, {len(subset):,} images; under attack the first {len(few):,}",
                        xlabel="changed pixels").savefig(options.out)
    kept = all(sound(*each) for each in [(moved, pixels), *searched.values()])
    rows = [["pixels", *curves]]
    rows += [[f"{radius}", *(curve.get(radius, "") for curve in curves.values())] for radius in radii]
    verdict = "holds" if right >= 0.96 and found.median_radius >= 8 and kept else "does not hold: train longer"
    conclude(options, test, {f"{len(subset):,} images, {options.samples:,} samples, alpha {ablation.alpha:g}; attacks: "
                             f"{len(few):,} images": rows},
             f"{right:.2%} right, median radius {found.median_radius:.0f}, {'no' if kept else 'a'} certified "
             f"image broken: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="ablation_mnist.png", trains=False)
    parser.add_argument("--samples", type=at_least(1, int), default=10_000, help="versions of each image")
    parser.add_argument("--versions", type=at_least(1, int), default=32, help="versions for the attacks")
    parser.add_argument("--steps", type=at_least(1, int), default=60, help="of sigma-zero")
    parser.add_argument("--queries", type=at_least(1, int), default=300, help="of Sparse-RS")
    parser.add_argument("--pixels", type=at_least(1, int), nargs="+", default=[8, 32, 64, 128], help="that it changes")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to certify, spread over all")
    parser.add_argument("--few", type=at_least(1, int), default=30, help="test images to attack, at most")
    main(parser.parse_args())
