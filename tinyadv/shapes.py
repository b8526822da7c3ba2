"""Arithmetic of shapes, and checks of shapes and numbers with messages that say what to do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Shape = tuple[int, ...]


def pair(value: int | tuple[int, int], name: str, *, least: int) -> tuple[int, int]:
    """(height, width) from one integer or two; ValueError if either is below `least`."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(
            isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= least for v in both):
        raise ValueError(f"{name} must be an integer >= {least}, or a (height, width) pair of them, got {value!r}")
    return int(both[0]), int(both[1])


def window_counts(size: Shape, kernel: Shape, stride: Shape, padding: Shape, operation: str) -> tuple[int, int]:
    """(OH, OW): how many windows fit in an image of `size` (H, W), padded by `padding` on each side.

    Rows and columns at the end that do not fill a window are ignored, as in PyTorch.
    """
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    if padded[0] < kernel[0] or padded[1] < kernel[1]:
        raise ValueError(
            f"{operation}: the {kernel[0]}x{kernel[1]} window does not fit in the {padded[0]}x{padded[1]} image "
            f"(padding included): use a smaller window or more padding"
        )
    return (padded[0] - kernel[0]) // stride[0] + 1, (padded[1] - kernel[1]) // stride[1] + 1


def broadcast_axes(shape: Shape, to: Shape) -> tuple[int, ...]:
    """The axes of `to` along which an array of `shape` was repeated to reach it."""
    new = len(to) - len(shape)
    return tuple(range(new)) + tuple(new + i for i, n in enumerate(shape) if n == 1 and to[new + i] != 1)


def check_ndim(shape: Shape, ndim: int, operation: str, meaning: str) -> None:
    """ValueError unless the shape has `ndim` axes; `meaning` spells them, as in "(N, C, H, W)"."""
    if len(shape) != ndim:
        raise ValueError(f"{operation}: expected {meaning}, which has {ndim} axes, got shape {shape}")


def check_channels(shape: Shape, channels: int, operation: str, right_name: str) -> None:
    """ValueError unless this is the shape (N, C, H, W) of images with so many channels."""
    check_ndim(shape, 4, operation, "images of shape (N, C, H, W)")
    if shape[1] != channels:
        swapped = "; is x (N, H, W, C)? Then give x.transpose(0, 3, 1, 2)" if shape[3] == channels else ""
        raise ValueError(f"{operation}: the images' number of channels is {shape[1]}, but {right_name} is {channels}; "
                         f"they must be equal{swapped}")


def check_equal(left: int | Shape, right: int | Shape, operation: str, left_name: str, right_name: str) -> None:
    """ValueError naming both sides unless the two counts, or shapes, agree."""
    if left != right:
        raise ValueError(f"{operation}: {left_name} is {left}, but {right_name} is {right}; they must be equal")


def check_several(logits: Any) -> None:
    """Raise ValueError unless K >= 2 in logits (N, K)."""
    if logits.shape[1] < 2:
        raise ValueError(f"the model must return a logit for each of two classes or more, got shape {logits.shape}: "
                         "for one logit z of two classes, let it return z * np.array([[0, 1]], z.dtype)")


def check_bias(bias: Any, count: int, operation: str, of: str) -> None:
    """Raise ValueError unless the bias has one axis, with a number for each of the `count` outputs of the weight."""
    if not hasattr(bias, "shape"):
        raise ValueError(f"{operation}: expected a bias of shape ({count},), got {bias!r}")
    check_equal(bias.size, count, operation, "the size of the bias", f"the weight's number of {of}")
    check_ndim(bias.shape, 1, operation, f"a bias of shape ({count},)")


def check_per_example(losses: Any, count: int, of: str) -> None:
    """ValueError unless there is one loss for each example: a mean of them has gradients that are too small."""
    if losses.shape != (count,):
        raise ValueError(f"{of} must return one loss for each example, of shape ({count},), got shape {losses.shape}: "
                         'as ops.cross_entropy(logits, labels, reduction="none") does')


def to_count(name: str, value: Any, least: int = 1) -> int:
    """The parameter of that name as an int; ValueError unless it is an integer and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


def is_number(value: Any) -> bool:
    """Whether the value is a real number, and not a bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless the parameter of that name is a finite number above 0."""
    if not (is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{name} must be a number above 0, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless the parameter of that name is a finite number >= 0."""
    if not (is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{name} must be a number >= 0, got {value!r}")


def check_fraction(name: str, value: Any) -> None:
    """Raise ValueError unless the parameter of that name is a number in (0, 1)."""
    if not (is_number(value) and 0 < value < 1):
        raise ValueError(f"{name} must be a number in (0, 1), got {value!r}")


def check_within(name: str, value: Any, low: float, high: float) -> None:
    """Raise ValueError unless the parameter of that name is a number in [low, high]."""
    if not (is_number(value) and low <= value <= high):
        raise ValueError(f"{name} must be a number in [{low}, {high}], got {value!r}")


def flat_labels(labels: Any, name: str) -> str:
    """What to write for labels that are not of shape (N,): the end of an error."""
    if labels.ndim != 2:
        return ""
    return f": take {name}[:, 0]" if labels.shape[1] == 1 else f": of one-hot labels, take {name}.argmax(axis=1)"


def check_floating(x: Any, name: str = "images") -> None:
    """ValueError unless the images are floating-point numbers: results of their dtype would be cut to integers."""
    kind, meant = getattr(getattr(x, "dtype", None), "kind", None), instead(x, name)
    if kind == "f" and not meant:
        return
    if meant:
        got, remedy = type(x).__name__, f"give {meant}"
    elif kind:
        got, remedy = x.dtype, f"for 8-bit images, give {name}.astype(np.float32) / 255"
    else:
        got, remedy = type(x).__name__, "the model comes first" if callable(x) else "give an array (N, C, H, W)"
    raise ValueError(f"{name} must be a floating-point array, got {got}: {remedy}")


def check_input(x: Any) -> None:
    """TypeError for what is meant as images and is no array of floats: bytes, lists, a data set, foreign tensors."""
    if hasattr(getattr(x, "dtype", None), "kind"):  # each layer comes here
        if x.dtype.char == "B":
            raise TypeError("the images are uint8: give x.astype(np.float32) / 255, or without / 255 if the model is "
                            "made for 0 to 255")
        return
    several = isinstance(x, list | tuple) and not (isinstance(x, list) and x and isinstance(x[0], list))
    if remedy := "" if several else instead(x, "x"):
        raise TypeError(f"images must be an array or a Tensor, got {type(x).__name__}: give {remedy}")


def instead(x: Any, name: str) -> str:
    """What to write for a data set, a Tensor, foreign or not, or a list that is meant as an array; else nothing."""
    if hasattr(x, "images"):
        return "dataset.images"
    if hasattr(x, "numpy"):
        return f"{name}.numpy()"
    return f"np.array({name}, np.float32)" if isinstance(x, list | tuple) else ""
