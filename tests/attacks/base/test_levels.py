"""Images of 8 bits: on the levels, inside the budget, and no further from the attack's point than they must."""

import numpy as np
import pytest
from attack_cases import NORMS, check_budget, every_attack, images, labels, lengths, rows, stage, targeted_or_not
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv.attacks import FGSM, PGD, Patch, SigmaZero
from tinyadv.attacks.base.balls import ball_class
from tinyadv.attacks.base.levels import quantize
from tinyadv.backend import to_host

BOUNDS = [(0.0, 1.0), (-1.0, 1.0), (0, 255), (0.1, 0.7)]


def levels(bounds, dtype=np.float32):
    low, high = bounds
    return (low + np.arange(256) * (high - low) / 255).astype(dtype)


def eight_bits(x):
    """What a file keeps of images in [0, 1], read again."""
    return np.rint(x * 255).astype(np.uint8).astype(np.float32) / 255


@st.composite
def problems(draw, on_levels=True):
    """(ball, points): images of 8 bits, or any, and points of a ball around them."""
    rng = np.random.default_rng(draw(seeds))
    bounds = draw(st.sampled_from(BOUNDS[:3] if on_levels else BOUNDS))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    norm, eps = draw(st.sampled_from(sorted(NORMS))), draw(st.sampled_from([0, 1e-3, 8 / 255, 0.1, 0.5, 3, np.inf]))
    eps *= bounds[1] - bounds[0]
    grid = levels(bounds, dtype)
    x = rng.choice(grid, (3, 2, 4, 3))
    if not on_levels:
        x = np.clip(rng.random((3, 2, 4, 3)).astype(dtype) * dtype(bounds[1] - bounds[0]) + dtype(bounds[0]),
                    np.nextafter(grid[0], grid[1]), np.nextafter(grid[-1], grid[0]))
    ball = ball_class(norm)(x, eps, bounds)
    step = draw(st.sampled_from([0.2, 1.0, 3.0])) * min(eps, bounds[1] - bounds[0])
    return ball, ball.project((x + step * rng.normal(size=x.shape) / np.sqrt(8)).astype(dtype))


def length(ball, points):
    """The longer of two ways to sum up, in float64."""
    difference = rows(points.astype(np.float64) - ball.x)
    return np.maximum(ball.distance(difference), ball.distance(difference[:, ::-1]))


@given(problem=problems())
def test_images_of_8_bits_stay_such_inside_the_budget(xp, problem):
    ball, points = problem
    found = to_host(quantize(type(ball)(xp.asarray(ball.x), ball.eps, ball.bounds), xp.asarray(points)))
    assert np.isin(found, levels(ball.bounds, found.dtype)).all()
    assert (length(ball, found) <= ball.eps).all()
    assert found.dtype == points.dtype
    assert quantize(ball, found).tobytes() == found.tobytes()


@given(problem=problems(on_levels=False))
def test_any_image_stays_inside_the_budget_and_off_the_levels_only_where_it_does_not_move(problem):
    ball, points = problem
    found = quantize(ball, points)
    assert (length(ball, found) <= ball.eps).all()
    assert found.astype(np.float64).min() >= ball.bounds[0]
    assert found.astype(np.float64).max() <= ball.bounds[1]
    assert (np.isin(found, levels(ball.bounds, found.dtype)) | (found == ball.x)).all()


@given(problem=problems())
def test_a_pixel_moves_by_half_a_level_or_towards_x_by_one(problem):
    ball, points = problem
    found, step = quantize(ball, points).astype(np.float64), (ball.bounds[1] - ball.bounds[0]) / 255
    moved = abs(found - points) / step
    assert moved.max() < 1 + 1e-4
    towards = (abs(found - ball.x) <= abs(points.astype(np.float64) - ball.x))
    assert (towards | (moved <= 0.5 + 1e-4)).all()


@given(problem=problems())
def test_nearest_levels_that_fit_are_taken(problem):
    """Pixel by pixel for linf; for l2 and l1 where they all fit, and near to it otherwise."""
    ball, points = problem
    grid = levels(ball.bounds, points.dtype)
    nearest = grid[abs(points[..., None].astype(np.float64) - grid).argmin(axis=-1)]
    found, wide = quantize(ball, points), ball.x.astype(np.float64)
    halfway = np.isclose(abs(nearest - points.astype(np.float64)) * 510, ball.bounds[1] - ball.bounds[0], rtol=1e-3)
    if ball.distance is ball_class("linf").distance:
        fits = abs(nearest - wide) <= ball.eps
        assert ((found == nearest) | ~fits | halfway).all()
    else:
        whole = ball.project(nearest) == nearest
        assert ((found == nearest) | halfway)[whole.all(axis=(1, 2, 3))].all()


@pytest.mark.parametrize(("norm", "eps"), [("l2", 2.0), ("l1", 30.0)])
def test_little_of_the_budget_is_lost(norm, eps):
    """To round all pixels towards x would cost about half a level in each."""
    x = eight_bits(images(20, (1, 28, 28)))
    ball = ball_class(norm)(x, eps, (0, 1))
    points = ball.project((x + np.random.default_rng(5).normal(size=x.shape)).astype(np.float32))
    assert ball.distance(quantize(ball, points).astype(np.float64) - x).min() > 0.98 * eps


@targeted_or_not
@every_attack
def test_every_attack_returns_8_bits_that_do_what_the_report_says(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    x = eight_bits(x)
    result = attack.run(model, x, y, target=target, seed=3, quantize=True)
    check_budget(attack, x, result.x_adv)
    assert (eight_bits(result.x_adv) == result.x_adv).all()
    again = FGSM(0.0).run(model, result.x_adv, y, target=target)
    np.testing.assert_array_equal(result.predictions, again.predictions)
    np.testing.assert_array_equal(result.success, again.success)
    distances = lengths(attack.norm, result.x_adv.astype(np.float64) - x)
    np.testing.assert_allclose(result.distances, distances, rtol=1e-12)
    assert attack(model, x, y, target=target, seed=3, quantize=True).tobytes() == result.x_adv.tobytes()
    if attack.minimum_norm:
        assert (result.distances[~result.success] == 0).all()


def test_images_that_are_skipped_come_back_as_they_came():
    model, x, y, _ = stage("cnn", False)
    result = PGD(0.1, steps=2).run(model, x, y, quantize=True, skip_misclassified=True)
    wrong = result.predictions_clean != y
    assert wrong.any()
    assert result.x_adv[wrong].tobytes() == x[wrong].tobytes()
    assert (eight_bits(result.x_adv[~wrong]) == result.x_adv[~wrong]).all()


@pytest.mark.parametrize(("eps", "moves"), [(8 / 255, {7, 8}), (8.01 / 255, {8}), (0.49 / 255, {0})])
def test_a_budget_of_whole_levels_needs_room_for_their_rounding(eps, moves):
    """In float32 two levels are a little more or less than a whole number of steps apart, and the budget is exact."""
    x = eight_bits(0.1 + 0.8 * images(4))
    x_adv = FGSM(eps)(stage("cnn", False)[0], x, labels(4), quantize=True)
    check_budget(FGSM(eps), x, x_adv)
    assert set(np.unique(np.rint(abs(x_adv - x) * 255))) == moves


@pytest.mark.parametrize("attack", [Patch((2, 2), steps=3), SigmaZero(steps=10), PGD(3, norm="l0", steps=3)])
def test_pixels_that_an_attack_has_not_changed_stay_though_on_no_level(attack):
    model, x, y = stage("cnn", False)[:3]
    free, found = attack.run(model, x, y, seed=1), attack.run(model, x, y, seed=1, quantize=True)
    assert (found.distances <= free.distances).all()
    changed = (found.x_adv != x).any(axis=1)
    grid = levels(attack.bounds, x.dtype)
    assert np.isin(np.moveaxis(found.x_adv, 1, -1)[changed], grid).all()
