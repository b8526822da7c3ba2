"""The windows of an image, which convolution and pooling share, and how images lie in memory.

Images are (N, C, H, W) to the outside. In memory they are (H, C, W, N), rows outermost and the batch last: the public
shape is a transposed view, which costs nothing, and every operation keeps the memory order of its input.
docs/convolution.md says why.
"""

from tinyadv.backend import array_module


def inside(x):
    """(N, C, H, W) -> (H, C, W, N), contiguous: a view of what convolution and pooling made, else a copy."""
    return array_module(x).ascontiguousarray(x.transpose(2, 1, 3, 0))


def outside(x):
    """(H, C, W, N) -> (N, C, H, W), a view."""
    return x.transpose(3, 1, 0, 2)


def padded(x, padding, value=0.0):
    """x (H, C, W, N) in a frame of `value`, `padding` (height, width) wide on each side."""
    if padding == (0, 0):
        return x
    (ph, pw), (h, c, w, n) = padding, x.shape
    framed = array_module(x).full((h + 2 * ph, c, w + 2 * pw, n), value, x.dtype)
    framed[ph : ph + h, :, pw : pw + w] = x
    return framed


def shifted(x, window, stride, counts):
    """Views (OH, C, OW, N) of x (H, C, W, N): for each element of a window, row by row, its value in every window."""
    (sh, sw), (oh, ow) = stride, counts
    return [x[i : i + sh * (oh - 1) + 1 : sh, :, j : j + sw * (ow - 1) + 1 : sw]
            for i in range(window[0]) for j in range(window[1])]


def fold(shares, g, size, window, stride, padding):
    """The adjoint of shifted: an image (H, C, W, N) of sums of shares like g, one for each element, the last first."""
    xp, (oh, c, ow, n), (h, w), (ph, pw) = array_module(g), g.shape, size, padding
    tiled = window == stride and (h + 2 * ph, w + 2 * pw) == (oh * stride[0], ow * stride[1])  # one share a pixel
    image = (xp.empty if tiled else xp.zeros)((h + 2 * ph, c, w + 2 * pw, n), g.dtype)
    for pixels, share in zip(reversed(shifted(image, window, stride, (oh, ow))), shares, strict=False):
        pixels[...] = share if tiled else pixels + share
    return image[ph : ph + h, :, pw : pw + w]
