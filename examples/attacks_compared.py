"""Attacks with gradients break more images, and find nearer ones, than attacks that see only the model's outputs.

The figure shows the perturbation of one image by each attack, with its l0, l2 and linf norms and the seconds it took.
The table has a thousand images: the accuracy that each attack leaves, the mean distance of its successes, and its cost.
Some attacks have a budget; the others search for the nearest misclassified point. The last line says whether the claim
holds in every norm, by the accuracy for the first kind and by the distance for the second. It takes half an hour on two
cores; --images 100 is enough to see the result.
"""

import sys
from math import inf

import numpy as np
from common import arguments, at_least, mnist_or_digits, slide_cnn

from tinyadv import attacks, plots

ATTACKS = (  # a row of the figure for each norm
    attacks.FGSM(0.15), attacks.BIM(0.15), attacks.MIFGSM(0.15), attacks.PGD(0.15), attacks.APGD(0.15),
    attacks.Square(0.15, queries=1000), attacks.DeepFool(norm="linf"), attacks.FAB(norm="linf", steps=20),
    attacks.PGD(1.5, norm="l2"), attacks.APGD(1.5, norm="l2"), attacks.Square(1.5, norm="l2", queries=1000),
    attacks.DeepFool(norm="l2"), attacks.FAB(norm="l2", steps=20),
    attacks.CarliniWagner(binary_search_steps=5, steps=100, lr=0.1, initial_c=1.0),
    attacks.BoundaryAttack(queries=1000), attacks.HopSkipJump(queries=1000),
)
COLUMNS = 8  # of the figure


def main(options):
    train, test = mnist_or_digits(options.limit)
    if options.image >= len(test):
        sys.exit(f"--image must be below {len(test):,}, the number of test images")
    one, many = test[options.image], test[:options.images]
    model = slide_cnn(train, test, options)

    shape = (-(-len(ATTACKS) // COLUMNS), 2, COLUMNS)  # rows of images, each above its noise
    pictures, captions = np.full((*shape, *one.images.shape[1:]), np.nan), np.full(shape, "", object)
    for k, attack in enumerate(ATTACKS):
        row, column = divmod(k, COLUMNS)
        result = attack.run(model, one.images, one.labels, seed=options.seed)
        noise = result.x_adv[0] - one.images[0]
        norms = np.count_nonzero(noise), np.linalg.norm(noise), abs(noise).max()
        pictures[row, :, column] = result.x_adv[0], noise
        captions[row, :, column] = (
            f"{type(attack).__name__.removesuffix('Attack')}\n{attack.norm}: “{test.classes[result.predictions[0]]}”",
            "l0 {}\nl2 {:.2f}\nlinf {:.2f}\n{:.2f} s".format(*norms, result.seconds))
    figure = plots.grid(pictures.reshape(-1, *pictures.shape[2:]), captions=captions.reshape(-1, COLUMNS),
                        noise=[[False], [True]] * shape[0],
                        title=f"{test.name}: one image under each attack, and its noise (red: brighter)")
    figure.savefig(options.out)
    print(f"{test.name}  figure: {options.out}\n")

    best = {}  # {(norm, without a budget, sees gradients): the lowest accuracy, or distance}
    print(f"{test.name}  accuracy  distance  norm  gradients  queries  seconds  attack, on {len(many):,} images")
    for attack in ATTACKS:
        result = attack.run(model, many.images, many.labels, seed=options.seed, skip_misclassified=True, progress=True)
        row = result.to_json()
        found = result.success & (result.predictions_clean == many.labels)
        distance = result.distances[found].mean() if found.any() else inf
        print(f"{test.name}  {row['robust_accuracy']:8.2%}  {distance:8.3f}  {attack.norm:4}  {row['backwards']:9.1f}  "
              f"{row['forwards']:7.1f}  {result.seconds:7.1f}  {attack}")
        key = attack.norm, attack.minimum_norm, not hasattr(attack, "queries")
        best[key] = min(best.get(key, inf), distance if attack.minimum_norm else row["robust_accuracy"])

    blind = [key for key in best if not key[-1]]
    ahead = sum(best[norm, nearest, True] <= best[norm, nearest, False] for norm, nearest, _ in blind)
    verdict = "holds" if ahead == len(blind) else "does not hold: gradients may be masked"
    print(f"\n{test.name}  gradients are ahead in {ahead} of {len(blind)} comparisons: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="attacks_compared.png")
    parser.add_argument("--image", type=at_least(0, int), default=0, help="index of the test image in the figure")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images in the table, at most")
    main(parser.parse_args())
