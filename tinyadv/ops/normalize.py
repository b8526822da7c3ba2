"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167)."""

from tinyadv.shapes import check_equal, check_ndim
from tinyadv.tensor import op

AXES = (0, 2, 3)  # of (N, C, H, W): all but the channels


def batch_statistics(x):
    """The mean and the (biased) variance of every channel of an array (N, C, H, W), each (C,)."""
    return x.mean(axis=AXES), x.var(axis=AXES)


@op
def batch_norm(x, weight, bias, mean, variance, eps=1e-5, of_batch=False):
    """weight * (x - mean) / sqrt(variance + eps) + bias for every channel of x (N, C, H, W).

    weight, bias, mean, variance: (C,). `of_batch` says that mean and variance are those of x itself
    (`batch_statistics`), so that the gradient flows through them too; otherwise they are constants.
    """
    check_ndim(x.shape, 4, "batch_norm", "images of shape (N, C, H, W)")
    check_equal(x.shape[1], mean.shape[0], "batch_norm", "the images' number of channels", "the layer's")
    per_channel = (slice(None), None, None)  # (C,) -> (C, 1, 1)
    inverse = (variance + eps) ** -0.5
    scale = weight * inverse
    shift = bias - mean * scale
    count = x.size // x.shape[1]

    def normalized():  # computed again where it is needed, to keep no second copy of the image
        return (x - mean[per_channel]) * inverse[per_channel]

    def x_vjp(g):
        if not of_batch:
            return g * scale[per_channel]
        z = normalized()
        g_mean, gz_mean = g.sum(axis=AXES) / count, (g * z).sum(axis=AXES) / count
        z *= gz_mean[per_channel]
        z += g_mean[per_channel]
        return (g - z) * scale[per_channel]

    y = x * scale[per_channel]
    y += shift[per_channel]
    return y, x_vjp, lambda g: (g * normalized()).sum(axis=AXES), lambda g: g.sum(axis=AXES)
