"""Three networks reach the published accuracy on new images.

Figures 26 to 28 of Kelley and Fritz ("Interpretabilidad de los Ataques Adversarios", 2021): accuracy and loss by epoch
of their network for CIFAR-10, of LeNet on MNIST and of a residual network on MNIST, which they report to reach 87%, 99%
and 99%. Here each is trained from its file of settings in configs/, and watched on held-out training images. An
interrupted run goes on from its checkpoint. The last line says whether the claim holds: the accuracy on the test images
is within half a point below, or above, the published one.
"""

from dataclasses import replace

from common import conclude
from options import CONFIGS, arguments
from recipes import DATA, recipe, split

from tinyadv import evaluation, models, plots, training

PUBLISHED = {"cifar10-cnn-natural": 0.87, "mnist-lenet-natural": 0.99, "mnist-resnet-natural": 0.99}


def main(options):
    sets = {name: DATA[name](options.limit) for name in ("cifar10", "mnist")}
    both = replace(sets["mnist"][1], name=" and ".join(dict.fromkeys(test.name for _, test in sets.values())))
    table, histories, ends, tests = [["network", "data", "epoch", "loss", "accuracy", "held out"]], {}, {}, {}
    for name in PUBLISHED:
        settings = models.zoo.settings(CONFIGS / f"{name}.toml")
        train, test = sets[settings.get("data", "mnist")]
        model, _, how = recipe(settings, options.seed, device=options.device)
        numbers = settings["training"] | {"seed": options.seed}
        if options.epochs:
            numbers["epochs"] = options.epochs
        train, held_out = split(train, settings)
        history = training.fit(model, train, **numbers, **how, validation=held_out, progress=True, resume=True,
                               checkpoint=options.out.with_suffix(f".{name}.npz"))
        histories[name], ends[name], tests[name] = history, evaluation.accuracy(model, test), test.name
        print(f"{test.name}  {type(model).__name__}: accuracy on {len(test):,} images {ends[name]:.2%}")
        table += [[type(model).__name__, train.name, str(epoch.epoch), f"{epoch.loss:.4f}", epoch.accuracy,
                   epoch.validation] for epoch in history]

    figure = plots.blank(11, 6)
    for column, (name, history) in zip(figure.subfigures(1, len(histories)), histories.items(), strict=True):
        top, bottom = column.subfigures(2, 1)
        test = tests[name].removesuffix("-test")
        epochs = [epoch.epoch for epoch in history]
        plots.lines({"training": (epochs, [100 * epoch.accuracy for epoch in history]),
                     "held out": (epochs, [100 * epoch.validation for epoch in history])},
                    xlabel="epoch", ylabel="accuracy (%)", title=f"{test}: {name}", figure=top)
        plots.lines({"training": (epochs, [epoch.loss for epoch in history])}, xlabel="epoch", ylabel="mean loss",
                    figure=bottom)
    figure.savefig(options.out)

    behind = {name: PUBLISHED[name] - end for name, end in ends.items()}
    worst = max(behind, key=behind.get)
    verdict = "holds" if behind[worst] <= 0.005 else "does not hold: train longer"
    conclude(options, both, {"Accuracy and loss by epoch": table}, "the accuracies on test images are "
             f"{', '.join(f'{end:.2%} ({tests[name]})' for name, end in ends.items())}, at worst {-behind[worst]:+.2%} "
             f"beside the published one: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="learning_curves.png")
    parser.set_defaults(epochs=None)  # those of the settings, unless given
    main(parser.parse_args())
