"""The networks beside the same ones in PyTorch, with the same weights: PyTorch's own."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from torch import nn as torch_nn

from tinyadv import Tensor, data, gradients, models, nn, ops

pytestmark = pytest.mark.parity


class Block(torch_nn.Module):
    """He et al. 2016, arXiv:1512.03385, figure 2, with a shortcut of option A."""

    def __init__(self, channels, filters, stride=1):
        super().__init__()
        self.conv1 = torch_nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = torch_nn.BatchNorm2d(filters)
        self.conv2 = torch_nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = torch_nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - channels

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        shortcut = torch_nn.functional.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.added))
        return torch.relu(y + shortcut)


def stage(channels, filters, drop):
    return (
        torch_nn.Conv2d(channels, filters, 3, padding=1), torch_nn.ReLU(), torch_nn.BatchNorm2d(filters),
        torch_nn.Conv2d(filters, filters, 3, padding=1), torch_nn.ReLU(), torch_nn.BatchNorm2d(filters),
        torch_nn.MaxPool2d(2), torch_nn.Dropout(drop),
    )


class Mean(torch_nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


class MadryBlock(torch_nn.Module):
    """A residual unit of github.com/MadryLab/cifar10_challenge, model.py."""

    def __init__(self, channels, filters, stride=1, activated=False):
        super().__init__()
        self.bn1 = torch_nn.BatchNorm2d(channels, eps=1e-3)
        self.conv1 = torch_nn.Conv2d(channels, filters, 3, stride, bias=False)
        self.bn2 = torch_nn.BatchNorm2d(filters, eps=1e-3)
        self.conv2 = torch_nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.stride, self.new, self.activated = stride, (filters - channels) // 2, activated

    def forward(self, x):
        f = torch_nn.functional
        y = f.leaky_relu(self.bn1(x), 0.1)
        shortcut = f.avg_pool2d(y if self.activated else x, self.stride)
        y = self.conv1(f.pad(y, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1)))
        y = self.conv2(f.leaky_relu(self.bn2(y), 0.1))
        return y + f.pad(shortcut, (0, 0, 0, 0, self.new, self.new))


class IdentityBlock(torch_nn.Module):
    """Kelley and Fritz 2021, figure 31: 74,368 numbers, with the running statistics."""

    def __init__(self):
        super().__init__()
        for k in (1, 2):
            setattr(self, f"conv{k}", torch_nn.Conv2d(64, 64, 3, padding=1))
            setattr(self, f"bn{k}", torch_nn.BatchNorm2d(64, eps=1e-3, momentum=0.01))

    def forward(self, x):
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


class Normalize(torch_nn.Module):
    def __init__(self):
        super().__init__()
        for name, values in (("mean", (0.4914, 0.4822, 0.4465)), ("std", (0.2470, 0.2435, 0.2616))):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


class Shift(torch_nn.BatchNorm2d):
    """Of a scale of one, and a shift of eight times the bias."""

    def __init__(self, filters):
        super().__init__(filters)
        self.weight.requires_grad_(False)

    def forward(self, x):
        return super().forward(x) + 7 * self.bias.reshape(-1, 1, 1)


class Ninth(torch_nn.Sequential):
    def forward(self, x):
        return super().forward(x) / 9


class Standardize(torch_nn.Module):
    """TensorFlow's per_image_standardization, of pixels in [0, 1]."""

    def forward(self, x):
        std = x.std(dim=(1, 2, 3), correction=0, keepdim=True).clamp(min=1 / (255 * 3072**0.5))
        return (x - x.mean(dim=(1, 2, 3), keepdim=True)) / std


TWINS = {
    models.SmallCNN: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(1, 32, 3, padding=1, bias=False), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Conv2d(32, 64, 3, padding=1, bias=False), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Flatten(), torch_nn.Linear(3136, 256), torch_nn.ReLU(), torch_nn.Linear(256, 10),
    ),
    models.LeNet: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(1, 6, 5, padding=2), torch_nn.ReLU(), torch_nn.AvgPool2d(2),
        torch_nn.Conv2d(6, 16, 5), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Flatten(), torch_nn.Linear(400, 120), torch_nn.ReLU(), torch_nn.Dropout(0.5),
        torch_nn.Linear(120, 84), torch_nn.ReLU(), torch_nn.Linear(84, 10),
    ),
    models.MadryCNN: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(1, 32, 5, padding=2), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Conv2d(32, 64, 5, padding=2), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Flatten(), torch_nn.Linear(3136, 1024), torch_nn.ReLU(), torch_nn.Linear(1024, 10),
    ),
    models.ThresholdCNN: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(1, 4, 1), torch_nn.ReLU(),
        torch_nn.Conv2d(4, 32, 4, stride=2, padding=1), torch_nn.ReLU(),
        torch_nn.Conv2d(32, 64, 4, stride=2, padding=1), torch_nn.ReLU(),
        torch_nn.Flatten(), torch_nn.Linear(3136, 100), torch_nn.ReLU(), torch_nn.Linear(100, 10),
    ),
    models.CifarCNN: lambda: torch_nn.Sequential(
        *stage(3, 32, 0.3), *stage(32, 64, 0.5), *stage(64, 128, 0.5),
        torch_nn.Flatten(), torch_nn.Linear(2048, 128), torch_nn.ReLU(), torch_nn.Dropout(0.5),
        torch_nn.Linear(128, 10),
    ),
    models.ResNet20: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(3, 16, 3, padding=1, bias=False), torch_nn.BatchNorm2d(16), torch_nn.ReLU(),
        Block(16, 16), Block(16, 16), Block(16, 16), Block(16, 32, 2), Block(32, 32), Block(32, 32),
        Block(32, 64, 2), Block(64, 64), Block(64, 64), Mean(), torch_nn.Linear(64, 10),
    ),
    models.MadryResNet: lambda: torch_nn.Sequential(
        Standardize(), torch_nn.Conv2d(3, 16, 3, padding=1, bias=False),
        MadryBlock(16, 16, activated=True), *(MadryBlock(16, 16) for _ in range(4)),
        MadryBlock(16, 32, 2), *(MadryBlock(32, 32) for _ in range(4)),
        MadryBlock(32, 64, 2), *(MadryBlock(64, 64) for _ in range(4)),
        torch_nn.BatchNorm2d(64, eps=1e-3), torch_nn.LeakyReLU(0.1), Mean(), torch_nn.Linear(64, 10),
    ),
}
TWINS |= {
    models.MnistResNet: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(1, 64, 7, padding=3), torch_nn.BatchNorm2d(64, eps=1e-3, momentum=0.01), torch_nn.ReLU(),
        torch_nn.MaxPool2d(3), IdentityBlock(), IdentityBlock(), Mean(), torch_nn.Linear(64, 10),
    ),
    models.BaseCNN: lambda: torch_nn.Sequential(
        Normalize(), *(layer for channels, filters in ((3, 32), (32, 64), (64, 128)) for layer in (
            torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.BatchNorm2d(filters),
            torch_nn.ReLU(), torch_nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            torch_nn.BatchNorm2d(filters), torch_nn.ReLU(), torch_nn.MaxPool2d(2))),
        torch_nn.Flatten(), torch_nn.Dropout(0.3), torch_nn.Linear(2048, 256), torch_nn.ReLU(), torch_nn.Dropout(0.3),
        torch_nn.Linear(256, 10),
    ),
    models.AirbenchCNN: lambda: Ninth(
        Normalize(), torch_nn.Conv2d(3, 24, 2), torch_nn.GELU(),
        *(layer for channels, filters in ((24, 64), (64, 256), (256, 256)) for layer in (
            torch_nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch_nn.MaxPool2d(2),
            Shift(filters), torch_nn.GELU(),
            torch_nn.Conv2d(filters, filters, 3, padding=1, bias=False), Shift(filters), torch_nn.GELU())),
        torch_nn.MaxPool2d(3), torch_nn.Flatten(), torch_nn.Linear(256, 10, bias=False),
    ),
}


class CifarLeNet(models.LeNet):
    """As Kelley and Fritz use it on CIFAR-10, with two of their extra layers."""

    input_shape = (3, 32, 32)

    def __init__(self, seed=0):
        super().__init__(seed=seed, extra=2, image_shape=self.input_shape)


class WiderMadryResNet(models.MadryResNet):
    """Its first unit has a shortcut of other channels at stride 1, as that of the wide network."""

    def __init__(self, seed=0):
        super().__init__(seed=seed, width=2)


TWINS |= {
    CifarLeNet: lambda: torch_nn.Sequential(
        torch_nn.Conv2d(3, 6, 5, padding=2), torch_nn.ReLU(), torch_nn.AvgPool2d(2),
        torch_nn.Conv2d(6, 16, 5), torch_nn.ReLU(), torch_nn.MaxPool2d(2),
        torch_nn.Flatten(), torch_nn.Linear(576, 120), torch_nn.ReLU(), torch_nn.Dropout(0.5),
        torch_nn.Linear(120, 84), torch_nn.ReLU(), torch_nn.Linear(84, 256), torch_nn.ReLU(),
        torch_nn.Linear(256, 256), torch_nn.ReLU(), torch_nn.Linear(256, 10),
    ),
    WiderMadryResNet: lambda: torch_nn.Sequential(
        Standardize(), torch_nn.Conv2d(3, 16, 3, padding=1, bias=False),
        MadryBlock(16, 32, activated=True), *(MadryBlock(32, 32) for _ in range(4)),
        MadryBlock(32, 64, 2), *(MadryBlock(64, 64) for _ in range(4)),
        MadryBlock(64, 128, 2), *(MadryBlock(128, 128) for _ in range(4)),
        torch_nn.BatchNorm2d(128, eps=1e-3), torch_nn.LeakyReLU(0.1), Mean(), torch_nn.Linear(128, 10),
    ),
}
every_model = pytest.mark.parametrize("model", TWINS, ids=lambda model: model.__name__)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On a busy machine the threads of the two libraries would wait for each other."""
    with threadpool_limits(1):
        yield


def twins(model, dtype=np.float32):
    """The network here and in PyTorch, with PyTorch's weights, in evaluation mode: no dropout."""
    torch.manual_seed(0)
    ours, theirs = model(), TWINS[model]()
    ours.load_state_dict(theirs.state_dict())
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    for _, module in ours.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = (
                each.astype(dtype) for each in (module.running_mean, module.running_var))
    return ours.eval(), (theirs.double() if dtype == np.float64 else theirs).eval()


def error(ours, theirs):
    """The largest difference, relative to the largest entry."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@every_model
def test_weights_travel_both_ways(model):
    ours, theirs = twins(model)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    other = model(seed=1).eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in other.state_dict().items()})
    images = np.random.default_rng(0).random((4, *model.input_shape), np.float32)
    with torch.no_grad():
        assert error(other(images).data, theirs(torch.from_numpy(images)).numpy()) < 1e-4
    ours.load_state_dict(theirs.state_dict())
    assert all(np.array_equal(ours.state_dict()[name], array) for name, array in other.state_dict().items())


@every_model
def test_files_that_pytorch_writes_give_its_logits(model, tmp_path):
    torch.manual_seed(0)
    theirs = TWINS[model]().eval()
    torch.save(theirs.state_dict(), tmp_path / "zip.pth")
    torch.save(theirs.state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(theirs.state_dict(), tmp_path / "file.safetensors")
    images = np.random.default_rng(0).random((4, *model.input_shape), np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
    for file in ("zip.pth", "legacy.pth", "file.safetensors"):
        ours = model(seed=1).eval()
        ours.load_state_dict(nn.load_pytorch(tmp_path / file))
        assert error(ours(images).data, expected) < 1e-4, file


# So many ReLUs, or windows of pooling, that in float32 some rounding changes the choice: compared in float64 alone.
DEEP = (models.ResNet20, models.MadryResNet, models.MnistResNet, models.BaseCNN, models.AirbenchCNN,
        WiderMadryResNet)


@pytest.mark.parametrize(("model", "dtype", "tolerance"), [
    pytest.param(model, dtype, tolerance, id=f"{model.__name__}-{dtype.__name__}") for model in TWINS
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-9)) if dtype == np.float64 or model not in DEEP])
def test_logits_and_all_gradients_agree(model, dtype, tolerance):
    ours, theirs = twins(model, dtype)
    rng = np.random.default_rng(0)
    images, labels = rng.random((64, *model.input_shape)).astype(dtype), rng.integers(0, 10, 64)  # noise has no ties

    x = Tensor(images)
    logits = ours(x)
    loss = ops.cross_entropy(logits, labels, reduction="sum")
    input_gradient, *parameter_gradients = gradients(loss, [x, *ours.parameters()])

    x = torch.from_numpy(images).requires_grad_()
    expected = theirs(x)
    torch_nn.functional.cross_entropy(expected, torch.from_numpy(labels), reduction="sum").backward()

    assert logits.dtype == input_gradient.dtype == dtype
    assert error(logits.data, expected.detach().numpy()) < tolerance
    trained = [(name, parameter) for name, parameter in theirs.named_parameters() if parameter.requires_grad]
    for gradient, (name, parameter) in zip(parameter_gradients, trained, strict=True):
        assert error(gradient, parameter.grad.numpy()) < tolerance, name
    errors = sorted(error(*pair) for pair in zip(input_gradient, x.grad.numpy(), strict=True))
    near_ties = 3 if dtype == np.float32 else 0  # images in which rounding chose another maximum of a window
    assert errors[-1 - near_ties] < tolerance


@pytest.mark.parametrize("model", [model for model in TWINS if model in (
    models.SmallCNN, models.LeNet, models.MadryCNN, models.ThresholdCNN)],
                         ids=lambda model: model.__name__)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}])
def test_twenty_steps_of_training_agree_step_by_step(model, options):
    ours, theirs = twins(model)
    before = ours.state_dict()
    train, _ = data.digits(train=20 * 32, test=0)
    mine, other = nn.optim.SGD(ours, lr=0.01, **options), torch.optim.SGD(theirs.parameters(), lr=0.01, **options)
    for i in range(20):
        batch = train[32 * i : 32 * (i + 1)]
        mine.zero_grad()
        loss = ops.cross_entropy(ours(batch.images), batch.labels)
        loss.backward()
        mine.step()
        other.zero_grad()
        logits = theirs(torch.from_numpy(batch.images))
        expected = torch_nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels))
        expected.backward()
        other.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4), f"step {i}"
    ours, theirs = ours.state_dict(), theirs.state_dict()
    for name, start in before.items():
        assert error(ours[name] - start, theirs[name].numpy() - start) < 1e-2, name
