"""What the tests of training share: a data set that is quickly learnt, models, and their weights as bytes."""

import math

import numpy as np

from tinyadv import nn, training
from tinyadv.data import Dataset
from tinyadv.nn.optim import SGD

CLASSES = ("left", "middle", "right")


def stripes(n, seed=0):
    """Images whose label is the brightest of three columns: a linear model learns them."""
    rng = np.random.default_rng(seed)
    images, labels = rng.random((n, 1, 4, 3), dtype=np.float32) / 2, rng.integers(0, 3, n)
    images[np.arange(n), :, :, labels] += 0.5
    return Dataset(images, labels, "stripes-train", CLASSES)


def linear(seed=0):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3, rng=np.random.default_rng(seed)))


def with_modes(seed=0, p=0.3):
    """A model whose layers behave differently in training, and whose flags are neither all on nor all off."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                          nn.Dropout(p, seed=seed), nn.Linear(48, 3, rng=rng)).eval()
    model.layers[1].training = True
    return model


class Probe(nn.Module):
    """Passes its input on and notes the training flag; fails at the call of that number."""

    def __init__(self, fails_at=math.inf):
        self.flags, self.fails_at = [], fails_at

    def forward(self, x):
        self.flags.append(self.training)
        if len(self.flags) == self.fails_at:
            raise OSError("the probe fails")
        return x


def fit(model, train, *, lr=0.5, epochs=2, **options):
    return training.fit(model, train, epochs=epochs, optimizer=SGD(model, lr=lr), **options)


def weights(model):
    return b"".join(array.tobytes() for array in model.state_dict().values())


def flags(model):
    return [module.training for _, module in model.named_modules()]
