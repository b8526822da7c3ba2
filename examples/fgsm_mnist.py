"""One step along the sign of the gradient halves the accuracy of a network that reads digits well.

The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572), x_adv = x + eps * sign(gradient of the loss at
x), attacks a small CNN trained on MNIST, for several eps. An image that is broken at one eps counts as broken at every
larger one. The last line says whether the claim holds: over 90% of the clean images are right, and less than half of
that at the largest eps.
"""

from textwrap import indent

from common import arguments, at_least, mnist_or_digits

from tinyadv import attacks, evaluation, models, nn, plots, training


def main(options):
    train, test = mnist_or_digits(options.limit)
    model = models.SmallCNN(seed=options.seed).to(options.device)
    model.summary()

    optimizer = nn.optim.SGD(model, lr=0.01)
    history = training.fit(model, train, epochs=options.epochs, optimizer=optimizer, batch_size=32,
                           seed=options.seed, progress=True)
    clean = evaluation.accuracy(model, test)
    print("\n" + indent(repr(history), f"{train.name}  "))
    print(f"\n{test.name}  accuracy on {len(test):,} images: {clean:.2%}")

    eps = max(options.eps)
    attack = attacks.FGSM(eps=eps)
    examples = test[:3]
    adversarial = attack(model, examples.images, examples.labels)
    curve = evaluation.epsilon_curve(model, attack, test, options.eps, progress=True)
    print(f"\n{test.name}     eps  accuracy under FGSM")
    for budget, accuracy in curve.items():
        print(f"{test.name}  {budget:6g}  {accuracy:.2%}")

    figure = plots.blank(9, 5)
    left, right = figure.subfigures(1, 2)
    title = f"{test.name}: FGSM, ε = {eps:g}"
    plots.adversarial_triples(model, examples, adversarial, title=title, figure=left)
    plots.epsilon_curve({"FGSM": curve}, title=f"{test.name}: accuracy under FGSM", figure=right)
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    verdict = "holds" if clean > 0.9 and curve[eps] < clean / 2 else "does not hold: train longer, raise eps"
    print(f"{test.name}  accuracy {clean:.2%}, with eps {eps:g} {curve[eps]:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="fgsm_mnist.png")
    parser.add_argument("--eps", type=at_least(0, float), nargs="+", help="largest change of a pixel",
                        default=[0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    main(parser.parse_args())
