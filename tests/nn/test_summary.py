import numpy as np
import pytest

from tinyadv.nn import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, Module, Normalize, ReLU, Sequential


def test_summary_is_the_familiar_table(capsys):
    Sequential(Conv2d(3, 8, 3, padding=1), ReLU(), Flatten(), Linear(128, 10, bias=False)).summary((3, 4, 4))
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
    Linear(3, 2).summary((3,))
    assert "\n(Linear)      (N, 2)                 8\n" in capsys.readouterr().out


def test_summary_leaves_nothing_behind(capsys):
    model = Sequential(Conv2d(1, 2, 3), BatchNorm2d(2), Dropout(), ReLU())
    model.layers[1].eval()
    before, flags = model.state_dict(), [part.training for _, part in model.named_modules()]
    model.summary((1, 4, 4))
    with pytest.raises(ValueError, match="number of channels is 5"):  # in the first layer's forward
        model.summary((5, 4, 4))
    assert same(model.state_dict(), before)
    assert [part.training for _, part in model.named_modules()] == flags
    assert model.layers[2].calls == 0
    assert all("forward" not in vars(part) for _, part in model.named_modules())


def test_summary_without_an_input_shape_says_what_to_do():
    with pytest.raises(ValueError, match=r"Linear does not know its input shape: call summary\("):
        Linear(3, 2).summary()


def test_repr_shows_settings_and_parts():
    assert repr(Sequential(Conv2d(1, 2, 3, bias=False), Sequential(ReLU()), Dropout(0.25))) == (
        "Sequential(\n"
        "  (0): Conv2d(in_channels=1, out_channels=2, kernel_size=(3, 3), stride=1, padding=0, bias=None)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        "  (2): Dropout(p=0.25, seed=0, calls=0)\n"
        ")"
    )
