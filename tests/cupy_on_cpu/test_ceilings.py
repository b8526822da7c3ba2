"""Performance without a clock: how many kernels a step launches, and how often it waits for the GPU."""

import numpy as np
import pytest

from tinyadv import models, nn
from tinyadv.attacks import PGD
from tinyadv.backend import to_device
from tinyadv.training.update import updates

pytestmark = pytest.mark.cupy
rng = np.random.default_rng(0)


@pytest.mark.parametrize(("model", "shape", "kernels", "products"), [
    (models.MadryCNN, (1, 28, 28), 80, 8), (models.SmallCNN, (1, 28, 28), 80, 8),
    (models.ResNet20, (3, 32, 32), 290, 40),
])
def test_a_step_of_pgd_launches_few_kernels_and_never_waits(counts, model, shape, kernels, products):
    network, x, y = model().to("cuda"), rng.random((2, *shape), np.float32), np.arange(2)
    x, y = to_device(x, "cuda"), to_device(y, "cuda")

    def cost(steps):
        counts()
        PGD(0.1, steps=steps)(network, x, y)
        return counts()

    few, many = cost(2), cost(4)
    assert (many.launches - few.launches) / 2 <= kernels
    assert (many.products - few.products) / 2 <= products
    assert (many.to_host - few.to_host, many.waits - few.waits) == (0, 0)


@pytest.mark.parametrize(("options", "clip_norm", "kernels"), [
    ({}, None, 830), ({"weight_decay": 1e-4}, None, 900), ({}, 1.0, 1100),
])
def test_an_update_launches_few_kernels_and_waits_twice_at_most(counts, options, clip_norm, kernels):
    network, x, y = models.ResNet20().to("cuda"), rng.random((2, 3, 32, 32), np.float32), np.arange(2)
    with updates(network, nn.optim.SGD(network, momentum=0.9, **options), clip_norm) as update:
        update(x, y)
        counts()
        update(x, y)
    found = counts()
    assert found.launches <= kernels
    assert max(found.to_host, found.waits) <= 2
