"""JPEG gives accuracy back under an attack that ignores it, and little under one that goes through it.

Figures 7, 10, 11 and 15b of Kelley and Fritz (2021), on MNIST: an image at several qualities; accuracy by quality and
budget of FGSM, for LeNet and a ResNet; clean accuracy. What they leave out are attacks through JPEG: APGD, for each
image with that of two gradients that breaks it, and Square. The last line says whether the claim holds: on both
networks, some quality gives back 5 points or more under FGSM of --eps, but all attacks together leave at most 10 more.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, data, defenses, evaluation, models, nn, plots, training

QUALITIES, BUDGETS = {"none": 0, **{str(q): q for q in (75, 40, 20, 10, 5, 2)}}, [0, 0.02, 0.05, 0.1, 0.15, 0.2]


def behind(quality, model, gradient="identity"):
    return nn.Sequential(defenses.JPEG(quality, gradient=gradient), model) if quality else model


def draw(qualities, name, model, clean, attacked, figure):
    """The first image that the attack breaks and some quality gives back, at all qualities."""
    seen = np.array([[evaluation.predict(behind(quality, model), each.images) for quality in qualities.values()]
                     for each in (clean, attacked)])  # (2, K, N)
    right = seen == clean.labels
    one = (right[0].all(axis=0) & ~right[1, 0] & right[1].any(axis=0)).argmax(keepdims=True)
    images = [[defenses.JPEG(quality).transform(each.images[one])[0] if quality else each.images[one][0]
               for quality in qualities.values()] for each in (clean, attacked)]
    plots.grid(np.array(images), rows=["clean", "FGSM"], columns=list(qualities), figure=figure,
               captions=seen[..., one[0]].astype(str), title=f"{clean.name} by quality of JPEG, and what {name} sees")


def main(options):
    train, test = mnist_or_digits(options.limit)
    subset, few, figure = test[:options.images], test[:options.few], plots.blank(11, 7)
    top, bottom = figure.subfigures(2, 1, height_ratios=[2, 3])
    *panels, last = bottom.subfigures(1, 3)
    tables, clean, gains, gaps, eps, steps, seed = {}, {}, [], [], options.eps, options.steps, options.seed
    fgsm, apgd, square = attacks.FGSM(eps), attacks.APGD(eps, steps), attacks.Square(eps, queries=5 * steps)
    for panel, (name, network) in zip(panels, (("LeNet", models.LeNet), ("ResNet", models.MnistResNet)), strict=True):
        model = network(seed=seed).to(options.device)
        training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                     seed=seed, progress=True)

        def made(attack, each, model=model):
            return data.Dataset(attack(model, each.images, each.labels, seed=seed), each.labels)

        curves, rows, ignoring = {}, [], (few, made(fgsm, few), made(apgd, few))
        sets = {eps: made(attacks.FGSM(eps), subset) for eps in BUDGETS}
        for key, quality in QUALITIES.items():
            layer, smooth = behind(quality, model), behind(quality, model, "smooth")
            curves[key] = {eps: evaluation.accuracy(layer, each) for eps, each in sets.items()}
            one, two, blind = (attack.run(each, few.images, few.labels, seed=seed, skip_misclassified=True).robust
                               for attack, each in ((apgd, layer), (apgd, smooth), (square, layer)))
            ways = [*(evaluation.predict(layer, each.images) == few.labels for each in ignoring), one & two, blind]
            rows.append([key, *(float(np.mean(each)) for each in (*ways, np.all(ways, axis=0)))])
        plots.epsilon_curve(curves, title=f"{name}: FGSM ignores JPEG", figure=panel)
        clean[name] = list(QUALITIES.values())[1:], [100 * curve[0] for curve in list(curves.values())[1:]]
        if name == "LeNet":
            draw(QUALITIES, name, model, subset, made(fgsm, subset), top)
        gains.append(max(row[2] for row in rows) - rows[0][2])
        gaps.append(max(row[6] for row in rows) - rows[0][6])
        tables[f"{name}: accuracy by quality and by the budget of FGSM, which ignores JPEG, {len(subset):,} images"] = [
            ["quality", *map(str, BUDGETS)], *([key, *curve.values()] for key, curve in curves.items())]
        tables[f"{name}: with eps {options.eps:g}, on {len(few):,} images"] = [
            ["quality", "clean", "FGSM, ignoring", "Auto-PGD, ignoring", "Auto-PGD, through", "Square", "all"], *rows]
    plots.lines(clean, xlabel="quality", ylabel="accuracy (%)", title="clean", figure=last)
    figure.savefig(options.out)
    verdict = "holds" if min(gains) >= 0.05 and max(gaps) <= 0.1 else "does not hold: take more steps"
    conclude(options, test, tables, f"JPEG gives back {min(gains):.2%} or more under FGSM that ignores it; all attacks "
             f"together leave {max(gaps):.2%} more than without it, or less: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="jpeg_mnist.png")
    parser.add_argument("--eps", type=at_least(0, float), default=0.1, help="the budget of the last tables")
    parser.add_argument("--steps", type=at_least(1, int), default=100, help="of Auto-PGD, and a fifth of Square's")
    parser.add_argument("--few", type=at_least(1, int), default=200, help="test images for Auto-PGD, at most")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images for FGSM, at most")
    main(parser.parse_args())
