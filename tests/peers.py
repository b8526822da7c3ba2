"""A network that has learnt the built-in digits, here and in PyTorch, for attacks to be compared on."""

import numpy as np
import torch

from tinyadv import data, driver, models, nn, training


def trained(count):
    """(ours, theirs, x, y): the same network twice, and `count` images that it gets right."""
    train, test = data.digits(1000, 2 * count, seed=1)
    ours = models.SmallCNN(seed=0)
    training.fit(ours, train, epochs=2, optimizer=nn.optim.Adam(ours, lr=1e-3), seed=0)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 64, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(3136, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10),
    ).eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    right = np.flatnonzero(driver.logits(ours, test.images).argmax(axis=1) == test.labels)[:count]
    return ours, theirs, test.images[right], test.labels[right]
