"""The loss of Carlini and Wagner attacks as well as cross entropy, and also where cross entropy has no gradient left.

Vasquez Auqui, Chahua Salguera and Guimarey Saavedra ("Adversarial Machine Learning", undated) report that PGD on that
loss, the margin, gave no good results, and suspect a hyperparameter. Here PGD maximises the cross entropy, the margin,
and the margin per spread of the logits (DLR); so the loss itself is not at fault. The third network is the first with
logits a hundred times as large, as training at a high temperature makes them: its predictions are the same, but it is
so sure of them that the gradient of the cross entropy is 0 in float32. The last line says whether the claim holds: the
margin leaves less than two points more than the cross entropy, and there 50 points less.
"""

from common import Ascending, arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots

LOSSES = {"cross entropy": "cross_entropy", "margin": "margin", "DLR": "dlr"}
SCALE = 100


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset, left = test[:options.images], {}
    natural, robust = (models.zoo.load(name).to(options.device) for name in (options.natural, options.robust))
    networks = {options.natural: (natural, 0.15), f"{options.natural}, logits x {SCALE}":
                (lambda x: SCALE * natural(x), 0.15), options.robust: (robust, 0.3)}
    for name, (model, eps) in networks.items():
        print(f"{test.name}  {name}: accuracy on {len(subset):,} images {evaluation.accuracy(model, subset):.2%}")
        left[name] = {loss: [evaluation.robust_accuracy(model, attacks.PGD(eps, steps=steps, loss=key), subset,
                                                        seed=options.seed, progress=True) for steps in options.steps]
                      for loss, key in LOSSES.items()}

    figure = plots.blank(11, 3.5)
    for part, (name, each) in zip(figure.subfigures(1, len(left)), left.items(), strict=True):
        plots.lines({loss: (options.steps, [100 * accuracy for accuracy in row]) for loss, row in each.items()},
                    xlabel="steps", ylabel="accuracy (%)", title=f"{test.name}:\n{name}", figure=part)
        figure.axes[-1].set_ylim(-3, 103)
    figure.savefig(options.out)

    tables = {f"Accuracy of {name} under PGD within {networks[name][1]:g}, by its steps, on {len(subset):,} images": [
        ["loss", *map(str, options.steps)], *([loss, *row] for loss, row in each.items())]
        for name, each in left.items()}
    behind, ahead, other = (each["margin"][-1] - each["cross entropy"][-1] for each in left.values())
    worst = max(behind, other)
    verdict = "holds" if worst < 0.02 and ahead <= -0.5 else "does not hold"
    conclude(options, test, tables, f"with {options.steps[-1]} steps the margin leaves {worst:+.2%} of the images "
             f"beside the cross entropy, and {ahead:+.2%} where logits are large: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="losses_mnist.png", natural="mnist-madry-natural", robust="mnist-madry-linf")
    parser.add_argument("--steps", type=at_least(1, int), nargs="+", action=Ascending,
                        default=[20, 40, 100], help="of PGD")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to attack, at most")
    main(parser.parse_args())
