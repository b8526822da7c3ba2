"""An exponential moving average of the weights, which often generalises better than the last weights.

Averaging goes back to Polyak and Juditsky 1992; for adversarial training see Gowal et al. 2020, arXiv:2010.03593. With
the averaged weights, activations have another mean and variance. So the running statistics of batch normalisation are
estimated again: Izmailov et al. 2018, arXiv:1803.05407, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinyadv.backend import Array, move
from tinyadv.fused import averaged
from tinyadv.nn import BatchNorm2d, Module
from tinyadv.tensor import Tensor, no_grad
from tinyadv.training.checkpoint import random_layers, set_random_layers

SHOWN = 2000  # number of training images for the statistics; each channel has many pixels in an image


def follow(average: dict[str, Array], model: Module, decay: float) -> None:
    """Set each average, by the name of its parameter, to decay * average + (1 - decay) * parameter."""
    for name, parameter in model.named_parameters():
        average[name] = averaged(move(average[name], like=parameter.data), parameter.data, 1 - decay)


def averaged_state(model: Module, average: dict[str, Array],
                   shown: Iterable[tuple[Tensor, ...]]) -> dict[str, np.ndarray]:
    """The state_dict of the model with the averaged parameters; if `average` is empty, with its own.

    shown: what the model is called on for the statistics of batch normalisation, batch by batch. It is read while the
    model has the averaged weights, so that images can be attacked with these, in evaluation mode, whatever the method's
    `crafting`. In the end the model is as before.
    """
    if not average:
        return model.state_dict()
    parameters = dict(model.named_parameters())  # one that has two names has two in the state_dict, too
    live = {name: parameters[name].data for name in average}
    drawn = random_layers(model)
    norms = [module for _, module in model.named_modules() if isinstance(module, BatchNorm2d)]
    before = [(norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum) for norm in norms]
    try:
        for name, mean in average.items():
            parameters[name].data = mean
        if norms:
            _estimate(model, norms, shown)
        return model.state_dict()
    finally:
        for name, array in live.items():
            parameters[name].data = array
        for norm, kept in zip(norms, before, strict=True):
            norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum = kept
        set_random_layers(model, drawn)  # those that draw in evaluation mode, too, have counted on


def _estimate(model: Module, norms: list[BatchNorm2d], shown: Iterable[tuple[Tensor, ...]]) -> None:
    """Set the running statistics to the means over the images. Only batch normalisation is in training mode."""
    seen, tracked = 0, [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.running_mean, norm.running_var = norm.running_mean.copy(), norm.running_var.copy()
        norm.num_batches_tracked = norm.num_batches_tracked.copy()
    with model.mode(training=False):
        for inputs in shown:
            for x in inputs:
                seen += len(x)
                for norm in norms:  # so the running statistics are the means so far, by the number of images
                    norm.training, norm.momentum = True, len(x) / seen
                with no_grad():
                    model(x)
                for norm in norms:
                    norm.training = False
    for norm, number in zip(norms, tracked, strict=True):
        norm.num_batches_tracked = number  # counts the batches of training only
