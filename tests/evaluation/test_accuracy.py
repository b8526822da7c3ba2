import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from attack_cases import dense, every_attack_with_eps, images, predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import evaluation, nn
from tinyadv.attacks import BIM, FGSM, PGD, Attack, CarliniWagner, DeepFool, MultiAttack, Transfer
from tinyadv.data import Dataset

CLASSES = ("a", "b", "c", "d")
BUDGETS = [0.5, 0.125, 0.25]


def pixels(x):
    """A model whose logits are the four pixels of an image."""
    return x.flatten()


def dataset(n, seed=0):
    """Images of four pixels; about half of the labels are the brightest one."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, 4, 1, 1), dtype=np.float32)
    brightest = images.reshape(n, 4).argmax(axis=1)
    labels = np.where(rng.random(n) < 0.4, rng.integers(0, 4, n), brightest)
    return Dataset(images, labels, "pixels-test", CLASSES)


def network(seed=0):
    """With dropout, whose mode must be off, and enough rounding to tell batch sizes apart."""
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 50, rng=rng), nn.Tanh(), nn.Dropout(0.9),
                         nn.Linear(50, 4, rng=rng))


@dataclass(frozen=True)
class Random(Attack):
    eps: float

    def perturb(self, batch):
        return batch.ball.random(batch.streams)


@dataclass(frozen=True)
class Helpful(Attack):
    """An attack that lets the model classify everything correctly."""

    def perturb(self, batch):
        return np.eye(4, dtype=np.float32)[batch.y].reshape(batch.x.shape)


data_sets = st.builds(dataset, st.integers(1, 30), st.integers(0, 1000))
seeds = st.integers(0, 99)
budgets = st.integers(0, 16).map(lambda k: k / 16)
fgsm = st.builds(FGSM, eps=budgets, norm=st.sampled_from(["linf", "l2", "l1"]))
attacks = fgsm | st.builds(Random, eps=budgets)


@given(test=data_sets)
def test_accuracy_is_the_fraction_of_right_answers(test):
    hits = 0
    for image, label in zip(test.images, test.labels, strict=True):
        hits += max(range(4), key=lambda k, image=image: image[k, 0, 0]) == label
    assert evaluation.accuracy(pixels, test) == hits / len(test)


@given(test=data_sets)
def test_predictions_are_the_classes_of_the_highest_logits_as_integers(test):
    predictions = evaluation.predict(pixels, test.images)
    assert predictions.tolist() == test.images.reshape(-1, 4).argmax(axis=1).tolist()
    assert predictions.dtype == np.int64


@given(test=data_sets, attack=attacks, batch_size=st.integers(1, 40), workers=st.integers(1, 3), seed=seeds)
def test_no_accuracy_depends_on_batch_size_or_workers(test, attack, batch_size, workers, seed):
    model, options = network(seed), {"batch_size": batch_size, "workers": workers}
    assert evaluation.accuracy(model, test, **options) == evaluation.accuracy(model, test)
    assert (evaluation.robust_accuracy(model, attack, test, seed=seed, **options)
            == evaluation.robust_accuracy(model, attack, test, seed=seed))


@given(test=data_sets, attack=attacks, seed=seeds)
def test_robust_accuracy_is_the_fraction_that_is_right_before_and_after_the_attack(test, attack, seed):
    for model in (pixels, network(seed)):
        robust = evaluation.robust_accuracy(model, attack, test, seed=seed)
        x_adv = attack(model, test.images, test.labels, seed=seed)
        before, after = (evaluation.predict(model, x) == test.labels for x in (test.images, x_adv))
        assert robust == (before & after).mean()
        assert robust <= evaluation.accuracy(model, test)


@given(test=data_sets)
def test_an_attack_cannot_mend_what_is_wrong_without_it(test):
    assert (evaluation.predict(pixels, Helpful()(pixels, test.images, test.labels)) == test.labels).all()
    assert evaluation.robust_accuracy(pixels, Helpful(), test) == evaluation.accuracy(pixels, test)


def test_robust_accuracy_depends_on_the_seed_of_a_random_attack():
    test = dataset(200)
    found = [evaluation.robust_accuracy(pixels, Random(eps=0.3), test, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    assert len(set(found)) > 1


def test_the_target_of_an_attack_is_passed_on():
    test, attack = dataset(50), FGSM(eps=0.2)
    target = (test.labels + 1) % 4
    x_adv = attack(pixels, test.images, test.labels, target=target)
    before, after = (evaluation.predict(pixels, x) == test.labels for x in (test.images, x_adv))
    robust = evaluation.robust_accuracy(pixels, attack, test, target=target)
    assert robust == (before & after).mean()
    assert robust > evaluation.robust_accuracy(pixels, attack, test)


def held(model, attack, test, **options):
    """(N,) bool: right before and after the attack."""
    x_adv = attack(model, test.images, test.labels, skip_misclassified=True, **options)
    before, after = (evaluation.predict(model, x) == test.labels for x in (test.images, x_adv))
    return before & after


@settings(max_examples=20)
@given(test=data_sets, epsilons=st.lists(budgets, max_size=4), seed=seeds, attack=attacks)
def test_an_epsilon_curve_counts_what_no_budget_up_to_eps_has_broken_in_the_order_given(test, epsilons, seed, attack):
    for model in (pixels, network(seed)):
        curve = evaluation.epsilon_curve(model, attack, test, epsilons, seed=seed)
        assert list(curve) == list(dict.fromkeys(epsilons))
        whole = {eps: held(model, replace(attack, eps=eps), test, seed=seed) for eps in curve}
        for eps, accuracy in curve.items():
            assert accuracy == np.all([whole[smaller] for smaller in curve if smaller <= eps], axis=0).mean()
        assert [curve[eps] for eps in sorted(curve)] == sorted(curve.values(), reverse=True)


@pytest.mark.filterwarnings("ignore:eps=.* is less than one pixel")
@every_attack_with_eps
def test_every_attack_with_a_budget_has_an_epsilon_curve(attack):
    model, x = dense((1, 4, 4), 5, np.float64), images(12, (1, 4, 4))
    test = Dataset(x, np.where(np.arange(12) % 4, predictions(model, x), 0), "dense-test", tuple("abcde"))
    curve = evaluation.epsilon_curve(model, attack, test, [0.4, 0, 0.1], seed=1)
    whole = [held(model, attack.with_eps(eps), test, seed=1) for eps in (0, 0.1, 0.4)]
    assert [curve[eps] for eps in (0, 0.1, 0.4)] == [np.all(whole[:k], axis=0).mean() for k in (1, 2, 3)]


def test_a_curve_may_begin_below_one_pixel_but_not_end_there():
    model, x, attack = dense((1, 4, 4), 5), images(12, (1, 4, 4)), PGD(4, steps=2, norm="l0")
    test = Dataset(x, predictions(model, x), "dense-test", tuple("abcde"))
    curve = evaluation.epsilon_curve(model, attack, test, [0, 0.5, 3])
    assert curve[0] == curve[0.5] == 1 > curve[3]
    with pytest.warns(UserWarning, match="eps=0.5 is less than one pixel"):
        assert evaluation.epsilon_curve(model, attack, test, [0, 0.5]) == {0: 1, 0.5: 1}


@settings(max_examples=15)
@given(test=data_sets, seed=seeds)
def test_a_curve_passes_its_options_and_the_targets_of_those_that_are_left_on(test, seed):
    model, attack, target = network(seed), PGD(eps=1.0, steps=2), (test.labels + 1) % 4
    for goal in (target, 2):
        curve = evaluation.epsilon_curve(model, attack, test, [0.5, 0.25], target=goal, batch_size=3, seed=seed)
        smaller, larger = (held(model, replace(attack, eps=eps), test, target=goal, seed=seed) for eps in (0.25, 0.5))
        assert curve == {0.5: (smaller & larger).mean(), 0.25: smaller.mean()}


@given(data_sets, st.lists(budgets, min_size=1, max_size=4, unique=True), seeds, attacks)
def test_the_images_of_an_epsilon_curve_are_within_each_budget_and_leave_its_accuracy(test, epsilons, seed, attack):
    before = test.images.copy()
    curve, found = evaluation.epsilon_curve(pixels, attack, test, epsilons, seed=seed, return_images=True)
    assert curve == evaluation.epsilon_curve(pixels, attack, test, epsilons, seed=seed)
    assert list(found) == list(curve)
    right = evaluation.predict(pixels, test.images) == test.labels
    for eps, x_adv in found.items():
        assert evaluation.validate(x_adv, test.images, eps=eps, norm=attack.norm).passed
        np.testing.assert_array_equal(x_adv[~right], test.images[~right])
        assert (right & (evaluation.predict(pixels, x_adv) == test.labels)).mean() == curve[eps]
    np.testing.assert_array_equal(test.images, before)


def test_an_epsilon_curve_shows_the_model_only_what_is_right_still():
    test, shown = dataset(60), []

    def counted(x):
        shown.append(len(x))
        return pixels(x)

    epsilons, shown_at = [0.3, 0.0, 0.9, 0.1, 0.6], []
    for count in range(1, 6):
        shown.clear()
        curve = evaluation.epsilon_curve(counted, BIM(eps=0, steps=1), test, sorted(epsilons)[:count], batch_size=60)
        shown_at.append(sum(shown))
    clean, *left = (round(60 * fraction) for fraction in (evaluation.accuracy(pixels, test), *curve.values()))
    # An image as it is, and if it is right then for the gradient, and after the step.
    assert np.diff([0, *shown_at]).tolist() == [60 + 2 * clean, *(3 * count for count in left[:-1])]
    assert len(set(left)) > 2
    shown.clear()
    assert evaluation.epsilon_curve(counted, BIM(eps=0, steps=1), test, epsilons, batch_size=60) == curve
    assert sum(shown) == shown_at[-1]


@settings(max_examples=15)
@given(test=data_sets, attack=attacks, seed=seeds)
def test_the_curve_of_a_composite_gives_every_attack_inside_it_the_same_budget(test, attack, seed):
    model, surrogate = network(seed), network(seed + 1)
    several = MultiAttack([attack, Transfer(surrogate, MultiAttack([attack, attack]))])
    assert evaluation.epsilon_curve(model, MultiAttack([attack]), test, BUDGETS, seed=seed) == (
        evaluation.epsilon_curve(model, attack, test, BUDGETS, seed=seed))
    curve = evaluation.epsilon_curve(model, several, test, BUDGETS, seed=seed)
    assert several.with_eps(0.5) == MultiAttack([replace(attack, eps=0.5), Transfer(surrogate, MultiAttack(
        [replace(attack, eps=0.5)] * 2))])
    alone = np.all([held(model, replace(several.attacks[0], eps=eps), test, seed=seed) for eps in BUDGETS], axis=0)
    assert curve[max(BUDGETS)] <= alone.mean()


@settings(max_examples=15)
@given(test=data_sets, epsilons=st.lists(budgets, max_size=5), seed=seeds, targeted=st.booleans())
def test_a_security_curve_counts_the_distances_of_one_run(test, epsilons, seed, targeted):
    model, attack = network(seed), DeepFool(steps=4)
    target = (test.labels + 1) % 4 if targeted else None
    curve = evaluation.security_curve(model, attack, test, [*epsilons, math.inf], seed=seed, target=target)
    result = attack.run(model, test.images, test.labels, seed=seed, target=target)
    broken_at = [0 if before != label else distance if after != label else math.inf for before, after, distance, label
                 in zip(result.predictions_clean, result.predictions, result.distances, test.labels, strict=True)]
    right = evaluation.predict(model, test.images) == test.labels
    assert list(curve) == list(dict.fromkeys([*epsilons, math.inf]))
    for eps, fraction in curve.items():
        assert fraction == np.mean([was and (at == math.inf or at > eps)
                                    for was, at in zip(right, broken_at, strict=True)])
    assert [curve[eps] for eps in sorted(curve)] == sorted(curve.values(), reverse=True)
    assert curve[math.inf] == evaluation.robust_accuracy(model, attack, test, seed=seed, target=target)
    assert evaluation.security_curve(model, attack, test, [0], seed=seed) == {0: evaluation.accuracy(model, test)}


@given(test=data_sets, attack=attacks)
def test_an_epsilon_curve_starts_from_the_clean_accuracy_at_0(test, attack):
    assert evaluation.epsilon_curve(pixels, attack, test, [0]) == {0.0: evaluation.accuracy(pixels, test)}


def test_the_model_is_in_evaluation_mode_and_its_flags_stay():
    model, test = network(), dataset(50)
    model.layers[2].training = False
    flags = [module.training for _, module in model.named_modules()]
    first, second = (evaluation.epsilon_curve(model, FGSM(eps=0.1), test, [0, 0.1]) for _ in range(2))
    assert first == second  # dropout would draw another mask
    assert first[0] == evaluation.accuracy(model, test) == evaluation.accuracy(model, test)
    assert [module.training for _, module in model.named_modules()] == flags
    assert True in flags


def test_the_model_may_lie_on_a_device(xp, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))
    model, moved, test = network(), network().to("the device of xp"), dataset(40)
    assert isinstance(evaluation.predict(moved, test.images), np.ndarray)
    assert evaluation.accuracy(moved, test) == evaluation.accuracy(model, test)
    curves = [evaluation.epsilon_curve(each, FGSM(eps=0.1), test, [0, 0.1, 0.3]) for each in (model, moved)]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("measure", [
    evaluation.accuracy,
    lambda model, test: evaluation.security_curve(model, DeepFool(), test, [0.1]),
    lambda model, test: evaluation.robust_accuracy(model, FGSM(eps=0.1), test),
    lambda model, test: evaluation.epsilon_curve(model, FGSM(eps=0.1), test, [0.1]),
])
def test_an_empty_data_set_has_no_accuracy(measure):
    with pytest.raises(ValueError, match="dataset must hold at least one image, but pixels-test is empty"):
        measure(pixels, dataset(0))


def test_a_label_that_is_no_class_of_the_model_has_no_accuracy():
    with pytest.raises(ValueError, match=r"accuracy: labels must lie in \[0, 4\), the classes of the logits"):
        evaluation.accuracy(pixels, Dataset(dataset(2).images, np.array([0, 4]), "pixels"))


def never(x):
    raise AssertionError("the model was asked before the arguments were checked")


def test_an_attack_without_eps_has_no_epsilon_curve():
    with pytest.raises(ValueError, match=re.escape("attack must have an eps to vary, got Helpful(")):
        evaluation.epsilon_curve(never, Helpful(), dataset(3), [0.1])


def test_every_eps_is_checked_before_the_first_attack_runs():
    with pytest.raises(ValueError, match=r"eps must be a number >= 0, in the units of the data, got -1\.0"):
        evaluation.epsilon_curve(never, FGSM(eps=0.1), dataset(3), [0.1, -1])


@pytest.mark.parametrize("attack", [DeepFool(), MultiAttack([DeepFool(), CarliniWagner()])])
def test_an_attack_of_minimum_norm_is_referred_to_its_own_curve(attack):
    message = re.escape(f"got {attack}, a minimum-norm attack: use security_curve")
    with pytest.raises(ValueError, match=message):
        evaluation.epsilon_curve(never, attack, dataset(3), [0.1])


def test_a_security_curve_is_of_an_attack_of_minimum_norm_and_budgets_that_are_numbers():
    with pytest.raises(ValueError, match=r"minimum-norm attack, got FGSM\(eps=0.1\), whose budget is fixed: use"):
        evaluation.security_curve(never, FGSM(eps=0.1), dataset(3), [0.1])
    for eps in (-0.1, math.nan):
        message = re.escape(f"epsilons must be numbers >= 0, in the units of the data, got [0, {eps}]")
        with pytest.raises(ValueError, match=message):
            evaluation.security_curve(never, DeepFool(), dataset(3), [0, eps])


@pytest.mark.parametrize("target", [[1, 2, 0], (1, 2, 0), np.array([1, 2, 0], np.uint8), 1, None])
def test_a_target_is_given_to_a_curve_as_to_an_accuracy(target):
    model, attack, x = dense((1, 3, 3), 3), FGSM(0.1), images(3, (1, 3, 3))
    dataset = Dataset(x, predictions(model, x), "x", tuple("abc"))
    assert evaluation.epsilon_curve(model, attack, dataset, [0.1], target=target) == {
        0.1: evaluation.robust_accuracy(model, attack, dataset, target=target)}


def test_budgets_are_a_list_or_come_one_by_one():
    model, x = dense((1, 3, 3), 3), images(3, (1, 3, 3))
    dataset = Dataset(x, predictions(model, x), "x", tuple("abc"))
    for curve, attack in ((evaluation.epsilon_curve, FGSM(0.1)), (evaluation.security_curve, DeepFool(steps=2))):
        assert list(curve(model, attack, dataset, (eps for eps in (0.1, 0.2)))) == [0.1, 0.2]
        with pytest.raises(TypeError, match="epsilons must be a list of budgets"):
            curve(model, attack, dataset, 0.3)


def test_a_curve_of_several_budgets_has_no_one_state(tmp_path):
    x = images(3)
    model, test = dense(x.shape[1:], 3), Dataset(x.astype(np.float32), np.zeros(3, int))
    with pytest.raises(ValueError, match="state must be the file of one run, and each eps is one"):
        evaluation.epsilon_curve(model, MultiAttack([PGD(0.1, steps=2)]), test, [0.1, 0.2], state=tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()
