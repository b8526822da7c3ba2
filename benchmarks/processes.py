"""PGD in two processes over two threads, and what sharing the work costs: for docs/scale.md.

    python -m benchmarks.processes [--rounds 5]

All ways run in turn. Prints img-step/s of each, the best and the median of the rounds; the seconds from a new pool to
its first result; and, for each shard, the seconds that the caller's process spends on it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from tinyadv import attacks, backend, driver, models, nn

NETWORKS = {"LeNet": (models.LeNet, 800, 20), "SmallCNN": (models.SmallCNN, 800, 20)}  # images, and steps for each


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def task(model: nn.Module, images: int, steps: int) -> Callable[..., object]:
    """PGD without a success, so that no step is left out."""
    x = np.random.default_rng(1).random((images, *model.input_shape), dtype=np.float32)
    y = driver.logits(model, x).argmax(axis=1)
    return lambda **options: attacks.PGD(1e-6, 2.5e-7, steps, random_start=False)(model, x, y, **options)


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """(on the clock, of this process's processor)."""
    began, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(backend.describe())
    starts = []
    for _ in range(3):
        with pool() as fresh:
            tiny = task(models.LeNet(seed=0).eval(), 2, 1)
            starts.append(seconds(lambda: tiny(executor=fresh, batch_size=1))[0])  # noqa: B023  called at once
    print("seconds from a new pool to its first results:", *(f"{start:.2f}" for start in starts))
    with pool() as two:
        for name, (network, images, steps) in NETWORKS.items():
            run = task(network(seed=0).eval(), images, steps)
            for size in (None, 10):
                ways = {"one thread": {"workers": 1}, "two threads": {"workers": 2}, "two processes": {"executor": two}}
                speeds: dict[str, list[float]] = {way: [] for way in ways}
                parent = []
                for _ in range(rounds):
                    for way, options in ways.items():
                        clock, used = seconds(lambda: run(batch_size=size, **options))  # noqa: B023
                        speeds[way].append(images * steps / clock)
                        if way == "two processes":
                            parent.append(used / len(driver.shards(images, size)))
                over = np.array(speeds["two processes"]) / speeds["two threads"]
                print(f"{name}, {images} images, {steps} steps, shards of "
                      f"{size or driver.shards(images, None)[0].stop}:",
                      *(f"{way} {max(each):,.0f} ({np.median(each):,.0f})" for way, each in speeds.items()),
                      f"processes over threads {max(speeds['two processes']) / max(speeds['two threads']):.2f} "
                      f"({np.median(over):.2f})", f"the caller's seconds for a shard {min(parent):.4f}", sep="\n  ")


if __name__ == "__main__":
    main()
