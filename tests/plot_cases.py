"""What the tests of figures share: a small data set, a model, an attack, and what a figure shows."""

import numpy as np

from tinyadv.data import Dataset

CLASSES = ("cat", "dog", "ship")


def dataset(n, channels, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((n, channels, 4, 5), dtype=np.float32)
    return Dataset(images, rng.integers(0, 3, n), "pets-test", CLASSES)


def model(x):
    """Three logits from (N, C, 4, 5): the sums of the first three rows of the first channel."""
    return 4 * x[:, 0, :3].sum(axis=2)


def attacked(clean, size=0.25, seed=1):
    signs = np.random.default_rng(seed).choice(np.float32([-1, 1]), clean.images.shape)
    return np.clip(clean.images + np.float32(size) * signs, 0, 1)


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def layout(image):
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def check_layout(figure, titles=()):
    """No text is cut off or overlaps another or an image; returns how many there are."""
    figure.draw_without_rendering()
    texts = [*titles]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        texts += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
                  if axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]]
    texts = [text for text in texts if text.get_text()]
    boxes = [part.get_window_extent() for part in (*texts, *figure.axes)]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert max(box.y1 for box in boxes) <= figure.bbox.y1
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    return len(texts)


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
