"""Layers, losses and names beside those of PyTorch, forwards and backwards, in float64."""

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

from tinyadv import Tensor, gradients, nn, ops

pytestmark = pytest.mark.parity


def close(ours, theirs):
    """Assert that an array and a PyTorch tensor of float64 agree up to rounding."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max(initial=1))


def compare(ours, theirs, *shapes, seed=0):
    """Assert that two functions and their gradients agree at random arrays of these shapes."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in shapes]
    tensors = [Tensor(array) for array in arrays]
    twins = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    y, expected = ours(*tensors), theirs(*twins)
    close(y.data, expected)
    u = rng.normal(size=y.shape)
    found = gradients(ops.sum(y * u), tensors)
    wanted = torch.autograd.grad((expected * torch.from_numpy(u)).sum(), twins)
    for pair in zip(found, wanted, strict=True):
        close(*pair)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [0, 1, (2, 0), (1, 3)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1), (2, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
def test_conv2d(kernel, stride, padding, bias):
    compare(
        lambda x, w, *b: ops.conv2d(x, w, *b, stride=stride, padding=padding),
        lambda x, w, *b: torch_nn.functional.conv2d(x, w, *b, stride=stride, padding=padding),
        (3, 2, 8, 9), (4, 2, *kernel), *[(4,)] * bias,
    )


@pytest.mark.parametrize(("channels", "filters", "groups"), [(2, 4, 1), (4, 6, 2), (4, 4, 4), (3, 6, 3)])
@pytest.mark.parametrize("options", [{}, {"padding": 2, "dilation": 2},
                                     {"stride": 2, "padding": 1, "dilation": (1, 3)}])
def test_conv2d_dilated_and_in_groups(channels, filters, groups, options):
    compare(
        lambda *arrays: ops.conv2d(*arrays, groups=groups, **options),
        lambda *arrays: torch_nn.functional.conv2d(*arrays, groups=groups, **options),
        (3, channels, 8, 9), (filters, channels // groups, 3, 3), (filters,),
    )


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_features(shape, training):
    ours, theirs = nn.BatchNorm1d(3), torch_nn.BatchNorm1d(3, dtype=torch.float64).train(training)
    vars(ours).update(running_mean=np.zeros(3), running_var=np.ones(3))  # in float64
    with ours.mode(training):
        compare(ours, theirs, shape)
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, theirs.state_dict()[name].numpy(), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, (2, 3), (4, 1)])
@pytest.mark.parametrize("stride", [None, 1, 2, (3, 2)])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("pool", ["MaxPool2d", "AvgPool2d"])
def test_pooling(pool, size, stride, half):
    padding = tuple(k // 2 for k in ((size, size) if isinstance(size, int) else size)) if half else 0
    compare(getattr(nn, pool)(size, stride, padding), getattr(torch_nn, pool)(size, stride, padding), (3, 2, 8, 9))


def test_max_pooling_gives_the_gradient_of_a_tie_to_the_same_element():
    x = np.random.default_rng(0).integers(0, 2, (4, 3, 7, 7)).astype(float)
    ours, theirs = Tensor(x), torch.from_numpy(x).requires_grad_()
    (g,) = gradients(ops.sum(ops.max_pool2d(ours, 3, 2, 1)), [ours])
    torch_nn.functional.max_pool2d(theirs, 3, 2, 1).sum().backward()
    close(g, theirs.grad)


@pytest.mark.parametrize(("ours", "theirs"), [
    (nn.ReLU(), torch_nn.ReLU()), (nn.LeakyReLU(), torch_nn.LeakyReLU()), (nn.LeakyReLU(0.2), torch_nn.LeakyReLU(0.2)),
    (nn.Tanh(), torch_nn.Tanh()), (nn.Sigmoid(), torch_nn.Sigmoid()), (nn.Flatten(), torch_nn.Flatten()),
    (nn.GELU(), torch_nn.GELU()), (nn.AdaptiveAvgPool2d(3), torch_nn.AdaptiveAvgPool2d(3)),
    (nn.AdaptiveAvgPool2d(7), torch_nn.AdaptiveAvgPool2d(7)),
    (nn.GlobalAvgPool2d(), lambda x: torch_nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)),
], ids=lambda layer: type(layer).__name__)
def test_layers_without_parameters(ours, theirs):
    compare(ours, theirs, (3, 2, 4, 5))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses(reduction):
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 6, 5), rng.dirichlet(np.ones(6), 5)
    for targets in (labels, p):
        compare(
            lambda x, t=targets: ops.cross_entropy(x, t, reduction),
            lambda x, t=targets: torch_nn.functional.cross_entropy(x, torch.from_numpy(t), reduction=reduction),
            (5, 6),
        )
    compare(
        lambda x, q: ops.cross_entropy(x, ops.softmax(q), reduction),
        lambda x, q: torch_nn.functional.cross_entropy(x, torch.softmax(q, -1), reduction=reduction),
        (5, 6), (5, 6),
    )
    compare(
        lambda x, y: ops.mse_loss(x, y, reduction),
        lambda x, y: torch_nn.functional.mse_loss(x, y, reduction=reduction),
        (5, 6), (5, 6),
    )


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_batch_norm_through_training_and_evaluation(momentum):
    ours = nn.BatchNorm2d(3, eps=1e-3, momentum=momentum)
    theirs = torch_nn.BatchNorm2d(3, eps=1e-3, momentum=momentum)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(rng.normal(size=3)))
        theirs.bias.copy_(torch.from_numpy(rng.normal(size=3)))
    ours.load_state_dict(theirs.state_dict())
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(np.float64)
    ours.running_mean, ours.running_var = ours.running_mean.astype(float), ours.running_var.astype(float)
    theirs.double()
    for batch, training in [(4, True), (1, True), (3, False), (2, True), (5, False)]:
        x = rng.normal(size=(batch, 3, 4, 5)) * 2 + 1
        u = rng.normal(size=x.shape)
        leaf, twin = Tensor(x), torch.from_numpy(x).requires_grad_()
        theirs.train(training)
        with ours.mode(training):
            y = ours(leaf)
        expected = theirs(twin)
        close(y.data, expected)
        found = gradients(ops.sum(y * u), [leaf, *ours.parameters()])
        wanted = torch.autograd.grad((expected * torch.from_numpy(u)).sum(), [twin, *theirs.parameters()])
        for pair in zip(found, wanted, strict=True):
            close(*pair)
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        for name, array in ours.state_dict().items():
            close(array, state[name])


def test_names_and_order_of_nested_modules():
    def build(here, many, named, layers):
        class Net(here):
            def __init__(self):
                if here is torch_nn.Module:
                    super().__init__()
                self.stem = layers.Conv2d(1, 2, 3)
                self.norm = layers.BatchNorm2d(2)
                self.blocks = many([layers.Sequential(layers.Linear(3, 3), layers.ReLU(), layers.Linear(3, 3))] * 2)
                self.heads = named({"b": layers.Linear(3, 1, bias=False), "a": many([layers.Linear(3, 2)])})
        return Net()

    ours = build(nn.Module, list, dict, nn)
    theirs = build(torch_nn.Module, torch_nn.ModuleList, torch_nn.ModuleDict, torch_nn)
    state = theirs.state_dict()
    assert [(name, array.shape) for name, array in ours.state_dict().items()] == [
        (name, tuple(array.shape)) for name, array in state.items()
    ]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    containers = {"blocks", "heads", "heads.a"}  # plain lists and dicts here, modules there
    assert [name for name, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules() if n not in containers]


@pytest.mark.parametrize("layer", ["Linear", "Conv2d"])
def test_the_default_weights_are_drawn_as_pytorch_draws_them(layer):
    torch.manual_seed(0)
    arguments = (4, 2000) if layer == "Linear" else (1, 2000, (2, 2))  # in, out
    ours, theirs = getattr(nn, layer)(*arguments, rng=0), getattr(torch_nn, layer)(*arguments)
    for name, array in ours.state_dict().items():
        expected = theirs.state_dict()[name].numpy()
        levels = np.linspace(0, 1, 11)
        np.testing.assert_allclose(np.quantile(array, levels), np.quantile(expected, levels), atol=0.06, err_msg=name)
