"""LeNet's first layer answers all frequencies alike only with the grey behind them; JPEG erases only faint stripes.

Figures 8, 9 and 12 of Kelley and Fritz (2021): how the first layers of LeNet and of a ResNet answer stripes, alone and
behind JPEG. They find flat curves, of which quality 1 to 5 leaves nothing, and suspect that the images are too small.
But they mostly measure the answer to the grey image that carries the stripes, and JPEG drops what is faint. The last
line says whether the claim holds: LeNet's highest answer is twice its lowest or more, with the grey at most 1.5 times;
quality 5 erases stripes of 10 levels of grey at half of the frequencies, and leaves 90% or more of those of 127 levels.
"""

import numpy as np
from common import arguments, conclude, mnist_or_digits

from tinyadv import analysis, defenses, driver, evaluation, models, nn, plots, training

CYCLES, QUALITIES, LEVELS = np.arange(1, 14), np.arange(1, 41), (10, 20, 127)
NETWORKS = {"LeNet": models.LeNet, "ResNet": models.MnistResNet}


def with_grey(layer):
    """The l2 norm of the answer to stripes on grey, with all that the grey image and the bias add: (13,)."""
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * np.outer(CYCLES, np.arange(28)) / 28)
    images = np.repeat(stripes[:, None, None], 28, axis=2).astype(np.float32)  # (13, 1, 28, 28)
    return np.linalg.norm(driver.logits(nn.Sequential(layer, nn.Flatten()), images), axis=1)  # wherever the layer is


def left_by_jpeg(layer):
    """{level of grey: the share of the layer's answer that each quality leaves, (qualities, 13)}."""
    alone = analysis.transfer_function(layer, CYCLES, 0.1)
    return {level: np.array([analysis.transfer_function(layer, CYCLES, level / 255, through=defenses.JPEG(q)) / alone
                             for q in QUALITIES.tolist()]) for level in LEVELS}


def draw(panels, left, out):
    figure, frames = plots.blank(12, 7.5), []
    top, bottom = figure.subfigures(2, 1)
    for part, (title, curves) in zip(top.subfigures(1, 3), panels.items(), strict=True):
        plots.lines({name: (CYCLES, each / each.mean()) for name, each in curves.items()}, title=title, figure=part,
                    xlabel="cycles per image", ylabel="answer / its mean")
        part.axes[0].set_ylim(0, max(2.5, part.axes[0].get_ylim()[1]))
    plots.surfaces({f"{level} levels of grey": each for level, each in left.items()}, CYCLES, QUALITIES,
                   xlabel="cycles per image", ylabel="quality of JPEG", figure=bottom,
                   title="LeNet's first layer behind JPEG: the share of its answer that is left")
    figure.savefig(out)
    for k in range(0, len(QUALITIES), 6):
        frames.append(plots.lines({f"{level} levels of grey": (CYCLES, each[k]) for level, each in left.items()},
                                  xlabel="cycles per image", ylabel="share that is left", figure=plots.blank(4, 3.5),
                                  title=f"First layer behind JPEG of quality {QUALITIES[k]}"))
        frames[-1].axes[0].set_ylim(0, 2)
    plots.animate(frames, out.with_suffix(".gif"))


def main(options):
    train, test = mnist_or_digits(options.limit)
    panels, left, scores = {name: {} for name in ("first layer, grey included", "first layer", "whole network")}, {}, []
    for name, network in NETWORKS.items():
        model = network(seed=options.seed).to(options.device)
        training.fit(model, train, epochs=options.epochs, optimizer=nn.optim.Adam(model, lr=1e-3), batch_size=64,
                     seed=options.seed, progress=True)
        scores.append(f"{name} {evaluation.accuracy(model, test):.2%}")
        left[name] = left_by_jpeg(model.layers[0])
        panels["first layer, grey included"][name] = with_grey(model.layers[0])
        panels["first layer"][name] = analysis.transfer_function(model.layers[0], CYCLES, 0.1)
        panels["whole network"][name] = analysis.transfer_function(model, CYCLES, 0.1, base=test.images[:50])
    draw(panels, left["LeNet"], options.out)
    ratios = {title: [each.max() / each.min() for each in curves.values()] for title, curves in panels.items()}
    (grey, _), (alone, _), _ = ratios.values()
    lost, kept, shown = (left["LeNet"][10][4] < 0.01).mean(), left["LeNet"][127][4].min(), (1, 5, 10, 20, 40)
    tables = {f"Highest by lowest answer to 1 to 13 cycles per image (accuracy: {', '.join(scores)})": [
        ["", *NETWORKS], *([title, *(f"{each:.2f}" for each in row)] for title, row in ratios.items())],
        "Share of the first layer's answer that JPEG leaves, mean over 1 to 13 cycles": [
            ["network", "levels of grey", *(f"quality {q}" for q in shown)],
            *([name, str(level), *(float(each[q - 1].mean()) for q in shown)]
              for name, levels in left.items() for level, each in levels.items())]}
    verdict = "holds" if alone >= 2 and grey <= 1.5 and lost >= 0.5 and kept >= 0.9 else "does not hold: train longer"
    conclude(options, test, tables, f"highest by lowest {alone:.2f}, with the grey {grey:.2f}; JPEG of quality 5 "
             f"erases 10 levels at {lost:.0%} of the frequencies, leaves {kept:.0%} of 127 levels: the claim {verdict}")


if __name__ == "__main__":
    main(arguments(__doc__, out="transfer_functions_mnist.png").parse_args())
