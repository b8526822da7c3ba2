"""PGD takes a second for an image, not ten, and a small part of it where many images are attacked together.

Vasquez Auqui, Chahua Salguera and Guimarey Saavedra ("Adversarial Machine Learning", undated) report at least ten
seconds for an image with more than 20 steps of ART's PGD, which kept their experiments small. Here are the seconds that
PGD takes for an image by its steps: one image alone, and one of many, of this library and of ART on the same weights of
ResNet-20. Each figure is the median of several rounds that time both in turn. The labels are the network's own
predictions and the budget is tiny, so that every step is taken. The verdict says whether the claim holds: with the most
steps, an image alone takes less than ten seconds, and one of many less than half as much; and ART takes longer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.__main__ import measure
from benchmarks.contenders import attackers, task
from benchmarks.networks import build
from tinyadv import backend, plots

STEPS = (20, 40, 60, 80, 100)
TIMED = ("tinyadv", "ART")


def main() -> None:
    """Measure, draw, and write the table beside the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seconds", description=__doc__.split("\n")[0])
    parser.add_argument("--many", type=int, default=50, help="images attacked together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("seconds.png"), help="file of the figure")
    args = parser.parse_args()
    started = time.perf_counter()
    torch.set_num_threads(backend.usable_cores())
    seconds: dict[tuple[str, int], list[float]] = {}
    for count in (1, args.many):
        for steps in STEPS:
            runs = attackers(task(build("ResNet20"), count, steps))
            speeds = measure({who: runs[who] for who in TIMED}, count, args.rounds)
            for who, values in speeds.items():
                seconds.setdefault((who, count), []).append(1 / float(np.median(values)))
            print(count, steps, {who: 1 / float(np.median(values)) for who, values in speeds.items()}, flush=True)

    names = {(who, count): f"{who}, {'alone' if count == 1 else f'one of {count}'}" for who, count in seconds}
    plots.lines({names[key]: (STEPS, values) for key, values in seconds.items()}, xlabel="steps of PGD",
                ylabel="seconds for an image", log="y", title="ResNet-20, 32 x 32 pixels").savefig(args.out)
    alone, together = seconds["tinyadv", 1][-1], seconds["tinyadv", args.many][-1]
    least = min(theirs / ours for count in (1, args.many)
                for ours, theirs in zip(*(seconds[who, count] for who in TIMED), strict=True))
    verdict = "holds" if alone < 10 and together < alone / 2 and least > 1 else "does not hold"
    rows = [["seconds for an image", *(f"{steps} steps" for steps in STEPS)],
            *([names[key], *(f"{value:.3g}" for value in values)] for key, values in seconds.items())]
    facts = {"data": "random images (3, 32, 32)", "verdict":
             f"with {STEPS[-1]} steps an image alone takes {alone:.2f} s, one of {args.many} {together:.3f} s, and ART "
             f"takes at least {least:.2f} times as long: the claim {verdict}",
             "tables": {f"Median of {args.rounds} rounds": rows},
             "command": f"python -m benchmarks.seconds --many {args.many} --rounds {args.rounds}", "seed": 1,
             "seconds": round(time.perf_counter() - started), "machine": backend.describe().splitlines()}
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(facts["verdict"])


if __name__ == "__main__":
    main()
