"""An exponential moving average of the weights, which often generalises better than the last weights.

Averaging goes back to Polyak and Juditsky 1992; for adversarial training see Gowal et al. 2020, arXiv:2010.03593.
"""

from __future__ import annotations

import numpy as np

from tinyadv.backend import Array, move
from tinyadv.nn import Module


def follow(average: dict[str, Array], model: Module, decay: float) -> None:
    """Set each average, by the name of its parameter, to decay * average + (1 - decay) * parameter."""
    for name, parameter in model.named_parameters():
        mean = move(average[name], like=parameter.data)
        mean += (1 - decay) * (parameter.data - mean)
        average[name] = mean


def averaged_state(model: Module, average: dict[str, Array]) -> dict[str, np.ndarray]:
    """The state_dict of the model with the averaged parameters; if `average` is empty, with its own."""
    parameters = dict(model.named_parameters())  # one that has two names has two in the state_dict, too
    live = {name: parameters[name].data for name in average}
    try:
        for name, mean in average.items():
            parameters[name].data = mean
        return model.state_dict()
    finally:
        for name, array in live.items():
            parameters[name].data = array
