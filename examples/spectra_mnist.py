"""FGSM's noise has more high frequencies than digits have, but its sign adds them: on the same LeNet, FGM's has fewer.

Figures 6 and 16 to 18 of Kelley and Fritz (2021), on LeNet: the noise of FGSM, FGM (one step in l2) and Carlini and
Wagner's attack (CW) on one image, mean spectra, and how they change those of images. They conclude that noise has more
high frequencies, and suggest that a network which is less sensitive to these is more robust. But LeNet errs under waves
of few cycles (last row; Yin et al. 2019, arXiv:1906.08988), and noise on a robust LeNet has more high frequencies. The
last line says whether the claim holds: on LeNet, the share of the noise's energy above 7 cycles per image is at least
1.5 times that of the digits for FGSM, and below it for FGM.
"""

import numpy as np
from common import arguments, at_least, conclude, mnist_or_digits

from tinyadv import analysis, attacks, evaluation, models, plots

AXES = {"xlabel": "cycles across", "ylabel": "cycles down"}


def high(each):
    """The share of the energy above 7 cycles per image, in any direction."""
    energy, cycles = abs(np.fft.fft2(each - each.mean(axis=(2, 3), keepdims=True))) ** 2, np.fft.fftfreq(28, 1 / 28)
    return float((energy * (np.hypot(cycles[:, None], cycles) > 7)).sum() / energy.sum())


def evenly(each):
    """Images (N, C, H, W) divided by their standard deviation, where it is not 0, so that all count alike."""
    deviations = each.std(axis=(1, 2, 3), keepdims=True)
    return (each / np.where(deviations > 0, deviations, 1))[deviations.ravel() > 0]


def draw_one(model, few, made, figure):
    """The first 8 that all attacks turn into a 3, or else the first image, with the noise of each attack."""
    seen = np.array([evaluation.predict(model, x) for x in made.values()])  # (attacks, N)
    k = ((seen == 3).all(axis=0) & (few.labels == 8)).argmax()
    noise, x_adv = ([each[k] - part * few.images[k] for each in made.values()] for part in (1, 0))
    plots.grid(np.array([[few.images[k], *noise, *x_adv]]), noise=[[False] + [True] * 3 + [False] * 3], figure=figure,
               columns=["clean", *(f"{way}: noise" for way in made), *made], title=f"{few.name}, LeNet", captions=[
                   [f"{few.labels[k]}", *(f"l2 {np.linalg.norm(each):.2f}" for each in noise), *map(str, seen[:, k])]])


def main(options):
    _, test = mnist_or_digits(options.limit)
    few, networks = test[:options.images], {"LeNet": options.lenet, "robust LeNet": options.robust, "CNN": options.cnn}
    ways = {"FGSM": attacks.FGSM(options.eps), "FGM": attacks.FGSM(20 * options.eps, norm="l2"),
            "CW": attacks.CarliniWagner(binary_search_steps=5, steps=100, lr=0.05, initial_c=1.0)}
    rows, errors, figure = [["(digits)", *[high(evenly(few.images))] * 3, "", ""]], {}, plots.blank(12, 12.5)
    first, second, third, last = figure.subfigures(4, 1, height_ratios=[2.5, 3, 3, 3])
    for name, file in networks.items():
        model = models.zoo.load(file).to(options.device)
        made = {way: attack(model, few.images, few.labels, progress=True) for way, attack in ways.items()}
        noise = {way: evenly(each - few.images) for way, each in made.items()}
        waves = analysis.fourier_sensitivity(model, few.images, few.labels, norm=options.wave, seed=options.seed)
        errors[name], rings = 100 * waves, analysis.radial_mean(waves)
        rows.append([name, *map(high, noise.values()), *map(float, (rings[1:7].mean(), rings[8:14].mean()))])
        if name == "LeNet":
            draw_one(model, few, made, first)
            before, noise = analysis.noise_spectrum(few.images), {"digits": evenly(few.images), **noise}
            spectra = {key: analysis.noise_spectrum(each) for key, each in noise.items()}
            changes = {way: analysis.noise_spectrum(each) - before for way, each in made.items()}
    plots.heatmaps(spectra, **AXES, label="log(1 + |F|)", figure=second, title="Spectra, all of standard deviation 1")
    left, right = third.subfigures(1, 2, width_ratios=[9, 4])
    plots.heatmaps(changes, **AXES, label="log ratio", signed=True, figure=left, title="Change of the images' spectra")
    plots.lines({key: (np.arange(1, 15), analysis.radial_mean(each)[1:15]) for key, each in spectra.items()},
                xlabel="cycles per image", ylabel="mean of log(1 + |F|)", figure=right)
    plots.heatmaps(errors, **AXES, label="errors (%)", figure=last, title=f"A wave of l2 norm {options.wave:g}")
    figure.savefig(options.out)
    (_, digits, *_), (_, sign, step, *_), *_ = rows
    verdict = "holds" if sign >= 1.5 * digits and step < digits else "does not hold: take a network with more pooling"
    title = f"Energy above 7 cycles per image, and errors under a wave of l2 norm {options.wave:g}, {len(few)} images"
    conclude(options, test, {title: [["noise on", *ways, "wave: 1 to 6 cycles", "8 to 13 cycles"], *rows]}, "energy "
             f"above 7 cycles: digits {digits:.2%}, FGSM on LeNet {sign:.2%}, FGM {step:.2%}: the claim {verdict}")


if __name__ == "__main__":
    parser = arguments(__doc__, out="spectra_mnist.png", lenet="mnist-lenet-natural", robust="mnist-lenet-linf",
                       cnn="mnist-slide-natural")
    parser.add_argument("--eps", type=at_least(1e-9, float), default=0.15, help="of FGSM; of FGM 20 times as much")
    parser.add_argument("--wave", type=at_least(0, float), default=8.0, help="the l2 norm of a wave")
    parser.add_argument("--images", type=at_least(1, int), default=200, help="test images, at most")
    main(parser.parse_args())
