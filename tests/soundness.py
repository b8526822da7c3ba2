"""Logits in float32, sampled inside boxes: none may leave its bound. By hand:

    python tests/soundness.py --logits 10000000 --seed 0

For each network, method and size of the box, `sampled` counts the logits that leave the certified bounds: at random
points, at random corners, and at the corners where a logit is steepest. `pushed` searches for a violation where the
bounds leave least room: in boxes of a few float32 numbers it changes the images so as to raise the excess over the
bounds, in units of what was added for rounding. Above 1 the certificate is broken; above 0 it would be, had nothing
been added.
"""

import argparse
import sys
import time

import numpy as np
from certify_cases import NETWORKS, SMALL, corners, images, logits_of, shaken

from tinyadv import models
from tinyadv.certify.accuracy import METHODS, sound_box
from tinyadv.certify.interval import Interval

CASES = SMALL | {name: NETWORKS[name] for name in ("LeNet", "MadryCNN", "IntervalCNN")} | {
    "VoterCNN": (lambda: shaken(models.VoterCNN(width=4)), (1, 28, 28))}
ALL = tuple(SMALL)  # the networks that are small enough for all methods
SIZES, TINY_SIZES = (1e-6, 0.001, 0.03, 0.3), (0.0, 2.0**-24, 2.0**-20)
BOXES, SLICE = 8, 500  # boxes of one size; points of one forward pass


def ends(box):
    """The least and the largest float32 point of a float64 box."""
    low, high = (end.data.astype(np.float32) for end in (box.low, box.high))
    low = np.where(low < box.low.data, np.nextafter(low, np.float32(9)), low)
    return low, np.where(high > box.high.data, np.nextafter(high, np.float32(-9)), high)


def above(model, points, labels, worst):
    """(n, K): by how much each z_j - z_y of float32 logits is above its bound; -inf for j = y."""
    z = logits_of(model, points).astype(np.float64)
    excess = z - np.take_along_axis(z, labels[:, None], axis=1) - worst
    np.put_along_axis(excess, labels[:, None], -np.inf, axis=1)
    return excess


def sampled(model, shape, method, eps, logits, seed):
    """(logits seen, those above their bound), for boxes of one size."""
    rng, x = np.random.default_rng(seed), images(shape, BOXES, seed)
    labels = logits_of(model, x).argmax(axis=1)
    box = sound_box(x, eps, (0.0, 1.0))
    worst, (low, high) = METHODS[method](model, box, labels), ends(box)
    seen = broken = 0
    points = list(corners(model, low, high, seed))
    while seen < logits:
        for each in points:
            owners = np.arange(len(each)) % BOXES
            broken += int((above(model, each, labels[owners], worst[owners]) > 0).sum())
            seen += len(each) * worst.shape[1]
        owners = np.arange(SLICE) % BOXES
        a, b = low[owners], high[owners]
        points = [(a + (b - a) * rng.random(a.shape, np.float32)).clip(a, b),
                  np.where(rng.random(a.shape) < rng.random(), a, b)]
    return seen, broken


def pushed(model, shape, method, eps, steps, seed, count=16):
    """(logits seen, the largest excess over the bounds without what was added for rounding, in units of that)."""
    rng, best, seen = np.random.default_rng(seed), np.full(count, -np.inf), 0
    kept = images(shape, count, seed)
    for step in range(steps):
        x = kept.copy()
        if step:  # some pixels of each image: new ones, or their neighbours in float32
            some = rng.random(x.shape) < rng.choice([0.02, 0.1, 0.5])
            new = rng.random(x.shape, np.float32)
            x[some] = (new if rng.random() < 0.7 else np.nextafter(x, np.round(new)))[some]
        labels, box = rng.integers(0, logits_of(model, x[:1]).shape[1], count), sound_box(x, eps, (0.0, 1.0))
        worst, bare = (METHODS[method](model, each, labels) for each in (box, Interval(box.low.data, box.high.data)))
        low, high = ends(box)
        for points in (x, *corners(model, low, high, step)):
            for size in {count, count if step % 10 else 1 + step // 10 % 5}:  # which may sum in another order
                parts = [slice(start, start + size) for start in range(0, count, size)]
                excess = np.concatenate([above(model, points[part], labels[part], bare[part]) for part in parts])
                ratio = (excess / np.maximum(worst - bare, 1e-300)).max(axis=1)
                seen += excess.size
                kept[ratio > best] = x[ratio > best]
                best = np.maximum(best, ratio)
    return seen, float(best.max())


def main(options):
    total = violations = 0
    combinations = [(name, method) for name in CASES for method in METHODS if method != "zonotope" or name in ALL]
    each = -(-options.logits // (len(combinations) * len(SIZES)))
    for name, method in combinations:
        if name not in options.networks:
            continue
        (make, shape), started = CASES[name], time.perf_counter()
        model = make().eval()
        counts = [sampled(model, shape, method, eps, each, options.seed + k) for k, eps in enumerate(SIZES)]
        steps = options.steps if method == "ibp" else max(1, options.steps // 10)
        searches = [pushed(model, shape, method, eps, steps, options.seed) for eps in TINY_SIZES]
        counts += [(seen, ratio > 1) for seen, ratio in searches]
        seen, broken = map(sum, zip(*counts, strict=True))
        total, violations = total + seen, violations + broken
        pushes, seconds = ", ".join(f"{ratio:.4f}" for _, ratio in searches), time.perf_counter() - started
        print(f"{name:12} {method:10} {seen:>11,} logits, {broken} violations; pushed: {pushes}; {seconds:.0f} s",
              flush=True)
    print(f"{total:,} logits, {violations} violations")
    return violations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logits", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=200, help="of the search, a tenth for the slower methods")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES), help="so a run can be split")
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(bool(main(parser.parse_args())))
