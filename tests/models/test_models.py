import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv import Tensor, gradients, models, nn, ops

PARAMETERS = {models.SmallCNN: 824_362, models.LeNet: 61_706, models.MadryCNN: 3_274_634,
              models.ThresholdCNN: 349_630, models.CifarCNN: 551_466, models.ResNet20: 269_722,
              models.MadryResNet: 464_154}

every_model = pytest.mark.parametrize("model", PARAMETERS, ids=lambda model: model.__name__)


def images(model):
    return np.random.default_rng(0).random((3, *model.input_shape), np.float32)


def test_every_network_is_tested():
    assert {model.__name__ for model in PARAMETERS} == set(models.__all__) - {"zoo"}


def shapes(model):
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@every_model
def test_the_summary_counts_the_parameters_that_the_sources_print(model, capsys):
    made = model(seed=1)
    assert sum(parameter.size for parameter in made.parameters()) == PARAMETERS[model]
    made.summary()
    *rows, _, total = capsys.readouterr().out.splitlines()[2:]
    assert total == f"Total parameters: {PARAMETERS[model]:,}"
    names, outputs, counts = zip(*(re.split("  +", row) for row in rows), strict=True)
    leaves = [(name, module) for name, module in made.named_modules() if len(list(module.named_modules())) == 1]
    assert list(names) == [f"{name} ({type(module).__name__})" for name, module in leaves]
    assert outputs[-1] == "(N, 10)"
    assert sum(int(count.replace(",", "")) for count in counts) == PARAMETERS[model]


def test_the_wide_network_of_madry_has_the_parameters_of_the_paper():
    assert sum(parameter.size for parameter in models.MadryResNet(width=10).parameters()) == 45_901_914


def test_the_parameters_are_those_of_the_described_networks():
    assert shapes(models.SmallCNN()) == {
        "0.weight": (32, 1, 3, 3), "3.weight": (64, 32, 3, 3), "7.weight": (256, 3136), "7.bias": (256,),
        "9.weight": (10, 256), "9.bias": (10,),
    }
    assert shapes(models.LeNet()) == {
        "0.weight": (6, 1, 5, 5), "0.bias": (6,), "3.weight": (16, 6, 5, 5), "3.bias": (16,), "7.weight": (120, 400),
        "7.bias": (120,), "10.weight": (84, 120), "10.bias": (84,), "12.weight": (10, 84), "12.bias": (10,),
    }
    assert shapes(models.MadryCNN()) == {
        "0.weight": (32, 1, 5, 5), "0.bias": (32,), "3.weight": (64, 32, 5, 5), "3.bias": (64,),
        "7.weight": (1024, 3136), "7.bias": (1024,), "9.weight": (10, 1024), "9.bias": (10,),
    }


@given(x=st.sampled_from([0.0, 1.0]), change=st.floats(-0.3, 0.3))
def test_the_first_thresholds_differ_by_the_same_within_03_of_black_and_white(x, change):
    pixel = np.full((1, 1, 1, 1), x, np.float32)
    moved = np.clip(pixel + np.float32(change), 0, 1)
    first = nn.Sequential(*models.ThresholdCNN().layers[:2])
    low, high, below_low, below_high = (first(moved) - first(pixel)).numpy().ravel()
    assert (low - high, below_high - below_low) == pytest.approx((0, 0), abs=1e-5)


@every_model
def test_the_seed_draws_the_weights(model):
    weights = [b"".join(array.tobytes() for array in model(**seed).state_dict().values())
               for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert weights[0] == weights[1] != weights[2]
    kernels = [parameter.data for parameter in model(seed=3).parameters() if parameter.ndim > 1]
    assert len({kernel.ravel()[0] for kernel in kernels}) == len(kernels)  # one stream, not the same for each


@every_model
def test_logits_are_float32_and_do_not_depend_on_the_batch(model):
    made, x = model(seed=1).eval(), images(model)
    logits = made(x)
    assert (logits.shape, logits.dtype) == ((3, 10), np.float32)
    alone = np.concatenate([made(image[None]).data for image in x])
    np.testing.assert_allclose(logits.data, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert made(x[:0]).shape == (0, 10)


@every_model
def test_the_loss_depends_on_every_parameter_and_on_the_pixels(model):
    made, x = model(seed=1), Tensor(images(model))
    loss = ops.cross_entropy(made(x), np.array([1, 2, 3]), reduction="sum")
    for tensor, gradient in zip([x, *made.parameters()], gradients(loss, [x, *made.parameters()]), strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, np.float32)
        assert np.isfinite(gradient).all()
        assert gradient.any()


@every_model
def test_those_with_dropout_draw_in_training_and_only_then(model):
    made, x = model(seed=1), images(model)
    one, other = made(x).data, made(x).data
    assert np.array_equal(one, other) == (model not in (models.LeNet, models.CifarCNN))
    made.eval()
    np.testing.assert_array_equal(made(x).data, made(x).data)


@every_model
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, model):
    saved = model(seed=3)
    saved.parameters()[-1].data[:3] = [np.nan, -0.0, 1e-45]
    nn.save(saved, tmp_path / "model.npz")
    loaded = nn.load(str(tmp_path / "model.npz"))
    assert type(loaded) is model
    assert loaded._arguments == ((), {"seed": 3})
    state, expected = loaded.state_dict(), saved.state_dict()
    assert list(state) == list(expected)
    assert all(state[name].tobytes() == array.tobytes() for name, array in expected.items())
