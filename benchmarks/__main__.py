"""Measure attacks and training beside the peers: interleaved rounds on the same machine, medians and ratios.

    python -m benchmarks                                             # five networks: half an hour on two cores
    python -m benchmarks --networks LeNet --batches 200 --only PyTorch
    python -m benchmarks --networks ResNet18 VisionTransformer --batches 50 --only PyTorch torchattacks

Writes a JSON file, and beside it the throughput against the batch size as a figure.
"""

from __future__ import annotations

import tinyadv  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
import argparse
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from threadpoolctl import threadpool_info

from benchmarks.contenders import Task, attackers, task, trainers
from benchmarks.networks import DEEP, NETWORKS, build
from tinyadv import plots
from tinyadv.backend import usable_cores

PEERS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "art": "ART", "mygrad": "MyGrad"}  # modules and names
UNITS = {"attack": "img-step/s of PGD", "training": "img/s of training"}


def measure(runs: dict[str, Callable[[], object]], images: int, rounds: int,
            wait: Callable[[], object] = lambda: None) -> dict[str, list[float]]:
    """{name: images a second in each round}; every round times everybody once, so a slow moment hits all.

    A run has ended when `wait` returns: a GPU works on after the call.
    """
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm
    for _ in range(rounds):
        for name, run in runs.items():
            wait()
            time.sleep(0.5)  # until the threads of the one before have stopped spinning
            started = time.perf_counter()
            run()
            wait()
            speeds[name].append(images / (time.perf_counter() - started))
    return speeds


def compare(t: Task, title: str, rivals: dict[str, Callable[[], object]], rounds: int,
            wait: Callable[[], object] = lambda: None) -> dict[str, dict[str, list[float]]]:
    """{"attack": what `measure` returns, "training": the same} for a task, printed as tables; rivals: its attackers."""
    found = {}
    for kind, runs in (("attack", rivals), ("training", trainers(t))):
        chosen = {who: run for who, run in runs.items() if who in rivals}
        found[kind] = measure(chosen, len(t.x) * t.steps, rounds, wait)
        print(table(f"{title}, batch {len(t.x)}, {UNITS[kind]}", found[kind]), flush=True)
    return found


def table(title: str, speeds: dict[str, list[float]]) -> str:
    """Median, spread, and tinyadv's ratio to each peer, round by round."""
    ours = np.array(speeds["tinyadv"])
    lines = [title, f"  {'':14}{'median':>9}{'min':>9}{'max':>9}   tinyadv is faster by"]
    for name, values in speeds.items():
        ratio = "" if name == "tinyadv" else f"{np.median(ours / values):19.2f}"
        lines.append(f"  {name:14}{np.median(values):9.0f}{min(values):9.0f}{max(values):9.0f}   {ratio}")
    return "\n".join(lines)


def figure(result: dict[str, dict[str, dict[str, list[float]]]]) -> Figure:
    """Throughput against the batch size: a column for each network, above attacks, below training."""
    networks = list(dict.fromkeys(key.split("/")[0] for key in result["attack"]))
    drawing = plots.blank(3 * len(networks), 5.5)
    grid = drawing.subplots(2, len(networks), squeeze=False, sharex=True)
    everybody = list(dict.fromkeys(who for runs in result["attack"].values() for who in runs))
    for row, (kind, unit) in zip(grid, UNITS.items(), strict=True):
        row[0].set_ylabel(unit)
        for axes, network in zip(row, networks, strict=True):
            keys = [key for key in result[kind] if key.startswith(network + "/")]
            found = {int(key.split("/")[1]): result[kind][key] for key in keys}
            for who, style in zip(everybody, ["-o", "-s", "-^", "-D", "-v", "-P"], strict=False):
                points = [(batch, np.median(runs[who])) for batch, runs in sorted(found.items()) if who in runs]
                if points:
                    width = 2.5 if who == "tinyadv" else 1
                    axes.semilogx(*zip(*points, strict=True), style, markersize=4, linewidth=width, base=2)
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
            axes.set_xticks(sorted(found), map(str, sorted(found)))
            axes.minorticks_off()
    for above, below, network in zip(*grid, networks, strict=True):
        above.set_title(network)
        below.set_xlabel("images in a batch")
    drawing.legend(grid[0][0].lines, everybody, loc="outside lower center", ncols=3)
    return drawing


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    blas = [f"{i['internal_api']} {i.get('architecture', '')}" for i in threadpool_info() if i["user_api"] == "blas"]
    return {"platform": platform.platform(), "cores": usable_cores(), "blas": blas, "numpy": np.__version__,
            "torch": torch.__version__, "tinyadv": tinyadv.__version__}


def main() -> None:
    """Parse the command line, measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS, *DEEP], default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[25, 50, 100, 200], help="images in a batch")
    parser.add_argument("--steps", type=int, default=10, help="of PGD")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=["PyTorch", *PEERS.values()], help="peers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    args = parser.parse_args()
    if not args.out.absolute().parent.is_dir():
        parser.error(f"--out must be in a folder that exists, got {args.out}")
    if args.out.suffix != ".json":
        parser.error(f"--out must end in .json, got {args.out}: the figure goes beside it")
    if min(*args.batches, args.steps, args.rounds) < 1:
        parser.error("--batches, --steps and --rounds must be at least 1")
    torch.set_num_threads(usable_cores())
    if missing := [name for module, name in PEERS.items() if not importlib.util.find_spec(module)]:
        print(f"not installed, and left out: {', '.join(missing)} (pip install -e '.[bench]')")
    result: dict[str, object] = {"machine": machine(), "attack": {}, "training": {}}
    print(json.dumps(result["machine"], indent=1))
    for name in args.networks:
        for batch in args.batches:
            t = task(build(name), batch, args.steps)
            rivals = {who: run for who, run in attackers(t).items() if not args.only or who in {*args.only, "tinyadv"}}
            for kind, speeds in compare(t, name, rivals, args.rounds).items():
                result[kind][f"{name}/{batch}"] = speeds
        args.out.write_text(json.dumps(result, indent=1))
    figure(result).savefig(args.out.with_suffix(".png"))
    print(args.out, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
