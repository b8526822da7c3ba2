"""The universal adversarial patch: one patch that fools a model on any image, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyadv.attacks.base.arguments import check_arguments, warn
from tinyadv.attacks.base.ball import Ball, usable
from tinyadv.attacks.base.parameters import check_bounds
from tinyadv.attacks.base.window import check_sides, pasted, window
from tinyadv.backend import Array, array_module, is_array, move, on_its_device, to_host
from tinyadv.driver import SUMMED, input_gradients, streams_of
from tinyadv.random import Streams
from tinyadv.shapes import check_floating, check_positive, check_several, to_count
from tinyadv.tensor import Tensor


@on_its_device
def universal_patch(model: Callable, x: Array, y: Array, *, target: int | None = None, size: tuple[int, int] = (5, 5),
                    steps: int = 200, step_size: float = 0.05, batch_size: int = 100,
                    bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0) -> Array:
    """A patch (C, h, w) that is to fool the model on any image, at any place: Brown et al. 2017, arXiv:1712.09665.

    It maximises the mean over images and places of log P(target | image with the patch) or, without a target, of the
    cross entropy of y. Each step takes `batch_size` images at new places, and moves the patch by step_size along the
    sign of its mean gradient. Only the place varies; the paper also rotates and scales the patch.

    x: (N, C, H, W), the images to learn from; y: (N,), their classes; size: (h, w), in pixels. `paste` puts the patch
    into other images. Raises ValueError for arguments that do not fit, and warns if no gradient led anywhere.
    """
    check_bounds(bounds)
    check_positive("step_size", step_size)
    x, y, goal, streams = check_arguments(x, y, target, seed, bounds)
    if not len(x):
        raise ValueError(f"x must have images to learn from, got shape {x.shape}")
    classes, sign = (y, 1) if goal is None else (goal, -1)
    rng, xp = np.random.default_rng(streams.seed), array_module(x)
    led = xp.zeros((), bool)  # whether a gradient led anywhere
    patch, ball = xp.full((x.shape[1], *check_sides(size)), sum(bounds) / 2, x.dtype), Ball(x, 0, bounds)
    for step in range(to_count("steps", steps)):
        chosen = rng.permutation(len(x))[:to_count("batch_size", batch_size)]
        there = _anywhere(x[chosen], patch, streams[chosen])
        images, drawn = pasted(x[chosen], patch, there), streams[chosen].spawn(step)  # for random layers
        g = usable(input_gradients(model, images, classes[chosen], seed=drawn, loss=_losses))[there].sum(axis=0)
        patch = xp.clip(patch + float(sign * step_size) * xp.sign(g), ball.low, ball.high)
        led = led | g.any()
    if not led:
        warn("the patch is grey, as the cross entropy's gradient was 0 or NaN at all images: look at the logits")
    return patch


def _losses(logits: Tensor, y: Array) -> Tensor:
    check_several(logits)
    return SUMMED(logits, y)


@on_its_device
def paste(x: Array, patch: Array, *, seed: int | Streams = 0) -> Array:
    """Copies of the images x (N, C, H, W) with the patch (C, h, w) at a random place of each, drawn from (seed, i)."""
    check_floating(x)
    if not is_array(patch) or not np.isfinite(to_host(patch)).all():
        raise ValueError(f"patch must be an array of finite numbers, got {patch!r}")
    return pasted(x, move(patch, like=x), _anywhere(x, patch, streams_of(x, seed)))


def _anywhere(x: Array, patch: Array, streams: Streams) -> tuple[Array, ...]:
    """A random window of the size of the patch in each image."""
    if len(patch.shape) != 3 or x.ndim != 4 or patch.shape[0] != x.shape[1] or min(
            np.subtract(x.shape[2:], patch.shape[1:])) < 0:
        raise ValueError(f"patch must be (C, h, w) and fit into images (N, C, H, W), got {patch.shape} for {x.shape}")
    return window(move(streams.uniform((2,)), like=x), patch.shape[1:], x.shape)
