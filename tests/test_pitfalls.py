"""Slips that are easily made, and must not pass silently."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attack_cases import cnn, images, labels

from tinyadv import Tensor, attacks, data, gradients, models, nn, no_grad, ops, training


def test_wrt_without_brackets_is_refused():
    x = Tensor(np.ones(3))
    with pytest.raises(TypeError, match=r"a list of Tensors, as in gradients\(loss, \[x\]\)"):
        gradients((x * x).sum(), x)


def test_a_tensor_where_no_derivative_is_taken_is_refused():
    with pytest.raises(TypeError, match="clip is differentiated in its first 1 arguments only"):
        ops.clip(Tensor(np.ones(3)), Tensor(np.zeros(3)), 5.0)


def test_gradients_keep_the_memory_order_of_what_they_are_of():
    x = Tensor(np.moveaxis(np.ones((2, 3, 4, 5), np.float32), -1, 0))  # the batch last in memory
    (g,) = gradients(ops.relu(x).sum(), [x])
    (h,) = gradients((x + 1.0).sum(), [x])
    assert g.strides == x.data.strides
    assert h.shape == x.shape


def test_a_callback_cannot_move_the_points_out_of_the_budget():
    _, test = data.digits(train=0, test=12)
    attack = attacks.PGD(0.02, step_size=1e-9, steps=3)

    def spoil(step):
        step.points[...] = 0.5

    result = attack.run(models.LeNet(seed=0), test.images, test.labels, callback=spoil)
    assert np.abs(result.x_adv.astype(np.float64) - test.images).max() <= 0.02


@pytest.mark.parametrize("workers", [1, 2])
def test_an_attack_and_training_work_within_no_grad(workers):
    train, test = data.digits(train=32, test=40)
    model = models.LeNet(seed=0)
    attack = attacks.FGSM(0.1)
    expected = attack(model, test.images, test.labels, batch_size=10)
    with no_grad():
        found = attack(model, test.images, test.labels, batch_size=10, workers=workers)
        training.fit(model, train, epochs=1, optimizer=nn.optim.SGD(model, lr=0.01))
    np.testing.assert_array_equal(found, expected)


def test_a_parameter_may_be_called_file(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            self.file, self.allow_pickle = Tensor(np.ones(2)), Tensor(np.zeros(3))

    nn.save(Odd(), tmp_path / "odd.npz")
    loaded = nn.load(tmp_path / "odd.npz", into=Odd())
    np.testing.assert_array_equal(loaded.file.data, np.ones(2))


def test_a_loss_that_is_no_number_leaves_the_weights_as_they_were():
    train, _ = data.digits(train=8, test=0)
    model = models.LeNet(seed=0)
    model.parameters()[0].data[0, 0, 0, 0] = np.nan
    before = model.state_dict()
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match="the loss became nan"):
        training.fit(model, train, epochs=1, optimizer=nn.optim.SGD(model, lr=0.1))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_layers_of_dropout_drop_each_their_own():
    x = Tensor(np.ones((50, 40)))
    one, other = nn.Dropout(0.5)(x).data, nn.Dropout(0.5)(x).data
    assert 0.15 < np.mean((one > 0) & (other > 0)) < 0.35


def state(model):
    """All that a run may leave behind in a model."""
    return {name: array.tolist() for name, array in model.state_dict().items()}, [
        (module.training, vars(module).get("calls")) for _, module in model.named_modules()]


@pytest.mark.parametrize("trial", range(10))
@pytest.mark.parametrize("others", [1, 2])
def test_attacks_on_one_model_in_several_threads_are_as_one_after_the_other(others, trial):
    """Each finds the same images as alone, and the model in training mode is as it was."""
    model, x, y = cnn(trial), images(12), labels(12)
    attack = attacks.PGD(0.1, steps=3)
    before, alone = state(model), [attack(model, x, y, seed=k, batch_size=4) for k in range(1 + others)]
    start = threading.Barrier(1 + others)

    def run(seed):
        start.wait(10)
        return attack(model, x, y, seed=seed, workers=1 + seed % 2, batch_size=4)

    with ThreadPoolExecutor(1 + others) as pool:
        for expected, found in zip(alone, pool.map(run, range(1 + others)), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert state(model) == before


@pytest.mark.parametrize("trial", range(5))
def test_training_beside_an_attack_trains_as_it_does_alone(trial):
    train, _ = data.digits(train=64, test=1)

    def trained(beside):
        model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=trial), nn.BatchNorm2d(2), nn.MaxPool2d(4), nn.Flatten(),
                              nn.Dropout(0.5, seed=trial), nn.Linear(72, 10, rng=trial)).eval()
        done = threading.Event()

        def attack_all_along():
            while not done.is_set():
                attacks.FGSM(0.1)(model, train.images[:20], train.labels[:20], workers=1)

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(attack_all_along) if beside else None
            training.fit(model, train, epochs=2, optimizer=nn.optim.SGD(model, lr=0.01))
            done.set()
            assert other is None or other.result() is None
        return state(model)

    assert trained(beside=True) == trained(beside=False)
