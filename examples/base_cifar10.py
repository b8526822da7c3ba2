"""Changes too small to see fool a good network for CIFAR-10; trained on attacked images, it withstands most of them.

Table 1 with figures 2 to 5, and table 2, of Castro Ros, Ben Mansour and Bouskila ("Adversarial Networks", 2020): an
image of each attack, and the accuracy of a base network by the budget, under FGSM and PGD, on the images that it gets
right; then that of the same network trained within 8/255 on images of FGSM from a random point (`training.Fast`) or of
PGD with two steps. Table 2 has rows of its own for the base network. Their network was lost: that of the zoo stands for
it. An interrupted run goes on from its checkpoint. The last line says whether the claim holds: at 0.01 PGD fools most
images that the base network gets right, and leaves most of those that the network trained on PGD gets right.
"""

import numpy as np
from common import arguments, at_least, cifar10_or_digits, conclude

from tinyadv import attacks, data, evaluation, models, nn, plots, training

EPS = 8 / 255  # of the training
BUDGETS = (0.001, 0.01, 0.05, 0.1, 0.3, 0.5)
PUBLISHED = [  # table 1, and at two of the budgets table 2
    ("FGSM", "base network", 0.8461, 0.5405, 0.22, 0.2174, 0.2057, 0.1377),
    ("PGD", "base network", 0.2775, 0.1247, 0.0771, 0.0775, 0.0779, 0.0789),
    ("FGSM", "without defence", "", 0.4795, 0.0731), ("PGD", "without defence", "", 0.5799, 0.0),
    ("FGSM", "trained on FGSM", "", 0.6853, 0.4315), ("PGD", "trained on FGSM", "", 0.8832, 0.0355),
    ("FGSM", "trained on PGD", "", 0.6874, 0.1692), ("PGD", "trained on PGD", "", 0.9128, 0.1333)]
ATTACKS = {"FGSM": attacks.FGSM(EPS), "PGD": attacks.PGD(EPS, steps=20)}
METHODS = {"without defence": None, "trained on FGSM": training.Fast(EPS),
           "trained on PGD": training.Adversarial(attacks.PGD(EPS, steps=2, step_size=EPS / 2))}


def main(options):
    train, test = cifar10_or_digits(options.limit)
    count = max(1, len(train) // 100)  # training images that are held out, to keep the best epoch
    augment, curves = data.augment.chain(data.augment.crop(4), data.augment.flip()), {}
    defences = [["attack", "network", "clean, of all", *(f"eps {eps:g}" for eps in BUDGETS)]]
    base = models.zoo.load(options.model).to(options.device)
    for k, (name, method) in enumerate(METHODS.items()):
        model = models.BaseCNN(seed=options.seed).to(options.device) if method else base
        if method:
            training.fit(model, train[count:], epochs=options.epochs, batch_size=128, seed=options.seed, method=method,
                         optimizer=nn.optim.SGD(model, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
                         schedule=nn.optim.one_cycle(peak=0.25), augment=augment, progress=True, resume=True,
                         checkpoint=options.out.with_suffix(f".{k}.npz"),
                         validation=train[:count], validation_attack=attacks.PGD(EPS, steps=10))
        clean = evaluation.accuracy(model, test)
        print(f"{test.name}  {name}: accuracy on {len(test):,} images {clean:.2%}")
        right = np.flatnonzero(evaluation.predict(model, test.images) == test.labels)[:options.images]
        for attack, made in ATTACKS.items():
            curves[name, attack] = evaluation.epsilon_curve(model, made, test[right], BUDGETS, seed=options.seed,
                                                            progress=True) if len(right) else dict.fromkeys(BUDGETS, 0.)
            defences.append([attack, name, clean, *curves[name, attack].values()])

    figure = plots.blank(10, 6.5)
    # The first image that the base network gets right.
    shown = test[[(evaluation.predict(base, test.images[:100]) == test.labels[:100]).argmax()]]
    parts = figure.subfigures(2, 2, height_ratios=[2, 3])
    for (upper, lower), (attack, made) in zip(parts.T, ATTACKS.items(), strict=True):
        points = made.with_eps(0.01)(base, shown.images, shown.labels)
        plots.adversarial_triples(base, shown, points, title=f"{test.name}: {attack}, ε = 0.01", figure=upper)
        plots.epsilon_curve({name: curves[name, attack] for name in METHODS}, title=f"{test.name}: {attack}",
                            figure=lower)
    figure.savefig(options.out)

    left, trained = (curves[name, "PGD"][0.01] for name in ("without defence", "trained on PGD"))
    verdict = "holds" if left < 0.5 < trained else "does not hold: train longer"
    head = ["attack", "network", *(f"eps {eps:g}" for eps in BUDGETS)]
    conclude(options, test, {
        f"Accuracy on up to {options.images:,} images that are right without attack": defences,
        "The published accuracies": [head, *([*row, *[""] * (len(head) - len(row))] for row in PUBLISHED)]},
        f"at 0.01 PGD leaves {left:.2%} of the base network's images, and {trained:.2%} of those of the network "
        f"trained on PGD: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="base_cifar10.png", model="cifar10-base-natural")
    parser.add_argument("--epochs", type=at_least(1, int), default=16, help="of each training on attacked images")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    main(parser.parse_args())
