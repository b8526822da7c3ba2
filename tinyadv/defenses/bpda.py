"""A defence is a layer in front of the model: it changes the images exactly, and its vjp is chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyadv import ops
from tinyadv.backend import Array, array_module, is_array, move
from tinyadv.nn import Module
from tinyadv.ops.movement import arranged
from tinyadv.tensor import Tensor, gradients, op, recording

GRADIENTS = ("identity", "smooth", "zero")


@op
def through(x: Any, transform: Callable[[Array], Array], gradient: str = "identity",
            smooth: Callable[[Tensor], Tensor] | None = None) -> Any:
    """transform(x), to the last bit, with the vjp that `gradient` names; see `Defense`. x and the value: (N, ...)."""
    value = transform(x.copy())  # a function that writes into its argument must not change the attack's point
    if not is_array(value):
        raise TypeError(f"transform must return an array like the images it is given, got {type(value).__name__}"
                        + ": operations on Tensors need no BPDA, and are a layer as they are"
                        * isinstance(value, Tensor))
    if value.dtype.kind not in "fb":
        raise TypeError(f"transform must return floating-point images, got {value.dtype}: divide grey levels by 255")
    if gradient == "identity" and value.shape != x.shape:
        raise ValueError(f'gradient="identity" needs a transform that keeps the shape {x.shape}, but it returned '
                         f"{value.shape}: give a smooth stand-in, whose gradient is used")

    def vjp(g: Array) -> Array:
        if gradient != "smooth" or smooth is None:
            return g if gradient == "identity" else array_module(x).zeros_like(x)
        point = Tensor(x)
        with recording(True):  # the walk back may run under no_grad()
            there = smooth(point)
            if there.shape != value.shape:
                raise ValueError(f"smooth must return the shape of the transform, {value.shape}, got {there.shape}")
            return gradients(ops.sum(there * g), [point])[0]

    return arranged(move(value, like=x).astype(x.dtype)), vjp


class Defense(Module):
    """The base class of defences that change the images: a layer, as in nn.Sequential(defence, model).

    A subclass defines `transform`, from images (N, C, H, W) to images, on arrays of any library. The layer keeps the
    dtype and the memory of the images. Its forward pass is the transform, and its vjp is the one that `gradient` names:

    "identity": that of a layer that changes nothing. This is the backward pass differentiable approximation (BPDA) of
        Athalye, Carlini and Wagner 2018, arXiv:1802.00420, section 4.1: attacks go through the defence.
    "smooth": that of `smooth`, a function on Tensors that is near to the transform (BPDA in its general form).
    "zero": no gradient, as from a framework that cannot differentiate the transform. It shows how gradients are masked.
    """

    smooth: Callable[[Tensor], Tensor] | None = None
    drawn = False  # whether `forward` chooses the stand-in, as where it depends on what was drawn

    def __init__(self, gradient: str = "identity"):
        allowed = [name for name in GRADIENTS if name != "smooth" or self.smooth or self.drawn]
        if gradient not in allowed:
            raise ValueError(f"gradient must be one of {', '.join(allowed)}; got {gradient!r}"
                             + ", but there is no smooth stand-in" * (gradient == "smooth"))
        self.gradient = gradient

    def transform(self, images: Array) -> Array:
        """The changed images: the one method that a defence must define."""
        raise TypeError(f"{type(self).__name__} defines no transform(images)")

    def forward(self, x: Tensor) -> Tensor:
        return through(x, self.transform, self.gradient, self.smooth)


class BPDA(Defense):
    """What `bpda` returns."""

    def __init__(self, transform: Callable[[Array], Array], smooth: Callable[[Tensor], Tensor] | None = None,
                 gradient: str | None = None):
        for name, function in {"transform": transform, "smooth": smooth or transform}.items():
            if not callable(function):
                raise TypeError(f"{name} must be a function of images, got {type(function).__name__}")
        self.function, self.smooth = transform, smooth
        super().__init__(gradient or ("identity" if smooth is None else "smooth"))

    def transform(self, images: Array) -> Array:
        return self.function(images)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"bpda({name}, gradient={self.gradient!r})"


def bpda(transform: Callable[[Array], Array], smooth: Callable[[Tensor], Tensor] | None = None,
         gradient: str | None = None) -> BPDA:
    """A layer that changes images by any function on arrays, with a gradient that attacks can use; see `Defense`.

    transform: from images (N, C, H, W) to images, of NumPy or of the array library of the model. smooth: the same or
    nearly the same on Tensors, if there is such a function. gradient: "identity", "smooth" or "zero"; by default
    "smooth" if there is such a function, and "identity" otherwise.

        defended = nn.Sequential(defenses.bpda(lambda x: np.round(x * 4) / 4), model)
    """
    return BPDA(transform, smooth, gradient)
