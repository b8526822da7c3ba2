"""What a step of certified training costs, in steps of standard training: processor time, on one thread of BLAS.

    python -m benchmarks.certified
"""

import tinyadv  # noqa: F401  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import time

import numpy as np

from tinyadv import models, nn, training
from tinyadv.random import Streams
from tinyadv.training.update import updates

BATCH, STEPS = 100, 12


def fastest(method: training.Method, width: int, strength: float = 1.0) -> float:
    """The least processor time of a step, in seconds, on random images."""
    model, rng = models.IntervalCNN(seed=0, width=width), np.random.default_rng(0)
    images, labels = rng.random((BATCH, 1, 28, 28), np.float32), rng.integers(0, 10, BATCH)
    seconds = []
    with model.mode(training=True), updates(model, nn.optim.Adam(model, lr=1e-3), clip_norm=10.0) as update:
        scene = training.Scene(model, update, Streams(0, range(BATCH)), strength, {})
        for _ in range(STEPS):
            started = time.process_time()
            method.step(scene, images, labels)
            seconds.append(time.process_time() - started)
    return min(seconds)


def main() -> None:
    for width in (16, 32, 64):
        standard, method = fastest(training.Standard(), width), training.Certified(eps=0.36)
        whole, growing = fastest(method, width), fastest(method, width, 0.5)
        print(f"IntervalCNN, width {width}: {standard * 1e3:.1f} ms; certified {whole / standard:.2f} times as long, "
              f"{growing / standard:.2f} while eps grows")


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.certified", description=__doc__.split("\n")[0]).parse_args()
    main()
