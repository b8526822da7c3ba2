"""For the network, every digit can be turned into every other one by a much smaller change than a real one needs.

The targeted l2 attack of Carlini and Wagner (2017, arXiv:1608.04644) searches for the nearest point that the network
assigns to the target class. It starts from one image of each digit, with each class as the target. The last line says
whether the claim holds: all pairs succeed, and the mean distance is less than half of that to the nearest test image
that really shows the target.
"""

import numpy as np
from common import arguments, at_least, mnist_or_digits, slide_cnn

from tinyadv import attacks, plots


def main(options):
    train, test = mnist_or_digits(options.limit)
    model = slide_cnn(train, test, options)
    # The paper's settings, 9 searches of 1000 steps, come a hundredth nearer, for nine times the gradients.
    attack = attacks.CarliniWagner(binary_search_steps=5, steps=options.steps, lr=0.05, initial_c=1.0)

    classes, first = np.unique(test.labels, return_index=True)
    n, sources = len(classes), test[first]  # the first image of each digit
    rows, target = np.arange(n).repeat(n), np.tile(classes, n)
    result = attack.run(model, sources.images[rows], sources.labels[rows], target=target, seed=options.seed,
                        batch_size=n, progress=True)
    distances = np.where(result.success, result.distances, np.inf).reshape(n, n)

    print(f"{test.name}  l2 distances of {len(rows)} images: source below, target to the right")
    print(f"{test.name}    " + "".join(f"{test.classes[k]:>7}" for k in classes))
    for k, row in zip(classes, distances, strict=True):
        print(f"{test.name}  {test.classes[k]} " + "".join(f"{distance:7.2f}" for distance in row))

    names = [test.classes[k] for k in classes]
    figure = plots.grid(result.x_adv.reshape(n, n, *test.images.shape[1:]), rows=names, columns=names,
                        captions=[[f"{distance:.2f}" for distance in row] for row in distances],
                        title=f"{test.name}: from each digit (row) to each class (column), and how far in l2")
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    real = np.array([[np.linalg.norm((test.images[test.labels == k] - image).reshape(-1, image.size), axis=1).min()
                      for k in classes] for image in sources.images])
    pairs = ~np.eye(n, dtype=bool)
    found, mean, mean_real = result.success.reshape(n, n)[pairs], distances[pairs].mean(), real[pairs].mean()
    verdict = "holds" if found.all() and mean < mean_real / 2 else "does not hold: take more steps"
    print(f"{test.name}  {found.sum()} of {len(found)} pairs, mean l2 distance {mean:.2f}, of the nearest real images "
          f"{mean_real:.2f}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="targeted_cw_mnist.png")
    parser.add_argument("--steps", type=at_least(1, int), default=200, help="of Adam, in each of five searches for c")
    main(parser.parse_args())
