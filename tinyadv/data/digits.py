"""Built-in digits that look like MNIST's, drawn with random pen strokes, so that nothing has to be downloaded."""

import numpy as np

from tinyadv.shapes import to_count

from .loader import Dataset

Stroke = list[tuple[int, int]]

# The ways to write each digit, from 0 to 9. A way is a list of strokes. A stroke is a smooth curve through
# points (x, y) in a box of height 20, with y downwards. At a corner one stroke ends and another begins.
GLYPHS: tuple[tuple[list[Stroke], ...], ...] = (
    ([[(8, 0), (4, 2), (1, 8), (1, 14), (4, 19), (8, 20), (12, 16), (13, 9), (11, 3), (7, 0)]],),
    ([[(7, 0), (7, 20)]],
     [[(3, 4), (7, 0)], [(7, 0), (7, 20)]]),
    ([[(1, 5), (3, 1), (8, 0), (12, 4), (10, 10), (5, 16), (1, 20)], [(1, 20), (8, 19), (14, 20)]],
     [[(2, 4), (7, 0), (12, 4), (9, 12), (4, 19), (1, 18), (3, 15), (7, 17), (11, 20), (15, 18)]]),
    ([[(1, 3), (6, 0), (11, 2), (11, 7), (5, 9)], [(5, 9), (11, 11), (12, 17), (6, 20), (0, 18)]],),
    ([[(10, 0), (0, 13)], [(0, 13), (14, 13)], [(10, 0), (10, 20)]],
     [[(2, 0), (1, 6), (2, 11), (7, 11), (12, 10)], [(12, 1), (11, 10), (10, 20)]]),
    ([[(12, 0), (3, 0)], [(3, 0), (2, 9)], [(2, 9), (8, 7), (12, 12), (10, 18), (5, 20), (0, 18)]],),
    ([[(10, 0), (5, 4), (2, 12), (4, 19), (9, 20), (12, 15), (9, 11), (5, 12), (2, 16)]],),
    ([[(0, 1), (6, 1), (13, 0)], [(13, 0), (8, 9), (6, 20)]],
     [[(0, 1), (6, 1), (13, 0)], [(13, 0), (8, 9), (6, 20)], [(4, 11), (13, 10)]]),
    ([[(11, 3), (7, 0), (3, 3), (5, 8), (10, 12), (12, 16), (7, 20), (2, 16), (4, 12), (9, 8), (12, 2)]],),
    ([[(12, 3), (7, 0), (2, 4), (3, 9), (7, 10), (11, 7), (12, 3)], [(12, 3), (11, 12), (10, 20)]],),
)
POINTS = 64  # along the strokes of a digit: about one per pixel, closer than a pen is wide
BLOCK = 50  # images drawn at a time, 10 MB of distances; a multiple of ten
SIZE = 28


def digits(train: int = 6000, test: int = 1000, seed: int = 0) -> tuple[Dataset, Dataset]:
    """A training set of ``train`` and a test set of ``test`` drawn digits, of shape (1, 28, 28) in [0, 1].

    As in MNIST, they are white on black, centred and about 20 pixels high, and every value is k / 255. Each ten
    images, 10 j to 10 j + 9, hold every digit once. Image i depends only on ``seed``, its set and i, so a smaller
    set is the beginning of a larger one. ValueError unless all three are integers >= 0.
    """
    for name, value in ("train", train), ("test", test), ("seed", seed):
        to_count(name, value, least=0)
    return _dataset("digits-train", train, seed, split=0), _dataset("digits-test", test, seed, split=1)


def _dataset(name: str, count: int, seed: int, split: int) -> Dataset:
    images = np.empty((count, 1, SIZE, SIZE), np.float32)
    labels = np.empty(count, np.int64)
    templates = [[_trace(strokes) for strokes in ways] for ways in GLYPHS]
    for start in range(0, count, BLOCK):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(split, start // BLOCK)))
        classes = rng.permuted(np.tile(np.arange(10), (BLOCK // 10, 1)), axis=1).ravel()
        ways = rng.integers([len(templates[k]) for k in classes])
        points = np.stack([templates[k][way] for k, way in zip(classes, ways, strict=True)])
        drawn = _rasterise(_distort(points, rng), rng)  # a whole block even where fewer are kept
        block = slice(start, min(start + BLOCK, count))
        images[block, 0], labels[block] = drawn[: count - start], classes[: count - start]
    return Dataset(images, labels, name, tuple("0123456789"))


def _trace(strokes: list[Stroke]) -> np.ndarray:
    """Points evenly spaced along Catmull-Rom splines through the strokes, of shape (POINTS, 2)."""
    t = np.linspace(0, 1, 20)[:, None]
    curves = []
    for stroke in strokes:
        p = np.array(stroke, float)
        p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])  # a spline does not reach its end points
        curves.append(np.vstack([
            b + t * (c - a) / 2 + t**2 * (2 * a - 5 * b + 4 * c - d) / 2 + t**3 * (3 * (b - c) + d - a) / 2
            for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)]))
    steps = [np.hypot(*np.diff(curve, axis=0, prepend=curve[:1]).T) for curve in curves]
    length = np.cumsum(np.concatenate(steps))  # it does not grow while the pen is up
    where = np.linspace(0, length[-1], POINTS)
    return np.stack([np.interp(where, length, axis) for axis in np.vstack(curves).T], axis=1)


def _distort(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The points (n, POINTS, 2) of each image, bent by waves, slanted, turned and scaled like handwriting."""
    n = len(points)
    points = points - points.mean(axis=1, keepdims=True)
    waves = rng.normal(0, 0.13, (n, 3, 1, 2))  # radians per pixel
    pushes = rng.normal(0, 1.1, (n, 3, 1, 2))  # pixels
    phases = rng.uniform(0, 2 * np.pi, (n, 3, 1))
    bends = np.sin((waves * points[:, None]).sum(axis=-1) + phases)  # (n, 3, POINTS)
    points = points + (pushes * bends[..., None]).sum(axis=1)

    turn, slant, stretch = rng.normal((0, 0.15, 0), (0.12, 0.2, 0.12), (n, 1, 3)).transpose(2, 0, 1)
    x, y = np.moveaxis(points, -1, 0)  # (n, POINTS) each
    x = x * np.exp(stretch) - y * slant
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=-1)
    points *= rng.uniform(15, 18.5, (n, 1, 1)) / np.ptp(points, axis=1).max(axis=1)[:, None, None]
    centre = (SIZE - 1) / 2 + rng.uniform(-1, 1, (n, 1, 2))
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    shift = np.clip(centre - points.mean(axis=1, keepdims=True), 3 - low, SIZE - 4 - high)  # room for the pen
    return np.asarray(points + shift)


def _rasterise(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Anti-aliased images (n, SIZE, SIZE) of strokes along the points (n, POINTS, 2), with a pen of random width."""
    radius = np.exp(rng.normal(0.22, 0.2, (len(points), 1, 1)))
    gaps = (np.arange(SIZE, dtype=np.float32)[:, None, None] - points.astype(np.float32)[:, None]) ** 2
    x, y = np.moveaxis(gaps, -1, 0)  # (n, SIZE, POINTS) each
    distance = np.sqrt((x[:, None] + y[:, :, None]).min(axis=-1))  # (n, SIZE, SIZE), rows first
    return np.asarray(np.round(255 * np.clip(radius + 0.5 - distance, 0, 1)) / 255)
