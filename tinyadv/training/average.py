"""An exponential average of the weights, which is often better than the last ones.

Every step counts, and the older ones less and less: Polyak and Juditsky 1992; for adversarial training Gowal et al.
2020, arXiv:2010.03593. The activations of averaged weights have a mean and a variance of their own, so the running
statistics of batch normalisation are estimated again: Izmailov et al. 2018, arXiv:1803.05407, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinyadv import driver
from tinyadv.backend import Array, move
from tinyadv.nn import BatchNorm2d, Module
from tinyadv.ops.movement import batch_last
from tinyadv.tensor import Tensor, no_grad

SHOWN = 2000  # so many training images suffice for the statistics of each channel


def follow(average: dict[str, Array], model: Module, decay: float) -> None:
    """Move the averages of the parameters, by name, a share 1 - decay towards the model's present ones."""
    for name, parameter in model.named_parameters():
        mean = move(average[name], like=parameter.data)
        mean += (1 - decay) * (parameter.data - mean)
        average[name] = mean


def averaged_state(model: Module, average: dict[str, Array],
                   shown: Iterable[tuple[Array, ...]]) -> dict[str, np.ndarray]:
    """The state_dict of the model with these parameters in place of its own; without any, as it is.

    shown: batches for the statistics of batch normalisation. Each is asked for when the model has the averaged weights.
    The model itself is as before in the end.
    """
    if not average:
        return model.state_dict()
    parameters = dict(model.named_parameters())  # one that has two names has two in the state_dict, too
    live = {name: parameters[name].data for name in average}
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


def _estimate(model: Module, norms: list[BatchNorm2d], shown: Iterable[tuple[Array, ...]]) -> None:
    """Set the running statistics to the mean of those of the batches. Only batch normalisation is in training mode."""
    count, tracked = 0, [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.running_mean, norm.running_var = norm.running_mean.copy(), norm.running_var.copy()
        norm.num_batches_tracked = norm.num_batches_tracked.copy()
    with model.mode(training=False):
        for inputs in shown:
            for x in inputs:
                count += 1
                for norm in norms:
                    norm.training, norm.momentum = True, 1 / count  # so the running mean is that of all so far
                with no_grad():
                    model(Tensor(batch_last(move(x, driver.memory_of(model, x)))))
                for norm in norms:
                    norm.training = False
    for norm, number in zip(norms, tracked, strict=True):
        norm.num_batches_tracked = number  # of the batches of training alone
