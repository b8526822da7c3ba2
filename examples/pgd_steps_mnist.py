"""A hundred steps of PGD break few more images of a robust network than forty do.

Tables I and II of "Adversarial Machine Learning" (Vasquez Auqui, Chahua Salguera and Guimarey Saavedra, undated): the
accuracy of adversarially trained networks under PGD with steps of 0.01 within 0.3, by the number of steps. Here the
networks are those of models.zoo, beside the published accuracies. (The caption of table II says natural training, its
text adversarial training.) The last line says whether the claim holds: between 40 and 100 steps no network loses more
than five points, and more than half of the images stay right.
"""

from common import Ascending, arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots

PUBLISHED = {"table I": {20: 0.9583, 40: 0.9373, 60: 0.9292, 80: 0.9259, 100: 0.9236},
             "table II": {20: 0.9783, 40: 0.9573, 60: 0.9492, 80: 0.9459, 100: 0.9436}}


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset, ours = test[:options.images], {}
    for name in (options.first, options.second):
        model = models.zoo.load(name).to(options.device)
        clean = evaluation.accuracy(model, subset)
        print(f"{test.name}  {type(model).__name__}: accuracy on {len(subset):,} images {clean:.2%}")
        ours[name] = {steps: evaluation.robust_accuracy(model, attacks.PGD(eps=0.3, step_size=0.01, steps=steps),
                                                        subset, seed=options.seed, progress=True)
                      for steps in options.steps}

    columns = ours | (PUBLISHED if test.name == "mnist-test" else {})
    table = [["steps", *columns], *([str(steps), *(each.get(steps, "") for each in columns.values())]
                                    for steps in options.steps)]
    curves = {name: (list(each), [100 * accuracy for accuracy in each.values()]) for name, each in columns.items()}
    plots.lines(curves, xlabel="steps", ylabel="accuracy (%)",
                title=f"{test.name}: PGD, steps of 0.01, ε = 0.3").savefig(options.out)

    fall = max(mine[min(mine, key=lambda k: abs(k - 40))] - mine[max(mine)] for mine in ours.values())
    left = min(mine[max(mine)] for mine in ours.values())
    verdict = "holds" if fall < 0.05 and left > 0.5 else "does not hold: train longer"
    conclude(options, test, {f"Accuracy under PGD by its steps, on {len(subset):,} images": table},
             f"from about 40 to {max(options.steps)} steps up to {fall:.2%} of accuracy are lost, {left:.2%} or more "
             f"left: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="pgd_steps_mnist.png", first="mnist-madry-linf", second="mnist-threshold-linf")
    parser.add_argument("--steps", type=at_least(1, int), nargs="+", action=Ascending, help="of PGD",
                        default=[20, 40, 60, 80, 100])
    parser.add_argument("--images", type=at_least(1, int), default=10_000, help="test images to attack, at most")
    main(parser.parse_args())
