from dataclasses import replace

import numpy as np
import pytest
from certify_cases import all_kinds, images
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from training_cases import fit, linear, stripes, weights

from tinyadv import Tensor, attacks, certify, nn, ops, training
from tinyadv.attacks import PGD
from tinyadv.certify import Interval
from tinyadv.certify.crown import crown_worst
from tinyadv.data import Dataset
from tinyadv.random import Streams
from tinyadv.training import CCIBP, CROWNIBP, MTLIBP, SABR, Certified, Scene, Update
from tinyadv.training.certified import balance

METHODS = [Certified(0.1), Certified(0.1, clean_weight=0.5, warm_up=0), MTLIBP(0.1, clean_weight=0.5), CCIBP(0.1),
           SABR(0.1, steps=3), CROWNIBP(0.1)]
every_method = pytest.mark.parametrize("method", METHODS, ids=repr)


def network(seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, init="ibp", rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.1, seed=seed), nn.Linear(48, 12, init="ibp", rng=rng), nn.BatchNorm1d(12),
                         nn.ReLU(), nn.Linear(12, 3, rng=rng))


@every_method
def test_training_raises_the_certified_accuracy(method):
    train, test = stripes(200), stripes(100, seed=1)
    plain, certified = network(), network()
    fit(plain, train, lr=0.1, epochs=6)
    history = fit(certified, train, lr=0.1, epochs=6, method=method, eps_schedule=training.ramp(0.5), validation=test)
    before, after = (float(certify.certified_accuracy(model, test, 0.1)) for model in (plain, certified))
    assert after > max(before + 0.1, 0.5)
    assert history[-1].certified == after
    assert all(epoch.certified is not None for epoch in history)
    assert "certified" in repr(history).splitlines()[0]


@pytest.mark.parametrize("method", METHODS[:2], ids=repr)
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("make", [network, linear])
def test_the_loss_bounds_that_of_every_point_of_the_box(make, method, strength):
    """Less the share of the clean loss, where there is one. Of the linear model the bounds leave little room."""
    model, train = make().eval(), stripes(12)
    losses, logits = method.bounded(strength, model, train.labels, Tensor(train.images))
    bound, share, clean = losses.data, method.clean_weight, model(Tensor(train.images))
    if share:
        assert (logits.data == clean.data).all()
        bound = (bound - share * ops.cross_entropy(clean, train.labels, "none").data) / (1 - share)
    for attack in (PGD(0.1 * strength, steps=10), attacks.FGSM(0.1 * strength)):
        point = attack(model, train.images, train.labels)
        exact = ops.cross_entropy(model(Tensor(point)), train.labels, "none").data
        assert (exact <= bound + 1e-5).all()
    assert losses.shape == (12,)


def test_with_eps_0_it_is_standard_training():
    one, other, train = network(), network(), stripes(60)
    for model, method in ((one, Certified(0.0, warm_up=0)), (other, training.Standard())):
        fit(model, train, lr=0.05, epochs=1, method=method)
    for name, array in one.state_dict().items():
        np.testing.assert_allclose(array, other.state_dict()[name], atol=2e-3)


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    train, found = stripes(60), []
    for stop in (0, 1):
        model, calls = network(), []

        def augment(x, streams, stop=stop, calls=calls):
            calls.append(1)
            if stop and len(calls) == 3:
                raise KeyboardInterrupt
            return x

        options = {"lr": 0.1, "epochs": 2, "method": Certified(0.1), "eps_schedule": training.ramp(0.5),
                   "augment": augment, "checkpoint": tmp_path / f"{stop}.npz", "resume": True, "average": 0.9,
                   "validation": stripes(20, seed=1)}
        try:
            fit(model, train, **options)
        except KeyboardInterrupt:
            fit(model, train, **options)
        found.append(weights(model))
    assert found[0] == found[1]


@pytest.mark.parametrize("method", METHODS[:1])
def test_the_result_does_not_depend_on_the_parts_of_a_batch(method, monkeypatch):
    found = []
    for parts in (1, 4):
        monkeypatch.setattr("tinyadv.training.update.PARTS", parts)
        model = network()
        model.layers[4].p = 0  # each part draws masks of its own
        fit(model, stripes(128), lr=0.05, epochs=1, batch_size=64, eps_schedule=lambda progress: 1.0,
            method=Certified(0.1))
        found.append(model.state_dict())
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], atol=1e-4)


def test_the_regularisers_push_radii_and_units_towards_balance():
    model, x = all_kinds().eval(), images((1, 8, 8), 4)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, init="ibp", rng=0), nn.ReLU(), nn.Linear(8, 3, rng=0))
    box = Interval.around(x, 0.01, value=x)
    total = balance(flat(box), box).item()
    assert 0 <= total <= 3 / 1
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, init="ibp", rng=0), nn.ReLU(), nn.Linear(8, 3, rng=0))
    wide.layers[1].weight.data = 10 * wide.layers[1].weight.data
    assert balance(wide(box), box).item() > total
    assert balance(model(box), box).shape == ()

    weights = np.random.default_rng(0).normal(size=(8, 64)) / 8

    def loss(weight):
        return balance(ops.relu(ops.linear(ops.flatten(Interval.around(x.astype(float), 0.05)), weight)),
                       Interval.around(x.astype(float), 0.05))

    check_vjp(loss, [weights], tolerance=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"eps": -1}, "eps must be a number >= 0, got -1"),
    ({"eps": 0.1, "label_smoothing": 0.1}, "label_smoothing must be 0 for a certificate, got 0.1"),
    *(({"eps": 0.1, "clean_weight": weight}, rf"clean_weight must be a number in \[0, 1\], got {weight!r}")
      for weight in (2, -0.1, True, "0.5", None, np.nan)),
    ({"eps": np.inf}, "eps must be a number >= 0, got inf"),
    ({"eps": 0.1, "warm_up": -1}, "warm_up must be a number >= 0, got -1"),
    ({"eps": 0.1, "certify_at": -1}, "certify_at must be a number >= 0, got -1"),
    ({"eps": 0.1, "bounds": (1, 0)}, r"bounds must be a tuple \(low, high\) of numbers with low < high, got \(1, 0\)"),
])
def test_arguments_are_checked(arguments, message):
    for method in (Certified, CROWNIBP, MTLIBP, SABR):
        with pytest.raises(ValueError, match=message):
            method(**arguments)


@pytest.mark.parametrize("method", [*METHODS, SABR(0.1, steps=3, clean_weight=0.5)], ids=repr)
@pytest.mark.parametrize(("factor", "shift", "message"), [
    (1, -0.5, r"x must lie in bounds=\(0.0, 1.0\), got values from -0.5"),
    (255, 0, "for grey levels of 0 to 255, give"), (np.nan, 0, "x must be numbers")])
def test_images_outside_of_the_bounds_are_not_trained_on(method, factor, shift, message):
    """Their boxes would not hold them."""
    train, model = stripes(20), network()
    images, before = train.images * np.float32(factor) + np.float32(shift), weights(model)
    images.flat[0] = shift
    for strength in (0.0, 1.0):
        with pytest.raises(ValueError, match=message):
            fit(model, Dataset(images, train.labels, classes=train.classes), method=method, epochs=1,
                eps_schedule=lambda progress, strength=strength: strength)
    assert weights(model) == before
    if shift:
        fit(model, Dataset(images, train.labels, classes=train.classes), epochs=1,
            method=replace(method, bounds=(-0.5, 0.5)))


def test_sabr_takes_a_part_above_0_and_up_to_1():
    for part in (0, 1.5, True, "0.5", None, np.nan):
        with pytest.raises(ValueError, match=rf"part must be a number in \(0, 1\], got {part!r}"):
            SABR(0.1, part=part)


def test_sabr_takes_a_step_or_more():
    for steps in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"steps must be an integer >= 1, got {steps}"):
            SABR(0.1, steps=steps)


def test_the_losses_of_a_step_are_those_of_its_strength():
    model, train, seen = network(), stripes(12), []

    def update(inputs, labels, losses):
        seen.append(losses(model, labels, *map(Tensor, inputs))[0].data)

    for strength in (0.0, 1.0):
        model.eval()
        Certified(0.2, warm_up=0).step(Scene(model, update, None, strength, {}), train.images, train.labels)
    clean = ops.cross_entropy(model(Tensor(train.images)), train.labels, "none").data
    np.testing.assert_allclose(seen[0], clean, atol=1e-5)
    assert (seen[1] > clean).all()


def inputs_of(method, model, train):
    scene = Scene(model, Update, Streams(3, range(len(train))), 1.0, {})
    return [Tensor(x) for x in method.inputs(scene, train.images, train.labels)]


def test_sabr_bounds_a_small_box_around_an_adversarial_image():
    model, train = network().eval(), stripes(12)
    method = SABR(0.2, part=0.25, steps=4)
    x = inputs_of(method, model, train)
    box = method.box(1.0, *x)
    room = 1e-6
    assert (box.low.data >= (train.images - 0.2).clip(0, 1) - room).all()
    assert (box.high.data <= (train.images + 0.2).clip(0, 1) + room).all()
    assert box.radius.data.max() <= 0.05 + room
    assert np.abs(x[0].data - train.images).max() == pytest.approx(0.15, abs=1e-6)
    whole = SABR(0.2, part=1.0)
    assert (inputs_of(whole, model, train)[0].data == train.images).all()


def test_the_step_of_mtl_ibp_and_cc_ibp_is_so_long_that_it_ends_at_a_corner_of_the_box():
    model, train = network().eval(), stripes(12)
    for method in MTLIBP(0.05), CCIBP(0.05):
        x_adv = inputs_of(method, model, train)[1].data
        corners = np.stack([(train.images + side).clip(0, 1) for side in (-0.05, 0.05)])
        assert (abs(x_adv - corners).min(axis=0) < 1e-6).all()


@given(seed=st.integers(0, 100))
def test_the_regularisers_are_the_formulas_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    low, weight, bias = rng.random((5, 4)), rng.normal(size=(8, 4)), rng.normal(size=8)
    box = Interval(low, low + 0.3)
    before = ops.linear(box, weight, bias)
    low, high, mean, radius = (getattr(before, key).data for key in ("low", "high", "centre", "radius"))
    on, off, around = low > 0, high < 0, (mean - mean.mean()) ** 2
    ratios = [box.radius.data.mean() / radius.mean()]
    for active, inactive in ((mean * on).mean(), -(mean * off).mean()), ((around * on).mean(), (around * off).mean()):
        ratios.append(min((active + 1e-12) / (inactive + 1e-12), (inactive + 1e-12) / (active + 1e-12)))
    expected = sum(max(0, 0.5 - ratio) / 0.5 for ratio in ratios)
    assert balance(ops.relu(before), box).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_mixed_losses_are_between_those_of_the_bound_and_of_the_attack():
    model, train = network().eval(), stripes(12)
    for kind in (MTLIBP, CCIBP):
        x = inputs_of(kind(0.1), model, train)
        bound, attacked, middle = (kind(0.1, clean_weight=share).bounded(1.0, model, train.labels, *x)[0].data
                                   for share in (0.0, 1.0, 0.5))
        exact = ops.cross_entropy(model(x[1]), train.labels, "none").data
        np.testing.assert_allclose(attacked, exact, atol=1e-5)
        assert (attacked <= middle + 1e-6).all()
        assert (middle <= bound + 1e-6).all()


def test_crown_ibp_begins_with_linear_bounds_and_ends_with_intervals():
    model, train = network().eval(), stripes(12)
    x, one, other = Tensor(train.images), CROWNIBP(0.1, warm_up=0), Certified(0.1, warm_up=0)
    z = model(other.box(0.25, x))
    mixed = 0.75 * crown_worst(z, train.labels).data + 0.25 * z.worst(train.labels).data
    np.testing.assert_allclose(one.worst(0.25, z, train.labels).data, mixed, atol=1e-5)
    losses = [[method.bounded(strength, model, train.labels, x)[0].data for method in (one, other)]
              for strength in (0.25, 1.0)]
    assert (losses[0][0] < losses[0][1]).all()
    assert (losses[1][0] == losses[1][1]).all()


@pytest.mark.parametrize("clean_weight", [0.0, 0.5])
def test_averaged_weights_get_the_statistics_of_what_training_saw(clean_weight):
    model, train = network(), stripes(64)
    method = Certified(0.3, clean_weight=clean_weight, warm_up=0)
    fit(model, train, lr=0.05, epochs=1, batch_size=64, method=method, average=0.9)
    images = Tensor(train.images) if clean_weight else Interval.around(train.images, 0.3).centre
    seen = model.layers[0](images).data  # the centre goes through a convolution as images do
    np.testing.assert_allclose(model.layers[1].running_mean, seen.mean(axis=(0, 2, 3)), atol=1e-5)


@every_method
def test_a_model_on_a_device_learns_the_same_while_eps_grows(method, xp, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    on_host, moved = network(), network().to("the device of xp")
    histories = [fit(model, stripes(60), lr=0.05, epochs=2, batch_size=20, method=method,
                     eps_schedule=training.ramp(0.5), validation=stripes(30, seed=1)) for model in (on_host, moved)]
    assert histories[0][-1].certified == pytest.approx(histories[1][-1].certified, abs=1e-9)
    for name, array in on_host.state_dict().items():
        np.testing.assert_allclose(moved.state_dict()[name], array, atol=1e-4, err_msg=name)
