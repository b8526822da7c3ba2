"""A layer of Gaussian noise makes a convolutional network no more robust, if the attack averages over the noise.

Figures 6 and 7 of Castro Ros, Ben Mansour and Bouskila (2020), who found no gain, on MNIST with LeNet: accuracy by
budget for the network as it is, with noise behind the first convolution, and with noise between the dense layers. The
noise (sigma 0.05, theirs) is on in training and at test. Each gradient is a mean over --eot passes (expectation over
transformation), and the finished images are judged with draws that the attack has not seen. The last line says whether
the claim holds: at every budget, noise gains 3 points or less, as a mean over the seeds.
"""

from functools import partial

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, nn, plots, training

PLACES = {"no noise": None, "noise behind the convolution": 1, "noise between dense layers": 9}
BUDGETS = [0, 0.02, 0.05, 0.1, 0.15, 0.2]


def network(place, options, seed):
    layers = models.LeNet(seed=seed).layers
    if place is not None:
        layers.insert(place, nn.GaussianNoise(options.sigma, at_test=True, seed=seed))
    return nn.Sequential(*layers).to(options.device)


def left(model, attack, dataset, seed):
    """The accuracy on the attacked images, judged with fresh draws of the noise."""
    x_adv = attack(model, dataset.images, dataset.labels, seed=seed, progress=True)
    return float((evaluation.predict(model, x_adv, seed=seed + 1000) == dataset.labels).mean())


def main(options):
    train, test = mnist_or_digits(options.limit)
    subset, seeds = test[:options.images], range(options.seed, options.seed + options.seeds)
    ways = {"FGSM": attacks.FGSM, f"PGD-{options.steps}": partial(attacks.PGD, steps=options.steps)}
    found = {way: {name: [] for name in PLACES} for way in ways}  # of each seed: the accuracies by budget
    for seed in seeds:
        for name, place in PLACES.items():
            model = network(place, options, seed)
            training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                         seed=seed, progress=True)
            eot = 1 if place is None else options.eot
            for way, attack in ways.items():
                found[way][name].append([left(model, attack(eps=eps, eot=eot), subset, seed) for eps in BUDGETS])
            print(f"{test.name}  {name}, seed {seed}: accuracy {evaluation.accuracy(model, test):.2%}")

    figure = plots.blank(10, 4)
    for part, (way, curves) in zip(figure.subfigures(1, len(ways)), found.items(), strict=True):
        rows = {name: (np.tile(BUDGETS, (len(seeds), 1)), 100 * np.array(each)) for name, each in curves.items()}
        plots.lines(rows, xlabel="budget ε", ylabel="accuracy (%), each seed", figure=part,
                    title=f"{test.name}: {way}, mean of {options.eot} gradients")
    figure.savefig(options.out)

    means = {way: {name: np.mean(each, axis=0) for name, each in curves.items()} for way, curves in found.items()}
    gain = max((each - curves["no noise"]).max() for curves in means.values() for each in curves.values())
    loss = max((curves["no noise"] - each).max() for curves in means.values() for each in curves.values())
    tables = {f"{way} by budget, gradients over {options.eot} passes, {len(subset):,} images": [
        ["network", "seed", *map(str, BUDGETS)],
        *([name, str(seed), *row] for name, each in curves.items() for seed, row in zip(seeds, each, strict=True)),
        *([name, "mean", *row.tolist()] for name, row in means[way].items())] for way, curves in found.items()}
    verdict = "holds" if gain <= 0.03 else "does not hold: average over more passes, or over more seeds"
    conclude(options, test, tables, f"as a mean over {len(seeds)} seeds, noise gains {100 * gain:.2f} points at most, "
             f"and loses {100 * loss:.2f} at most: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="noise_layers_mnist.png")
    parser.add_argument("--sigma", type=at_least(0, float), default=0.05, help="the noise's standard deviation")
    parser.add_argument("--eot", type=at_least(1, int), default=20, help="passes over which a gradient is averaged")
    parser.add_argument("--steps", type=at_least(1, int), default=10, help="of PGD")
    parser.add_argument("--seeds", type=at_least(1, int), default=3, help="number of seeds, from --seed on")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to attack, at most")
    main(parser.parse_args())
