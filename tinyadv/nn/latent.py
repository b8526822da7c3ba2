"""What a network has made of its input before the last layer: the latent vectors."""

from __future__ import annotations

from tinyadv import ops
from tinyadv.nn.module import Module, watching
from tinyadv.parallel import Setting
from tinyadv.tensor import Tensor

TINY = 1e-12  # below a root, whose slope at 0 is infinite
_innermost: Setting[list | None] = Setting("latent", None)  # the outputs of the innermost `latent`


def latent(model: Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The latent vectors (N, D) of images x (N, ...), and the logits (N, K): from one forward pass.

    They are the output of the last module whose output is not yet the logits, as of the ReLU before the last Linear.
    Raises TypeError if the model is no Module, and ValueError if it has no such module inside.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be an nn.Module, whose layers can be watched, got {type(model).__name__}")
    outputs: list[Tensor] = []  # without those of a network inside of which the model itself takes latent vectors
    with _innermost.within(outputs), watching(lambda _, y: outputs.append(y) if _innermost.get() is outputs else None):
        logits = model(x)
    before = [y for y in outputs if y is not logits]
    if not before:
        raise ValueError("model must have modules inside, as nn.Sequential, and a last one that gives the logits")
    return ops.flatten(before[-1]), logits


def unit(z: Tensor) -> Tensor:
    """Vectors (N, D) divided by their length."""
    return z / ops.sqrt(ops.sum(z * z, axis=1, keepdims=True) + TINY)


class Latent(Module):
    """The network up to its latent vectors (N, D), as a network of its own; see `latent`."""

    def __init__(self, model: Module):
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return latent(self.model, x)[0]
