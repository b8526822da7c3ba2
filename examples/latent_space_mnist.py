"""A contrastive loss sets the classes apart in the latent space, and attacked images still cross from one to another.

Section 3.3 of Castro Ros, Ben Mansour and Bouskila ("Adversarial Networks", 2020), on MNIST with LeNet: the cross
entropy alone, with their contrastive loss of margin 2 (equation 5), and with that of latent vectors of length 1 and
margin 1. Images are classified by the softmax, and by the nearest of five images of each class in the latent space
(NearestLatent). The figure has the latent space in its two main directions, their figure 8, and where PGD moves images
of one class. The last line says whether the claim holds: with both losses, the distance between classes, divided by
that within them, is larger than without, but some attack leaves NearestLatent fewer than half of its images.
"""

import numpy as np
from common import all_classes, arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, defenses, driver, evaluation, models, nn, plots, training

METHODS = {"cross entropy": training.Standard(), "contrastive, margin 2": training.Contrastive(margin=2.0),
           "contrastive, length 1": training.Contrastive(margin=1.0, normalize=True)}
SHOWN = 3  # the class whose attacked images are drawn


def separation(z, labels):
    """The mean distance between the centres of two classes, by that between an image and the centre of its class."""
    centres = np.stack([z[labels == k].mean(axis=0) for k in range(10)])
    between = np.linalg.norm(centres[:, None] - centres, axis=2)
    return between.sum() / 90 / np.linalg.norm(z - centres[labels], axis=1).mean()


def draw(axes, z, moved, labels, title):
    """All images in the two directions in which they differ most; an arrow for each one that an attack has moved."""
    directions = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)[2][:2].T
    flat, there = z @ directions, moved @ directions
    axes.scatter(*flat.T, c=labels, cmap="tab10", s=5)
    for start, end in zip(flat[labels == SHOWN][:15], there[labels == SHOWN][:15], strict=True):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 0.7})
    for k in range(10):
        axes.annotate(str(k), np.median(flat[labels == k], axis=0), weight="bold",
                      bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white", "alpha": 0.7})
    axes.set(title=title, xticks=[], yticks=[])


def main(options):
    train, test = mnist_or_digits(options.limit)
    few, pgd = test[:options.images], attacks.PGD(options.eps, steps=options.steps, loss="margin")
    all_classes(train, few, raised="--limit or --images")
    five = np.concatenate([np.flatnonzero(train.labels == k)[:5] for k in range(10)])
    figure, rows, apart = plots.blank(4 * len(METHODS), 4.2), [], []
    for axes, (name, method) in zip(figure.subplots(1, len(METHODS)), METHODS.items(), strict=True):
        model, normalize = models.LeNet(seed=options.seed).to(options.device), getattr(method, "normalize", False)
        training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                     seed=options.seed, method=method, progress=True)
        nearest = defenses.NearestLatent(model, train.images[five], train.labels[five], normalize)
        ways = evaluation.three_ways(model, nearest, pgd, few, seed=options.seed, progress=True,
                                     black_box=attacks.Square(options.eps, queries=options.queries))
        x_adv = pgd(nearest, few.images, few.labels, seed=options.seed)
        z, moved = (driver.logits(nn.Latent(model), images) for images in (few.images, x_adv))  # (N, D)
        if normalize:
            z, moved = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (z, moved))
        apart.append(separation(z, few.labels))
        away = [np.sqrt(-driver.logits(nearest, images).max(axis=1)).mean() for images in (few.images, x_adv)]
        rows.append([name, f"{apart[-1]:.1f}", *ways.undefended, ways.clean, ways.ignored, ways.through,
                     ways.without_gradients, ways.robustness, *(f"{each:.2f}" for each in away)])
        draw(axes, z, moved, few.labels, f"{name}: {ways.clean:.0%}, attacked {ways.through:.0%}")
    figure.suptitle(f"{test.name}: latent vectors, and where PGD with eps {options.eps:g} moves some of class {SHOWN}")
    figure.savefig(options.out)
    head = ["loss", "between / within", "softmax", "softmax, PGD", "nearest", "PGD that ignores it", "PGD through it",
            f"Square, {options.queries} queries", "the least", "distance to the nearest", "the same, attacked"]
    least, most = min(apart[1:]), max(row[8] for row in rows[1:])
    verdict = "holds" if least > apart[0] and most < 0.5 else "does not hold: train longer"
    conclude(options, test, {f"Within eps {options.eps:g}, on {len(few):,} images": [head, *rows]},
             f"between and within classes, distances are as {apart[0]:.1f} to 1 without the loss, as {least:.1f} or "
             f"more with it, where the attacks on the nearest leave {most:.2%} or less: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="latent_space_mnist.png")
    parser.add_argument("--eps", type=at_least(0, float), default=0.1, help="the budget")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of PGD")
    parser.add_argument("--queries", type=at_least(1, int), default=500, help="of Square")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images, at most")
    main(parser.parse_args())
