"""FGSM where its result can be written down: on linear models, where one step of steepest ascent is the best attack."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, driver, gradients, models, nn, ops
from tinyadv.attacks import FGSM, least_likely_class
from tinyadv.attacks.base.balls import LinfBall

every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}  # the order of the dual norm
SHAPE = (1, 4, 5)


def linear(weight, bias=None):
    return lambda x: ops.linear(ops.flatten(x), Tensor(weight), bias)


def problem(seed, classes, count=6):
    """A float64 linear model, images in the middle half of [0, 1], and labels."""
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(classes, math.prod(SHAPE))), 0.25 + rng.random((count, *SHAPE)) / 2
    return weight, linear(weight), x, rng.integers(0, classes, count)


def loss(model, x, y):
    return ops.cross_entropy(model(Tensor(x)), y, "none").data


@every_norm
@given(seed=seeds, eps=st.sampled_from([1e-4, 8 / 255, 0.25]), targeted=st.booleans())
def test_of_two_classes_it_moves_the_margin_by_all_that_the_budget_allows(norm, seed, eps, targeted):
    """By eps times the dual norm of the difference of the weights, which no other point of the ball exceeds."""
    weight, model, x, y = problem(seed, classes=2)
    x_adv = FGSM(eps, norm)(model, x, y, target=1 - y if targeted else None)
    difference = np.where(y[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1])
    gain = ((x_adv - x).reshape(len(x), -1) * difference).sum(axis=1)
    np.testing.assert_allclose(gain, eps * np.linalg.norm(difference, ord=DUAL[norm], axis=1), rtol=1e-6)
    assert (loss(model, x_adv, y) > loss(model, x, y)).all()


@every_norm
@given(seed=seeds)
def test_no_corner_of_the_box_or_random_point_is_worse_for_two_classes(norm, seed):
    _, model, x, y = problem(seed, classes=2, count=1)
    reached = loss(model, FGSM(0.1, norm)(model, x, y), y)
    others = np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], (500, *SHAPE))
    sizes = np.linalg.norm(others.reshape(500, -1), ord={"linf": math.inf, "l2": 2, "l1": 1}[norm], axis=1)
    others = x + 0.1 * others / np.maximum(sizes, 1).reshape(-1, 1, 1, 1)
    assert loss(model, others, np.repeat(y, 500)).max() <= reached * (1 + 1e-9)


@given(seed=seeds, eps=st.sampled_from([0.3, 3.0, 8.0, 5000.0]))
def test_in_l1_it_is_the_best_point_of_the_ball_and_the_bounds_for_two_classes(seed, eps):
    """Where many pixels are full: by the dual of that linear program, as in the tests of the balls."""
    weight, model, x, y = problem(seed, classes=2)
    x_adv = FGSM(eps, "l1")(model, x, y)
    slope = np.where(y[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1])
    room = np.where(slope > 0, 1 - x.reshape(len(x), -1), x.reshape(len(x), -1))
    prices = np.pad(abs(slope), ((0, 0), (1, 0)))[:, :, None]  # t, for each pixel's slope
    limits = prices[..., 0] * eps + (np.maximum(abs(slope)[:, None] - prices, 0) * room[:, None]).sum(axis=2)
    gain = ((x_adv - x).reshape(len(x), -1) * slope).sum(axis=1)
    np.testing.assert_allclose(gain, limits.min(axis=1), rtol=1e-6)


@given(seed=seeds)
def test_without_a_limit_every_pixel_goes_to_its_bound_in_l1_as_in_linf(seed):
    _, model, x, y = problem(seed, classes=3)
    assert FGSM(5000, "l1")(model, x, y).tobytes() == FGSM(1, "linf")(model, x, y).tobytes()


@given(seed=seeds, eps=st.sampled_from([8 / 255, 0.3, 0.9]), dtype=st.sampled_from([np.float32, np.float64]))
def test_the_formulas_of_the_papers(seed, eps, dtype):
    """clip(x + eps * sign(grad CE(y))), and clip(x - eps * sign(grad CE(target))), up to the rounding of the box."""
    weight, _, x, y = problem(seed, classes=4)
    x, model, target = x.astype(dtype), linear(weight.astype(dtype)), (y + 1) % 4
    for classes, sign, options in [(y, 1, {}), (target, -1, {"target": target})]:
        leaf = Tensor(x)
        (g,) = gradients(ops.cross_entropy(model(leaf), classes, "sum"), [leaf])
        formula = np.clip(x + sign * dtype(eps) * np.sign(g), 0, 1)
        found = FGSM(eps)(model, x, y, **options)
        assert found.tobytes() == LinfBall(x, eps, (0, 1)).project(formula).tobytes()
        np.testing.assert_allclose(found, formula, rtol=0, atol=np.finfo(dtype).eps)


@every_norm
def test_where_the_gradient_is_zero_nothing_moves(norm):
    """Whole images, and for linf single pixels: those with weight 0 here."""
    weight, _, x, y = problem(1, classes=3)
    weight[:, ::2] = 0
    moved = FGSM(0.1, norm)(linear(weight), x, y) != x
    assert moved.any()
    assert not moved.reshape(len(x), -1)[:, ::2].any()
    assert FGSM(0.1, norm)(linear(0 * weight), x, y).tobytes() == x.tobytes()


@every_norm
@given(seed=seeds)
def test_a_confident_model_hides_no_gradient(norm, seed):
    """Probabilities of 1 - 1e-12 and a loss that is 0 in float32: the direction is the same as ever."""
    weight, _, x, _ = problem(seed, classes=2)
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    offset = np.array([28, 0], np.float32)
    plain = FGSM(0.1, norm)(linear(weight), x, np.zeros(6, int))
    sure = FGSM(0.1, norm)(linear(weight, offset), x, np.zeros(6, int))
    np.testing.assert_allclose(sure, plain, rtol=0, atol=1e-6)
    assert (sure != x).any(axis=(1, 2, 3)).all()


@every_norm
@given(seed=seeds, sizes=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_larger_budget_is_used(norm, seed, sizes):
    """The pixels move no less, and the same way, at the bounds of the data too."""
    _, model, x, y = problem(seed, classes=3)
    x = np.round(x * 3) / 3  # some at the bounds
    small, large = (FGSM(eps, norm)(model, x, y) - x for eps in sizes)
    assert (abs(small) <= abs(large) + 1e-12).all()
    assert (small * large >= 0).all()


@every_norm
def test_one_gradient_per_shard_and_a_score_only_where_one_is_asked_for(norm):
    calls, steps = [], []
    model = nn.Sequential(nn.Flatten(), lambda x: calls.append(len(x)) or x, nn.Linear(20, 3, rng=0))
    x, y = np.random.default_rng(0).random((10, *SHAPE), np.float32), np.arange(10) % 3
    FGSM(0.1, norm)(model, x, y, batch_size=4, workers=1, callback=steps.append)
    assert calls == [4, 4, 2]
    assert [step.index for step in steps] == [0, 0, 0]
    assert np.concatenate([step.examples for step in steps]).tolist() == list(range(10))
    FGSM(0.1, norm).run(model, x, y, batch_size=4, workers=1)
    assert calls[3:] == [4, 4, 4, 4, 2, 2]


def test_the_least_likely_class():
    model = models.SmallCNN(seed=1)
    x = np.random.default_rng(0).random((5, 1, 28, 28), np.float32)
    target = least_likely_class(model, x)
    assert target.dtype == np.int64
    assert target.tolist() == driver.logits(model, x).argmin(axis=1).tolist()
    x_adv = FGSM(1e-3)(model, x, np.zeros(5, int), target=target)
    assert (loss(model, x_adv, target) < loss(model, x, target)).all()


def test_it_prints_as_it_is_written():
    assert FGSM(0.3) == FGSM(eps=0.3, norm="linf", bounds=(0, 1))
    assert {"eps=0.3", "norm='linf'"} <= set(repr(FGSM(0.3))[5:-1].split(", "))
