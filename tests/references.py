"""What the operations must compute, written in NumPy as plainly as possible and as slowly as it comes."""

import math

import numpy as np

from tinyadv.shapes import pair


def sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def softmax(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def reduced(losses, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](losses)


def cross_entropy(logits, targets, reduction="mean"):
    p = targets if targets.ndim == 2 else np.eye(logits.shape[1])[targets]
    return reduced(-(p * np.log(softmax(logits))).sum(axis=1), reduction)


def mse_loss(x, y, reduction="mean"):
    return reduced((x - y) ** 2, reduction)


def linear(x, weight, bias=None):
    return np.apply_along_axis(lambda row: weight @ row, -1, x) + (0 if bias is None else bias)


def layer_norm(x, weight, bias):
    rows = [(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in x.reshape(-1, x.shape[-1])]
    return np.reshape(rows, x.shape) * weight + bias


def standardize(x, floor):
    return np.array([(each - each.mean()) / np.sqrt(max(each.var(), floor)) for each in x]).reshape(x.shape)


def gelu(x):
    return x * np.vectorize(lambda each: math.erfc(-each / math.sqrt(2)) / 2, otypes=[float])(x)


def batch_norm(x, weight, bias, mean=None, variance=None, eps=1e-5):
    channels = [
        (x[:, c] - (x[:, c].mean() if mean is None else mean[c]))
        / np.sqrt((x[:, c].var() if variance is None else variance[c]) + eps)
        for c in range(x.shape[1])
    ]
    return np.stack([w * z + b for z, w, b in zip(channels, weight, bias, strict=True)], axis=1)


def frame(x, padding, value=0.0):
    """x (N, C, H, W) inside a frame of `value`."""
    (ph, pw) = pair(padding, "padding", least=0)
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=value)


def unframe(x, padding):
    (ph, pw) = pair(padding, "padding", least=0)
    return x[:, :, ph : x.shape[2] - ph, pw : x.shape[3] - pw]


def windows(x, size, stride):
    """(i, j, rows, columns) for window (i, j) of the framed images x, as slices."""
    (h, w), (sh, sw) = pair(size, "size", least=1), pair(stride, "stride", least=1)
    for i in range((x.shape[2] - h) // sh + 1):
        for j in range((x.shape[3] - w) // sw + 1):
            yield i, j, slice(i * sh, i * sh + h), slice(j * sw, j * sw + w)


def over_windows(x, size, stride, of_window):
    """The array whose pixel (i, j) is of_window(window (i, j) of every image)."""
    values = {(i, j): of_window(x[:, :, rows, columns]) for i, j, rows, columns in windows(x, size, stride)}
    height, width = max(values)
    return np.stack([np.stack([values[i, j] for j in range(width + 1)], -1) for i in range(height + 1)], -2)


def conv2d(x, weight, bias=None, stride=1, padding=0):
    def of_window(patch):
        return np.tensordot(patch, weight, axes=((1, 2, 3), (1, 2, 3)))

    y = over_windows(frame(x, padding), weight.shape[2:], stride, of_window)
    return y if bias is None else y + bias[:, None, None]


def max_pool2d(x, size, stride=None, padding=0):
    return over_windows(frame(x, padding, -np.inf), size, stride or size, lambda patch: patch.max(axis=(2, 3)))


def avg_pool2d(x, size, stride=None, padding=0):
    return over_windows(frame(x, padding), size, stride or size, lambda patch: patch.mean(axis=(2, 3)))


def conv2d_gradients(g, x, weight, stride=1, padding=0):
    """The gradients of <conv2d(x, weight, bias), g> in x, weight and bias."""
    x = frame(x, padding)
    x_gradient, weight_gradient = np.zeros(x.shape), np.zeros(weight.shape)
    for i, j, rows, columns in windows(x, weight.shape[2:], stride):
        x_gradient[:, :, rows, columns] += np.tensordot(g[:, :, i, j], weight, 1)
        weight_gradient += np.tensordot(g[:, :, i, j].T, x[:, :, rows, columns], 1)
    return unframe(x_gradient, padding), weight_gradient, g.sum(axis=(0, 2, 3))


def conv2d_in_groups(x, weight, bias, stride, padding, dilation, groups):
    """Each filter by itself, pixel by pixel of its kernel."""
    (sh, sw), (dh, dw), (f, c, kh, kw) = stride, dilation, weight.shape
    x = frame(x, padding)
    oh, ow = (x.shape[2] - (kh - 1) * dh - 1) // sh + 1, (x.shape[3] - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((len(x), f, oh, ow)) + bias[:, None, None]
    for k, channel, i, j in np.ndindex(weight.shape):
        image = x[:, k // (f // groups) * c + channel, i * dh:, j * dw:]
        y[:, k] += weight[k, channel, i, j] * image[:, ::sh, ::sw][:, :oh, :ow]
    return y


def max_pool2d_gradient(g, x, size, stride=None, padding=0):
    """The gradient of <max_pool2d(x), g>: all of it to the first maximum of a window, row by row."""
    x = frame(x, padding, -np.inf)
    gradient = np.zeros(x.shape)
    for i, j, rows, columns in windows(x, size, stride or size):
        patch = x[:, :, rows, columns]
        first = patch.reshape(*patch.shape[:2], -1).argmax(axis=2)
        n, c = np.indices(first.shape)
        row, column = np.unravel_index(first, patch.shape[2:])
        gradient[:, :, rows, columns][n, c, row, column] += g[:, :, i, j]
    return unframe(gradient, padding)


def avg_pool2d_gradient(g, x, size, stride=None, padding=0):
    """The gradient of <avg_pool2d(x), g>: shared out evenly over the window."""
    gradient = np.zeros(frame(x, padding).shape)
    for i, j, rows, columns in windows(gradient, size, stride or size):
        share = gradient[:, :, rows, columns]
        share += g[:, :, i, j, None, None] / (share.shape[2] * share.shape[3])
    return unframe(gradient, padding)


def in_float64(model):
    """The model, now with parameters and batch statistics in float64: no ReLU is on the other side of 0 by rounding."""
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    for _, module in model.named_modules():
        for name in ("running_mean", "running_var"):
            if hasattr(module, name):
                setattr(module, name, getattr(module, name).astype(np.float64))
    return model
