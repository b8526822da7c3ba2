"""Chains of element-wise operations that a GPU runs as one kernel, and NumPy as they are written.

Where batches are small, a GPU's time is that of launching kernels. A fused kernel may round once where these lines
round twice, so nothing is here on which the budget of an attack depends.
"""

import math

from tinyadv.backend import fused


@fused
def bounded(xp, points, low, high, x):
    """The points within [low, high]; NaN becomes x."""
    points = xp.clip(points, low, high)
    return xp.where(xp.isnan(points), x, points)


@fused
def finite_sizes(xp, g):
    """|g|, and 0 where it is not finite."""
    size = xp.abs(g)
    return xp.where(size < math.inf, size, 0)


@fused
def limited(xp, g, largest):
    """g within [-largest, largest], or [-1, 1] where that is 0; NaN becomes 0."""
    largest = xp.where(largest > 0, largest, 1)
    return xp.where(xp.isnan(g), 0, xp.clip(g, -largest, largest))


@fused
def better(xp, now, losses, predictions, succeeded, best, best_predictions):
    """Whether a candidate is better than the best so far, and the best losses, predictions and successes with it.

    A success is better than none, and of two the one of higher loss.
    """
    ahead = (now > succeeded) | ((now == succeeded) & (losses > best))
    return ahead, xp.where(ahead, losses, best), xp.where(ahead, predictions, best_predictions), now | succeeded


@fused
def rectified(xp, x):
    """max(x, 0), and whether it is positive."""
    y = xp.clip(x, 0, math.inf)
    return y, y > 0


@fused
def less_logs(xp, x, top, rest):
    """x - top - rest."""
    return x - top - rest


@fused
def scales(xp, weight, bias, mean, variance, eps):
    """What batch normalisation multiplies by and adds: (1 / sqrt(variance + eps), scale, shift)."""
    inverse = (variance + eps) ** -0.5
    scale = weight * inverse
    return inverse, scale, bias - mean * scale


@fused
def scaled(xp, x, scale, shift):
    """x * scale + shift."""
    y = x * scale
    y += shift
    return y


@fused
def slope_scales(xp, scale, inverse, g_sum, gz_sum, count):
    """The factor and the shift of normalised_slope."""
    return -scale * inverse * gz_sum / count, scale * g_sum / count


@fused
def normalised_slope(xp, g, x, mean, factor, shift, scale):
    """scale * (g - mean of g - z * mean of g·z): the gradient in x where the statistics are those of x."""
    y = x - mean
    y *= factor
    y -= shift
    y += g * scale
    return y


@fused
def averaged(xp, old, new, part):
    """(1 - part) * old + part * new."""
    return old + part * (new - old)


@fused
def stepped(xp, before, step, lr):
    """before - lr * step."""
    return before - lr * step


@fused
def adam_direction(xp, mean, square, correction, square_correction, eps):
    """Adam's direction from its averages of g and g², with bias correction (Kingma and Ba 2015, algorithm 1)."""
    return mean / (correction * (xp.sqrt(square / square_correction) + eps))
