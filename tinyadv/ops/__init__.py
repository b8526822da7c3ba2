"""The operations, and the one table that binds them to the operators and methods of Tensor."""

from tinyadv.ops.conv import conv2d
from tinyadv.ops.elementwise import (
    abs,
    add,
    clip,
    divide,
    exp,
    gelu,
    leaky_relu,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sqrt,
    subtract,
    tanh,
)
from tinyadv.ops.linear import linear, matmul
from tinyadv.ops.loss import cross_entropy, log_softmax, mse_loss, softmax
from tinyadv.ops.movement import broadcast_to, concatenate, flatten, getitem, pad, reshape, transpose
from tinyadv.ops.normalize import batch_norm, layer_norm, standardize
from tinyadv.ops.pool import avg_pool2d, global_avg_pool2d, max_pool2d
from tinyadv.ops.reduce import logsumexp, max, mean, min, sum
from tinyadv.spellings import no_attribute
from tinyadv.tensor import Tensor

__all__ = [
    "abs", "add", "avg_pool2d", "batch_norm", "broadcast_to", "clip", "concatenate", "conv2d", "cross_entropy",
    "divide", "exp", "flatten", "gelu", "getitem", "global_avg_pool2d", "layer_norm", "leaky_relu", "linear", "log",
    "log_softmax", "logsumexp", "matmul", "max", "max_pool2d", "maximum", "mean", "min", "minimum", "mse_loss",
    "multiply", "negative", "pad", "power", "relu", "reshape", "sigmoid", "softmax", "sqrt", "standardize", "subtract",
    "sum", "tanh", "transpose",
]

_OPERATORS = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power, "matmul": matmul}
_METHODS = {
    "__neg__": negative, "__getitem__": getitem, "sum": sum, "mean": mean, "max": max, "min": min,
    "reshape": lambda x, *shape: reshape(x, *shape if len(shape) == 1 else [shape]),  # (2, 3) or 2, 3, as in NumPy
    "transpose": lambda x, *axes: transpose(x, *axes if len(axes) < 2 else [axes]),
    "flatten": flatten, "T": property(transpose), "__abs__": abs, "__getattr__": no_attribute,
}

for _name, _operation in _OPERATORS.items():
    setattr(Tensor, f"__{_name}__", lambda x, y, f=_operation: f(x, y))
    setattr(Tensor, f"__r{_name}__", lambda x, y, f=_operation: f(y, x))
for _name, _method in _METHODS.items():
    setattr(Tensor, _name, _method)
