"""Matrix products."""

from functools import partial

import numpy as np

from tinyadv.shapes import check_bias, check_equal, check_ndim
from tinyadv.tensor import op


@partial(op, operands=2)
def matmul(x, y):
    """x @ y of matrices, or of stacks of them that broadcast; vectors as in NumPy.

    (..., n, k) @ (..., k, m) -> (..., n, m).
    """
    if not (getattr(x, "ndim", 0) and getattr(y, "ndim", 0)):
        raise ValueError("matmul: a number is no matrix: multiply with * instead")
    inner = y.shape[-2] if y.ndim > 1 else y.shape[0]
    check_equal(x.shape[-1], inner, "matmul", f"the last axis of x {x.shape}", f"the inner axis of y {y.shape}")

    def x_vjp(g):
        if y.ndim == 1:
            return g[..., None] * y
        g = g[..., None, :] if x.ndim == 1 else g
        product = g @ y.swapaxes(-1, -2)
        return product[..., 0, :] if x.ndim == 1 else product

    def y_vjp(g):
        if x.ndim == 1:
            return g[..., None, :] * x[:, None] if y.ndim > 1 else g * x
        g = g[..., None] if y.ndim == 1 else g
        product = x.swapaxes(-1, -2) @ g
        return product[..., 0] if y.ndim == 1 else product

    return x @ y, x_vjp, y_vjp


@partial(op, operands=3)
def linear(x, weight, bias=None):
    """x @ weight.T + bias: (N, in), (out, in), (out,) -> (N, out), or (N, T, in) -> (N, T, out).

    The result is a transposed view of (out, N), so that the batch stays last in memory (see window.py).
    """
    if x.ndim != 3:
        check_ndim(x.shape, 2, "linear", "x of shape (N, in)")
    check_ndim(weight.shape, 2, "linear", "a weight of shape (out, in)")
    check_equal(x.shape[-1], weight.shape[1], "linear", f"the features of x {x.shape}", f"the weight's {weight.shape}")
    shape = x.shape[:-1]
    x = x.reshape(-1, x.shape[-1])  # of (N, T, in) that `linear` has made this is a view, too
    y = weight @ x.T  # (out, N)
    if bias is not None:
        check_bias(bias, weight.shape[0], "linear", "outputs")
        y += bias[:, None]

    def rows(g):
        return g.reshape(-1, len(weight))

    return (y.T.reshape(*shape, len(weight)), lambda g: (weight.T @ rows(g).T).T.reshape(*shape, x.shape[1]),
            lambda g: rows(g).T @ x, lambda g: rows(g).sum(axis=0, dtype=np.float64))
