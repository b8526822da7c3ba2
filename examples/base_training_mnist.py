"""Training on FGSM helps against FGSM; against PGD with the full budget, only training on PGD helps much.

Table 2 of Castro Ros, Ben Mansour and Bouskila ("Adversarial Networks", 2020), on MNIST with LeNet: the accuracy under
FGSM and PGD of a network without defence, of one trained on images of FGSM, and of one trained on images of PGD. Their
budgets 0.01 and 0.05 are for CIFAR-10, where base_cifar10.py repeats the table. On MNIST they change little, so there
are larger ones, up to the --eps of the training. The last line says whether the claim holds: at --eps, training on FGSM
leaves 20 points more under FGSM than under PGD, and under PGD training on PGD leaves 20 points more than that on FGSM.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, nn, plots, training


def main(options):
    train, test = mnist_or_digits(options.limit)
    budgets = [0.01, 0.05, *np.round(np.linspace(0, options.eps, 4)[1:], 3).tolist()]
    budgets = sorted({budget for budget in budgets if budget <= budgets[-1]})
    ways = {"FGSM": attacks.FGSM(options.eps), "PGD": attacks.PGD(options.eps, steps=options.steps)}
    methods = {"without defence": training.Standard(),
               "trained on FGSM": training.Adversarial(attacks.FGSM(options.eps)),
               "trained on PGD": training.Adversarial(attacks.PGD(options.eps, steps=7))}
    curves, rows = {way: {} for way in ways}, []
    for name, method in methods.items():
        model = models.LeNet(seed=options.seed).to(options.device)
        training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                     seed=options.seed, method=method, eps_schedule=training.ramp(0.5), progress=True)
        clean = evaluation.accuracy(model, test)
        for way, attack in ways.items():
            curve = curves[way][name] = evaluation.epsilon_curve(model, attack, test[:options.images], budgets,
                                                                 seed=options.seed, progress=True)
            rows.append([way, name, clean, *curve.values()])
    figure = plots.blank(10, 4)
    for part, (way, curve) in zip(figure.subfigures(1, 2), curves.items(), strict=True):
        plots.epsilon_curve(curve, title=f"{test.name}: {way}", figure=part)
    figure.savefig(options.out)

    (one, many), robust = (curves[way]["trained on FGSM"][budgets[-1]] for way in ways), curves["PGD"]["trained on PGD"]
    verdict = "holds" if min(one, robust[budgets[-1]]) - many >= 0.2 else "does not hold: train longer"
    published = [["attack", "network", "eps 0.01", "eps 0.05"],
                 ["FGSM", "without defence", 0.4795, 0.0731], ["FGSM", "trained on FGSM", 0.6853, 0.4315],
                 ["FGSM", "trained on PGD", 0.6874, 0.1692], ["PGD", "without defence", 0.5799, 0.0],
                 ["PGD", "trained on FGSM", 0.8832, 0.0355], ["PGD", "trained on PGD", 0.9128, 0.1333]]
    conclude(options, test, {
        f"Accuracy by budget, trained within {options.eps:g}, {options.images:,} images": [
            ["attack", "network", "clean, all images", *(f"eps {eps:g}" for eps in budgets)], *rows],
        "Published, on photographs of 32x32 pixels": published},
        f"with eps {budgets[-1]:g}, training on FGSM leaves {one:.2%} under FGSM and {many:.2%} under PGD, training on "
        f"PGD leaves {robust[budgets[-1]]:.2%} under PGD: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="base_training_mnist.png")
    parser.add_argument("--eps", type=at_least(0.002, float), default=0.3, help="the budget of the training")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of the PGD that attacks")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    main(parser.parse_args())
