"""More random starts break more images of a robust network, with either loss; transferred images seldom do.

The table of the public MNIST challenge of Madry et al. (2018, arXiv:1706.06083). A network that was adversarially
trained with eps 0.3 is attacked with one step and with a hundred, with the cross entropy and with the loss of Carlini
and Wagner (the margin), from many random starts, and with images made for other networks (transfer). Their transferred
images come from other copies of the same network, and the number of steps is not given. Ours come from a network
trained on clean images and from a smaller robust one. The last line says whether the claim holds: with either loss many
starts leave fewer images than one, the two losses end within two points of each other, and every transferred attack
leaves more images than the same attack on the network itself.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots

PUBLISHED = {  # of their own network
    ("white box", "FGSM, cross entropy"): 0.9636, ("white box", "FGSM, margin"): 0.9640,
    ("white box", "PGD-100, cross entropy"): 0.9252, ("white box", "PGD-100, margin"): 0.9304,
    ("50 starts", "PGD-100, cross entropy"): 0.8962, ("50 starts", "PGD-100, margin"): 0.8971,
    ("from natural", "FGSM, margin"): 0.9608, ("from natural", "PGD-100, cross entropy"): 0.9681,
    ("from robust", "FGSM, cross entropy"): 0.9766, ("from robust", "PGD-100, cross entropy"): 0.9779,
}


def main(options):
    _, test = mnist_or_digits(options.limit)
    load = lambda name: models.zoo.load(name).to(options.device)  # noqa: E731
    model, sources = load(options.network), {"from natural": load(options.natural), "from robust": load(options.robust)}
    subset, eps, rows = test[:options.images], 0.3, [["", "attack", "images", "ours", "Madry et al."]]
    tries = {f"{name}, {loss.replace('_', ' ')}": attacks.PGD(eps=eps, loss=loss, **settings)
             for name, settings in {"FGSM": {"steps": 1, "step_size": eps, "random_start": False},
                                    f"PGD-{options.steps}": {"steps": options.steps, "step_size": 0.01}}.items()
             for loss in ("cross_entropy", "margin")}

    published = PUBLISHED if test.name == "mnist-test" else {}

    def measure(way, name, attack):
        accuracy = evaluation.robust_accuracy(model, attack, subset, seed=options.seed, progress=True)
        rows.append([way, name, f"{len(subset):,}", accuracy, published.get((way, name), "")])
        return accuracy

    direct = {name: measure("white box", name, attack) for name, attack in tries.items()}
    transferred = {(way, name): measure(way, name, attacks.Transfer(source, attack))
                   for way, source in sources.items() for name, attack in tries.items()}

    few, curves = test[:options.few], {}
    for name, attack in list(tries.items())[2:]:
        right = evaluation.predict(model, few.images) == few.labels
        left = []
        for start in range(options.starts):
            result = attack.run(model, few.images[right], few.labels[right], seed=options.seed + start, progress=True)
            right[right] = ~result.success
            left.append(right.mean())
        rows.append([f"{options.starts} starts (theirs: 50)", name, f"{len(few):,}", float(left[-1]),
                     published.get(("50 starts", name), "")])
        curves[name] = 1 + np.arange(len(left)), 100 * np.array(left)

    plots.lines(curves, xlabel="random starts", ylabel="accuracy (%)",
                title=f"{test.name}: PGD-{options.steps}, ε = {eps}").savefig(options.out)

    ends = [(percents[0], percents[-1]) for _, percents in curves.values()]
    gap, fall = abs(ends[0][1] - ends[1][1]), min(first - last for first, last in ends)
    weaker = sum(accuracy > direct[name] for (_, name), accuracy in transferred.items())
    verdict = "holds" if fall > 0 and gap < 2 and weaker == len(transferred) else "does not hold: train longer"
    conclude(options, test, {f"Accuracy of {options.network} under the attacks of the challenge": rows},
             f"more starts cost {fall:.2f} points or more of accuracy, the losses end {gap:.2f} apart, {weaker} of "
             f"{len(transferred)} transferred attacks are weaker: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="challenge_mnist.png", network="mnist-madry-linf", natural="mnist-madry-natural",
                       robust="mnist-lenet-linf")
    parser.add_argument("--steps", type=at_least(1, int), default=100, help="of PGD, each of 0.01")
    parser.add_argument("--starts", type=at_least(1, int), default=50, help="random starts on the --few images")
    parser.add_argument("--few", type=at_least(1, int), default=1000, help="test images for the many starts, at most")
    parser.add_argument("--images", type=at_least(1, int), default=10_000, help="test images for the rest, at most")
    main(parser.parse_args())
