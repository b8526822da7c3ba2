"""The objectives against their formulas, written out for one example at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, gradients
from tinyadv.attacks import PGD
from tinyadv.attacks.base.objectives import OBJECTIVES, dlr, lavan, margin, objective

targeted_or_not = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def problem(seed, classes, count=6):
    """float64 logits (count, classes), labels, and targets that are other classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    return 3 * rng.normal(size=(count, classes)), y, (y + rng.integers(1, classes, count)) % classes


@targeted_or_not
@given(seed=seeds, classes=st.integers(4, 12))
def test_dlr_is_the_formula_of_the_paper(targeted, seed, classes):
    logits, y, target = problem(seed, classes)
    for z, label, goal, found in zip(logits, y, target, dlr(Tensor(logits), y, target if targeted else None).data,
                                     strict=True):
        first, _, third, fourth = sorted(z.tolist(), reverse=True)[:4]
        if targeted:
            expected = -(z[label] - z[goal]) / (first - (third + fourth) / 2)
        else:
            expected = -(z[label] - max(np.delete(z, label))) / (first - third)
        assert found == pytest.approx(expected)


@targeted_or_not
@given(seed=seeds, classes=st.integers(4, 12), scale=st.sampled_from([1e-3, 7.0, 1e4]), shift=st.floats(-50, 50))
def test_dlr_does_not_change_with_the_scale_of_the_logits(targeted, seed, classes, scale, shift):
    """Its purpose: a model cannot hide by large logits, as under the cross entropy."""
    logits, y, target = problem(seed, classes)
    goal = target if targeted else None
    scaled = dlr(Tensor(scale * logits + shift), y, goal).data
    np.testing.assert_allclose(scaled, dlr(Tensor(logits), y, goal).data, rtol=1e-6)


@given(seed=seeds, classes=st.integers(3, 8))
def test_dlr_is_positive_where_the_attack_has_succeeded_and_never_below_minus_one(seed, classes):
    logits, y, _ = problem(seed, classes, count=20)
    values = dlr(Tensor(logits), y, None).data
    np.testing.assert_array_equal(values > 0, logits.argmax(axis=1) != y)
    assert values.min() >= -1


@targeted_or_not
@given(seed=seeds)
def test_the_gradient_of_dlr_is_that_of_differences(targeted, seed):
    """The spread in its denominator counts too."""
    logits, y, target = problem(seed, 6)
    goal, step = target if targeted else None, 1e-6 * np.random.default_rng(seed).normal(size=logits.shape)
    leaf = Tensor(logits)
    (g,) = gradients(dlr(leaf, y, goal).sum(), [leaf])
    above, below = (dlr(Tensor(logits + side * step), y, goal).data for side in (1, -1))
    np.testing.assert_allclose((g * step).sum(axis=1), (above - below) / 2, rtol=1e-3, atol=1e-10)


@given(seed=seeds, classes=st.integers(2, 8))
def test_lavan_sets_the_target_against_the_true_class_alone(seed, classes):
    logits, y, target = problem(seed, classes)
    rows = np.arange(len(y))
    np.testing.assert_array_equal(lavan(Tensor(logits), y, target).data, logits[rows, target] - logits[rows, y])
    np.testing.assert_array_equal(lavan(Tensor(logits), y, None).data, margin(Tensor(logits), y, None).data)


@pytest.mark.parametrize(("classes", "targeted"), [(1, False), (2, False), (2, True), (3, True)])
def test_with_too_few_classes_dlr_is_the_margin(classes, targeted):
    logits, y = problem(1, max(classes, 2))[0][:, :classes], np.arange(6) % classes
    target = (y + 1) % classes if targeted else None
    np.testing.assert_array_equal(dlr(Tensor(logits), y, target).data, margin(Tensor(logits), y, target).data)


@targeted_or_not
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_that_are_all_the_same_give_numbers(targeted, dtype):
    for name in OBJECTIVES:
        leaf = Tensor(np.full((4, 5), 3, dtype))
        values = objective(name)(leaf, np.arange(4), np.full(4, 4) if targeted else None)
        (g,) = gradients(values.sum(), [leaf])
        assert values.dtype == g.dtype == dtype
        assert np.isfinite(values.data).all()
        assert np.isfinite(g).all()


def test_dlr_finds_what_large_logits_hide_from_the_cross_entropy():
    """Class 0 leads by 2000, where the float32 gradient of the cross entropy is 0."""
    rng = np.random.default_rng(0)
    weight, offset = rng.normal(size=(20, 4)).astype(np.float32), np.array([2, 0, 0, 0], np.float32)
    x, y = rng.random((8, 20), np.float32), np.zeros(8, int)

    def certain(points):
        return 1000 * (points @ Tensor(0.1 * weight) + offset)

    plain = PGD(0.2, steps=5, random_start=False)(certain, x, y)
    ratio = PGD(0.2, steps=5, random_start=False, loss="dlr")(certain, x, y)
    assert (plain == x).all()
    assert (ratio != x).any(axis=1).all()
    assert (margin(certain(Tensor(ratio)), y, None).data > margin(certain(Tensor(x)), y, None).data).all()


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss must be one of cross_entropy, margin, dlr, lavan; got 'hinge'"):
        objective("hinge")
