"""Draws the figures of the pages on attacks: `python docs/figures.py`, or with the names of some of them.

They show the built-in digits and the small network of the pages, and end up in docs/figures/.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinyadv import attacks, certify, data, evaluation, nn, plots, training
from tinyadv.tensor import op

FOLDER = Path(__file__).parent / "figures"
FIGURES = {}
train, test = data.digits(train=1000, test=200)
x, y = test.images, test.labels
ONE = 4  # the image of which figures show one
one = x[ONE:ONE + 1], y[ONE:ONE + 1]
model = nn.Sequential(
    nn.Conv2d(1, 8, 5, stride=2, rng=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(288, 10, rng=2))


def surrogate():
    """Another network for the same digits."""
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 50, rng=3), nn.ReLU(), nn.Linear(50, 10, rng=4))
    training.fit(other, train, epochs=5, optimizer=nn.optim.Adam(other, lr=2e-3), seed=43)
    return other


def figure(draw):
    """Put a function that returns a Figure on the list, under its name."""
    FIGURES[draw.__name__] = draw
    return draw


def watch(attack, images, labels):
    """The points (steps, n, ...) and their losses (steps, n) on the way of an attack that drops no image early."""
    seen = []
    attack.run(model, images, labels, batch_size=len(images), callback=seen.append)
    return np.array([step.points for step in seen]), np.array([step.losses for step in seen])


@figure
def fgsm():
    few = test[[4, 10]]
    return plots.adversarial_triples(model, few, attacks.FGSM(0.2)(model, few.images, few.labels))


@figure
def bim():
    epsilons = np.linspace(0, 0.3, 13).tolist()
    several = {"FGSM, 1 gradient": attacks.FGSM(0.1), "BIM, 10 gradients": attacks.BIM(0.1)}
    curves = {name: evaluation.epsilon_curve(model, attack, test, epsilons) for name, attack in several.items()}
    return plots.epsilon_curve(curves, title="One step, and ten of them")


@figure
def pgd():
    attack, curves = attacks.PGD(0.15), {}
    for number in (8, 1, 6):
        images, labels = np.repeat(x[number:number + 1], 20, axis=0), np.repeat(y[number], 20)
        _, loss = watch(attack, images, labels)
        curves[f"a {y[number]}, from 20 random points"] = np.arange(len(loss)), loss.T
    return plots.lines(curves, xlabel="step", ylabel="cross entropy", title=str(attack))


@figure
def losses():
    curves, scales = {}, 10.0 ** np.arange(0, 5.5, 0.5)
    for loss in ("cross_entropy", "margin", "dlr"):
        attack = attacks.PGD(0.1, steps=10, loss=loss)
        curves[loss] = scales, [
            100 * evaluation.robust_accuracy(lambda pixels, s=s: model(pixels) * s, attack, test) for s in scales]
    drawn = plots.lines(curves, xlabel="factor on the logits", ylabel="accuracy left (%)", log="x",
                        title="The same network, with its logits scaled")
    drawn.axes[0].set_ylim(0, 100)
    return drawn


@figure
def mifgsm():
    def cosines(attack):
        points, _ = watch(attack, x, y)
        steps = np.diff(points.reshape(attack.steps, len(x), -1), axis=0)
        directions = steps / np.maximum(np.linalg.norm(steps, axis=2, keepdims=True), 1e-9)
        return np.arange(2, attack.steps), (directions[:-1] * directions[1:]).sum(axis=2).mean(axis=1)

    curves = {"BIM": cosines(attacks.BIM(0.2, 0.05, 20)), "MIFGSM": cosines(attacks.MIFGSM(0.2, 0.05, 20))}
    drawn = plots.lines(curves, xlabel="step", ylabel="mean cosine", title="Cosine of a step and the one before")
    drawn.axes[0].set(xticks=range(2, 20, 2), ylim=(-1, 1))
    return drawn


def changes(results, headings):
    """A grid of one image, what has become of it, and below the changes."""
    pictures = np.array([x[ONE], *(result.x_adv[0] for result in results)])
    noise = pictures - pictures[0]
    noise[0] = np.nan  # left out
    below = [f"“{result.predictions[0]}”, {result.norm} {result.distances[0]:#.3g}" for result in results]
    return plots.grid(np.array([pictures, noise]), columns=[f"a {y[ONE]}", *headings], noise=[[False], [True]],
                      captions=[[""] * len(pictures), ["", *below]], figure=plots.blank(0.85 * len(pictures), 2.2))


@figure
def deepfool():
    results, headings = [], []
    for norm, most in ("l2", 4.0), ("linf", 0.4):
        budgets = np.linspace(0, most, 401)
        least = next(eps for eps in budgets if attacks.FGSM(eps, norm).run(model, *one).success[0])
        several = {"DeepFool": attacks.DeepFool(norm=norm), "FGSM": attacks.FGSM(least, norm)}
        headings += [f"{name}\n{norm}" for name in several]
        results += [attack.run(model, *one) for attack in several.values()]
    return changes(results, headings)


@figure
def carlini_wagner():
    kappas = (0, 2, 5, 10)
    attack = attacks.CarliniWagner(binary_search_steps=6, steps=200, lr=0.05, initial_c=1.0)
    return changes([replace(attack, kappa=kappa).run(model, *one) for kappa in kappas], [f"κ = {k}" for k in kappas])


@figure
def fab():
    def medians(several):
        results = [attack.run(model, x[:50], y[:50], skip_misclassified=True) for attack in several]
        right = results[0].predictions_clean == y[:50]
        distances = [np.where(r.success, r.distances, np.inf)[right] for r in results]
        return [[r.backwards[right].mean() for r in results], np.median(distances, axis=1)]

    cw = attacks.CarliniWagner(binary_search_steps=4, lr=0.1, initial_c=1.0)
    curves = {
        "DeepFool": medians([attacks.DeepFool()]),
        "FAB": medians([attacks.FAB(norm="l2", steps=n) for n in (2, 3, 5, 10, 20, 50, 100)]),
        "CarliniWagner": medians([replace(cw, steps=n) for n in (20, 50, 100, 200, 500)]),
    }
    return plots.lines(curves, xlabel="gradients for an image", ylabel="median l2 distance", log="x",
                       title=f"{test.name}: smallest changes found")


@figure
def square():
    queries = (1, 10, 100, 1000, 5000)
    rows = []
    for norm, eps in ("linf", 0.05), ("l2", 0.7):
        points, margins = watch(attacks.Square(eps, norm=norm), *one)
        best = [margins[:n].argmax() for n in queries]
        rows.append([x[ONE], *(points[best, 0] - x[ONE])])
    return plots.grid(np.array(rows), rows=("linf", "l2"), columns=["image", *map("{:,}".format, queries)],
                      noise=[False] + [True] * len(queries), title="Changes by queries")


@figure
def boundary():
    queries, few = (100, 300, 1000, 3000, 10_000), [4, 10]
    walk = [attacks.BoundaryAttack(queries=n, starts=train.images[:50]).run(model, x[few], y[few]) for n in queries]
    images = np.stack([*(result.x_adv for result in walk), x[few]], axis=1)
    captions = [[*(f"“{result.predictions[i]}”, l2 {result.distances[i]:.2f}" for result in walk), f"“{y[few[i]]}”"]
                for i in range(len(few))]
    return plots.grid(images, columns=[*map("{:,}".format, queries), "image"], captions=captions,
                      title="Points by queries")


@figure
def hopskipjump():
    few, queries, curves = slice(0, 20), (300, 1000, 3000, 10_000), {}
    right = evaluation.predict(model, x[few]) == y[few]

    def median(attack):
        result = attack.run(model, x[few][right], y[few][right])
        return np.median(np.where(result.success, result.distances, np.inf))

    for attack in attacks.BoundaryAttack, attacks.HopSkipJump:
        curves[attack.__name__] = queries, [median(attack(queries=n, starts=train.images[:50])) for n in queries]
    gradients = attacks.CarliniWagner(binary_search_steps=5, steps=200, lr=0.1, initial_c=1.0)
    curves["CarliniWagner, by gradients"] = queries[::3], [median(gradients)] * 2
    drawn = plots.lines(curves, xlabel="queries", ylabel="median l2 distance", log="x",
                        title=f"{test.name}: smallest changes found")
    drawn.axes[0].set_ylim(bottom=0)
    return drawn


@figure
def transfer():
    epsilons = np.linspace(0, 0.3, 13).tolist()
    several = {
        "random noise": attacks.PGD(0.1, step_size=1e-9, steps=1),  # its start
        "Transfer": attacks.Transfer(surrogate(), attacks.PGD(0.1)),
        "white box": attacks.PGD(0.1),
    }
    curves = {name: evaluation.epsilon_curve(model, attack, test, epsilons) for name, attack in several.items()}
    return plots.epsilon_curve(curves, title="PGD on another network, on this one, and noise")


@figure
def patch():
    right = evaluation.predict(model, x) == y
    shown = [int(i) for i in np.flatnonzero(right)[[3, 8]]]
    results = [attacks.Patch((5, 5), places=places).run(model, x[shown], y[shown]) for places in ("random", "all")]
    one = attacks.universal_patch(model, train.images, train.labels, size=(7, 7))
    pasted = attacks.paste(x[shown], one)
    images = np.stack([x[shown], *(result.x_adv for result in results), pasted], axis=1)
    found = [y[shown], *(result.predictions for result in results), evaluation.predict(model, pasted)]
    captions = [[f"“{classes[i]}”" for classes in found] for i in range(len(shown))]
    return plots.grid(images, columns=["image", "random", "all", "universal"], captions=captions)


@figure
def apgd():
    def best(attack):
        return np.maximum.accumulate(watch(attack, x, y)[1], axis=0).mean(axis=1)

    several = {f"PGD, steps of {share} ε": attacks.PGD(0.15, share * 0.15, 100) for share in (0.02, 0.1, 0.5)}
    several["APGD"] = attacks.APGD(0.15)
    shown = np.r_[0:20:2, 20:100:5, 99]
    curves = {name: (1 + shown, best(attack)[shown]) for name, attack in several.items()}
    return plots.lines(curves, xlabel="gradients", ylabel="mean cross entropy, best so far",
                       title=f"{test.name}, ε = 0.15")


@figure
def autoattack(count=60):
    @op
    def rounded(pixels):
        return np.rint(pixels * 7) / 7, lambda g: 0 * g

    networks = {"network": model, "logits × 1000": lambda pixels: model(pixels) * 1000,
                "pixels of 8 levels": lambda pixels: model(rounded(pixels))}
    curves = {}
    for name, network in networks.items():
        result = attacks.AutoAttack(0.1).run(network, x[:count], y[:count], skip_misclassified=True)
        clean = (result.predictions_clean == result.y).sum()
        names = ["clean", *(row[0] for row in result.table[:-1])]
        curves[name] = names, np.array([clean, *(row[1] for row in result.table[:-1])]) * 100 / count
    drawn = plots.lines(curves, xlabel="after", ylabel="accuracy left (%)", title=f"{test.name}: AutoAttack")
    drawn.axes[0].set_ylim(0, 100)
    return drawn


@figure
def multi_attack():
    epsilons = np.linspace(0, 0.25, 11).tolist()
    parts = [attacks.FGSM(0.1), attacks.Transfer(surrogate(), attacks.PGD(0.1)), attacks.Square(0.1, queries=200)]
    several = {type(part).__name__: part for part in parts} | {"MultiAttack": attacks.MultiAttack(parts)}
    curves = {name: evaluation.epsilon_curve(model, attack, test, epsilons) for name, attack in several.items()}
    return plots.epsilon_curve(curves, title="Three attacks, and all of them")


@figure
def certificates():
    """Left, boxes: a network that was trained with them. Right, votes of a network that was trained on noise."""
    both = plots.style.blank(9, 3.5)
    left, right = both.subfigures(1, 2)
    epsilons, radii = np.linspace(0, 0.1, 6).tolist(), np.linspace(0, 1.5, 7).tolist()
    boxed = nn.Sequential(nn.Flatten(), nn.Linear(784, 32, init="ibp", rng=0), nn.BatchNorm1d(32), nn.ReLU(),
                          nn.Linear(32, 10, rng=1))
    training.fit(boxed, train, epochs=12, optimizer=nn.optim.Adam(boxed, lr=5e-3), seed=0,
                 method=training.Certified(eps=0.06), eps_schedule=training.ramp(0.5))
    curves = {"under PGD": evaluation.epsilon_curve(boxed, attacks.PGD(0.1, steps=20), test, epsilons)}
    for method in ("zonotope", "ibp"):
        curves[f"certified, {method}"] = {eps: float(certify.certified_accuracy(boxed, test, eps, method=method))
                                          for eps in epsilons}
    plots.epsilon_curve(curves, title="linf, bounds", figure=left)

    smoothing = certify.Smoothing(sigma=0.5, samples=1000)
    base = nn.Sequential(nn.Flatten(), nn.Linear(784, 32, rng=0), nn.ReLU(), nn.Linear(32, 10, rng=1))
    training.fit(base, train, epochs=12, optimizer=nn.optim.Adam(base, lr=5e-3), seed=0, augment=smoothing.augment)
    found, voted, vote = smoothing.certify(base, test), {}, smoothing.smoothed(base, samples=30)
    for radius in radii:
        x_adv = attacks.PGD(radius, norm="l2", steps=20)(vote, x, y) if radius else x
        voted[radius] = smoothing.predict(base, replace(test, images=x_adv)).accuracy
    curves = {"under PGD on the vote": voted, "certified": found.curve(radii)}
    return plots.epsilon_curve(curves, title="l2, votes on noisy images", xlabel="radius", figure=right)


if __name__ == "__main__":
    training.fit(model, train, epochs=3, optimizer=nn.optim.Adam(model, lr=5e-3), seed=42)
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        path = FOLDER / f"{name}.png"
        FIGURES[name]().savefig(path)
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)  # of 256 colours: a third of the bytes
