import sys

import numpy as np
import pytest

from tinyadv import Tensor, nn, ops
from tinyadv.backend import move


def network():
    return nn.Sequential(
        nn.Normalize(0.5, 0.25), nn.Conv2d(1, 2, 3, padding=1, bias=False, rng=0), nn.BatchNorm2d(2), nn.ReLU(),
        nn.Dropout(seed=0), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4, rng=1), nn.Tanh(),
    )


IMAGES = np.random.default_rng(0).random((3, 1, 4, 4), np.float32)


@pytest.fixture
def moved(xp, monkeypatch):
    """A network whose arrays are those of the library xp; the stand-in is no device that `to` knows."""
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    model = network()
    assert model.to("the device of xp") is model
    return model


def arrays(model):
    """Every array that a model holds, and the gradients of its parameters."""
    buffers = [layer.running_mean for layer in model.layers if isinstance(layer, nn.BatchNorm2d)]
    return [p.data for p in model.parameters()] + [p.grad for p in model.parameters()] + buffers


def test_a_move_to_where_the_arrays_are_keeps_them_and_drops_gradients():
    model = network()
    ops.sum(model(IMAGES)).backward()
    before = [parameter.data for parameter in model.parameters()]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.to("cpu") is model
    assert all(p.data is array and p.grad is None for p, array in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(("device", "error", "message"), [
    ("cuda", RuntimeError, "CuPy is not installed: install CuPy with"),
    ("cuda:1", RuntimeError, "CuPy is not installed: install CuPy with"),
    ("gpu", ValueError, "device must be"),
])
def test_a_device_that_is_not_there_is_an_error_that_changes_nothing(monkeypatch, device, error, message):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    model = network()
    before = model.state_dict()
    with pytest.raises(error, match=message):
        model.to(device)
    np.testing.assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("training", [True, False])
def test_a_moved_model_computes_the_same_where_its_arrays_are(xp, moved, training):
    model = network()
    with model.mode(training), moved.mode(training):
        expected, answer = model(IMAGES), moved(Tensor(xp.asarray(IMAGES)))
    assert isinstance(answer.data, xp.ndarray)
    np.testing.assert_allclose(answer.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [
    lambda model: nn.optim.SGD(model, momentum=0.9, nesterov=True, weight_decay=0.1), nn.optim.Adam,
])
def test_a_moved_model_learns_the_same_where_its_arrays_are(xp, moved, optimizer):
    model = network()
    for learner, images in ((model, IMAGES), (moved, xp.asarray(IMAGES))):
        rule = optimizer(learner)
        for _ in range(3):
            rule.zero_grad()
            ops.cross_entropy(learner(images), move(np.arange(3), like=images)).backward()
            rule.step()
    assert all(isinstance(array, xp.ndarray) for array in arrays(moved))
    state, before = moved.state_dict(), network().state_dict()
    for name, expected in model.state_dict().items():
        np.testing.assert_allclose(state[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert name in ("0.mean", "0.std") or not np.array_equal(expected, before[name]), name


@pytest.mark.parametrize("optimizer", [
    lambda model: nn.optim.SGD(model, momentum=0.9, nesterov=True), nn.optim.Adam, nn.optim.SGD,
])
def test_an_optimiser_follows_a_model_that_moves(xp, monkeypatch, optimizer):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    stays, moves = network(), network()
    for model in stays, moves:
        rule, images = optimizer(model), IMAGES
        for k in range(3):
            if k and model is moves:
                images = xp.asarray(images)
                model.to("the device of xp")
            rule.zero_grad()
            ops.cross_entropy(model(images), move(np.arange(3), like=images)).backward()
            rule.step()
    assert all(isinstance(array, xp.ndarray) for each in rule.state for array in each)
    for name, expected in stays.state_dict().items():
        np.testing.assert_allclose(moves.state_dict()[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_state_of_arrays_on_a_device_loads(xp):
    model, other = network(), nn.Sequential(nn.Linear(2, 2, rng=0))
    model.load_state_dict({name: xp.asarray(array) for name, array in network().state_dict().items()})
    np.testing.assert_equal(model.state_dict(), network().state_dict())
    ops.sum(other(IMAGES[0, 0, :, :2])).backward()
    rules = nn.optim.Adam(other), nn.optim.Adam(other)
    rules[0].step()
    rules[1].load_state_dict({name: xp.asarray(array) for name, array in rules[0].state_dict().items()})
    np.testing.assert_equal(rules[1].state_dict(), rules[0].state_dict())


def test_a_moved_models_state_is_on_the_host_and_loads_to_where_it_is(xp, moved, tmp_path):
    state = moved.state_dict()
    assert all(type(array) is np.ndarray for array in state.values())
    np.testing.assert_equal(state, network().state_dict())
    nn.save(moved, tmp_path / "state.npz")
    nn.load(tmp_path / "state.npz", into=moved)
    assert all(isinstance(p.data, xp.ndarray) for p in moved.parameters())
    np.testing.assert_equal(moved.state_dict(), state)
