"""One line per operation: name, function, NumPy reference, operands. test_ops.py runs its properties over all.

The operands are (arrays, options): the arrays are differentiated, the options are keywords. A name goes on
after a colon where an operation has more than one line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import references as ref
import strategies as some
from hypothesis import strategies as st

from tinyadv import ops
from tinyadv.ops.normalize import batch_statistics
from tinyadv.tensor import Tensor


@dataclass(frozen=True)
class Case:
    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., np.ndarray]
    operands: st.SearchStrategy[tuple[tuple[np.ndarray, ...], dict[str, Any]]]

    @property
    def operation(self) -> str:
        """The operation's name in tinyadv.ops."""
        return self.name.partition(":")[0]


def concatenate(*arrays, axis):
    return ops.concatenate(arrays, axis=axis)


def batch_norm_of_batch(x, weight, bias):
    mean, variance, _ = batch_statistics(x.data)
    return ops.batch_norm(x, weight, bias, mean, variance, of_batch=True)


limits = {"low": st.sampled_from([-3.0, -0.5]), "high": st.sampled_from([-0.5, 0, 0.75])}
exponents = {"y": st.sampled_from([-2, -1, 0, 1, 2, 3, 0.5])}
slopes = {"slope": st.sampled_from([0.0, 0.01, 0.3])}
floors = {"floor": st.sampled_from([1.0, 100.0])}
losses = {"reduction": some.reductions}
together, along_axes, along_axis = some.together, some.along_axes, some.along_axis

CASES = [
    Case("add", ops.add, np.add, together(some.reals, some.reals)),
    Case("subtract", ops.subtract, np.subtract, together(some.reals, some.reals)),
    Case("multiply", ops.multiply, np.multiply, together(some.reals, some.reals)),
    Case("divide", ops.divide, np.divide, together(some.reals, some.away_from_zero)),
    Case("negative", ops.negative, np.negative, together(some.reals)),
    Case("power", ops.power, np.power, together(some.positive, some.reals)),
    Case("power: of a number", lambda y: ops.power(1.5, y), lambda y: 1.5**y, together(some.reals)),
    Case("power: to a number", ops.power, lambda x, y: x**y, together(some.positive, **exponents)),
    Case("exp", ops.exp, np.exp, together(some.reals)),
    Case("log", ops.log, np.log, together(some.positive)),
    Case("sqrt", ops.sqrt, np.sqrt, together(some.positive)),
    Case("abs", ops.abs, np.abs, together(some.away_from_zero)),
    Case("maximum", ops.maximum, np.maximum, together(some.quarters, some.between_quarters)),
    Case("minimum", ops.minimum, np.minimum, together(some.quarters, some.between_quarters)),
    Case("clip", ops.clip, lambda x, low, high: np.clip(x, low, high), together(some.between_quarters, **limits)),
    Case("relu", ops.relu, lambda x: x * (x > 0), together(some.away_from_zero)),
    Case("leaky_relu", ops.leaky_relu, lambda x, slope: np.where(x > 0, x, slope * x),
         together(some.away_from_zero, **slopes)),
    Case("tanh", ops.tanh, np.tanh, together(some.reals)),
    Case("sigmoid", ops.sigmoid, ref.sigmoid, together(some.reals)),
    Case("gelu", ops.gelu, ref.gelu, together(some.reals)),
    Case("sum", ops.sum, np.sum, along_axes(some.reals)),
    Case("mean", ops.mean, np.mean, along_axes(some.reals)),
    Case("max", ops.max, np.max, along_axes(some.spaced)),
    Case("min", ops.min, np.min, along_axes(some.spaced)),
    Case("logsumexp", ops.logsumexp, ref.logsumexp, along_axes(some.reals)),
    Case("reshape", ops.reshape, np.reshape, some.reshapings()),
    Case("flatten", ops.flatten, lambda x: x.reshape(len(x), -1), some.alone(some.reals(some.shapes(min_dims=1)))),
    Case("transpose", ops.transpose, np.transpose, some.transpositions()),
    Case("broadcast_to", ops.broadcast_to, np.broadcast_to, some.broadcasts()),
    Case("pad", ops.pad, lambda x, width, value: np.pad(x, width, constant_values=value), some.paddings()),
    Case("getitem", ops.getitem, lambda x, index: x[index], some.indexings()),
    Case("concatenate", concatenate, lambda *x, axis: np.concatenate(x, axis), some.concatenations()),
    Case("matmul", ops.matmul, np.matmul, some.matrix_products()),
    Case("linear", ops.linear, ref.linear, some.linear_layers()),
    Case("conv2d", ops.conv2d, ref.conv2d, some.conv_cases()),
    Case("conv2d: dilated, in groups", ops.conv2d, ref.conv2d_in_groups, some.grouped_conv_cases()),
    Case("max_pool2d", ops.max_pool2d, ref.max_pool2d, some.pool_cases(some.spaced)),
    Case("avg_pool2d", ops.avg_pool2d, ref.avg_pool2d, some.pool_cases(some.images)),
    Case("global_avg_pool2d", ops.global_avg_pool2d, lambda x: x.mean(axis=(2, 3)),
         some.alone(some.images((2, 3, 2, 4)))),
    Case("batch_norm", ops.batch_norm, ref.batch_norm, some.normalizations()),
    Case("batch_norm: of its batch", batch_norm_of_batch, ref.batch_norm, some.normalizations(statistics=False)),
    Case("layer_norm", ops.layer_norm, ref.layer_norm, some.layer_normalizations()),
    Case("standardize", ops.standardize, ref.standardize, together(lambda shape: some.images((2, *shape)), **floors)),
    Case("softmax", ops.softmax, ref.softmax, along_axis(some.reals)),
    Case("log_softmax", ops.log_softmax, lambda x, axis: np.log(ref.softmax(x, axis)), along_axis(some.reals)),
    Case("cross_entropy", ops.cross_entropy, ref.cross_entropy, some.labelled_logits()),
    Case("cross_entropy: of probabilities", ops.cross_entropy, ref.cross_entropy, some.soft_labelled_logits()),
    Case("mse_loss", ops.mse_loss, ref.mse_loss, together(some.reals, some.reals, **losses)),
]
