"""PGD and BIM where their steps can be written down."""

from itertools import pairwise

import numpy as np
import pytest
from attack_cases import dense, images, labels, shown, stepped
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, gradients, ops
from tinyadv.attacks import BIM, PGD, least_likely_class
from tinyadv.attacks.base.balls import ball_class

SHAPE = (1, 4, 5)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


def slope(model, points, classes):
    leaf = Tensor(points)
    return gradients(ops.cross_entropy(model(leaf), classes, "sum"), [leaf])[0]


@every_norm
@given(seed=seeds, eps=st.sampled_from([0.1, 0.5, 1.9]), targeted=st.booleans())
def test_every_step_is_the_formula(norm, seed, eps, targeted):
    model, x, y = dense(SHAPE, 4, np.float64, seed=seed), images(5, SHAPE, np.float64, seed), labels(5, 4)
    target = (y + 1) % 4 if targeted else None
    ball = ball_class(norm)(x, eps, (0, 1))
    points = shown(PGD(eps, steps=6, norm=norm), model, x, y, target=target, seed=2)
    for now, then in pairwise(points):
        g = -slope(model, now, target) if targeted else slope(model, now, y)
        expected = stepped(ball, now, g, 2.5 * eps / 6)
        np.testing.assert_allclose(then, expected, rtol=0, atol=1e-9)


@every_norm
@given(seed=seeds)
def test_bim_is_pgd_from_the_image(norm, seed):
    model, x, y = dense(SHAPE, 4, seed=seed), images(5, SHAPE), labels(5, 4)
    plain = PGD(0.3, step_size=1.25 * 0.3 / 10, steps=10, norm=norm, random_start=False)
    for attack in (BIM(0.3, norm=norm), BIM(0.3, 1.25 * 0.3 / 10, 10, norm)):
        assert shown(attack, model, x, y).tobytes() == shown(plain, model, x, y).tobytes()
        assert (shown(attack, model, x, y)[0] == x).all()


def test_bim_takes_the_steps_of_the_paper():
    """For eps = 8 grey levels min(8 + 4, 1.25 * 8) = 10 of one grey level each, so 8 where the sign never turns."""
    x, y = np.full((3, *SHAPE), 0.5), np.zeros(3, int)
    weight = np.random.default_rng(0).normal(size=(2, 20))
    points = shown(BIM(8 / 255), lambda p: ops.linear(ops.flatten(p), Tensor(weight)), x, y)
    levels = abs(points - x) * 255
    expected = np.minimum(np.arange(10), 8).reshape(-1, 1, 1, 1, 1)
    np.testing.assert_allclose(levels, np.broadcast_to(expected, levels.shape))


def test_the_iterative_least_likely_class_method():
    model, x, y = dense(SHAPE, 6, scale=4), images(20, SHAPE), labels(20, 6)
    target = least_likely_class(model, x)
    result = BIM(0.4, steps=20).run(model, x, y, target=target)
    assert result.success.mean() > 0.5
    np.testing.assert_array_equal(result.success, result.predictions == target)


def test_bim_has_neither_a_random_start_nor_restarts():
    settings = "bounds=(0.0, 1.0), eot=1, eps=0.3, step_size=None, steps=10, norm='linf', loss='cross_entropy'"
    assert repr(BIM(0.3)) == f"BIM({settings})"
    for option in ("random_start", "restarts"):
        with pytest.raises(TypeError, match=option):
            BIM(0.3, **{option: 2})


@pytest.mark.parametrize(("attack", "default"), [(PGD, "2.5"), (BIM, "1.25")])
@pytest.mark.parametrize("step_size", [0, -0.1, np.nan, "0.1", True])
def test_a_wrong_step_size_is_refused(attack, default, step_size):
    with pytest.raises(ValueError, match=rf"step_size must be .* above 0, or None \({default} \* eps / steps\); got"):
        attack(0.3, step_size=step_size)


def test_restarts_without_a_random_start_are_refused():
    with pytest.raises(ValueError, match="restarts need random_start=True"):
        PGD(0.3, restarts=2, random_start=False)
