"""The windows of an image, which convolution and pooling share, and how images lie in memory.

Images are (N, C, H, W). NumPy's operations keep the memory order of their input: there images lie (H, C, W, N), rows
outermost and the batch last, and the public shape is a transposed view, which costs nothing. CuPy's operations return C
order, whatever they are given: there images lie as they are written. docs/convolution.md says why.
"""

from functools import partial

import numpy as np

from tinyadv.backend import array_module

KEEP_ORDER = {np}


def keeps_order(x):
    """Whether images like x lie (H, C, W, N) in memory, and not in C order: all that depends on it asks here."""
    return array_module(x) in KEEP_ORDER


def inside(x):
    """(N, C, H, W) -> (H, C, W, N), contiguous: a view of what convolution and pooling made, else a copy."""
    return array_module(x).ascontiguousarray(x.transpose(2, 1, 3, 0))


def outside(x):
    """(H, C, W, N) -> (N, C, H, W), a view."""
    return x.transpose(3, 1, 0, 2)


def ordered(x):
    """The images x (N, C, H, W), in the memory order of their library: a copy only if they are not."""
    return outside(inside(x)) if keeps_order(x) else x


def side_by_side(parts):
    """The channels of several arrays (N, C, H, W) one after the other."""
    xp = array_module(*parts)
    if not keeps_order(parts[0]):
        return xp.concatenate(parts, 1)
    return outside(xp.concatenate([inside(part) for part in parts], 1))


def padded(x, padding, value=0.0):
    """x (N, C, H, W) in a frame of `value`, `padding` (height, width) wide on each side."""
    if padding == (0, 0):
        return x
    (ph, pw), (n, c, h, w), xp = padding, x.shape, array_module(x)
    framed = _new(partial(xp.full, fill_value=value) if value else xp.zeros, (n, c, h + 2 * ph, w + 2 * pw), x)
    framed[:, :, ph : ph + h, pw : pw + w] = x
    return framed


def _new(make, shape, like):
    """Images made by `make`, in the memory order of their library."""
    n, c, h, w = shape
    return outside(make((h, c, w, n), dtype=like.dtype)) if keeps_order(like) else make(shape, dtype=like.dtype)


def shifted(x, window, stride, counts):
    """Views (N, C, OH, OW) of x (N, C, H, W): for each element of a window, row by row, its value in every window."""
    (sh, sw), (oh, ow) = stride, counts
    return [x[:, :, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
            for i in range(window[0]) for j in range(window[1])]


def fold(shares, g, size, window, stride, padding):
    """The adjoint of shifted: an image (N, C, H, W) of sums of shares like g, one for each element, the last first.

    shares may be an iterator: max_pool2d makes one after the other, avg_pool2d gives the same one without end.
    """
    xp, (n, c, oh, ow), (h, w), (ph, pw) = array_module(g), g.shape, size, padding
    tiled = window == stride and (h + 2 * ph, w + 2 * pw) == (oh * stride[0], ow * stride[1])  # one share a pixel
    image = _new(xp.empty if tiled else xp.zeros, (n, c, h + 2 * ph, w + 2 * pw), g)
    for pixels, share in zip(reversed(shifted(image, window, stride, (oh, ow))), shares, strict=False):
        if tiled:
            pixels[...] = share
        else:
            pixels += share
    return image[:, :, ph : ph + h, pw : pw + w]
