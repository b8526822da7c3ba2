import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import nn
from tinyadv.nn.init import INITIALIZERS, initializer

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.tuples(*[st.integers(1, 8)] * 4)
MANY = [(200, 300), (40, 50, 5, 3)]  # shapes with enough elements to estimate a variance


def fans(shape):
    """(inputs of one output, outputs of one input) of a dense layer (out, in) or of kernels (F, C, kh, kw)."""
    kernel = np.prod(shape[2:], dtype=int)
    return shape[1] * kernel, shape[0] * kernel


def variance(name, shape):
    fan_in, fan_out = fans(shape)
    if name == "he_normal_out":
        return 2 / fan_out
    return {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out), "keras": 2 / (fan_in + fan_out),
            "pytorch": 1 / (3 * fan_in), "madry": 0.1**2 * 0.773741, "vgg": 0.01**2,
            "ibp": 2 * math.pi / fan_in**2}[name.partition("_")[0]]


UNIFORM = {"he_uniform", "lecun_uniform", "glorot_uniform", "keras", "pytorch"}


@given(SHAPES, seeds)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_weights_are_float32_of_the_shape_and_depend_on_the_generator_alone(name, shape, seed):
    (weight, bias), again = (initializer(name)(shape, np.random.default_rng(seed)) for _ in range(2))
    assert (weight.shape, bias.shape) == (shape, shape[:1])
    assert weight.dtype == bias.dtype == np.float32
    assert weight.tobytes() + bias.tobytes() == again[0].tobytes() + again[1].tobytes()
    other, _ = initializer(name)(shape, np.random.default_rng(seed + 1))
    assert not np.array_equal(weight, other)


@given(SHAPES, seeds)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_weights_and_biases_stay_within_their_bounds(name, shape, seed):
    weight, bias = initializer(name)(shape, np.random.default_rng(seed))
    bound = math.sqrt(3 * variance(name, shape)) if name in UNIFORM else 0.2 if name == "madry" else math.inf
    assert np.abs(weight).max() <= np.float32(bound)
    if name == "pytorch":
        assert np.abs(bias).max() <= np.float32(1 / math.sqrt(fans(shape)[0]))
    else:
        assert set(bias.tolist()) == {float(np.float32(0.1)) if name == "madry" else 0.0}


@pytest.mark.parametrize("shape", MANY)
@pytest.mark.parametrize("name", INITIALIZERS)
def test_weights_have_the_mean_and_variance_of_their_source(name, shape):
    weight, _ = initializer(name)(shape, np.random.default_rng(0))
    expected = variance(name, shape)
    assert abs(weight.mean()) <= 5 * math.sqrt(expected / weight.size)
    assert weight.var() == pytest.approx(expected, rel=0.03)
    largest = np.abs(weight).max() / math.sqrt(expected)  # in standard deviations
    if name in UNIFORM:
        assert largest == pytest.approx(math.sqrt(3), rel=1e-3)
    elif name == "madry":
        assert largest == pytest.approx(2 / math.sqrt(0.773741), rel=1e-3)
    else:
        assert largest > 3.5


def test_pytorchs_biases_fill_their_bounds():
    _, bias = initializer("pytorch")((20_000, 4), np.random.default_rng(0))
    assert np.abs(bias).max() == pytest.approx(0.5, rel=1e-3)
    assert bias.var() == pytest.approx(1 / 12, rel=0.03)


@pytest.mark.parametrize("layer", [nn.Linear, lambda *args, **kwargs: nn.Conv2d(*args, 3, **kwargs)])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_layers_take_an_initialiser_by_name(layer, name):
    made = layer(4, 5, init=name, rng=3)
    weight, bias = initializer(name)(made.weight.shape, np.random.default_rng(3))
    np.testing.assert_array_equal(made.weight.data, weight)
    np.testing.assert_array_equal(made.bias.data, bias)


@pytest.mark.parametrize("layer", [nn.Linear, lambda *args, **kwargs: nn.Conv2d(*args, 3, **kwargs)])
def test_an_unknown_name_is_answered_with_the_names_there_are(layer):
    with pytest.raises(ValueError, match=re.escape(f"init must be one of {', '.join(INITIALIZERS)}; got 'xavier'")):
        layer(4, 5, init="xavier")
