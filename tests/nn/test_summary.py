import numpy as np
import pytest

from tinyadv import nn


def test_summary_is_the_familiar_table(capsys):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10, bias=False))
    model.summary((3, 4, 4))
    assert capsys.readouterr().out.splitlines() == [
        "Layer (type)  Output shape  Parameters",
        "--------------------------------------",
        "0 (Conv2d)    (N, 8, 4, 4)         224",
        "1 (ReLU)      (N, 8, 4, 4)           0",
        "2 (Flatten)   (N, 128)               0",
        "3 (Linear)    (N, 10)            1,280",
        "--------------------------------------",
        "Total parameters: 1,504",
    ]
    nn.Linear(3, 2).summary((3,))
    assert "\n(Linear)      (N, 2)                 8\n" in capsys.readouterr().out


def test_summary_leaves_nothing_behind(capsys):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 3))
    model.layers[1].eval()
    before, flags = model.state_dict(), [part.training for _, part in model.named_modules()]
    model.summary((1, 4, 4))
    assert len(capsys.readouterr().out.splitlines()) == 9
    with pytest.raises(ValueError, match="the features of x"):  # raised by the last layer
        model.summary((1, 5, 5))
    assert capsys.readouterr().out == ""
    np.testing.assert_equal(model.state_dict(), before)
    assert model.layers[2].calls == 0
    assert [part.training for _, part in model.named_modules()] == flags
    assert all("forward" not in vars(part) for _, part in model.named_modules())


def test_summary_runs_on_the_models_device(capsys, xp, monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    model.to("the device of xp").summary((1, 4, 4))
    assert "0 (Conv2d)    (N, 2, 2, 2)          20" in capsys.readouterr().out


def test_summary_without_an_input_shape_says_what_to_do():
    with pytest.raises(ValueError, match=r"Linear does not know its input shape: call summary\("):
        nn.Linear(3, 2).summary()


def test_repr_shows_settings_and_parts():
    inner = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    assert repr(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), inner, nn.Dropout(0.25, seed=0))) == (
        "Sequential(\n"
        "  (0): Conv2d(in_channels=1, out_channels=2, kernel_size=(3, 3), stride=1, dilation=1, groups=1, "
        "padding=0, bias=None)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): MaxPool2d(kernel_size=2, stride=2, padding=0)\n"
        "  )\n"
        "  (2): Dropout(p=0.25, seed=0, calls=0)\n"
        ")"
    )


def test_repr_finds_the_modules_in_containers():
    class Net(nn.Module):
        def __init__(self):
            self.width, self.offset = 3, np.zeros(2)
            self.blocks = [nn.ReLU(), {"norm": nn.Normalize([0.5, 0.25], [1, 2])}]

    assert repr(Net()) == "Net(\n  (blocks.0): ReLU()\n  (blocks.1.norm): Normalize(mean=(0.5, 0.25), std=(1, 2))\n)"


def test_a_summary_draws_no_random_numbers():
    first, second = (nn.GaussianNoise(0.1, at_test=True, seed=1) for _ in range(2))
    second.summary((1, 2, 2))
    x = np.ones((1, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(first(x).data, second(x).data)
