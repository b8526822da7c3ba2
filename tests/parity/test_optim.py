"""Optimisers beside those of PyTorch, step by step, in float32."""

import numpy as np
import pytest
import torch

from tinyadv import Tensor, nn

pytestmark = pytest.mark.parity


class Weights(nn.Module):
    def __init__(self, *arrays):
        self.arrays = [Tensor(array.copy()) for array in arrays]


@pytest.mark.parametrize(("name", "options"), [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3}),
])
def test_thirty_steps_agree(name, options):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (5,), ()]]
    model, twins = Weights(*arrays), [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in arrays]
    ours, theirs = getattr(nn.optim, name)(model, **options), getattr(torch.optim, name)(twins, **options)
    for step in range(30):
        for parameter, twin in zip(model.parameters(), twins, strict=True):
            parameter.grad = rng.normal(size=twin.shape).astype(np.float32) * np.float32(10.0 ** rng.integers(-2, 2))
            twin.grad = torch.from_numpy(np.array(parameter.grad))
        ours.step()
        theirs.step()
        for parameter, twin in zip(model.parameters(), twins, strict=True):
            np.testing.assert_allclose(
                parameter.data, twin.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=f"step {step}"
            )
