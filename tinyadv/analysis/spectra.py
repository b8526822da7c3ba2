"""Which frequencies a perturbation is made of, and which ones a network cannot stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyadv import driver
from tinyadv.analysis.saliency import chosen, on_host, some
from tinyadv.backend import Array, move, to_host
from tinyadv.ops.loss import check_labels
from tinyadv.random import Streams
from tinyadv.shapes import check_not_negative


def noise_spectrum(noise: Array) -> np.ndarray:
    """The mean of log(1 + |F|) over the images and channels of noise (N, C, H, W): (H, W), frequency 0 in the middle.

    F is the discrete Fourier transform of each channel without its mean. By Parseval, the sum of |F|² is H W times that
    of the squared noise. [H // 2 + i, W // 2 + j] is the frequency of i cycles down and j cycles across the image.
    Images have far more energy than the noise on them, which is lost in their spectra: look at the spectrum of the
    noise, or at the difference of two spectra of images. ValueError for other shapes.
    """
    noise = some("noise", noise).astype(np.float64)
    transform = np.fft.fft2(noise - noise.mean(axis=(2, 3), keepdims=True))
    return np.fft.fftshift(np.log1p(abs(transform)).mean(axis=(0, 1)))


def radial_mean(spectrum: Array) -> np.ndarray:
    """The mean over each ring of a spectrum (H, W): element r is that of r cycles per image, in any direction.

    A frequency belongs to the nearest whole number of cycles. The last rings are those of the corners.
    """
    spectrum = on_host("spectrum", spectrum)
    if spectrum.ndim != 2:
        raise ValueError(f"spectrum must be (H, W), as that of noise_spectrum, got shape {spectrum.shape}")
    down, across = (np.arange(n) - n // 2 for n in spectrum.shape)
    radius = np.hypot(down[:, None], across).round().astype(int).ravel()
    counts = np.bincount(radius)
    return np.bincount(radius, spectrum.ravel()) / np.where(counts > 0, counts, 1)


def fourier_sensitivity(model: Callable, images: Array, labels: Any = None, *, norm: float, seed: int = 0,
                        bounds: tuple[float, float] = (0.0, 1.0), batch_size: int | None = None,
                        workers: int | None = None) -> np.ndarray:
    """The fraction of images that are misclassified with a wave of each frequency: (H, W), laid out as a spectrum.

    Yin et al. 2019, arXiv:1906.08988, section 3: a wave of l2 norm `norm`, with a random sign for each image and
    channel, is added to the images (N, C, H, W). Then they are clipped to the bounds. The wave is a cosine; the
    frequency in the middle is a constant. It takes H W / 2 predictions of each image.
    labels: (N,), the predicted classes by default. ValueError for images outside of the bounds.
    """
    check_not_negative("norm", norm)
    shards: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
    labels = to_host(chosen(model, images, labels, bounds, **shards))
    x = some("images", images)
    count, channels, h, w = x.shape
    signs = np.where(Streams(seed, range(count)).uniform((channels, 1, 1)) < 0.5, -1, 1)
    errors = np.full((h, w), np.nan)
    for i, j in np.ndindex(h, w):
        if np.isnan(errors[i, j]):  # or else it is the other half of a wave that has been tried
            noisy = (x + norm * signs * wave(h, w, i, j)).clip(*bounds).astype(x.dtype)
            logits = to_host(driver.logits(model, move(noisy, images), **shards))
            predicted = driver.classes(logits)
            check_labels(labels, logits.shape[1], "fourier_sensitivity")
            errors[i, j] = errors[-i % h, -j % w] = (predicted != labels).mean()
    return np.fft.fftshift(errors)


def wave(h: int, w: int, i: int, j: int) -> np.ndarray:
    """The cosine of i cycles down and j cycles across, (h, w), of l2 norm 1."""
    cosine = np.cos(2 * np.pi * (i * np.arange(h)[:, None] / h + j * np.arange(w) / w))
    return cosine / np.linalg.norm(cosine)
