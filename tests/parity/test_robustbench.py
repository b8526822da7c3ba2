"""The worked example of docs/foreign-models.md: PreActResNet-18 of RobustBench, by the adapter and in our engine."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm2d, Conv2d, Linear, Module, Sequential
from torch.nn.functional import avg_pool2d, relu

from tinyadv import attacks, driver

pytestmark = pytest.mark.parity
PAGE = (Path(__file__).parents[2] / "docs" / "foreign-models.md").read_text("utf-8")
X, Y = np.random.default_rng(0).random((6, 3, 32, 32), np.float32), np.arange(6)


def page():
    """What the blocks define that need no weights."""
    namespace = {"__name__": "page"}
    for code in re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if "class FromTorch" in code or "def preact_of_robustbench" in code:
            exec(code, namespace)
    return namespace


class Block(Module):
    """PreActBlock of robustbench/model_zoo/architectures/resnet.py or, with `activated`, PreActBlockV2."""

    def __init__(self, channels, filters, stride, activated):
        super().__init__()
        self.bn1, self.conv1 = BatchNorm2d(channels), Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = BatchNorm2d(filters), Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.activated = activated
        if stride != 1 or channels != filters:
            self.shortcut = Sequential(Conv2d(channels, filters, 1, stride, bias=False))

    def forward(self, x):
        y = relu(self.bn1(x))
        across = self.shortcut(y if self.activated else x) if hasattr(self, "shortcut") else x
        return self.conv2(relu(self.bn2(self.conv1(y)))) + across


class PreActResNet(Module):
    """That of RobustBench with its buffers mu and sigma, with fewer filters."""

    def __init__(self, width, activated, bn_before_fc, normalized):
        super().__init__()
        self.conv1 = Conv2d(3, width, 3, 1, 1, bias=False)
        channels = width
        for k in range(4):
            first, channels = Block(channels, width << k, 2 if k else 1, activated), width << k
            self.add_module(f"layer{k + 1}", Sequential(first, Block(channels, channels, 1, activated)))
        if bn_before_fc:
            self.bn = BatchNorm2d(channels)
        self.linear = Linear(channels, 10)
        if normalized:
            self.register_buffer("mu", torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1))
            self.register_buffer("sigma", torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1))

    def forward(self, x):
        if hasattr(self, "mu"):
            x = (x - self.mu) / self.sigma
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        if hasattr(self, "bn"):
            x = relu(self.bn(x))
        return self.linear(avg_pool2d(x, 4).flatten(1))


def checkpoint(module, how):
    """What a file holds: bare weights or wrapped ones, of one GPU or several, with mu and sigma or without."""
    weights = module.state_dict()
    if how == "own class":
        return weights
    weights = {name: array for name, array in weights.items() if name not in ("mu", "sigma")}
    if how == "last and best":
        return {"last": weights, "best": {name: 0 * array for name, array in weights.items()}}
    return {"state_dict": {f"module.{name}": array for name, array in weights.items()}}


@pytest.mark.parametrize(("name", "activated", "bn_before_fc", "normalized", "how"), [
    ("Andriushchenko2020Understanding", False, False, False, "last and best"),
    ("Wong2020Fast", False, False, True, "own class"),
    ("Rice2020Overfitting", True, True, True, "of several GPUs"),
])
def test_it_is_attacked_alike_in_both_ways(name, activated, bn_before_fc, normalized, how, tmp_path):
    torch.manual_seed(0)
    module = PreActResNet(8, activated, bn_before_fc, normalized)
    for part in module.modules():
        if isinstance(part, BatchNorm2d):  # as after training: other than 0 and 1
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
            torch.nn.init.normal_(part.running_mean, 0, 0.1)
    torch.save(checkpoint(module, how), tmp_path / "weights.pt")
    ours = page()["preact_of_robustbench"](name, tmp_path / "weights.pt", width=8)
    foreign = page()["FromTorch"](module.eval())

    logits = driver.logits(foreign, X)
    assert np.ptp(logits, axis=1).min() > 0.1
    np.testing.assert_allclose(driver.logits(ours, X), logits, atol=1e-4)
    for attack in (attacks.PGD(8.01 / 255, steps=5), attacks.PGD(0.5, norm="l2", steps=5)):
        found, twin = (attack.run(model, X, Y, seed=1) for model in (foreign, ours))
        assert np.isclose(found.x_adv, twin.x_adv, atol=1e-3).mean() > 0.98
        assert (found.success == twin.success).all()
        assert max(found.distances.max(), twin.distances.max()) <= attack.eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_adapter_takes_modules_of_any_dtype(dtype):
    foreign = page()["FromTorch"](Sequential(torch.nn.Flatten(), Linear(3 * 32 * 32, 10)).to(dtype).eval())
    found = attacks.FGSM(8 / 255).run(foreign, X, Y, seed=1)
    assert 0.031 < found.distances.max() <= 8 / 255
