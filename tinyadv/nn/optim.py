"""Optimisers over the parameters of a model, and learning-rate schedules.

A schedule is a function from the progress of training, in [0, 1], to a factor of the learning rate: it has no
state, so a resumed run continues it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinyadv.backend import Array, array_module, device_of, move, to_host, wide
from tinyadv.fused import adam_direction, stepped
from tinyadv.nn.module import Module
from tinyadv.shapes import check_not_negative, is_number
from tinyadv.spellings import missing, spelled
from tinyadv.tensor import Tensor

Schedule = Callable[[float], float]


class Optimizer:
    """What SGD and Adam share: the parameters, their state, and the loop over both.

    model: a Module, or some of its parameters: `SGD(model)` is `SGD(model.parameters())`. lr may be set at any time.
    `state` holds, for each parameter, the arrays that the rule carries from step to step; `steps` counts the steps, and
    `updates` those in which each parameter had a gradient.
    """

    moments = 0  # how many arrays, each like the parameter, the rule carries

    def __init__(self, model: Module | Iterable[Tensor], lr: float, weight_decay: float = 0.0):
        if isinstance(model, Tensor):  # whose rows would be other Tensors
            raise TypeError(f"an optimiser takes a model or a list of Tensors: write {type(self).__name__}([x])")
        parameters = model.parameters() if isinstance(model, Module) else list(model)
        if not all(isinstance(parameter, Tensor) for parameter in parameters):
            raise TypeError("an optimiser takes a model or its parameters, and one rate for all of them: "
                            f"got {', '.join(sorted({type(each).__name__ for each in parameters}))}")
        if len({id(parameter) for parameter in parameters}) < len(parameters):
            raise ValueError("an optimiser takes each parameter once: it was given one twice")
        if computed := [each for each in parameters if each._node is not None and each._node.edges != []]:
            raise ValueError(f"an optimiser takes no results of operations, got {computed[0]!r}: compute parameters "
                             "under no_grad(), or give x.detach() as the parameter")
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            check_not_negative(name, value)
        self.lr, self.weight_decay, self.steps = lr, weight_decay, 0
        self.parameters, self.updates = parameters, [0] * len(parameters)
        with device_of(*(p.data for p in parameters)):
            self.state = [[array_module(p.data).zeros_like(p.data, dtype=wide(p.data)) for _ in range(self.moments)]
                          for p in parameters]

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: array} of what is carried: "steps", "updates", and "3.0" for the first array of the fourth parameter.

        They are copies on the host. The rate and the other arguments are not among them.
        """
        own = {f"{i}.{k}": array for i, moments in enumerate(self.state) for k, array in enumerate(moments)}
        counts = {"steps": np.array(self.steps), "updates": np.array(self.updates, np.int64)}
        return {**counts, **{name: np.array(to_host(array)) for name, array in own.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all that `state_dict` gives; ValueError, which says what does not fit, and then nothing is changed."""
        state = {name: np.asarray(to_host(value)) for name, value in state.items()}
        own, new = ({name: (array.shape, array.dtype) for name, array in each.items()} for each in (
            self.state_dict(), state))
        wrong = [f"{name}: the state has {new.get(name, 'none')}, this optimiser {own.get(name, 'none')}"
                 for name in {**own, **new} if new.get(name) != own.get(name)]
        if not wrong and not all(0 <= each <= state["steps"] for each in [0, *state["updates"]]):
            wrong = ["steps: fewer than none, or than updates"]
        if wrong:
            raise ValueError(f"the state does not fit {self}:\n  " + "\n  ".join(wrong))
        self.steps, self.updates = int(state["steps"]), state["updates"].tolist()
        self.state = [[move(np.array(state[f"{i}.{k}"]), like=array) for k, array in enumerate(each)]
                      for i, each in enumerate(self.state)]

    def zero_grad(self) -> None:
        """Forget all gradients: `backward()` adds to them."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Each gets a new array, and a graph that was recorded before keeps the weights that it was computed with.
        """
        self.steps += 1
        for k, (parameter, state) in enumerate(zip(self.parameters, self.state, strict=True)):
            if parameter.grad is not None:
                self.updates[k] += 1
                before = parameter.data
                with device_of(before):
                    state[:] = [move(each, like=before) for each in state]  # the model may have been moved
                    g = parameter.grad.astype(wide(before), copy=False)
                    if self.weight_decay:
                        g = stepped(g, before, -self.weight_decay)
                    direction = self.direction(g, self.updates[k], *state)
                    if array_module(before) is np:
                        after = np.empty_like(before)
                        np.subtract(before, self.lr * direction, out=after, casting="same_kind")
                    else:
                        after = stepped(before, direction, self.lr).astype(before.dtype, copy=False)
                    parameter.data = after

    def direction(self, g: Array, update: int, *state: Array) -> Array:
        """The step's direction from a gradient; updates the state arrays in place. update: its number, from 1."""
        raise TypeError(f"{type(self).__name__} has no rule: use SGD or Adam, or define direction()")

    def __repr__(self) -> str:
        count = sum(parameter.size for parameter in self.parameters)
        carried = ("steps", "updates", "moments", "parameters", "state")
        rule = [f"{k}={v!r}" for k, v in vars(self).items() if k not in carried]
        return f"{type(self).__name__}({count:,} parameters, {', '.join(rule)})"


class SGD(Optimizer):
    """Gradient descent with momentum as in PyTorch: v = momentum * v + g, and a step of -lr * v.

    nesterov: step by g + momentum * v instead (Sutskever et al. 2013). Weight decay is added to the gradient.
    """

    @spelled
    def __init__(self, model: Module | Iterable[Tensor], lr: float = 0.01, momentum: float = 0.0,
                 nesterov: bool = False, weight_decay: float = 0.0):
        if not (is_number(momentum) and 0 <= momentum < 1):
            raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        self.momentum, self.nesterov = momentum, nesterov
        self.moments = 1 if momentum else 0
        super().__init__(model, lr, weight_decay)

    def direction(self, g: Array, update: int, *state: Array) -> Array:
        if not state:
            return g
        (velocity,) = state
        velocity *= self.momentum
        velocity += g
        return g + self.momentum * velocity if self.nesterov else velocity


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1), weight decay added to the gradient as in PyTorch."""

    moments = 2

    @spelled
    def __init__(self, model: Module | Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0):
        if np.shape(betas) != (2,) or not all(is_number(beta) and 0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas!r}")
        check_not_negative("eps", eps)
        self.betas, self.eps = betas, eps
        super().__init__(model, lr, weight_decay)

    def direction(self, g: Array, update: int, *state: Array) -> Array:
        (first, second), (beta1, beta2) = state, self.betas
        first *= beta1
        first += (1 - beta1) * g
        second *= beta2
        second += (1 - beta2) * g * g
        return adam_direction(first, second, 1 - beta1**update, 1 - beta2**update, self.eps)


def step(milestones: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """Multiply the rate by `factor` at each milestone, a fraction of training."""
    if np.ndim(milestones) != 1 or not all(is_number(each) and 0 <= each <= 1 for each in milestones):
        raise ValueError(f"milestones must be fractions of training, such as (0.5, 0.75), got {milestones!r}")
    return lambda progress: factor ** sum(progress >= milestone for milestone in milestones)


def cosine() -> Schedule:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, one period)."""
    return lambda progress: (1 + math.cos(math.pi * progress)) / 2


def one_cycle(peak: float = 0.3, start: float = 0.04, end: float = 0.0) -> Schedule:
    """Linearly from `start` up to 1 at `peak`, a fraction of training, and down to `end`.

    Smith and Topin 2017, arXiv:1708.07120.
    """
    if not (is_number(peak) and 0 <= peak <= 1):
        raise ValueError(f"peak must be a fraction of training, such as 0.3, got {peak!r}")
    for name, factor in (("start", start), ("end", end)):
        check_not_negative(name, factor)
    return lambda progress: float(np.interp(progress, (0, peak, 1), (start, 1, end)))


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
