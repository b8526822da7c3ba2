"""Just beyond its training budget a robust network loses most of its accuracy; and in l2, PGD overstates it.

Figure 6 of Madry et al. (2018, arXiv:1706.06083): accuracy against the budget, for three networks: one trained on clean
images, one adversarially in linf 0.3, one in l2 2.0. The attack is PGD in both norms, and in l2 also the boundary
attack (Brendel et al. 2018, arXiv:1712.04248), which uses no gradients. The last line says whether the claim holds: the
linf network loses more accuracy between 0.3 and 0.4 than between 0 and 0.3, and for some l2 budget the boundary attack
leaves ten points less of its accuracy than PGD.
"""

from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots

BUDGETS = {"linf": [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4], "l2": [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6]}


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset, few = test[:options.images], test[:options.few]
    names = {"natural": options.natural, "linf 0.3": options.linf, "l2 2.0": options.l2}
    networks = {name: models.zoo.load(file).to(options.device) for name, file in names.items()}

    curves, boundary = {"linf": {}, "l2": {}}, attacks.BoundaryAttack(queries=options.queries)
    for name, model in networks.items():
        for norm, budgets in BUDGETS.items():
            attack = attacks.PGD(eps=budgets[-1], steps=options.steps, norm=norm)
            curves[norm][f"{name}: PGD"] = evaluation.epsilon_curve(
                model, attack, few if norm == "l2" else subset, budgets, seed=options.seed, progress=True)
        curves["l2"][f"{name}: boundary"] = evaluation.security_curve(model, boundary, few, BUDGETS["l2"],
                                                                      seed=options.seed, progress=True)
        print(f"{test.name}  {name}: accuracy {curves['linf'][f'{name}: PGD'][0]:.2%} on {len(subset):,} images")

    figure = plots.blank(10, 4)
    for part, (norm, several) in zip(figure.subfigures(1, 2), curves.items(), strict=True):
        plots.epsilon_curve(several, title=f"{test.name}: {norm}", figure=part)
    figure.savefig(options.out)

    robust = curves["linf"]["linf 0.3: PGD"]
    before, after = robust[0] - robust[0.3], robust[0.3] - robust[0.4]
    white, black = (curves["l2"][f"linf 0.3: {attack}"] for attack in ("PGD", "boundary"))
    gap = max(white[eps] - black[eps] for eps in BUDGETS["l2"])
    verdict = "holds" if after > before and gap > 0.1 else "does not hold: train longer"
    tables = {f"Accuracy by the {norm} budget, on {len(few if norm == 'l2' else subset):,} images": [
        ["network: attack", *(f"{eps:g}" for eps in BUDGETS[norm])],
        *([name, *curve.values()] for name, curve in several.items())] for norm, several in curves.items()}
    conclude(options, test, tables, f"from eps 0 to 0.3 {before:.2%} of the images are lost, from 0.3 to 0.4 "
             f"{after:.2%}; the boundary attack leaves up to {gap:.2%} less than PGD: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="budgets_mnist.png", natural="mnist-madry-natural", linf="mnist-madry-linf",
                       l2="mnist-madry-l2")
    parser.add_argument("--steps", type=at_least(1, int), default=100, help="of PGD")
    parser.add_argument("--queries", type=at_least(2, int), default=2000, help="of the boundary attack")
    parser.add_argument("--few", type=at_least(1, int), default=200, help="test images in l2, at most")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images in linf, at most")
    main(parser.parse_args())
