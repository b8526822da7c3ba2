"""PGD needs steps that can cross its ball: with too small ones a network seems more robust than it is.

Vasquez Auqui, Chahua Salguera and Guimarey Saavedra ("Adversarial Machine Learning", undated, section V.A) tried steps
of 0.001 to 0.01, and found 0.01 to be best within 0.3. Here all these steps are taken within 0.1, 0.2 and 0.3. Each
number is the accuracy that PGD leaves to an adversarially trained network. The last line says whether the claim holds:
within the largest budget the largest step leaves least, and a step that cannot reach its edge leaves more than the
step that just can.
"""

from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots

BUDGETS = (0.1, 0.2, 0.3)


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset, model = test[:options.images], models.zoo.load(options.network).to(options.device)
    print(f"{test.name}  accuracy on {len(subset):,} images: {evaluation.accuracy(model, subset):.2%}")
    sizes = [k / 1000 for k in range(1, 11)]
    left = {eps: {size: evaluation.robust_accuracy(model, attacks.PGD(eps, size, options.steps), subset,
                                                   seed=options.seed, progress=True) for size in sizes}
            for eps in BUDGETS}

    curves = {f"ε = {eps:g}": (sizes, [100 * each[size] for size in sizes]) for eps, each in left.items()}
    plots.lines(curves, xlabel="size of a step", ylabel="accuracy (%)",
                title=f"{test.name}: PGD, {options.steps} steps").savefig(options.out)
    table = [["eps", *(f"{size:g}" for size in sizes)],
             *([f"{eps:g}", *each.values()] for eps, each in left.items())]

    widest = left[BUDGETS[-1]]
    best = min(sizes, key=widest.get)
    # The random start is eps / 2 away from the edge on average; the smallest size whose steps cover the ball's radius.
    enough = next((size for size in sizes if size * options.steps >= BUDGETS[-1]), sizes[-1])
    gain = widest[sizes[0]] - widest[enough]
    verdict = "holds" if best == sizes[-1] and gain > 0 else "does not hold: other steps are better"
    conclude(options, test, {f"Accuracy under PGD with {options.steps} steps, by the size of a step, on "
                             f"{len(subset):,} images": table},
             f"within {BUDGETS[-1]:g} steps of {best:g} are best, and leave {widest[best]:.2%}; {options.steps} steps "
             f"of {sizes[0]:g} leave {gain:.2%} more than as many of {enough:g}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="step_size_mnist.png", network="mnist-madry-linf")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of PGD")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to attack, at most")
    main(parser.parse_args())
