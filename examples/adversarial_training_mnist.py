"""Adversarial training keeps most of the accuracy of a small network where standard training loses all of it.

In adversarial training (Madry et al. 2018, arXiv:1706.06083) every batch is attacked first, here by a few steps of PGD,
and the network is trained on the adversarial images. The script trains the same network twice, without and with it, and
measures both under PGD for several eps. The last line says whether the claim holds: at the eps of training, the first
network is right on less than 5% of the images, and the second on more than half.
"""

from textwrap import indent

from common import arguments, at_least, mnist_or_digits

from tinyadv import attacks, evaluation, models, nn, plots, training


def main(options):
    train, test = mnist_or_digits(options.limit)
    inner = attacks.PGD(eps=options.eps, steps=options.steps)
    subset, attack, curves = test[:options.images], attacks.PGD(eps=options.eps, steps=40), {}
    for name, epochs, against in (("natural training", options.epochs, None),
                                  ("adversarial training", options.robust_epochs, inner)):
        model = models.ThresholdCNN(seed=options.seed).to(options.device)
        history = training.fit(
            model, train, epochs=epochs, attack=against, optimizer=nn.optim.Adam(model, lr=2e-3), batch_size=64,
            seed=options.seed, schedule=nn.optim.one_cycle(peak=0.1), eps_schedule=training.ramp(0.5), progress=True)
        print(indent(repr(history), f"{train.name}  "))
        print(f"\n{test.name}  {name}: accuracy {evaluation.accuracy(model, test):.2%}")
        budgets = [options.eps * (k / 6) for k in range(9)]
        curves[name] = evaluation.epsilon_curve(model, attack, subset, budgets, seed=options.seed, progress=True)
        for eps, accuracy in curves[name].items():
            print(f"{test.name}  under PGD-40, eps {eps:.2f}: {accuracy:.2%} of {len(subset):,} images")

    figure = plots.epsilon_curve(curves, title=f"{test.name}: accuracy under PGD, trained with ε = {options.eps:g}")
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    before, after = (curve[options.eps] for curve in curves.values())
    verdict = "holds" if before < 0.05 and after > 0.5 else "does not hold: train longer"
    print(f"{test.name}  accuracy under PGD, eps {options.eps:g}: {before:.2%} and {after:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="adversarial_training_mnist.png")
    parser.add_argument("--eps", type=at_least(0, float), default=0.3, help="budget of training, in linf")
    parser.add_argument("--steps", type=at_least(1, int), default=5, help="of the attack on each batch")
    parser.add_argument("--robust-epochs", type=at_least(1, int), default=5, help="of adversarial training")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    main(parser.parse_args())
