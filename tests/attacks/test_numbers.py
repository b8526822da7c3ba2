"""Numbers at the edge: NaN and infinite logits and slopes, budgets that over- or underflow, NumPy told to raise."""

import math
from functools import partial

import numpy as np
import pytest
from attack_cases import (
    ATTACKS,
    BLACK_BOX,
    NORMS,
    TinyAutoAttack,
    check_budget,
    dense,
    every_attack,
    every_attack_with_eps,
    images,
    labels,
    name,
    rows,
    shown,
    targeted_or_not,
    varied,
)

from tinyadv import driver, evaluation, ops
from tinyadv.attacks import FAB, FGSM, MIFGSM, PGD, DeepFool
from tinyadv.data import Dataset
from tinyadv.tensor import op

SHAPE = (1, 4, 4)
minimum_norm = pytest.mark.parametrize("attack", [a for a in ATTACKS if a.minimum_norm], ids=name)


def nowhere(x):
    """NaN everywhere."""
    return dense(x.shape[1:], 3)(x) * np.nan


def beyond(limit):
    """A model of NaN where the mean of an image is above the limit."""
    def model(x):
        mean = x.data.reshape(len(x), -1).mean(axis=1, keepdims=True)
        logits = dense(x.shape[1:], 3)(x) * np.where(mean > limit, np.nan, 1).astype(x.dtype)
        return logits[:, np.array([2, 1, 0])]  # argmax is 0 for NaN: that is to be another class than most images have

    return model


@every_attack
@targeted_or_not
def test_nan_is_no_success(attack, targeted):
    """Whatever class its NaN would be counted as: 0 by argmax."""
    x = images(9, SHAPE)
    for y, target in (np.zeros(9, int), 0), (np.ones(9, int), 0), (np.full(9, 2), 1):
        result = attack.run(nowhere, x, y, target=target if targeted else None, skip_misclassified=False)
        assert not result.success.any()
        assert (result.predictions == -1).all()
        assert (result.predictions_clean == -1).all()
    assert result.to_json()["accuracy"] == result.to_json()["robust_accuracy"] == 0


@every_attack
def test_an_image_that_an_attack_turns_into_nan_is_not_broken(attack):
    model, x = beyond(0.42), 0.35 + 0.1 * images(30, SHAPE)
    y = driver.logits(model, x).argmax(axis=1)
    result = attack.run(model, x, y)
    broken = ~np.isnan(driver.logits(model, result.x_adv)).any(axis=1) & (result.predictions != y)
    np.testing.assert_array_equal(result.success, broken)
    assert result.to_json()["robust_accuracy"] == pytest.approx(1 - result.success.mean())
    test = Dataset(x, y, "dark", tuple("abc"))
    assert evaluation.robust_accuracy(model, attack, test) == pytest.approx(1 - result.success.mean())


def test_accuracy_counts_nan_as_wrong():
    x = images(9, SHAPE)
    assert evaluation.accuracy(nowhere, Dataset(x, np.zeros(9, int), "noise", tuple("abc"))) == 0
    assert (evaluation.predict(nowhere, x) == -1).all()


def root(x):
    """Of every pixel, so that a black one has an infinite slope, and the class depends on the others as well."""
    return dense(x.shape[1:], 3)(x ** 0.5)


WITHIN = [a for a in ATTACKS if not isinstance(a, BLACK_BOX) and not a.minimum_norm]


@pytest.mark.parametrize("attack", [*WITHIN, DeepFool(), *(FAB(steps=9, norm=norm) for norm in NORMS)], ids=name)
def test_infinite_slopes_freeze_nothing(attack):
    """Half of the pixels are black."""
    x = images(40, SHAPE)
    x[:, :, ::2] = 0
    with np.errstate(all="ignore"):
        result = attack.run(root, x, driver.logits(root, x).argmax(axis=1))
    assert (result.x_adv != x).any(axis=(1, 2, 3)).mean() > (0.5 if attack.minimum_norm else 0.8)
    check_budget(attack, x, result.x_adv)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_the_elements_that_are_numbers_lead_the_step(norm, lost):
    """NaN is no slope. An infinite one is the steepest: it counts as the largest finite one, and the first comes first.
    """
    x, y = 0.25 + images(5, SHAPE, np.float64) / 2, np.zeros(5, int)
    weight = np.random.default_rng(0).normal(size=(2, 16))
    hole = np.arange(16).reshape(SHAPE) == 5

    @op
    def leak(x):
        return x, lambda g: np.where(hole, lost, g)

    filled = weight.copy()
    slopes = np.where(np.arange(16) == 5, 0, abs(filled[1] - filled[0]))
    largest = slopes.max() * (1 + 1e-9 * np.sign(slopes.argmax() - 5))
    filled[:, 5] = 0 if np.isnan(lost) else [0, np.sign(lost) * largest]

    def linear(weight, x):
        return ops.linear(ops.flatten(x), weight)

    for attack in FGSM(0.1, norm), PGD(0.1, steps=4, norm=norm, random_start=False), MIFGSM(0.1, norm=norm, steps=4):
        run = attack if isinstance(attack, FGSM) else partial(shown, attack)  # the best point is one by the true loss
        found, expected = run(lambda x: linear(weight, leak(x)), x, y), run(lambda x: linear(filled, x), x, y)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@every_attack
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_who_raises_at_all_of_numpys_warnings_can_attack(attack, dtype):
    model, x, y = dense(SHAPE, 5, dtype), images(9, SHAPE, dtype), labels(9)
    x[:3] = 0  # next to which is a number that is not normal
    with np.errstate(all="raise"):
        found = attack(model, x, y, workers=2, batch_size=3)
    assert found.tobytes() == attack(model, x, y, workers=2, batch_size=3).tobytes()


@every_attack
@pytest.mark.parametrize("shape", [(16,), (4, 4), (2, 2, 4, 4), (2, 1, 2, 3, 3)], ids=str)
def test_images_of_any_number_of_axes_are_attacked(attack, shape):
    model, x = dense(shape, 3, scale=4), images(6, shape)
    check_budget(attack, x, attack(model, x, driver.logits(model, x).argmax(axis=1)))


@every_attack
@pytest.mark.parametrize("options", [{}, {"target": 0}, {"skip_misclassified": True}], ids=str)
def test_a_model_of_one_logit_is_refused_by_each(attack, options):
    """And attacked in the way that the error says."""
    x, y = images(6, SHAPE), np.zeros(6, int)
    with pytest.raises(ValueError, match=r"a logit for each of two classes .* shape \(.*, 1\): .* return z \*"):
        attack.run(dense(SHAPE, 1), x, y, **options)

    def binary(x):
        z = dense(SHAPE, 1)(x)
        return z * np.array([[0, 1]], z.dtype)

    assert len(attack.run(binary, x, y, **options).success) == 6


EXTREME = [1e300, 1.7e308, 1e30, 1e5, 1e-162, 1e-308, 5e-324]


@pytest.mark.filterwarnings("ignore:eps=")  # in other units than the bounds
@pytest.mark.parametrize("eps", EXTREME)
@every_attack_with_eps
def test_extreme_budgets_are_exact(attack, eps):
    """Black images have room for the smallest perturbations, and squares of them are less than the smallest number."""
    for dtype in (np.float16, np.float32, np.float64):
        model, x = dense(SHAPE, 3, dtype), np.concatenate([np.zeros((5, *SHAPE)), images(5, SHAPE)]).astype(dtype)
        x_adv = varied(attack, eps=eps)(model, x, driver.logits(model, x).argmax(axis=1), seed=1)
        for row in rows(x_adv.astype(np.float64) - x):
            distance = {"linf": abs(row).max(), "l1": math.fsum(abs(row)), "l2": math.hypot(*row),
                        "l0": np.count_nonzero(row)}[attack.norm]
            assert distance <= eps
        assert (x_adv != x).any() or eps < (1 if attack.norm == "l0" else 1e-300) or dtype != np.float64


def test_autoattack_says_how_many_images_have_nan():
    x = images(20, SHAPE) * np.linspace(0.5, 1, 20, dtype=np.float32).reshape(-1, 1, 1, 1)
    limit = np.sort(x.mean(axis=(1, 2, 3)))[12]  # 7 images are above
    model, y = beyond(limit), np.nan_to_num(driver.logits(beyond(9), x)).argmax(axis=1)
    result = TinyAutoAttack(1e-6).run(model, x, y, skip_misclassified=True)
    assert any(text.startswith("7 of 20 images have NaN among their logits as they are") for text in result.warnings)
    assert not any("NaN" in text for text in TinyAutoAttack(1e-6).run(beyond(9), x[:3], y[:3]).warnings)


def test_sanity_checks_say_how_many_images_have_nan():
    x = images(20, SHAPE) * np.linspace(0.5, 1, 20, dtype=np.float32).reshape(-1, 1, 1, 1)
    limit = np.sort(x.mean(axis=(1, 2, 3)))[12]
    test = Dataset(x, np.nan_to_num(driver.logits(beyond(9), x)).argmax(axis=1), "noise", tuple("abc"))
    report = evaluation.sanity_checks(beyond(limit), test, eps=1e-6, steps=2)
    check = report["logits are numbers"]
    assert not check.passed
    assert check.figure == 7 + int(check.explanation.split(", ")[2].split()[0])
    assert "7 of 20 as they are" in check.explanation
    with pytest.raises(ValueError, match="none of the 20 images of noise right, and at 20 its logits are NaN"):
        evaluation.sanity_checks(nowhere, test, eps=0.1)
