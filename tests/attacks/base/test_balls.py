"""Properties of the four balls: exact budgets, nearest points, steepest directions, uniform draws."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv.attacks.base.balls import L1Ball, ball_class
from tinyadv.attacks.base.l0 import keep_best
from tinyadv.backend import to_host
from tinyadv.random import Streams

every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
every_convex_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
SHAPES = [(1, 1, 1), (1, 2, 5), (3, 4, 4), (7,), (1, 28, 28)]
BOUNDS = [(0.0, 1.0), (-1.0, 1.0), (0, 255), (0.1, 0.7)]  # neither 0.1 nor 0.7 is a float32, nor a float64
TINY = [5e-324, 1e-308, 1e-162]  # of which products are 0
BUDGETS = [0, 1e-30, 1e-9, 3.5e-8, 8 / 255, 0.3, 1, 12.5, 1e6, 1e300]


def length(norm, row):
    """The norm of one perturbation, summed up in several orders: the largest result, for that must fit as well."""
    if norm == "l0":
        return len({tuple(place[-2:]) for place in np.argwhere(row).tolist()})
    row = np.abs(row.astype(np.float64).ravel())
    if norm == "linf":
        return row.max()
    if norm == "l2" and row.max(initial=0) < 1e-140:
        return math.hypot(*row)  # which does not square them
    terms = row if norm == "l1" else row * row
    sums = [math.fsum(terms), terms.sum(), terms[::-1].sum(), np.cumsum(terms)[-1], np.sort(terms).cumsum()[-1]]
    return max(sums) if norm == "l1" else max(math.sqrt(max(sums)), np.linalg.norm(row), np.linalg.norm(row[::-1]))


def inward(x, bounds, dtype):
    """x in the dtype, and inside the bounds after that rounding too."""
    y = np.clip(x, *bounds).astype(dtype)
    y = np.where(y.astype(np.float64) < bounds[0], np.nextafter(y, dtype(np.inf)), y)
    return np.where(y.astype(np.float64) > bounds[1], np.nextafter(y, dtype(-np.inf)), y)


@st.composite
def problems(draw, dtypes=(np.float32, np.float64), reaches=(0, 1e-9, 0.5, 1, 1.001, 3, 1e20), budgets=BUDGETS + TINY):
    """(x, eps, bounds, points): images inside the bounds, and points that are about reach * eps away from them."""
    rng = np.random.default_rng(draw(seeds))
    dtype, bounds, eps = draw(st.sampled_from(dtypes)), draw(st.sampled_from(BOUNDS)), draw(st.sampled_from(budgets))
    shape = (draw(st.integers(0, 3)), *draw(st.sampled_from(SHAPES)))
    low, high = bounds
    x = draw(st.sampled_from([
        rng.uniform(low, high, shape), np.full(shape, low), np.full(shape, high), rng.choice([low, high], shape),
        rng.integers(0, 256, shape) / 255 * (high - low) + low, rng.random(shape) * np.finfo(dtype).tiny,
    ]))
    x = inward(x, bounds, dtype)
    reach = draw(st.sampled_from(reaches))
    one_pixel = np.arange(math.prod(shape[1:])).reshape(shape[1:]) == 0
    step = draw(st.sampled_from([rng.normal(size=shape), rng.choice([-1.0, 0, 1], shape), one_pixel]))
    return x, eps, bounds, x + (reach * min(eps, 1e9) * step).astype(dtype)


def flushed(xp, array):
    """The array, with 0 for denormal numbers where xp is CuPy, whose kernels take them for that."""
    return array if xp.__name__ != "cupy" else np.where(abs(array) < np.finfo(array.dtype).tiny, 0, array)


def kept_by(xp, problem):
    """The problem, as xp sees it."""
    x, eps, bounds, points = problem
    return flushed(xp, x), eps, bounds, flushed(xp, points)


@every_norm
def test_a_float32_of_numpy_as_a_budget_is_exact_too(norm):
    """It must not make the arithmetic of the projection one of 32 bits."""
    eps, rng = np.float32(0.3), np.random.default_rng(0)
    x, far = rng.random((2, 2000, 1, 3, 4))
    points = ball_class(norm)(x, eps, (0.0, 1.0)).project(far)
    assert max(length(norm, row) for row in points - x) <= float(eps)


@every_norm
@given(problem=problems())
def test_a_projected_point_is_inside(xp, norm, problem):
    """In float64 and without tolerance, whichever way the norm is summed up."""
    x, eps, bounds, points = kept_by(xp, problem)
    found = to_host(ball_class(norm)(xp.asarray(x), eps, bounds).project(xp.asarray(points)))
    assert found.dtype == x.dtype
    assert found.shape == x.shape
    for row, original in zip(found.astype(np.float64), x.astype(np.float64), strict=True):
        assert length(norm, row - original) <= eps
        assert row.min() >= bounds[0]
        assert row.max() <= bounds[1]


@given(seed=seeds, dtype=st.sampled_from([np.float32, np.float64]), place=st.sampled_from([-60, -54, -30]),
       eps=st.sampled_from([0.25, 0.3, np.nextafter(0.5, 0), 0.5]))
def test_the_corners_of_the_linf_ball_are_inside_in_any_precision(xp, seed, dtype, place, eps):
    """Where x is tiny beside eps, a difference in float64 is eps though the exact one is larger."""
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-1, 1, (1, 20)) * 2.0 ** (place + rng.integers(-3, 4, (1, 20)))).astype(dtype)
    ball = ball_class("linf")(xp.asarray(x), eps, (-1.0, 1.0))
    for corner in ball.low, ball.high:
        for a, b in zip(to_host(corner).ravel().tolist(), x.ravel().tolist(), strict=True):
            assert abs(Fraction(a) - Fraction(b)) <= Fraction(eps)


@every_norm
@given(problem=problems())
def test_a_point_inside_stays_as_it_is(xp, norm, problem):
    """Bit for bit: projecting twice is projecting once, and what lies between x and an inner point is inside."""
    x, eps, bounds, points = kept_by(xp, problem)
    ball = ball_class(norm)(xp.asarray(x), eps, bounds)
    projected = to_host(ball.project(xp.asarray(points)))
    halfway = ((x.astype(np.float64) + projected) / 2).astype(x.dtype)
    for inside in (x, projected, halfway):
        assert to_host(ball.project(xp.asarray(inside))).tobytes() == inside.tobytes()


@every_convex_norm
@given(problem=problems(dtypes=[np.float64], reaches=[0.5, 1.001, 3, 50], budgets=BUDGETS))
def test_no_point_of_the_ball_is_nearer(norm, problem):
    """Where no bound is active: <p - q, z - q> <= 0 for all z in the ball says that q is the projection of p."""
    x, eps, _, points = problem
    eps = min(eps, 1e6)
    q = ball_class(norm)(x, eps, (-1e300, 1e300)).project(points)
    for image, away, inner in zip(x, points - q, q - x, strict=True):
        furthest = eps * length(DUAL[norm], away)  # the largest <away, z - x>, by the definition of the dual norm
        rounding = 4 * image.size * np.spacing(abs(image).max() + abs(away).max() + eps) * (abs(away).max() + eps)
        assert furthest <= (away * inner).sum() + 1e-9 * furthest + rounding


@pytest.mark.parametrize(("norm", "bounds"), [("l2", (-9, 9)), ("l1", (-9, 9)), ("l1", (0, 1))])
@given(seed=seeds, eps=st.sampled_from([1e-3, 0.3, 2.0]))
def test_the_nearest_point_of_an_independent_method(norm, bounds, seed, eps):
    """l2 by scaling; l1 by bisection for the threshold, at the bounds or not; to the rounding of float32 too."""
    rng = np.random.default_rng(seed)
    x, step = rng.random((1, 1, 5, 4)), rng.normal(size=(1, 1, 5, 4))
    if norm == "l2":
        nearest = x + step * min(1, eps / np.linalg.norm(step))
    else:
        low, high = 0.0, abs(step).max()
        for _ in range(100):
            middle = (low + high) / 2
            change = np.clip(x + np.sign(step) * np.maximum(abs(step) - middle, 0), *bounds) - x
            low, high = (middle, high) if abs(change).sum() > eps else (low, middle)
        nearest = x + change
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-6)):
        found = ball_class(norm)(x.astype(dtype), eps, bounds).project((x + step).astype(dtype))
        np.testing.assert_allclose(found, nearest, rtol=0, atol=tolerance)


@given(problem=problems(dtypes=[np.float64], reaches=[0.5, 1.001, 3, 50], budgets=BUDGETS))
def test_no_point_of_the_l1_ball_and_the_bounds_is_nearer(problem):
    """<p - q, z - x> is largest for the z that spends eps on the largest |p - q| first, each as far as its bound."""
    x, eps, bounds, points = problem
    eps = min(eps, 1e6)
    q = ball_class("l1")(x, eps, bounds).project(points)
    for image, away, inner in zip(x, points - q, q - x, strict=True):
        room = np.where(away > 0, bounds[1] - image, image - bounds[0]).ravel()
        order = np.argsort(-abs(away).ravel())
        spent = np.diff(np.minimum(room[order].cumsum(), eps), prepend=0)
        furthest = (abs(away).ravel()[order] * spent).sum()
        rounding = 4 * image.size * np.spacing(abs(image).max() + abs(away).max() + eps) * (abs(away).max() + eps)
        assert furthest <= (away * inner).sum() + 1e-9 * furthest + rounding


@every_convex_norm
@given(seed=seeds, dtype=st.sampled_from([np.float32, np.float64]), shape=st.sampled_from(SHAPES),
       scale=st.sampled_from([1, 1e-30, 1e-42, 1e30]))
def test_the_steepest_direction_attains_the_dual_norm(xp, norm, seed, dtype, shape, scale):
    g = flushed(xp, (np.random.default_rng(seed).normal(size=(3, *shape)) * scale).astype(dtype))
    s = to_host(ball_class(norm).steepest(xp.asarray(g)))
    assert s.dtype == dtype
    rounding = 100 * float(np.finfo(dtype).eps)
    for gradient, direction in zip(g.astype(np.float64), s.astype(np.float64), strict=True):
        assert length(norm, direction) <= 1 + rounding
        assert (gradient * direction).sum() >= length(DUAL[norm], gradient) * (1 - rounding)


@every_convex_norm
def test_the_squares_of_a_large_float16_image_do_not_overflow(norm):
    g = np.full((2, 3, 160, 160), 0.25, np.float16)
    s = ball_class(norm).steepest(g)
    assert s.dtype == np.float16
    assert all(abs(length(norm, direction) - 1) < 1e-2 for direction in s.astype(np.float64))


@every_norm
@given(problem=problems(), size=st.sampled_from([0, 1e-9, 0.3, 2.5, 40, 1e6, 1e300]), ties=st.booleans())
def test_no_step_of_that_length_inside_the_bounds_gains_more(xp, norm, problem, size, ties):
    """In a ball that is no limit, from its points: sum |g| m, over moves 0 <= m <= room, of which there are `size`.

    An upper limit of all such sums is, for each t >= 0, t * size + sum max(|g| - t, 0) * room: the greatest sum is the
    least of these (duality of linear programs), and that t is 0 or one of the |g|. An l2 step is steepest without
    bounds, and then clipped, as in the literature: there it is only as long as it should be.
    """
    x, _, bounds, g = kept_by(xp, problem)
    g = np.rint(3 * g / abs(g).max(initial=1)).astype(x.dtype) if ties else g
    moved = ball_class(norm)(xp.asarray(x), 1e6, bounds).step(xp.asarray(x), xp.asarray(g), size)
    for image, slope, step in zip(x, g, to_host(moved).astype(np.float64) - x, strict=True):
        room = np.where(slope > 0, bounds[1] - image.astype(np.float64), image.astype(np.float64) - bounds[0])
        slope = slope.astype(np.float64)
        rounding = 2 * image.size * float(np.spacing(x.dtype.type(max(map(abs, bounds)))))
        assert length(norm, step) <= (math.ceil(min(size, 1e6)) if norm == "l0" else size + rounding)
        assert (step * slope >= 0).all()
        assert not step[slope == 0].any()
        if norm == "l0":
            gains = (abs(slope) * room).reshape(-1, math.prod(slope.shape[-2:])).sum(axis=0)
            best = np.sort(gains)[::-1][: math.ceil(min(size, 1e6))].sum()
            assert (slope * step).sum() >= best - rounding * (abs(slope).max() + best)
        elif norm == "l1":
            limits = [float(t) * size + (np.maximum(abs(slope) - t, 0) * room).sum() for t in [0, *abs(slope).ravel()]]
            assert (slope * step).sum() >= min(limits) - rounding * (abs(slope).max() + min(limits))
        elif norm == "linf":
            np.testing.assert_allclose(abs(step), np.minimum(size, room) * (slope != 0), rtol=0, atol=rounding)


@pytest.mark.parametrize("norm", ["linf", "l1", "l0"])
@given(problem=problems())
def test_the_longest_step_reaches_the_bounds_at_every_slope(norm, problem):
    x, _, bounds, g = problem
    ball = ball_class(norm)(x, 1e300, bounds)
    corner = np.where(g == 0, x, np.where(g > 0, ball.high, ball.low))
    spacing = np.spacing(x.dtype.type(max(map(abs, bounds))))  # x + (bound - x) is rounded
    np.testing.assert_allclose(ball.step(x, g, 1e300), corner, rtol=0, atol=spacing)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@every_norm
def test_no_step_is_too_long_for_the_dtype(norm, dtype):
    """1e6 is more than a float16 holds, 1e300 more than a float32."""
    x, g = np.full((2, 1, 3, 3), 0.5, dtype), np.ones((2, 1, 3, 3), dtype)
    for size in (1e6, 1e300, math.inf, np.array([1e6, 1e300])):
        assert (ball_class(norm)(x, 1e300, (0, 1)).step(x, g, size) == 1).all()


@every_norm
@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (0, 1, 3, 3)])
def test_without_a_slope_there_is_no_direction(xp, norm, shape):
    assert not to_host(ball_class(norm).steepest(xp.zeros(shape, np.float32))).any()
    x = xp.zeros(shape, np.float32)
    assert not to_host(ball_class(norm)(x, 0.3, (0, 1)).step(x, x, 0.3)).any()


@every_norm
@given(problem=problems(), seed=seeds)
def test_a_random_point_is_inside_and_depends_on_its_stream_alone(xp, norm, problem, seed):
    x, eps, bounds, _ = kept_by(xp, problem)
    drawn = to_host(ball_class(norm)(xp.asarray(x), eps, bounds).random(Streams(seed, range(len(x)))))
    assert drawn.dtype == x.dtype
    for i, (row, original) in enumerate(zip(drawn.astype(np.float64), x.astype(np.float64), strict=True)):
        assert length(norm, row - original) <= eps
        assert row.min() >= bounds[0]
        assert row.max() <= bounds[1]
        alone = ball_class(norm)(xp.asarray(x[i : i + 1]), eps, bounds).random(Streams(seed, [i]))
        assert to_host(alone).tobytes() == drawn[i : i + 1].tobytes()


@every_convex_norm
def test_random_points_are_uniform_in_the_ball(norm):
    """(|offset| / eps)^D is uniform in [0, 1], and the pixels are centred, uncorrelated, and as wide as they should."""
    count, shape, eps = 4000, (1, 2, 3), 0.25
    size = math.prod(shape)
    x = np.full((count, *shape), 0.5)
    offsets = (ball_class(norm)(x, eps, (0, 1)).random(Streams(7, range(count))) - x).reshape(count, size) / eps
    radii = np.sort([length(norm, row) for row in offsets]) ** size
    assert abs(radii - np.arange(count) / count).max() < 1.63 / math.sqrt(count)  # Kolmogorov and Smirnov, 1 in 100
    variance = {"linf": 1 / 3, "l2": 1 / (size + 2), "l1": 2 / ((size + 1) * (size + 2))}[norm]
    covariance = offsets.T @ offsets / count
    np.testing.assert_allclose(offsets.mean(axis=0), 0, atol=4 * math.sqrt(variance / count))
    np.testing.assert_allclose(covariance, variance * np.eye(size), atol=10 * variance / math.sqrt(count))


@every_norm
@given(problem=problems())
def test_the_libraries_agree(xp, norm, problem):
    x, eps, bounds, points = kept_by(xp, problem)
    here, there = ball_class(norm)(x, eps, bounds), ball_class(norm)(xp.asarray(x), eps, bounds)
    for ours, theirs in [
        (here.project(points), there.project(xp.asarray(points))),
        (here.steepest(points - x), there.steepest(xp.asarray(points - x))),
        (here.distance(points - x), there.distance(xp.asarray(points - x))),
        (here.random(Streams(1, range(len(x)))), there.random(Streams(1, range(len(x))))),
    ]:
        assert type(theirs) is xp.ndarray
        np.testing.assert_allclose(to_host(theirs), ours, rtol=1e-6, atol=np.finfo(float).tiny)  # or denormal


@every_norm
@given(problem=problems())
def test_the_distance_is_the_norm_in_float64(norm, problem):
    x, _, _, points = problem
    distances = ball_class(norm).distance(points - x)
    assert distances.dtype == np.float64
    np.testing.assert_allclose(distances, [length(norm, row) for row in points - x], rtol=1e-12)


@every_convex_norm
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds)
def test_nearer_points_keep_a_fraction_of_their_distance(xp, norm, dtype, seed):
    """On the line to x or, in linf, by clipping the changes."""
    rng = np.random.default_rng(seed)
    x, points = rng.random((2, 5, 1, 4, 4)).astype(dtype)
    fraction = rng.random(5)
    ball = ball_class(norm)(xp.asarray(x), 0.1, (0, 1))
    found = ball.nearer(xp.asarray(points), xp.asarray(fraction))
    distances = to_host(ball.distance_to(xp.asarray(points)))
    assert found.dtype == np.float64
    np.testing.assert_allclose(to_host(ball.distance_to(found)), fraction * distances, rtol=1e-9)
    limit, far = (fraction * distances)[:, None, None, None], points.astype(np.float64) - x
    expected = far.clip(-limit, limit) if norm == "linf" else fraction[:, None, None, None] * far
    np.testing.assert_allclose(to_host(found), x + expected, rtol=1e-12)


@given(seed=seeds, dtype=st.sampled_from([np.float32, np.float64]))
def test_a_sparse_direction_moves_the_largest_slopes_alike(xp, seed, dtype):
    rng = np.random.default_rng(seed)
    g, k = rng.normal(size=(6, 1, 4, 5)).astype(dtype), rng.integers(1, 21, 6)
    found = to_host(L1Ball.sparse_steepest(xp.asarray(g), xp.asarray(k)))
    for slopes, direction, count in zip(g.reshape(6, -1), found.reshape(6, -1), k.tolist(), strict=True):
        largest = np.argsort(-abs(slopes))[:count]
        assert np.flatnonzero(direction).tolist() == sorted(largest.tolist())
        np.testing.assert_allclose(direction[largest], np.sign(slopes[largest]) / count, rtol=1e-6)


def test_without_slopes_a_sparse_direction_is_zero():
    g = np.zeros((2, 1, 4, 5))
    g[1, 0, 0, 3] = -2
    direction = L1Ball.sparse_steepest(g, np.array([5, 5]))
    assert not direction[0].any()
    assert direction[1].ravel().nonzero()[0].tolist() == [3]
    assert direction[1, 0, 0, 3] == -1


@every_norm
def test_a_point_that_is_no_number_becomes_x(xp, norm):
    x = np.full((2, 1, 2, 2), 0.5, np.float32)
    points = x.copy()
    points[0, 0, 0, 0], points[1, 0, 0, 0] = np.nan, np.inf
    found = to_host(ball_class(norm)(xp.asarray(x), 0.1, (0, 1)).project(xp.asarray(points)))
    assert (found[0] == x[0]).all()
    assert length(norm, found[1].astype(np.float64) - x[1]) == (0 if norm == "l0" else pytest.approx(0.1))


@every_norm
def test_a_wider_point_becomes_as_narrow_as_x(xp, norm):
    """A float64 step from a float32 image is rounded before it is measured."""
    rng = np.random.default_rng(3)
    x = rng.random((4, 1, 9, 9), np.float32)
    points = x + 0.3 * rng.normal(size=x.shape)
    found = to_host(ball_class(norm)(xp.asarray(x), 0.3, (0, 1)).project(xp.asarray(points)))
    assert found.dtype == np.float32
    assert all(length(norm, row) <= 0.3 for row in found.astype(np.float64) - x)


@given(seed=seeds, eps=st.integers(0, 5), bounds=st.sampled_from([(0, 1), (-9, 9)]))
def test_no_choice_of_pixels_is_nearer(seed, eps, bounds):
    """Of all sets of eps pixels, that to which the points move least; other pixels go back to x."""
    rng = np.random.default_rng(seed)
    x = rng.random((1, 3, 2, 3))
    points = x + rng.normal(size=x.shape) * rng.choice([0.1, 1, 3], (1, 1, 2, 3))
    clipped = points.clip(*bounds)
    choices = []
    for chosen in itertools.combinations(range(6), eps):
        kept = np.isin(np.arange(6), chosen).reshape(2, 3)
        choices.append(((np.where(kept, clipped, x) - points) ** 2).sum())
    found = ball_class("l0")(x, eps, bounds).project(points)
    assert length("l0", found[0] - x[0]) <= eps
    assert ((found - points) ** 2).sum() == pytest.approx(min(choices), rel=1e-9)


@given(seed=seeds, eps=st.integers(1, 6), size=st.integers(1, 3))
def test_an_l0_step_in_a_full_ball_drops_the_pixels_that_a_linear_loss_needs_least(seed, eps, size):
    """It gains no less than any other image that changes the pixels of the old one, or those that are to move."""
    rng = np.random.default_rng(seed)
    x = rng.random((1, 2, 2, 3))
    ball = ball_class("l0")(x, eps, (0, 1))
    points, g = ball.random(Streams(seed, [0])), rng.normal(size=x.shape)
    found = ball.step(points, g, size)
    end = np.where(g > 0, 1.0, 0.0)
    gains = (g * (end - points)).sum(axis=1).ravel()
    moved = np.isin(np.arange(6), np.argsort(-gains)[:size]).reshape(2, 3)
    best = np.where(moved, end, points)
    worth = np.sort((g * (best - x)).sum(axis=1).ravel()[(best != x).any(axis=1).ravel()])[::-1]
    assert (g * (found - x)).sum() == pytest.approx(worth[:eps].sum())


@given(seed=seeds, kinds=st.integers(1, 9), size=st.integers(1, 12))
def test_of_pixels_that_are_worth_the_same_the_first_are_kept(xp, seed, kinds, size):
    rng = np.random.default_rng(seed)
    worth = rng.choice([-np.inf, np.inf, *rng.normal(size=kinds)], (6, size))
    count = np.array([0, 1.5, size / 2, size, size + 3, np.inf])
    kept = to_host(keep_best(xp.ones((6, size), bool), xp.asarray(worth), xp.asarray(count)))
    for row, values, many in zip(kept, worth, count, strict=True):
        order = sorted(range(size), key=lambda pixel: -values[pixel])  # which keeps the order of equal ones
        assert set(np.flatnonzero(row)) == set(order[:math.floor(min(many, size))])


def test_random_pixels_are_chosen_evenly_and_get_even_values():
    x = np.full((4000, 2, 2, 3), 0.5)
    points = ball_class("l0")(x, 2, (0, 1)).random(Streams(7, range(4000)))
    moved = (points != x).any(axis=1)
    assert (moved.sum(axis=(1, 2)) == 2).all()
    np.testing.assert_allclose(moved.mean(axis=0), 2 / 6, atol=4 * math.sqrt(2 / 9 / 4000))
    values = np.sort(points[points != x])
    assert abs(values - np.arange(len(values)) / len(values)).max() < 1.63 / math.sqrt(len(values))
    radius = np.arange(4000) % 7
    some = ball_class("l0")(x, 6, (0, 1)).random(Streams(7, range(4000)), radius)
    np.testing.assert_array_equal((some != x).any(axis=1).sum(axis=(1, 2)), radius)


@every_norm
@given(seed=seeds, dtype=st.sampled_from([np.float32, np.float64]), shape=st.sampled_from(SHAPES))
def test_a_perturbation_is_shrunk_to_the_nearest_of_its_radius(xp, norm, seed, dtype, shape):
    """Each to its own radius; one that is short enough stays as it is."""
    rng = np.random.default_rng(seed)
    perturbation = (rng.normal(size=(5, *shape)) * rng.choice([0, 0.1, 1, 3], (5, *shape))).astype(dtype)
    whole = np.array([length(norm, row) for row in perturbation.astype(np.float64)])
    radius = whole * np.array([0.0, 0.3, 0.9, 1.0, 2.0])
    found = to_host(ball_class(norm).shrink(xp.asarray(perturbation), xp.asarray(radius)))
    assert found.dtype == dtype
    assert found.shape == perturbation.shape
    np.testing.assert_allclose(found[3:], perturbation[3:], rtol=1e-5, atol=1e-6)
    for p, q, r in zip(perturbation.astype(np.float64), found.astype(np.float64), radius, strict=True):
        assert length(norm, q) <= r * (1 + 1e-5) + 1e-30
        if norm == "l0":
            kept, sizes = (q != 0).any(axis=tuple(range(q.ndim - 2))).ravel(), None
            sizes = (p * p).sum(axis=tuple(range(p.ndim - 2))).ravel()
            assert (q[q != 0] == p[q != 0]).all()
            assert sizes[kept].sum() == pytest.approx(np.sort(sizes)[::-1][: math.floor(r)].sum())
        else:  # <p - q, z - q> <= 0 for all z of that norm
            assert r * length(DUAL[norm], p - q) <= ((p - q) * q).sum() + 1e-5 * (1 + abs(p * q).sum())


@pytest.mark.parametrize("norm", ["l3", "L2", 2, None, np.inf])
def test_an_unknown_norm_is_refused(norm):
    with pytest.raises(ValueError, match='norm must be "linf", "l2", "l1" or "l0", got'):
        ball_class(norm)
