"""To be robust takes a larger network than to be right.

Figure 4 of Madry et al. (2018, arXiv:1706.06083): their smallest network has 2 and 4 filters and 64 units; the others
are 2, 4, 8 (and, with --widths, 16) times as wide. Each is trained on clean images, and within linf 0.3 on images of
FGSM and of PGD. The table has the accuracy of each: clean, under FGSM and under PGD, and its mean training loss. The
last line says whether the claim holds. With training on clean images, the clean accuracy of the smallest network is
within five points of the widest. With training on PGD, its accuracy under PGD is more than ten points lower.
"""

import numpy as np
from common import Ascending, arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, nn, plots, training


def network(width, seed, shape):
    """The network of Madry et al. for MNIST, scaled, for images of this shape: at width 16 it is theirs."""
    rng, (channels, height, _) = np.random.default_rng(seed), shape
    return nn.Sequential(
        nn.Conv2d(channels, 2 * width, 5, padding=2, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 4 * width, 5, padding=2, rng=rng), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear((height // 4) ** 2 * 4 * width, 64 * width, rng=rng), nn.ReLU(), nn.Linear(64 * width, 10, rng=rng))


def compare(options, train, test, pgd, steps):
    """Train every width in three ways, attack it, and draw: the table, and {(training, attack, width): accuracy}."""
    methods = {"natural": training.Standard(), "FGSM": training.Adversarial(attacks.FGSM(pgd.eps)),
               "PGD": training.Adversarial(attacks.PGD(pgd.eps, steps=steps))}
    measures = {"clean": None, "FGSM": attacks.FGSM(pgd.eps), "PGD": pgd}
    subset, scores = test[:options.images], {}
    table = [["training", "width", "parameters", *measures, "mean loss in training"]]
    for name, method in methods.items():
        for width in options.widths:
            model = network(width, options.seed, train.images.shape[1:]).to(options.device)
            history = training.fit(
                model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=2e-3), method=method,
                batch_size=64, seed=options.seed, schedule=nn.optim.one_cycle(peak=0.1), progress=True,
                eps_schedule=training.ramp(0.5), checkpoint=options.out.with_suffix(f".{name}{width}.npz"),
                resume=True)
            for measure, attack in measures.items():
                scores[name, measure, width] = evaluation.accuracy(model, test) if attack is None else (
                    evaluation.robust_accuracy(model, attack, subset, seed=options.seed, progress=True))
            table.append([name, str(width), f"{sum(p.size for p in model.parameters()):,}",
                          *(scores[name, measure, width] for measure in measures), f"{history[-1].loss:.3f}"])

    figure = plots.blank(11, 3.8)
    figure.suptitle(test.name)
    for part, name in zip(figure.subfigures(1, len(methods)), methods, strict=True):
        curves = {measure: (options.widths, [100 * scores[name, measure, width] for width in options.widths])
                  for measure in measures}
        plots.lines(curves, xlabel="width", ylabel="accuracy (%)", log="x", title=f"{name} training", figure=part)
        figure.axes[-1].set_ylim(0, 100)
    figure.savefig(options.out)
    return {f"Accuracy by width and training, attacks on {len(subset):,} images": table}, scores


def main(options):
    train, test = mnist_or_digits(options.limit)
    tables, scores = compare(options, train, test, attacks.PGD(0.3, step_size=0.01), steps=10)
    small, large = min(options.widths), max(options.widths)
    natural, robust = (scores[name, measure, large] - scores[name, measure, small]
                       for name, measure in (("natural", "clean"), ("PGD", "PGD")))
    verdict = "holds" if natural < 0.05 and robust > 0.1 else "does not hold: train longer"
    conclude(options, test, tables,
             f"width {small} is {natural:.2%} behind width {large} in accuracy if trained naturally, and {robust:.2%} "
             f"under PGD if trained on it: the claim {verdict}")


def parsed(description, out):
    """The options of both scripts."""
    parser = arguments(description, out=out)
    parser.add_argument("--widths", type=at_least(1, int), nargs="+", action=Ascending, default=[1, 2, 4, 8],
                        help="of the networks")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    return parser


if __name__ == "__main__":
    main(parsed(__doc__, out="capacity_mnist.png").parse_args())
