import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import fit, linear, stripes, weights, with_modes

from tinyadv import Tensor, driver, evaluation, no_grad, ops, training
from tinyadv.attacks import FGSM, PGD, AutoAttack, DeepFool, MultiAttack, Square, Transfer
from tinyadv.attacks.base.balls import ball_class
from tinyadv.certify import Smoothing
from tinyadv.nn.optim import SGD
from tinyadv.random import Streams
from tinyadv.training import (
    NFGSM,
    TRADES,
    Adversarial,
    Consistent,
    Contrastive,
    Fast,
    Free,
    Mixed,
    Scene,
    Standard,
    Update,
)

ATTACK = PGD(0.2, steps=3)
METHODS = [
    Standard(), Standard(label_smoothing=0.1), Adversarial(ATTACK), Adversarial(FGSM(0.1), crafting="train"),
    Adversarial(Square(0.1, queries=5)), Mixed(ATTACK), Mixed(FGSM(0.5, norm="l2"), clean_weight=0.3), Fast(eps=0.1),
    NFGSM(eps=0.1), Free(0.1, replays=3), Free(0.5, replays=2, norm="l2"), TRADES(0.1, steps=2),
    TRADES(0.5, steps=2, norm="l2"), Contrastive(0.1), Consistent(Smoothing(0.1)),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


class Recorder:
    """Takes the place of `updates`: keeps what it is given, and gives a slope of ones."""

    def __init__(self):
        self.inputs = []

    def __call__(self, images, labels, losses=None, slope=False):
        self.inputs.append(images)
        return Update(0.0, 0, np.ones_like(images) if slope else None)


def scene(model, update, strength=1.0, count=12, memory=None):
    return Scene(model, update, Streams(5, range(count)), strength, {} if memory is None else memory)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def logits_of(model, x):
    with no_grad():
        return model(Tensor(x)).data.astype(np.float64)


@every_method
def test_a_model_learns_by_every_method(method):
    model, train = linear(), stripes(120)
    history = fit(model, train, epochs=12, method=method, batch_size=16)
    assert evaluation.accuracy(model, train) > 0.9
    assert history[-1].eps == method.budget


@every_method
def test_the_same_seed_gives_the_same_weights(method):
    def trained(seed):
        model = with_modes()
        fit(model, stripes(40), lr=0.1, method=method, batch_size=16, seed=seed)
        return weights(model)

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


@pytest.mark.parametrize("method", [m for m in METHODS if m.budget], ids=lambda method: type(method).__name__)
@settings(max_examples=10)
@given(strength=st.floats(0, 1), seed=st.integers(0, 100))
def test_what_is_trained_on_is_inside_the_budget_times_the_strength(method, strength, seed):
    train, model, update = stripes(12, seed), linear(seed), Recorder()
    method.step(scene(model, update, strength), train.images, train.labels)
    norm = getattr(method, "norm", None) or method.attack.norm
    for inputs in update.inputs:
        x_adv = inputs[-1] if isinstance(inputs, tuple) else inputs
        difference = (x_adv.astype(np.float64) - train.images).reshape(12, -1)
        distance = abs(difference).max(axis=1) if norm == "linf" else np.linalg.norm(difference, axis=1)
        reach = 3 if isinstance(method, NFGSM) else 1
        assert distance.max() <= reach * strength * method.budget
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1


def test_adversarial_training_sees_what_the_attack_makes_and_that_alone():
    train, model, update = stripes(12), linear(), Recorder()
    Adversarial(ATTACK).step(scene(model, update), train.images, train.labels)
    (expected,) = [ATTACK(model, train.images, train.labels, seed=Streams(5, range(12)))]
    assert [len(inputs) for inputs in update.inputs] == [1]
    np.testing.assert_array_equal(update.inputs[0][0], expected)


class Averaged(training.Standard):
    def losses(self, model, labels, x):
        return ops.cross_entropy(logits := model(x), labels), logits


def test_one_loss_for_all_is_refused():
    with pytest.raises(ValueError, match=r"losses must return one loss for each example, of shape \(8,\)"):
        fit(linear(), stripes(8), method=Averaged())


def test_fit_with_an_attack_is_adversarial_training():
    one, other = linear(), linear()
    fit(one, stripes(40), attack=ATTACK)
    fit(other, stripes(40), method=Adversarial(ATTACK))
    assert weights(one) == weights(other)
    with pytest.raises(ValueError, match="give only one of the two"):
        fit(one, stripes(40), attack=ATTACK, method=Standard())


def test_crafting_in_evaluation_mode_leaves_the_running_statistics_alone_and_in_training_mode_moves_them():
    train = stripes(12)
    for crafting, moved in ("eval", False), ("train", True):
        model = with_modes().train()
        before = weights(model)
        Adversarial(ATTACK, crafting=crafting).step(scene(model, Recorder()), train.images, train.labels)
        assert (weights(model) != before) == moved
        assert all(module.training for _, module in model.named_modules())


def test_crafting_in_training_mode_takes_the_batch_as_a_whole():
    """One step of FGSM is one batch of statistics, and not one for each shard."""
    train, model = stripes(60), with_modes().train()
    conv, norm = model.layers[:2]
    expected = 0.1 * conv(Tensor(train.images)).data.mean(axis=(0, 2, 3))
    Adversarial(FGSM(0.1), crafting="train").step(scene(model, Recorder(), count=60), train.images, train.labels)
    assert norm.num_batches_tracked == 1
    np.testing.assert_allclose(norm.running_mean, expected, rtol=1e-4)


@given(share=st.floats(0, 0.99), seed=st.integers(0, 100))
def test_label_smoothing_is_the_cross_entropy_of_smoothed_labels(share, seed):
    train, model = stripes(12, seed), linear(seed)
    losses, logits = Standard(label_smoothing=share).losses(model, train.labels, Tensor(train.images))
    targets = (1 - share) * np.eye(3)[train.labels] + share / 3
    np.testing.assert_allclose(losses.data, -(targets * log_softmax(logits.data)).sum(axis=1), rtol=1e-5, atol=1e-6)


@given(weight=st.floats(0, 1), seed=st.integers(0, 100))
def test_mixed_training_weighs_both_losses(weight, seed):
    train, model = stripes(12, seed), linear(seed)
    x, x_adv = Tensor(train.images), Tensor(1 - train.images)
    losses, logits = Mixed(ATTACK, clean_weight=weight).losses(model, train.labels, x, x_adv)
    clean, attacked = (ops.cross_entropy(model(each), train.labels, "none").data for each in (x, x_adv))
    np.testing.assert_allclose(losses.data, weight * clean + (1 - weight) * attacked, rtol=1e-5)
    np.testing.assert_array_equal(logits.data, model(x_adv).data)


@given(beta=st.floats(0, 10), seed=st.integers(0, 100))
def test_trades_adds_beta_times_the_divergence(beta, seed):
    train, model = stripes(12, seed), linear(seed)
    losses, _ = TRADES(0.1, beta=beta).losses(model, train.labels, Tensor(train.images), Tensor(1 - train.images))
    clean, attacked = (log_softmax(logits_of(model, x)) for x in (train.images, 1 - train.images))
    divergence = (np.exp(clean) * (clean - attacked)).sum(axis=1)
    expected = -clean[np.arange(12), train.labels] + beta * divergence
    np.testing.assert_allclose(losses.data, expected, rtol=1e-4, atol=1e-5)


def test_trades_attacks_the_divergence_and_needs_no_labels():
    train, model = stripes(50), linear()
    found = []
    for labels in (train.labels, (train.labels + 1) % 3):
        update = Recorder()
        TRADES(0.1, steps=10).step(scene(model, update, count=50), train.images, labels)
        found.append(update.inputs[0][1])
    np.testing.assert_array_equal(*found)
    clean, attacked = log_softmax(logits_of(model, train.images)), log_softmax(logits_of(model, found[0]))
    rng = np.random.default_rng(0)
    anywhere = np.clip(train.images + rng.uniform(-0.1, 0.1, train.images.shape), 0, 1).astype(np.float32)
    random = log_softmax(logits_of(model, anywhere))
    reached, drawn = ((np.exp(clean) * (clean - other)).sum(axis=1) for other in (attacked, random))
    assert (reached > drawn).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fast_trains_on_one_step_of_a_quarter_more_than_eps_from_a_random_point_even_if_that_is_worse(norm):
    model, train, update = linear(), stripes(12), Recorder()
    low, high = bounds = (-1.0, 2.0)
    Fast(0.3, norm, bounds, label_smoothing=0.1).step(scene(model, update), train.images, train.labels)
    ball = ball_class(norm)(train.images, 0.3, bounds)
    start = ball.random(scene(model, update).streams)
    slope = driver.input_gradients(model, start, train.labels)
    np.testing.assert_allclose(update.inputs[0][0], ball.project(start + 0.375 * ball.steepest(slope)), atol=1e-6)
    assert Fast(0.3, norm, bounds).watch == PGD(0.3, steps=10, norm=norm, bounds=bounds)
    assert low <= update.inputs[0][0].min() < 0 < 1 < update.inputs[0][0].max() <= high


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nfgsm_trains_on_one_step_of_eps_from_noise_of_twice_eps_and_stays_there(norm):
    model, train, update = linear(), stripes(12), Recorder()
    NFGSM(0.2, norm).step(scene(model, update), train.images, train.labels)
    start = ball_class(norm)(train.images, 0.4, (0.0, 1.0)).random(scene(model, update).streams)
    slope = driver.input_gradients(model, start, train.labels)
    ball = ball_class(norm)(train.images, 0.6, (0.0, 1.0))
    np.testing.assert_allclose(update.inputs[0][0], np.clip(start + 0.2 * ball.steepest(slope), 0, 1), atol=1e-6)
    difference = (update.inputs[0][0] - train.images).reshape(12, -1)
    assert (abs(difference).max(axis=1) if norm == "linf" else np.linalg.norm(difference, axis=1)).max() > 0.2
    assert NFGSM(0.2, norm).watch == PGD(0.2, steps=10, norm=norm)


def test_free_updates_the_weights_in_every_replay_and_goes_on_from_the_last_perturbation():
    train, update, memory = stripes(12), Recorder(), {}
    Free(0.4, replays=3).step(scene(linear(), update, memory=memory), train.images, train.labels)
    np.testing.assert_array_equal(update.inputs[0], train.images)  # the first perturbation is zero
    assert len(update.inputs) == 3
    later = stripes(7, seed=1)
    Free(0.4, replays=1).step(scene(linear(), update, memory=memory), later.images, later.labels)
    np.testing.assert_allclose(update.inputs[3], np.minimum(later.images + 0.4, 1), atol=1e-6)  # the slope is 1
    assert len(memory["perturbation"]) == 12


def test_a_scaled_attack_of_less_than_one_pixel_has_none():
    """So that a ramp of the budget gives no warnings; 1 / 49 * 49 is a little less than 1."""
    attack, x = PGD(49, norm="l0", steps=3), np.full((1, 1, 7, 7), 0.5, np.float32)
    weak = [attack.scaled(strength) for strength in (0.02, 1 / 49, 0.5)]
    assert [each.eps for each in weak] == [0, 1, 24.5]
    with pytest.raises(ValueError, match="eps must be a number"):
        attack.scaled(-1)
    found = [each.run(lambda x: ops.flatten(x)[:, :2] * [1.0, -1.0], x, np.zeros(1, int)) for each in weak]
    assert [int(result.distances[0]) for result in found][:2] == [0, 1]


@given(strength=st.floats(1e-6, 1))
def test_a_scaled_attack_has_a_smaller_budget_and_steps_as_much_shorter_whatever_it_is_part_of(strength):
    attack = PGD(0.3, step_size=0.01, steps=40)
    weak = attack.scaled(strength)
    assert weak.eps == pytest.approx(0.3 * strength)
    assert weak.step_size == pytest.approx(0.01 * strength)
    assert PGD(0.3).scaled(strength).step_size is None
    surrogate = linear()
    several = MultiAttack([attack, Transfer(surrogate, attack)])
    assert several.scaled(strength) == MultiAttack([weak, Transfer(surrogate, weak)])
    assert AutoAttack(0.3).scaled(strength) == AutoAttack(weak.eps)
    with pytest.raises(ValueError, match="eps to vary"):
        DeepFool().scaled(strength)


def test_a_collapse_of_the_robust_accuracy_stops_fast_training_with_the_weights_from_before(monkeypatch):
    measured, kept = iter([0.3, 0.5, 0.45, 0.29, 0.6]), []

    def robust_accuracy(model, attack, dataset, seed):
        kept.append(weights(model))
        assert attack == PGD(0.1, steps=10)
        assert len(dataset) == 40
        return next(measured)

    monkeypatch.setattr(evaluation, "robust_accuracy", robust_accuracy)
    model = linear()
    with pytest.warns(training.CatastrophicOverfitting, match=re.escape("fell from 50.0% to 29.0% in epoch 4")) as told:
        history = fit(model, stripes(40), epochs=9, method=Fast(eps=0.1))
    assert told[0].filename == fit.__code__.co_filename  # of the call of training.fit, not of the library
    assert [epoch.robust for epoch in history] == [0.3, 0.5, 0.45, 0.29]
    assert {epoch.validation for epoch in history} == {None}  # nothing was held out
    assert weights(model) == kept[1]


def test_other_methods_are_not_watched():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(linear(), stripes(40), method=Adversarial(ATTACK))[-1].robust is None


def test_the_model_ends_as_it_was_in_the_epoch_of_the_highest_robust_accuracy(monkeypatch):
    measured, kept = iter([0.2, 0.6, 0.1]), []
    monkeypatch.setattr(evaluation, "robust_accuracy",
                        lambda model, *_, **__: kept.append(weights(model)) or next(measured))
    model = with_modes()
    fit(model, stripes(40), epochs=3, validation=stripes(9, seed=1), validation_attack=ATTACK)
    assert weights(model) == kept[1]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Adversarial(DeepFool()), "attack must be an attack with a budget eps"),
    (lambda: Adversarial("PGD"), "attack must be an attack with a budget eps, such as PGD(eps=0.3); got 'PGD'"),
    (lambda: Adversarial(ATTACK, crafting="both"), "crafting must be \"eval\" or \"train\", got 'both'"),
    (lambda: Mixed(ATTACK, clean_weight=1.5), "clean_weight must be in [0, 1], got 1.5"),
    (lambda: Standard(label_smoothing=1.0), "label_smoothing must be in [0, 1), got 1.0"),
    (lambda: Mixed(ATTACK, clean_weight="a"), "clean_weight must be in [0, 1], got 'a'"),
    (lambda: Standard(label_smoothing="a"), "label_smoothing must be in [0, 1), got 'a'"),
    (lambda: TRADES(0.3, beta=-1), "beta must be a number >= 0, got -1"),
    (lambda: TRADES(0.3, beta=np.inf), "beta must be a number >= 0, got inf"),
    (lambda: TRADES(-0.3), "eps must be a number >= 0"),
    (lambda: Free(0.3, replays=0), "replays must be an integer >= 1, got 0"),
    (lambda: Free(3, norm="l0"), "norm must not be l0"),
    (lambda: training.NFGSM(-0.1), "eps must be a number >= 0, in the units of the data, got -0.1"),
    (lambda: training.Fast("a"), "eps must be a number >= 0, in the units of the data, got 'a'"),
    (lambda: training.ramp(0), "start and until must be fractions of training, 0 <= start < until <= 1; got 0.0 and 0"),
])
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@given(start=st.floats(0, 0.5), until=st.floats(0.51, 1), progress=st.floats(0, 1))
def test_a_ramp_is_zero_then_rises_in_proportion_and_then_is_one(start, until, progress):
    expected = 0 if progress <= start else 1 if progress >= until else (progress - start) / (until - start)
    assert training.ramp(until, start)(progress) == pytest.approx(expected)


def test_the_budget_grows_with_its_schedule():
    history = fit(linear(), stripes(40), epochs=4, attack=ATTACK, batch_size=40, eps_schedule=training.ramp(0.5))
    assert [epoch.eps for epoch in history] == pytest.approx([0, 0.1, 0.2, 0.2])


def test_the_average_of_the_weights_is_what_the_model_is_in_the_end():
    seen = []

    class Recording(SGD):
        def step(self):
            super().step()
            seen.append([p.data.copy() for p in self.parameters])

    model, train = linear(), stripes(40)
    start = [p.data.copy() for p in model.parameters()]
    training.fit(model, train, epochs=2, optimizer=Recording(model, lr=0.5), batch_size=8, average=0.5)
    for index, parameter in enumerate(model.parameters()):
        mean = start[index].astype(np.float64)
        for steps, each in enumerate(seen, 1):
            decay = min(0.5, (1 + steps) / (10 + steps))
            mean = decay * mean + (1 - decay) * each[index]
        np.testing.assert_allclose(parameter.data, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [Standard(), Mixed(FGSM(0.3)), Adversarial(FGSM(0.3), crafting="train")],
                         ids=lambda method: type(method).__name__)
def test_the_statistics_of_averaged_weights_are_their_own_and_the_run_is_the_same(method, monkeypatch):
    """Those of the last weights would be of other activations: the averaged network would be worse than both."""
    train, plain, model, shown = stripes(40), with_modes(), with_modes(), []
    history = fit(plain, train, method=method, batch_size=8, seed=3)
    inputs = type(method).inputs

    def noted(self, scene, images, labels):
        shown.append(inputs(self, scene, images, labels))
        return shown[-1]

    monkeypatch.setattr(type(method), "inputs", noted)
    averaged = fit(model, train, method=method, batch_size=8, seed=3, average=0.9)
    assert [epoch.loss for epoch in averaged] == [epoch.loss for epoch in history]
    conv, norm = model.layers[:2]
    batches = [conv(Tensor(x)).data for each in shown[-5:] for x in each]
    np.testing.assert_allclose(norm.running_mean, np.mean([y.mean(axis=(0, 2, 3)) for y in batches], axis=0), atol=1e-5)
    np.testing.assert_allclose(norm.running_var, np.mean([y.var(axis=(0, 2, 3), ddof=1) for y in batches], axis=0),
                               rtol=1e-4)
    assert not np.allclose(norm.running_mean, plain.layers[1].running_mean, atol=1e-2)
    assert (norm.momentum, norm.num_batches_tracked) == (0.1, plain.layers[1].num_batches_tracked)
    assert [module.training for _, module in model.named_modules()] == [
        module.training for _, module in with_modes().named_modules()]


def test_the_statistics_of_averaged_weights_are_of_augmented_images():
    """A network that was trained on noisy images would get the statistics of clean ones."""
    def brighter(images, streams):
        return images + np.float32(5)

    train, model, moved = stripes(40), with_modes(), with_modes()
    fit(model, train, batch_size=8, seed=3, average=0.9, augment=brighter)
    fit(moved, replace(train, images=train.images + np.float32(5)), batch_size=8, seed=3, average=0.9)
    for name, array in moved.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array)


@given(limit=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_a_gradient_is_clipped_to_its_largest_norm_and_keeps_its_direction(limit, seed):
    train, steps = stripes(12, seed), {}
    for clip_norm in (None, limit):
        model = linear(seed)
        before = np.concatenate([p.data.ravel() for p in model.parameters()])
        with training.updates(model, SGD(model, lr=1.0), clip_norm) as update:
            update(train.images, train.labels)
        steps[clip_norm] = before - np.concatenate([p.data.ravel() for p in model.parameters()])
    length = np.linalg.norm(steps[None])
    np.testing.assert_allclose(steps[limit], steps[None] * min(1, limit / length), rtol=1e-3, atol=1e-6)


def test_a_model_that_is_frozen_as_a_whole_takes_steps_of_no_length():
    model = linear().freeze()
    before = weights(model)
    fit(model, stripes(20), epochs=1, clip_norm=1.0)
    assert weights(model) == before


@pytest.mark.parametrize("make", [Fast, training.NFGSM, Free, TRADES, training.Certified, training.MTLIBP,
                                  training.CCIBP, training.SABR], ids=lambda make: make.__name__)
def test_a_budget_of_0_is_a_baseline(make):
    model = linear()
    fit(model, stripes(8), epochs=1, method=make(eps=0))
    assert all(np.isfinite(parameter.data).all() for parameter in model.parameters())
