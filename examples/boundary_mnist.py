"""An attack that sees only the predicted class comes nearly as near to the image as one that uses gradients.

The boundary attack (Brendel et al. 2018, arXiv:1712.04248) starts from misclassified noise, and walks along the
decision boundary towards the image. The figure shows points of this walk, and the distance against the number of
queries, beside the distance that the attack of Carlini and Wagner (2017, arXiv:1608.04644) finds with gradients. The
last line says whether the claim holds: the median distance is within 1.3 times that of Carlini and Wagner.
"""

import numpy as np
from common import arguments, at_least, mnist_or_digits, right_ones, slide_cnn

from tinyadv import attacks, plots


def main(options):
    train, test = mnist_or_digits(options.limit)
    model = slide_cnn(train, test, options)
    examples = right_ones(model, test, options.images)
    x, y = examples.images, examples.labels

    # With the same seed a short walk is the beginning of a longer one: one run for each point of the curve.
    queries = np.unique(np.maximum(2, options.queries // 2 ** np.arange(10))).tolist()
    walk = [attacks.BoundaryAttack(queries=k).run(model, x, y, seed=options.seed, progress=True) for k in queries]
    distances = np.array([np.where(result.success, result.distances, np.inf) for result in walk])  # (points, images)
    medians = np.median(distances, axis=1)
    white_box = attacks.CarliniWagner(binary_search_steps=5, steps=200, lr=0.05, initial_c=1.0)
    goal = np.median(white_box.run(model, x, y, seed=options.seed, progress=True).distances)

    print(f"{test.name}  queries  median l2 distance of {len(x)} images, by gradients {goal:.2f}")
    for count, distance in zip(queries, medians, strict=True):
        print(f"{test.name}  {count:7,}  {distance:.2f}")

    figure = plots.blank(5, 6.6)
    top, bottom = figure.subfigures(2, 1)
    stages, few = np.linspace(0, len(walk) - 1, min(5, len(walk))).astype(int), np.arange(len(x))[:3]
    images = np.stack([*(walk[k].x_adv[few] for k in stages), x[few]], axis=1)  # (3, 6, 1, 28, 28)
    captions = [[*(f"l2 {distances[k, i]:.2f}" for k in stages), ""] for i in few]
    plots.grid(images, columns=[*(f"{queries[k]:,}" for k in stages), "image"], captions=captions, figure=top,
               title=f"{test.name}: on the way of the boundary attack, by queries")
    curves = {"each image": (queries, distances.T), "median": (queries, medians),
              "Carlini-Wagner, by gradients": ([queries[0], queries[-1]], [goal, goal])}
    plots.lines(curves, xlabel="queries", ylabel="l2 distance", log="x", figure=bottom)
    figure.savefig(options.out)
    print(f"\n{test.name}  figure: {options.out}")

    ratio = medians[-1] / goal
    verdict = "holds" if ratio <= 1.3 else "does not hold: ask more"
    print(f"{test.name}  after {queries[-1]:,} queries a distance {ratio:.2f} times that of Carlini and Wagner: "
          f"the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="boundary_mnist.png")
    parser.add_argument("--queries", type=at_least(2, int), default=10_000, help="for each image")
    parser.add_argument("--images", type=at_least(1, int), default=20, help="test images to attack")
    main(parser.parse_args())
