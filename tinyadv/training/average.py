"""An exponential average of the weights, which is often better than the last ones.

Every step counts, and the older ones less and less: Polyak and Juditsky 1992; for adversarial training Gowal et al.
2020, arXiv:2010.03593.
"""

from __future__ import annotations

import numpy as np

from tinyadv.backend import Array, move
from tinyadv.nn import Module


def follow(average: dict[str, Array], model: Module, decay: float) -> None:
    """Move the averages of the parameters, by name, a share 1 - decay towards the model's present ones."""
    for name, parameter in model.named_parameters():
        mean = move(average[name], like=parameter.data)
        mean += (1 - decay) * (parameter.data - mean)
        average[name] = mean


def averaged_state(model: Module, average: dict[str, Array]) -> dict[str, np.ndarray]:
    """The state_dict of the model with these parameters in place of its own; without any, as it is."""
    parameters = dict(model.named_parameters())  # one that has two names has two in the state_dict, too
    live = {name: parameters[name].data for name in average}
    try:
        for name, mean in average.items():
            parameters[name].data = mean
        return model.state_dict()
    finally:
        for name, array in live.items():
            parameters[name].data = array
