"""Train with boxes, prove with zonotopes.

DiffAI (Mirman et al. 2018, ICML): most of the loss is a bound of the loss of all images within linf eps, which interval
arithmetic gives at little cost; the certificate comes from hybrid zonotopes, which remember what numbers have in common
and take a thousand times as long. The network is ConvSmall. After 200 epochs or more, and on 500 test images, the
authors report 95.5% at eps 0.1 and 89.1% at 0.3 as proven. The figure shows, for each network, what is proven around
its eps; beside them is a network that was trained without bounds. The last line says whether the claim holds: zonotopes
prove at least 94% at 0.1 and 87% at 0.3, no less than boxes do on any image, and PGD breaks no certified image.
"""

import time
from textwrap import indent

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, certify, nn, plots, training

TARGETS = {0.03: 0.0, 0.1: 0.94, 0.3: 0.87}  # at the least eps: the network that was trained without bounds


def conv_small(seed):
    """89,606 parameters."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Conv2d(1, 16, 4, stride=2, rng=rng), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, rng=rng),
                         nn.ReLU(), nn.Flatten(), nn.Linear(800, 100, rng=rng), nn.ReLU(), nn.Linear(100, 10, rng=rng))


def main(options):
    train, test = mnist_or_digits(options.limit)
    subset, few, rows, curves, holds = test[:options.images], test[:options.few], [], {}, True
    for eps, target in TARGETS.items():
        model, started = conv_small(options.seed).to(options.device), time.perf_counter()
        method = training.Certified(eps * options.wider, clean_weight=0.2, warm_up=0) if target else training.Standard()
        history = training.fit(
            model, train, epochs=options.epochs if target else 1, optimizer=nn.optim.Adam(model, lr=2e-3),
            batch_size=100, method=method, eps_schedule=training.ramp(0.6, start=0.05) if target else None,
            schedule=nn.optim.one_cycle(peak=0.3), clip_norm=10.0, average=0.998, seed=options.seed, progress=True)
        seconds = time.perf_counter() - started
        print(indent(repr(history), f"{train.name}  "))
        goal, attack = f"trained for {eps:g}" if target else "trained without", attacks.PGD(eps, steps=options.steps)
        box, linear = (certify.certified_accuracy(model, subset, eps, method=each) for each in ("ibp", "crown-ibp"))
        zonotope = certify.certified_accuracy(model, subset, eps, method="zonotope", attack=attack, seed=options.seed)
        rows.append([goal, f"{eps:g}", f"{seconds:.0f} s", zonotope.accuracy, zonotope.robust_accuracy,
                     *map(float, (zonotope, linear, box)), f"{zonotope.seconds:.0f} s"])
        holds &= (float(zonotope) >= target and zonotope.consistent
                  and bool((box.certified <= zonotope.certified).all()))
        for kind, name in (("zonotope", "zonotope"), ("ibp", "box")):
            curves[f"{name}, {goal}"] = {near: float(certify.certified_accuracy(model, few, near, method=kind))
                                         for near in (eps * np.array(options.around)).round(4).tolist()}
    plots.epsilon_curve(curves, title=f"{test.name}, {len(few):,} images: certified").savefig(options.out)
    proven = " and ".join(f"{row[5]:.1%} at {row[1]}" for row in rows[1:])
    head = ["network", "eps", "training", "clean", f"PGD, {options.steps} steps", "zonotope", "linear bounds", "box",
            "proof by zonotopes"]
    title = f"ConvSmall, {sum(p.size for p in model.parameters()):,} parameters, {len(subset):,} images"
    conclude(options, test, {title: [head, *rows]},
             f"proven {proven}: the claim {'holds' if holds else 'does not hold: train longer'}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="diffai_mnist.png")
    parser.set_defaults(epochs=40)
    parser.add_argument("--wider", type=at_least(1, float), default=1.2, help="eps of the training, in units of eps")
    parser.add_argument("--around", type=at_least(0, float), nargs="+", default=[0, 0.5, 0.8, 1, 1.1, 1.2, 1.4],
                        help="budgets of the figure, in units of eps")
    parser.add_argument("--steps", type=at_least(1, int), default=40, help="of PGD")
    parser.add_argument("--images", type=at_least(1, int), default=500, help="test images to certify, at most")
    parser.add_argument("--few", type=at_least(1, int), default=100, help="test images for the figure, at most")
    main(parser.parse_args())
