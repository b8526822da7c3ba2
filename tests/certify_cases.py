"""What the tests of certificates share: networks of every kind with random weights, and points of a box."""

import numpy as np

from tinyadv import Tensor, models, nn, no_grad, ops
from tinyadv.tensor import gradients


def shaken(model, seed=0):
    """The model in evaluation mode, with running statistics and affine parameters as after a training."""
    rng = np.random.default_rng(seed)
    for _, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.num_features
            module.running_mean = rng.normal(0, 0.3, size).astype(np.float32)
            module.running_var = rng.uniform(0.5, 2, size).astype(np.float32)
            module.weight.data = rng.normal(0, 1, size).astype(np.float32)
            module.bias.data = rng.normal(0, 0.3, size).astype(np.float32)
    return model.eval()


class Constants(nn.Module):
    """Sums, differences and products of x (N, 8) with constants of every kind, negative ones too, on either side."""

    def __init__(self, rng):
        self.weight, self.bias = rng.integers(-128, 128, (8, 8)).astype(np.int8), rng.integers(-9, 9, 8).astype(np.int8)

    def forward(self, x):
        x = -3 + (1.0 - x) * np.float32(-0.5) - np.int64(-3)
        x = ops.add(self.bias, ops.subtract(np.uint8(1), x) - np.float32(-3) + np.float32([-1.5] * 8))
        x = ops.linear(x, weight=self.weight, bias=self.bias) * 2**-6
        return ops.matmul(x, self.weight) / np.int64(-64) + np.full((1, 8), -20, np.int16)


def all_kinds(seed=0):
    """A small network with one layer of every kind that has a bound of its rounding, for images (1, 8, 8)."""
    rng = np.random.default_rng(seed)
    return shaken(nn.Sequential(
        nn.Normalize((0.3,), (0.4,)), nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.LeakyReLU(0.1),
        nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, padding=1, groups=2, dilation=1, rng=rng), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(6, 40, 1, rng=rng), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Dropout(0.5), nn.Linear(40, 8, rng=rng),
        nn.BatchNorm1d(8), nn.Sigmoid(), Constants(rng), nn.Linear(8, 4, rng=rng)), seed)


class Residual(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.first, self.norm = nn.Conv2d(1, 3, 3, padding=1, rng=rng), nn.BatchNorm2d(3)
        self.second, self.last = nn.Conv2d(3, 3, 3, padding=1, rng=rng), nn.Linear(27, 4, rng=rng)

    def forward(self, x):
        x = self.first(x)
        x = x + ops.relu(self.second(ops.relu(self.norm(x)) * 0.5))
        return self.last(ops.flatten(ops.avg_pool2d(x, 2)))


NETWORKS = {
    "all kinds": (all_kinds, (1, 8, 8)),
    "LeNet": (models.LeNet, (1, 28, 28)),
    "MadryCNN": (models.MadryCNN, (1, 28, 28)),
    "IntervalCNN": (lambda: shaken(models.IntervalCNN(width=4)), (1, 28, 28)),
    "residual": (lambda: shaken(models.MnistResNet()), (1, 28, 28)),
    "ResNet20": (lambda: shaken(models.ResNet20()), (3, 16, 16)),
    "DenseNet": (lambda: shaken(models.DenseNet((2, 2, 1, 1), 10, True, growth=4)), (3, 16, 16)),
}
SMALL = {
    "dense": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 12, rng=0), nn.ReLU(), nn.Linear(12, 12, rng=1),
                                    nn.ReLU(), nn.Linear(12, 4, rng=2)), (1, 4, 4)),
    "all kinds": NETWORKS["all kinds"],
    "residual": (lambda: Residual(), (1, 6, 6)),
}


def images(shape, n=3, seed=0):
    """Float32 images (n, *shape), a third of whose pixels is 0 and a third 1."""
    return np.random.default_rng(seed).uniform(-1, 2, (n, *shape)).clip(0, 1).astype(np.float32)


def corners(model, low, high, seed=0):
    """Points (n, ...) of a float32 box: random ones, random corners, and corners where a logit is steepest."""
    rng = np.random.default_rng(seed)
    yield (low + (high - low) * rng.random(low.shape, np.float32)).clip(low, high)
    yield np.where(rng.random(low.shape) < 0.5, low, high)
    x = Tensor((low + high) / 2)
    logits = model(x)
    for k in range(2):
        (slope,) = gradients(logits[:, k].sum(), [x], keep_graph=True)
        yield np.where(slope > 0, high, low)
        yield np.where(slope > 0, low, high)


def logits_of(model, x):
    with no_grad():
        return model(Tensor(x)).data


def linear(seed=0, classes=4, features=6):
    rng = np.random.default_rng(seed)
    return lambda x: ops.linear(ops.flatten(x), weight, bias), (
        weight := rng.normal(size=(classes, features)), bias := rng.normal(size=classes))
