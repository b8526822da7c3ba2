"""How close tinyadv comes to what the machine allows: its matrix products, its second core, and its memory.

    python -m benchmarks.limits

Prints, for every network, the throughput of PGD with two workers, the share of the sgemm floor (the time that the
multiplications alone would take at the speed of one large matrix product on two cores), the throughput beside that of
one worker, and the peak memory for 1,000 and 10,000 images.
"""

from __future__ import annotations

import tinyadv  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.__main__ import measure
from benchmarks.contenders import EPS, STEP
from benchmarks.networks import NETWORKS, build
from tinyadv import attacks, driver, nn

ROUNDS, BATCH, STEPS = 7, 200, 10


def sgemm_speed(size: int = 4096) -> float:
    """Floating-point operations a second of one float32 matrix product on two cores."""
    a, b = np.ones((2, size, size), np.float32)
    with threadpool_limits(2):
        return float(np.median(measure({"product": lambda: a @ b}, 2 * size**3, ROUNDS)["product"]))


def multiplications(model: nn.Module) -> int:
    """Floating-point operations of one attack step on one image: of the products forward, and back to the image."""
    count = 0
    forwards = {layer: layer.forward for _, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}

    def counted(layer: nn.Conv2d | nn.Linear) -> Callable:
        def forward(x):
            nonlocal count
            y = forwards[layer](x)
            count += 4 * layer.weight.size * int(np.prod(y.shape[2:]))  # once for each pixel of the output, and back
            return y

        return forward

    for layer in forwards:
        layer.forward = counted(layer)
    driver.forward(model, np.zeros((1, *model.input_shape), np.float32))
    for layer in forwards:
        del layer.forward
    return count


def pgd(name: str, images: int, steps: int) -> Callable[[int], object]:
    """A function of the number of workers that attacks so many random images."""
    model = build(name)
    x = np.random.default_rng(1).random((images, *model.input_shape), dtype=np.float32)
    y = driver.logits(model, x).argmax(axis=1)
    attack = attacks.PGD(EPS, STEP, steps, random_start=False)
    return lambda workers: attack(model, x, y, workers=workers)


# The peak comes from /proc: that of getrusage would include the memory of this process, which starts the new one.
ATTACK = """
import numpy as np
from tinyadv import attacks, models
model = models.{name}(seed=0)
x = np.random.default_rng(1).random(({images}, *model.input_shape), dtype=np.float32)
attacks.PGD({eps}, {step}, 2, random_start=False)(model, x, np.zeros(len(x), int), workers=2)
print(*(int(line.split()[1]) * 1024 / 1e6 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_memory(name: str, images: int) -> float:
    """The peak memory, in MB, of a fresh process without any peer that attacks so many images; on Linux."""
    code = ATTACK.format(name=name, images=images, eps=EPS, step=STEP)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print a table."""
    speed = sgemm_speed()
    print(f"tinyadv {tinyadv.__version__}; one large float32 product: {speed / 1e9:.0f} GFLOP/s")
    print(f"{'':10}{'MFLOP':>8}{'img-step/s':>12}{'floor':>10}{'of it':>8}{'2 workers / 1':>15}"
          f"{'MB, 1,000 images':>18}{'10,000':>8}")
    for name in NETWORKS:
        work, attack = multiplications(build(name)), pgd(name, BATCH, STEPS)
        rounds = measure({str(workers): partial(attack, workers) for workers in (1, 2)}, BATCH * STEPS, ROUNDS)
        speeds = {workers: np.median(found) for workers, found in rounds.items()}
        memory = [f"{peak_memory(name, images):.0f}" for images in (1_000, 10_000)]
        print(f"{name:10}{work / 1e6:8.1f}{speeds['2']:12.0f}{speed / work:10.0f}{speeds['2'] * work / speed:8.0%}"
              f"{speeds['2'] / speeds['1']:15.2f}{memory[0]:>18}{memory[1]:>8}", flush=True)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__.split("\n")[0]).parse_args()
    main()
