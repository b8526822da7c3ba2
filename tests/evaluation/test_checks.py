"""Sanity checks: a healthy model passes, and each kind of masking fails where it should."""

import numpy as np
import pytest
from attack_cases import cnn, dense, images, on_device, predictions

from tinyadv import Tensor, evaluation, nn, ops
from tinyadv.attacks import FGSM, PGD
from tinyadv.data import Dataset
from tinyadv.tensor import op

SHAPE = (1, 8, 8)
HEALTHY = dense(SHAPE, 5)
NAMES = ["gradients", "iterated beats single-step", "a larger eps never helps", "unbounded reaches zero",
         "more steps never help", "random starts agree", "white box beats black box"]


def dataset(model, count=60):
    x = images(count, SHAPE)
    return Dataset(x, predictions(model, x), "noise", tuple("abcde"))


def check(model, eps=0.02, steps=8, **options):
    report = evaluation.sanity_checks(model, dataset(HEALTHY), eps=eps, steps=steps, **options)
    return report, {check.name for check in report.checks if not check.passed}


@pytest.mark.parametrize(("norm", "eps", "steps"), [("linf", 0.02, 8), ("l2", 0.2, 8), ("l1", 1.0, 40)])
def test_a_healthy_model_passes(norm, eps, steps):
    report, failed = check(HEALTHY, eps, steps, norm=norm)
    assert not failed
    assert report.passed
    report.require()
    assert [check.name for check in report.checks] == (NAMES if norm != "l1" else NAMES[:-1])


def test_half_a_pixel_is_no_budget_and_no_mistake():
    check(HEALTHY, 1, norm="l0")  # pytest makes warnings errors


def scaled(x):
    """Logits so large that the softmax is exactly 0 and 1, and the cross entropy flat."""
    return HEALTHY(x) * np.float32(1e6)


def flat(x):
    """The right logits, by a way that has no gradient."""
    return Tensor(HEALTHY(Tensor(x.data)).data) + ops.flatten(x)[:, :5] * 0.0


@pytest.mark.parametrize("model", [scaled, flat])
def test_a_masked_gradient_fails(model):
    report, failed = check(model)
    assert {"gradients", "unbounded reaches zero", "white box beats black box"} <= failed
    assert report["gradients"].figure > 0.9
    assert not report.passed
    with pytest.raises(ValueError, match="FAILED  gradients"):
        report.require()


@op
def wave(x):
    return np.sin(x), lambda g: g * np.cos(x)


def shattered(x):
    """Wrong in many thin stripes, which the gradient at one point says nothing of: what is found there is luck."""
    stripes = ops.relu(wave(ops.flatten(x).sum(axis=1, keepdims=True) * 500.0) - 0.9) * 1e3
    right = np.eye(5, dtype=np.float32)[predictions(HEALTHY, images(60, SHAPE))]
    own = (abs(x.data.reshape(len(x), 1, 64) - images(60, SHAPE).reshape(1, 60, 64)).max(axis=2) < 0.1).argmax(axis=1)
    return right[own] - right[own] * stripes


def test_random_starts_disagree_on_a_shattered_gradient():
    test = dataset(HEALTHY)
    test = test[predictions(shattered, test.images) == test.labels]
    report = evaluation.sanity_checks(shattered, test, eps=0.02, steps=2)
    assert not report["random starts agree"].passed
    assert not report["more steps never help"].figure > 0


def test_gradients_that_are_no_numbers_or_all_the_same_fail():
    weights = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)

    def lost(x):
        return HEALTHY(x) + (ops.flatten(x)[:, :5] * 0.0) ** 0.5

    class Same(nn.Module):
        """The gradient of the loss is one and the same for all images."""

        def forward(self, x):
            right = np.eye(5, dtype=np.float32)[predictions(HEALTHY, x.data)]
            return ops.linear(ops.flatten(x), weights * 0) + (right + ops.flatten(x)[:, :1] * right * 0.0)

    assert "gradients" in check(Same())[1]
    with np.errstate(all="ignore"):
        assert "gradients" in check(lost)[1]


def test_the_figures_are_what_they_say():
    report, _ = check(HEALTHY, 0.03, seed=5, workers=1)
    test = dataset(HEALTHY)
    x, y = test.images, test.labels

    def left(attack, seed=5):
        return 1 - attack.run(HEALTHY, x, y, seed=seed).success.mean()

    robust, single = left(PGD(0.03, steps=8)), left(FGSM(0.03))
    assert 0 < robust < 1
    assert report["iterated beats single-step"].figure == pytest.approx(robust - single)
    rises = robust - left(PGD(0.015, steps=8)), left(PGD(0.06, steps=8)) - robust
    assert report["a larger eps never helps"].figure == pytest.approx(max(rises))
    assert report["more steps never help"].figure == pytest.approx(left(PGD(0.03, steps=40)) - robust)
    assert report["unbounded reaches zero"].figure == 0
    starts = np.array([PGD(0.03, steps=8).run(HEALTHY, x, y, seed=seed).success for seed in (5, 6, 7)])
    assert report["random starts agree"].figure == pytest.approx((starts.any(axis=0) & ~starts.all(axis=0)).mean())
    assert "FGSM" in str(report)
    passed = sum(check.passed for check in report.checks)
    assert str(report).startswith(f"60 images of noise, linf eps=0.03: {passed} of 7 passed")


def test_only_images_that_the_model_gets_right_are_attacked():
    test = dataset(HEALTHY)
    wrong = np.where(np.arange(60) < 40, (test.labels + 1) % 5, test.labels)
    half = Dataset(test.images, wrong, "half", test.classes)
    assert str(evaluation.sanity_checks(HEALTHY, half, eps=0.02, steps=2)).startswith("20 images of half")
    with pytest.raises(ValueError, match="the model gets none of the 60 images of noise right"):
        evaluation.sanity_checks(HEALTHY, Dataset(test.images, (test.labels + 1) % 5, "noise", test.classes), eps=0.1)


def test_the_model_may_lie_elsewhere_and_is_left_as_it_was(xp):
    model = on_device(cnn(), xp)
    flags = [module.training for _, module in model.named_modules()]
    test = Dataset(images(9), predictions(cnn(), images(9)), "noise", tuple("abcde"))
    report = evaluation.sanity_checks(model, test, eps=0.02, steps=2)
    expected = evaluation.sanity_checks(cnn(), test, eps=0.02, steps=2)
    assert [check.figure for check in report.checks] == [check.figure for check in expected.checks]
    assert [module.training for _, module in model.named_modules()] == flags


def test_images_in_place_of_a_data_set_are_told():
    with pytest.raises(TypeError, match="dataset must be"):
        evaluation.sanity_checks(HEALTHY, images(3), eps=0.1)


def test_labels_that_are_no_classes_are_told():
    """Not left out as wrong: shifted labels are what a check is for."""
    few = dataset(HEALTHY, 12)
    shifted = Dataset(few.images, few.labels + 1, "shifted")
    shifted.labels[0] = 5
    with pytest.raises(ValueError, match=r"sanity_checks: labels must lie in \[0, 5\)"):
        evaluation.sanity_checks(HEALTHY, shifted, eps=0.02)
