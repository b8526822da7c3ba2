"""Two defences against patches restore images under attacks that ignore them, but few under attacks through them.

Local gradients smoothing (LGS; Naseer et al. 2019, arXiv:1807.01216) darkens what changes quickly; digital watermarking
(DW; Hayes 2018) fills in what the network looks at too closely. Table 1 of Chiang et al. 2020, arXiv:2003.06693, in
which both are broken, on MNIST: squares of several sides, at the best place of each image. They are made on the
undefended network, through the defence (BPDA; for LGS the worse of two gradients counts for each image), and without
gradients, of random pixels. LGS has changed every second image that LeNet was trained on. The last line says whether
the claim holds: at some size, the undefended network is right on less than 20% of the images, and the patch through LGS
leaves less than 10% of what the patch that ignores it leaves.
"""

from dataclasses import dataclass

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, defenses, evaluation, models, nn, plots, training

WAYS = ["clean", "ignored", "through", "random", "the least"]


@dataclass(frozen=True)
class Noise(attacks.Attack):
    """Patches of random black and white pixels at random places; the best of them is kept."""

    size: tuple[int, int]
    queries: int
    norm, norms, loss = "l0", ("l0",), "margin"

    def perturb(self, batch):
        for query in range(self.queries):
            patch = np.random.default_rng(query).integers(2, size=(batch.x.shape[1], *self.size)).astype(batch.x.dtype)
            batch.consider(attacks.paste(batch.x, patch, seed=batch.streams), iteration=True)
        return batch.best


def main(options):
    train, test = mnist_or_digits(options.limit)
    few, model = test[:options.images], models.LeNet(seed=options.seed).to(options.device)
    lgs = [defenses.LGS(block=5, overlap=2, gradient=gradient) for gradient in ("identity", "smooth")]
    training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                 augment=lambda x, streams: np.where(streams.uniform((1, 1, 1)) < 0.5, lgs[0].transform(x), x),
                 seed=options.seed, progress=True)
    layers = {"none": [defenses.bpda(np.copy)], "LGS": lgs, "DW": [defenses.DW(model)]}
    tables, kept, figure = {}, [], plots.blank(4 * len(options.sides), 7)
    top, bottom = figure.subfigures(2, 1, height_ratios=[4, 3])
    for side, panel in zip(options.sides, bottom.subfigures(1, len(options.sides), squeeze=False)[0], strict=True):
        patch = attacks.Patch((side, side), steps=options.steps, places="all")

        def made(attack, model):
            return attack.run(model, few.images, few.labels, seed=options.seed, skip_misclassified=True, progress=True)

        rows, ignoring = [], made(patch, model).x_adv
        for name, several in layers.items():
            defended = [nn.Sequential(layer, model) for layer in several]
            right = [evaluation.predict(defended[0], x) == few.labels for x in (few.images, ignoring)]
            right += [np.all([made(patch, each).robust for each in defended], axis=0),
                      made(Noise((side, side), options.queries), defended[0]).robust]
            rows.append([name, *(shares := [float(each.mean()) for each in right]), min(shares)])
        tables[f"Patches of {side}x{side}, {len(few):,} images"] = [["defence", *WAYS], *rows]
        plots.bars({name: [100 * share for share in shares] for name, *shares, _ in rows}, WAYS[:-1], figure=panel,
                   ylabel="accuracy (%)", title=f"{side}x{side}")
        kept += [(rows[1][3] / rows[1][2], side, *rows[1][2:4])] if rows[0][2] < 0.2 and rows[1][2] else []
    shown = [layer.transform(ignoring[:8]) for layer, *_ in layers.values()]
    plots.grid(np.array(shown), rows=list(layers), figure=top, title=f"{test.name}: patches that ignore LGS and "
               "DW, and what the network sees", captions=[evaluation.predict(model, x).astype(str) for x in shown])
    figure.savefig(options.out)
    share, side, ignored, through = min(kept, default=(1.0, side, *rows[1][2:4]))
    verdict = "holds" if share < 0.1 else "does not hold: take more steps or larger patches"
    conclude(options, test, tables, f"with {side}x{side}, the patch that ignores LGS leaves {ignored:.2%}, the patch "
             f"through it {through:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="patches_mnist.png")
    parser.add_argument("--sides", type=int, nargs="+", choices=range(1, 29), default=[5, 7], metavar="SIDE", help=" ")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="for each place of a patch")
    parser.add_argument("--queries", type=at_least(1, int), default=500, help="patches of random pixels")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images, at most")
    main(parser.parse_args())
