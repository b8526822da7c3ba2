"""Layers that draw random numbers. What they draw in attacks and evaluations is tested with those."""

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, data, defenses, driver, nn, training
from tinyadv.random import Streams, drawing_from


@given(seed=seeds, sigma=st.floats(0.01, 10), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_noise_has_the_standard_deviation_sigma(seed, sigma, dtype):
    x = np.full((20, 2, 10, 10), 5, dtype)
    noise = nn.GaussianNoise(sigma, seed=seed)(Tensor(x)).data - x
    assert noise.dtype == dtype
    assert abs(noise.mean()) < 5 * sigma / np.sqrt(noise.size)
    assert abs(noise.std() / sigma - 1) < 5 / np.sqrt(2 * noise.size)


def test_it_is_on_in_training_and_at_test_only_where_it_is_asked_for():
    x = Tensor(np.zeros((3, 4)))
    for training_mode in (True, False):
        for at_test in (True, False):
            layer = nn.GaussianNoise(1.0, at_test=at_test, seed=0).train(training_mode)
            assert (layer(x) is not x) == (training_mode or at_test)
            assert driver.logits(layer, x.data).any() == at_test  # in evaluation mode, whatever the flag
            assert nn.GaussianNoise(0.0, at_test=at_test).train(training_mode)(x) is x


def test_two_layers_of_one_pass_do_not_draw_the_same():
    x = Tensor(np.zeros((3, 4)))
    first, second = nn.GaussianNoise(1.0), nn.GaussianNoise(1.0)
    with drawing_from(Streams(0, range(3)).of_pass(0)):
        assert not np.isin(first(x).data, second(x).data).any()


def test_training_with_noise_does_not_depend_on_the_cores(monkeypatch):
    """The parts of a batch draw apart from each other, by their number alone."""
    images, labels = np.random.default_rng(0).random((64, 1, 4, 4)).astype(np.float32), np.arange(64) % 3
    states = []
    for cores in (1, 2, 4):
        monkeypatch.setattr("tinyadv.backend.usable_cores", lambda cores=cores: cores)
        model = nn.Sequential(nn.Flatten(), nn.GaussianNoise(0.5, seed=1), nn.Linear(16, 3, rng=0))
        training.fit(model, data.Dataset(images, labels), epochs=2, optimizer=nn.optim.SGD(model, lr=0.1),
                     batch_size=32, seed=0)
        states.append(model.state_dict()["2.weight"].tobytes())
        assert model.layers[1].calls == 4
    assert len(set(states)) == 1


def test_the_noise_reaches_every_part_of_a_batch_and_no_gradient():
    x = Tensor(np.zeros((2, 3)))
    layer = nn.GaussianNoise(1.0, seed=0)
    (layer(x) * 2.0).sum().backward()
    assert (x.grad == 2).all()


@pytest.mark.parametrize("sigma", [-0.1, np.inf, np.nan])
def test_a_sigma_that_is_none_is_an_error(sigma):
    with pytest.raises(ValueError, match="sigma must be a number >= 0"):
        nn.GaussianNoise(sigma)


@pytest.mark.parametrize("seed", [-1, "a", 1.5, True, 2**64, (1, 2)])
def test_a_seed_that_is_none_is_an_error_when_the_layer_is_made(seed):
    for make in (partial(nn.GaussianNoise, 0.1), partial(nn.Dropout, 0.5), defenses.SHIELD, nn.Random):
        with pytest.raises(ValueError, match=re.escape(f"seed must be an integer in [0, 2**64), got {seed!r}")):
            make(seed=seed)


def test_a_batch_of_several_draws_is_an_error():
    with pytest.raises(ValueError, match="GaussianNoise must get the examples in hand, 2, got 6: for several draws"), \
            drawing_from(Streams(0, range(2)).of_pass(0)):
        nn.GaussianNoise(1.0)(Tensor(np.zeros((6, 3))))


def test_a_layer_says_what_it_is():
    layer = nn.GaussianNoise(0.3, at_test=True, seed=4)
    assert repr(layer) == "GaussianNoise(sigma=0.3, at_test=True, seed=4, calls=0)"


@pytest.mark.parametrize("layer", [nn.GaussianNoise(np.float64(0.1), at_test=True), nn.Dropout(np.float64(0.5))])
def test_a_number_of_numpy_keeps_the_dtype_of_the_images(layer):
    assert layer(Tensor(np.ones((2, 3), np.float32))).dtype == np.float32
