"""Interval bounds and zonotopes beside those of ART."""

import numpy as np
import pytest

from tinyadv import nn, no_grad
from tinyadv.certify import Interval, Zonotope

torch = pytest.importorskip("torch")
interval = pytest.importorskip("art.estimators.certification.interval.pytorch")
deep_z = pytest.importorskip("art.estimators.certification.deep_z.pytorch")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

NETWORKS = {
    "dense": ((36,), [nn.Linear(36, 40, rng=0), nn.ReLU(), nn.Linear(40, 20, rng=1), nn.ReLU(),
                      nn.Linear(20, 5, rng=2)]),
    "padding": ((2, 8, 8), [nn.Conv2d(2, 6, 3, padding=1, rng=0), nn.ReLU(), nn.Flatten(), nn.Linear(384, 5, rng=1)]),
    "strides": ((1, 12, 12), [nn.Conv2d(1, 4, 4, stride=2, rng=0), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, rng=1),
                              nn.ReLU(), nn.Flatten(), nn.Linear(32, 16, rng=2), nn.ReLU(), nn.Linear(16, 5, rng=3)]),
}


class Twin(torch.nn.Module):
    """The same network in PyTorch. ART puts a Flatten of its own before the first dense layer."""

    def __init__(self, layers):
        super().__init__()
        self.layers = [self.same(layer) for layer in layers if not isinstance(layer, nn.Flatten)]
        for i, layer in enumerate(self.layers):
            self.add_module(str(i), layer)

    @staticmethod
    def same(layer):
        if isinstance(layer, nn.ReLU):
            return torch.nn.ReLU()
        if isinstance(layer, nn.Linear):
            twin = torch.nn.Linear(layer.in_features, layer.out_features)
        else:
            out, channels, *size = layer.weight.shape
            twin = torch.nn.Conv2d(channels, out, size, layer.stride, layer.padding)
        twin.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in layer.state_dict().items()})
        return twin

    def forward(self, x):
        for layer in self.layers:
            x = layer(x.flatten(1) if isinstance(layer, torch.nn.Linear) else x)
        return x


def scene(name):
    """(ours, theirs, low, high): the network twice, and the boxes of six images."""
    shape, layers = NETWORKS[name]
    x = np.random.default_rng(0).random((6, *shape)).astype(np.float32)
    eps = np.float32([0, 0.01, 0.03, 0.1, 0.3, 1]).reshape(6, *(1 for _ in shape))
    return nn.Sequential(*layers), Twin(layers), (x - eps).clip(0, 1), (x + eps).clip(0, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_intervals_are_those_of_art(name):
    ours, theirs, low, high = scene(name)
    converted = interval.ConvertedModel(theirs, True, low.shape[1:])
    with no_grad(), torch.no_grad():
        found, expected = ours(Interval(low, high)), converted(np.stack([low, high], axis=1)).numpy()
    np.testing.assert_allclose(found.low.data, expected[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.high.data, expected[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_zonotopes_are_within_those_of_art(name):
    """With a new term for each relu, as there; ART does not cut them to the intervals."""
    ours, theirs, low, high = scene(name)
    converted = deep_z.ConvertedModel(theirs, True, low.shape[1:])
    for i in range(len(low)):
        centre, radius = (low[i] + high[i]) / 2, (high[i] - low[i]) / 2
        terms = np.eye(radius.size, dtype=np.float32).reshape(-1, *radius.shape) * radius
        with no_grad(), torch.no_grad():
            z = ours(Zonotope(low[i:i + 1], high[i:i + 1], terms=10_000))
            middle, errors = (each.numpy() for each in converted(centre[None], terms))
        spread = np.abs(errors).sum(axis=0)
        assert (z.low.data[0] >= middle - spread - 1e-5).all()
        assert (z.high.data[0] <= middle + spread + 1e-5).all()
