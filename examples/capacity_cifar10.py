"""On CIFAR-10, too, a larger network withstands more, but its robust accuracy stays far below the natural accuracy.

The second half of figure 4 of Madry et al. (2018, arXiv:1706.06083), where they compare their ResNet with one ten times
as wide. Here it is the network of capacity_mnist.py, a small one, at four widths: each is trained on clean images, on
images of FGSM, and on images of PGD, within 8/255. An interrupted run goes on from its checkpoints. The last line says
whether the claim holds: of the networks trained on PGD the widest withstands PGD on more images than the narrowest, by
more than five points, and still on fewer than half of those that the one trained on clean images gets right.
"""

from capacity_mnist import compare, parsed
from common import cifar10_or_digits, conclude

from tinyadv import attacks


def main(options):
    train, test = cifar10_or_digits(options.limit)
    tables, scores = compare(options, train, test, attacks.PGD(8 / 255, step_size=2 / 255, steps=20), steps=5)
    small, large = min(options.widths), max(options.widths)
    robust, gain = scores["PGD", "PGD", large], scores["PGD", "PGD", large] - scores["PGD", "PGD", small]
    clean = scores["natural", "clean", large]
    verdict = "holds" if gain > 0.05 and robust < clean / 2 else "does not hold: train longer"
    conclude(options, test, tables,
             f"trained on PGD, width {large} withstands it on {robust:.2%} of the images, {gain:.2%} more than width "
             f"{small}; trained naturally, it gets {clean:.2%} right: the claim {verdict}")


if __name__ == "__main__":
    parser = parsed(__doc__, out="capacity_cifar10.png")
    parser.set_defaults(epochs=10)
    main(parser.parse_args())
