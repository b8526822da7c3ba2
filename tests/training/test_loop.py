import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import Probe, fit, flags, linear, stripes, weights, with_modes

from tinyadv import Tensor, data, evaluation, nn, ops, training
from tinyadv.attacks import FGSM, PGD, DeepFool, MultiAttack, Transfer
from tinyadv.nn.optim import SGD, Adam


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 70))
def test_the_loss_falls_and_the_accuracy_rises(seed, batch_size):
    model, train = linear(seed), stripes(60, seed)
    before = evaluation.accuracy(model, train)
    history = fit(model, train, epochs=20, batch_size=batch_size, seed=seed)
    assert history[-1].loss < history[0].loss
    assert evaluation.accuracy(model, train) >= max(before, 0.9)


def unseeded():
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3, rng=0), nn.GaussianNoise(0.1))


@pytest.mark.parametrize("make", [linear, with_modes, unseeded])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make):
    def trained(seed):
        model = make()
        history = fit(model, stripes(40), batch_size=8, seed=seed)
        return weights(model), [replace(epoch, seconds=0) for epoch in history]

    assert trained(3) == trained(3)
    assert trained(3)[0] != trained(4)[0]
    assert trained(3)[0] != weights(make())


def test_two_layers_without_a_seed_draw_differently_and_one_with_a_seed_keeps_it():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Dropout(), nn.Dropout(seed=7), nn.Linear(12, 3))
    fit(model, stripes(8), seed=3)
    first, second, third = (layer.seed for layer in model.layers[1:4])
    assert first != second
    assert third == 7


@settings(max_examples=15)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_an_epoch_sees_every_image_once_and_reports_means_over_them(n, batch_size, seed):
    """With a rate of 0 the means are those of the data set, whatever the batches."""
    train, model = stripes(n, seed), linear(seed)
    loss = ops.cross_entropy(model(Tensor(train.images)), train.labels).item()
    for epoch in fit(model, train, lr=0, batch_size=batch_size, seed=seed):
        assert epoch.loss == pytest.approx(loss, rel=1e-5)
        assert epoch.accuracy == evaluation.accuracy(model, train)


def test_the_images_come_in_the_order_of_the_seed_another_one_each_epoch():
    train, seen = stripes(10), []
    model = linear()
    model.layers[0].forward = lambda x: seen.append(x.numpy()) or x.flatten()
    fit(model, train, batch_size=4, seed=5)
    expected = [images for epoch in (0, 1) for images, _ in data.batches(train, 4, seed=5, epoch=epoch)]
    assert [images.tolist() for images in seen] == [images.tolist() for images in expected]
    assert seen[0].tolist() != seen[3].tolist()


def test_the_model_is_in_training_mode_meanwhile_evaluated_in_evaluation_mode_and_as_before_after():
    probe = Probe()
    model = nn.Sequential(probe, with_modes())
    as_it_was = flags(model)
    assert set(as_it_was) == {True, False}
    fit(model, stripes(8), batch_size=4, validation=stripes(2, seed=1))
    assert probe.flags == 2 * [True, True, False, False]  # the two validation images are two shards
    assert flags(model) == as_it_was


def test_after_an_exception_flags_and_rate_are_as_before():
    model = nn.Sequential(Probe(fails_at=2), with_modes())
    optimizer, as_it_was = SGD(model, lr=0.5), flags(model)
    with pytest.raises(OSError, match="the probe fails"):
        training.fit(model, stripes(8), epochs=1, optimizer=optimizer, batch_size=4, schedule=lambda _: 0.1)
    assert flags(model) == as_it_was
    assert optimizer.lr == 0.5


@settings(max_examples=15)
@given(n=st.integers(1, 20), batch_size=st.integers(1, 25), epochs=st.integers(1, 4))
def test_a_schedule_sees_the_progress_of_training_and_scales_the_rate_of_every_step(n, batch_size, epochs):
    class Recorder(SGD):
        def step(self):
            rates.append(self.lr)
            super().step()

    def schedule(progress):
        seen.append(progress)
        return 1 / (1 + progress)

    seen, rates, model = [], [], linear()
    optimizer = Recorder(model, lr=0.5)
    history = training.fit(model, stripes(n), epochs=epochs, optimizer=optimizer, batch_size=batch_size,
                           schedule=schedule)
    steps = math.ceil(n / batch_size)
    assert rates == [0.5 / (1 + progress) for progress in seen]
    before = [epoch * n + step * batch_size for epoch in range(epochs) for step in range(steps)]  # images
    assert seen == pytest.approx([images / (epochs * n) for images in before])
    assert [epoch.lr for epoch in history] == rates[steps - 1::steps]
    assert optimizer.lr == 0.5


def test_validation_is_the_accuracy_on_the_held_out_images():
    model, held_out = linear(), stripes(30, seed=1)
    history = fit(model, stripes(30), validation=held_out)
    assert history[-1].validation == evaluation.accuracy(model, held_out)
    assert fit(model, stripes(30))[0].validation is None


def test_no_epochs_change_nothing():
    model = with_modes()
    before = weights(model)
    assert len(fit(model, stripes(4), epochs=0)) == 0
    assert weights(model) == before


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_a_model_with_batch_norm_and_dropout_learns(optimizer):
    model, train = with_modes(), stripes(60)
    statistics = model.state_dict()["1.running_mean"]
    training.fit(model, train, epochs=20, optimizer=optimizer(model, lr=0.02), batch_size=16)
    assert evaluation.accuracy(model, stripes(60, seed=1)) > 0.9
    assert not np.array_equal(model.state_dict()["1.running_mean"], statistics)


def test_training_leaves_the_data_alone():
    train = stripes(9)
    images, labels = train.images.copy(), train.labels.copy()
    fit(with_modes(), train, batch_size=4)
    assert np.array_equal(train.images, images)
    assert np.array_equal(train.labels, labels)


def test_a_model_on_a_device_learns_the_same(xp, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    on_host, moved = with_modes(), with_modes().to("the device of xp")
    train, held_out = stripes(20), stripes(9, seed=1)
    histories = [fit(model, train, lr=0.1, batch_size=8, validation=held_out) for model in (on_host, moved)]
    assert all(isinstance(parameter.data, xp.ndarray) for parameter in moved.parameters())
    for name, expected in on_host.state_dict().items():
        np.testing.assert_allclose(moved.state_dict()[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    for host, device in zip(*histories, strict=True):
        assert (device.loss, device.accuracy) == pytest.approx((host.loss, host.accuracy), rel=1e-3)


def test_a_parameter_of_two_names_ends_averaged():
    class Tied(nn.Module):
        def __init__(self):
            self.a = self.b = nn.Linear(12, 3, rng=0)

        def forward(self, x):
            return self.a(x.flatten()) + self.b(x.flatten())

    model, live = Tied(), []
    training.fit(model, stripes(8), epochs=2, optimizer=SGD(model, lr=0.5), batch_size=4, average=0.99,
                 augment=lambda images, streams: live.append(model.a.weight.data.copy()) or images)
    assert model.a.weight is model.b.weight
    state = model.state_dict()
    assert np.array_equal(state["a.weight"], state["b.weight"])
    assert min(abs(state["a.weight"] - each).max() for each in live) > 0


@pytest.mark.parametrize("strength", [-0.1, 3.0])
def test_a_budget_grows_from_0_to_1(strength):
    with pytest.raises(ValueError, match="eps_schedule must give factors in"):
        fit(linear(), stripes(4), attack=FGSM(0.1), eps_schedule=lambda progress: strength)


@pytest.mark.parametrize("attack", [MultiAttack((FGSM(0.1), PGD(0.1, steps=2))), Transfer(linear(), FGSM(0.1))])
def test_the_budget_of_attacks_made_of_attacks_grows_too(attack):
    history = fit(linear(), stripes(8), attack=attack, eps_schedule=lambda progress: np.float32(0.5))
    assert [epoch.eps for epoch in history] == pytest.approx([0.05, 0.05])


def test_progress_is_a_bar_on_stderr_that_names_data_set_and_epoch(capsys):
    fit(linear(), stripes(6), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "stripes-train, epoch 1/2: 100%" in err
    assert "stripes-train, epoch 2/2: 100%" in err
    assert "6/6" in err
    assert "loss=" in err
    fit(linear(), stripes(6))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("options", "message"), [
    ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
    ({"epochs": 1.0}, "epochs must be an integer >= 0, got 1.0"),
    ({"epochs": True}, "epochs must be an integer >= 0, got True"),
    ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    ({"batch_size": 2.5}, "batch_size must be an integer >= 1, got 2.5"),
    ({"train": stripes(0)}, "training needs at least one image, and stripes-train has none"),
    ({"validation": stripes(0)}, "validation needs at least one image"),
    ({"validation": stripes(3), "validation_attack": "PGD"}, "validation_attack must be an attack with a budget"),
    ({"validation": stripes(3), "validation_attack": DeepFool()}, "validation_attack must be an attack with a budget"),
    ({"optimizer": SGD(linear(), lr=0.1)}, "optimizer must hold the parameters of this model, but SGD(39"),
])
def test_arguments_that_do_not_fit_are_refused(options, message):
    model = linear()
    before = weights(model)
    options = {"train": stripes(4), "epochs": 1, "optimizer": SGD(model, lr=0.1)} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        training.fit(model, **options)
    assert weights(model) == before


@pytest.mark.parametrize("validation", [(np.zeros((2, 1, 4, 3)), np.zeros(2, int)), np.zeros((2, 1, 4, 3))])
def test_a_validation_set_that_is_none_is_refused_before_anything_is_written(validation, tmp_path):
    with pytest.raises(TypeError, match="validation must be of the class Dataset"):
        fit(linear(), stripes(4), validation=validation, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match="batch_size"):
        fit(linear(), stripes(4), batch_size=0, checkpoint=tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_training_and_says_where_and_at_which_rate(value):
    model, calls = linear(), []
    model.layers[0].forward = lambda x: calls.append(x) or x.flatten() * (value if len(calls) == 7 else 1)
    message = "the loss became nan in epoch 2, step 2, at learning rate 0.25; the last losses were .*, nan: try a lower"
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=message):
        fit(model, stripes(40), lr=0.25, batch_size=8)


def test_the_averaged_model_is_the_one_that_was_measured_last():
    model, kept = with_modes(), []

    class Watched(training.Standard):
        def certified(self, model, validation):
            kept.append(weights(model))

    fit(model, stripes(40), method=Watched(), batch_size=8, average=0.9, validation=stripes(9, seed=1))
    assert weights(model) == kept[-1]


@given(st.integers(1, 40), st.integers(1, 16))
@settings(max_examples=20, deadline=None)
def test_the_statistics_of_averaged_weights_weigh_every_image_alike(n, batch_size):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3, rng=0))
    train = stripes(n)
    fit(model, train, lr=0.0, batch_size=batch_size, average=0.9)
    np.testing.assert_allclose(model.layers[1].running_mean, train.images.reshape(n, 12).mean(axis=0), rtol=1e-5)


def test_the_statistics_after_free_training_are_of_attacked_images():
    """As `Fast`'s, whose attack has other steps; they are wider apart than those of clean images."""
    def estimated(method):
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3, rng=0))
        fit(model, stripes(64), lr=0.0, method=method, batch_size=16, average=0.9)
        return model.layers[1].running_var

    clean = estimated(training.Standard())
    assert abs(estimated(training.Free(0.2, replays=2)) - clean).max() > 0.01


def test_every_step_of_every_epoch_draws_anew_and_what_augments_apart_from_the_method():
    """And so do the statistics of averaged weights, in the end."""
    drawn = []

    def augment(images, streams):
        drawn.append(streams.uniform(()).tobytes())
        return images

    class Watched(training.Standard):
        def inputs(self, scene, images, labels):
            drawn.append(scene.streams.uniform(()).tobytes())
            return (images,)

    for average, batches in (None, 9), (0.9, 12):
        drawn.clear()
        fit(with_modes(), stripes(12), epochs=3, batch_size=4, method=Watched(), augment=augment, average=average)
        assert len(drawn) == len(set(drawn)) == 2 * batches


def test_the_average_of_a_run_does_not_depend_on_what_the_optimiser_did_before():
    def averaged(used):
        model = linear()
        optimizer = SGD(model, 0.1)
        if used:
            training.fit(model, stripes(20), epochs=3, optimizer=optimizer)
            model.load_state_dict(linear().state_dict())
        training.fit(model, stripes(20, seed=1), epochs=2, optimizer=optimizer, average=0.99)
        return weights(model)

    assert averaged(used=True) == averaged(used=False)


@pytest.mark.parametrize(("augment", "message"), [
    (lambda images, streams: np.float32(0), "augment must return .* of 4 images, .*; got float32$"),
    (lambda images, streams: Tensor(images), "augment must return .* of 4 images, .*; got Tensor"),
    (lambda images, streams: None, "augment must return .* of 4 images, .*; got NoneType"),
    (lambda images, streams: (images * 255).astype(np.uint8), "augment must return a floating-point .*; got uint8"),
    (lambda images, streams: images[1:], r"augment must return .* of 4 images, .*; got float32 of shape \(3, "),
])
def test_what_augment_returns_must_be_as_many_images(augment, message):
    with pytest.raises(TypeError, match=message):
        fit(linear(), stripes(4), augment=augment)


def test_no_epoch_with_an_average_is_no_training():
    model, before = with_modes(), weights(with_modes())
    fit(model, stripes(8), epochs=0, average=0.9)
    assert weights(model) == before


def test_images_that_are_no_numbers_are_told_where_the_loss_is_none():
    train = stripes(8)
    with pytest.raises(FloatingPointError, match="the images contain NaN or infinity"):
        fit(linear(), train, augment=lambda images, streams: images * np.float32(np.nan))
    train.images[3] = np.nan
    with pytest.raises(FloatingPointError, match="the images contain NaN or infinity"):
        fit(linear(), train)


def test_minutes_are_a_number():
    with pytest.raises(ValueError, match="minutes must be a number >= 0, got '5'"):
        fit(linear(), stripes(8), minutes="5")


def test_an_optimizer_that_is_older_than_a_layer_is_refused():
    """The new layer would never be trained. Parameters of a loss, beside those of the model, are allowed."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5, rng=0), nn.Linear(5, 3, rng=1))
    optimizer = SGD(model, lr=0.1)
    setattr(model, "2", nn.Linear(5, 3, rng=2))
    with pytest.raises(ValueError, match=r"SGD.* lacks 2, and holds 2 others: make it after"):
        training.fit(model, stripes(20), epochs=1, optimizer=optimizer)
    training.fit(model, stripes(20), epochs=1, optimizer=SGD([*model.parameters(), Tensor(np.ones(2))], lr=0.1))


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf])
def test_a_schedule_gives_no_rate_below_zero(factor):
    before = weights(model := linear())
    with pytest.raises(ValueError, match="the factor of the schedule must be a number >= 0"):
        training.fit(model, stripes(20), epochs=1, optimizer=SGD(model, lr=0.1), schedule=lambda progress: factor)
    assert weights(model) == before


def test_a_rate_that_is_a_number_of_numpy_is_kept_in_checkpoints_too(tmp_path):
    model = linear()
    training.fit(model, stripes(20), epochs=1, optimizer=SGD(model, lr=np.float32(0.5)), checkpoint=tmp_path / "a.npz")
    assert (tmp_path / "a.npz").is_file()
