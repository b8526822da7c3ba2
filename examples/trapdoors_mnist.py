"""Trapdoors catch the attacks that do not know of them, and few of those that do.

Shan et al. 2020, arXiv:1904.08554, with their network and their trapdoors for MNIST: a network is taught that a faint
pattern, a trapdoor, means a class. Attacks run into it, and the direction of the latent vector gives them away: 94% or
more of them, they report, with 5% false positives. Carlini 2020, arXiv:2009.10975, broke it; here, PGD and Square
attack network and detector as one, with one class after the other as the target. The other attacks have one random
target. An image is broken if it is misclassified and not flagged. The last line says whether the claim holds: of what
FGSM, PGD and CW (Carlini and Wagner's) get misclassified, 94% or more is flagged, of the adaptive PGD's less than 20%.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits, right_ones

from tinyadv import attacks, defenses, evaluation, nn, plots, training


def network(seed):
    options = {"init": "keras", "rng": np.random.default_rng(seed)}
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, **options), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, **options), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 512, **options), nn.ReLU(), nn.Linear(512, 10, **options))


def adaptive(attack, detector, x, y, seed):
    """What an attack makes of images x: one class after the other is the target, until one is reached unflagged."""
    x_adv, left = x.copy(), np.arange(len(x))
    for shift in range(1, 10):
        if len(left):
            result = attack.run(detector, x[left], y[left], target=(y[left] + shift) % 10, seed=seed)
            x_adv[left], left = result.x_adv, left[~result.success]
    return x_adv


def main(options):
    train, test = mnist_or_digits(options.limit)
    count, seed, eps = max(1, len(train) // 10), options.seed, options.eps
    model, trapdoors = network(seed).to(options.device), defenses.Trapdoors(seed=seed)
    for epochs, method in (options.clean, training.Standard()), (options.epochs, training.Trapped(trapdoors)):
        training.fit(model, train[count:], epochs=epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                     seed=seed, method=method, progress=True)
    detector = defenses.trapdoor_detector(model, trapdoors, train[count:][:1000], train[:count])
    few = right_ones(model, test, options.images)
    goal = (few.labels + np.random.default_rng(seed).integers(1, 10, len(few))) % 10
    unaware = {"FGSM": attacks.FGSM(eps), "PGD": attacks.PGD(eps, steps=options.steps),
               "CW": attacks.CarliniWagner(lr=0.05, binary_search_steps=4, steps=5 * options.steps)}
    aware = {"adaptive PGD": attacks.PGD(eps, step_size=eps / 30, steps=2 * options.steps, loss="margin"),
             "adaptive Square": attacks.Square(eps, queries=5 * options.steps)}
    images = {"clean": few.images, "trapdoor": trapdoors.inject(few.images, goal)} | {
        name: attack(model, few.images, few.labels, target=goal, seed=seed) for name, attack in unaware.items()} | {
        name: adaptive(attack, detector, few.images, few.labels, seed) for name, attack in aware.items()}
    rows = []
    for name, x_adv in images.items():
        wrong, flagged = evaluation.predict(model, x_adv) != few.labels, detector.flagged(x_adv)
        share = float(flagged[wrong].mean()) if wrong.any() else 0.0
        rows.append([name, float(flagged.mean()), float(wrong.mean()), share, float((wrong & ~flagged).mean())])

    top, bottom = (figure := plots.blank(11, 5)).subfigures(2, 1)
    plots.grid(np.stack([each[:1] for each in images.values()], axis=1), columns=list(images), figure=top,
               title=f"{test.name}, eps {eps:g}: one image, and cosines of latent vectors with their class's signature")
    plots.histograms({name: [detector.scores(few.images), detector.scores(each)] for name, each in images.items()},
                     ["clean", "attacked"], xlabel="cosine", figure=bottom)
    figure.savefig(options.out)
    least, most = min(row[3] for row in rows[2:5]), rows[5][3]
    verdict = "holds" if least >= 0.94 and most < 0.2 else "does not hold: train another network"
    clean, false = evaluation.accuracy(model, test), detector.flagged(test.images).mean()
    conclude(options, test, {
        f"Accuracy {clean:.2%}, {false:.2%} false positives, of {len(test):,} images; {len(few):,} right ones": [
            ["attack", "flagged", "misclassified", "of these flagged", "broken"], *rows]},
             f"of the misclassified {least:.2%} or more are flagged under attacks that do not know of the detector, "
             f"{most:.2%} under the adaptive PGD: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="trapdoors_mnist.png")
    parser.set_defaults(epochs=10)
    parser.add_argument("--clean", type=at_least(1, int), default=5, help="epochs on clean images, before the others")
    parser.add_argument("--eps", type=at_least(0, float), default=0.3, help="the budget in linf")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of PGD, and more of the others")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images to attack, at most")
    main(parser.parse_args())
