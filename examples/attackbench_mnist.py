"""At 2,000 passes an image, one attack of each norm finds nearly the nearest points that all of them together find.

AttackBench (Cinà et al. 2024, arXiv:2404.19460) compares attacks at equal cost, by the nearest misclassified point that
they find (evaluation.optimality). Those with an eps search for it. The last line says whether the claim holds: in each
norm and for each network, the best attack has an optimality of 0.97 or more. The curves are of the last network.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import attacks, evaluation, models, plots


def contenders(queries):
    """{norm: {name: attack}}, with as many steps as fit into the passes."""
    steps, runs = queries // 2 - 2, queries // 20  # a step has two passes; ten runs search for eps
    twice = {"steps": queries // 4 - 1, "restarts": 2}

    def several(norm, eps):
        names = {"FMN": attacks.FMN(steps=steps, norm=norm), "PGD": attacks.PGD(eps, steps=runs, norm=norm)}
        if norm != "l0":
            names |= {"PDPGD": attacks.PDPGD(norm=norm, **twice), "APGD": attacks.APGD(eps, steps=runs, norm=norm),
                      "FAB": attacks.FAB(steps=queries // 30 - 1, norm=norm, target_classes=5, restarts=2),
                      "BrendelBethge": attacks.BrendelBethge(steps=max(1, steps - 50), norm=norm)}
        return names

    found = {norm: several(norm, eps) for norm, eps in {"linf": 0.1, "l2": 1.0, "l1": 10.0, "l0": 10}.items()}
    found["linf"]["DeepFool"] = attacks.DeepFool(steps=queries // 11, norm="linf")
    found["l2"] |= {"DDN": attacks.DDN(steps=steps), "DeepFool": attacks.DeepFool(steps=queries // 11),
                    "PDGD": attacks.PDGD(**twice),
                    "CarliniWagner": attacks.CarliniWagner(steps=queries // 18, lr=0.05, initial_c=0.1)}
    found["l1"]["EAD"] = attacks.EAD(steps=queries // 27, beta=0.05, initial_c=0.1)
    found["l0"] |= {"SigmaZero": attacks.SigmaZero(**twice), "SparseRS": attacks.SparseRS(10, queries=2 * runs)}
    return found


def median(result):
    return np.median(np.where(result.success, result.distances, np.inf))


def by_distance(result):
    """The accuracy in percent that is left at each distance."""
    far = np.sort(result.distances[result.success])
    return np.append(0, far), 100 - 100 * np.arange(len(far) + 1) / len(result.y)


def main(options):
    _, test = mnist_or_digits(options.limit)
    subset = test[:options.images]
    networks = {name: models.zoo.load(name).to(options.device) for name in options.networks}
    tables, curves, bests = {}, {}, []
    for norm, several in contenders(options.queries).items():
        results = {network: {name: evaluation.at_budget(options.queries)(attack).run(
            model, subset.images, subset.labels, seed=options.seed, progress=True) for name, attack in several.items()}
            for network, model in networks.items()}
        local = {network: evaluation.optimality(found) for network, found in results.items()}
        overall = evaluation.optimality(results)
        order = sorted(several, key=overall.__getitem__, reverse=True)
        tables[f"{norm}: optimality, and median distance, by network, on {len(subset):,} images"] = [
            ["attack", "all", *(f"{network}{what}" for network in networks for what in ("", ", median"))],
            *([name, f"{overall[name]:.3f}", *(cell for network, found in results.items() for cell in (
                f"{local[network][name]:.3f}", f"{median(found[name]):.3g}"))] for name in order)]
        curves[norm] = {name: by_distance(results[options.networks[-1]][name]) for name in order[:5]}
        bests += [(max(each.values()), norm, network) for network, each in local.items()]
    figure = plots.blank(10, 8)
    for part, (norm, lines) in zip(figure.subfigures(2, 2).flat, curves.items(), strict=True):
        plots.lines(lines, xlabel=f"{norm} distance", ylabel="accuracy (%)", title=f"{test.name}: {norm}", figure=part)
    figure.savefig(options.out)
    reached, (least, norm, network) = sum(best[0] >= 0.97 for best in bests), min(bests)
    verdict = f"does not hold: the least is {least:.3f}, in {norm} on {network}" if least < 0.97 else "holds"
    conclude(options, test, tables, f"{reached} of {len(bests)} best attacks have 0.97 or more: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="attackbench_mnist.png",
                       networks=["mnist-lenet-natural", "mnist-lenet-linf", "mnist-ibp-linf"])
    parser.add_argument("--queries", type=at_least(100, int), default=2000, help="passes of an image")
    parser.add_argument("--images", type=at_least(1, int), default=50, help="test images, at most")
    main(parser.parse_args())
