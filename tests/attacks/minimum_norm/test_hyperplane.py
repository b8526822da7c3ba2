"""The ways to a hyperplane inside the bounds: they arrive, and no other is shorter."""

import math

import numpy as np
import pytest
from attack_cases import NORMS
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv.attacks.minimum_norm import hyperplane
from tinyadv.backend import to_host

every_norm = pytest.mark.parametrize("norm", NORMS)
SHAPES = [(1, 1, 1), (1, 2, 5), (3, 4, 4), (7,)]
BOUNDS = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]


@st.composite
def problems(draw):
    """(x, lead, slope, (low, high), reach): reach (n,) is |lead| relative to the most that the bounds allow."""
    rng = np.random.default_rng(draw(seeds))
    shape, (low, high) = (draw(st.integers(1, 3)), *draw(st.sampled_from(SHAPES))), draw(st.sampled_from(BOUNDS))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = draw(st.sampled_from([
        rng.uniform(low, high, shape), np.full(shape, low), rng.choice([low, high], shape),
        low + (high - low) * rng.integers(0, 4, shape) / 3,
    ])).clip(low, high).astype(dtype)
    slope = draw(st.sampled_from([
        rng.normal(size=shape), rng.integers(-2, 3, shape), rng.choice([-1.0, 1.0], shape),
        rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape),
        rng.normal(size=shape) * rng.choice([1, 1e-200], shape),
        (np.arange(math.prod(shape[1:])) == 0).reshape(shape[1:]) * rng.normal(size=shape),
    ])).astype(dtype)
    sign = rng.choice([-1.0, 1.0], len(x))
    reach = rng.choice([0, 1e-9, 0.1, 0.5, 0.999, 1.5], len(x))
    w, room = directions(x, sign, slope, (low, high))
    return x, sign * reach * (abs(w) * room).sum(axis=1), slope, (low, high), reach


def directions(x, sign, slope, bounds):
    """(n, D) in float64: the slopes, and how far each pixel can go towards the hyperplane if the lead has this sign."""
    w, wide = slope.reshape(len(x), -1).astype(np.float64), x.reshape(len(x), -1).astype(np.float64)
    return w, np.where(sign[:, None] * w < 0, bounds[1] - wide, wide - bounds[0])


def gain(norm, size, w, room):
    """The most that <w, .> can be with 0 <= . <= room, in the norm's own measure of the size."""
    if norm == "l1":  # a knapsack: what weighs most comes first
        total = 0.0
        for weight, most in sorted(zip(w, room, strict=True), reverse=True):
            total += weight * min(most, size)
            size -= min(most, size)
        return total
    return w @ np.minimum(room, size if norm == "linf" else size * w)  # for l2 the conditions of Karush, Kuhn, Tucker


def least(norm, need, w, room):
    """The least norm with which the need is reached, by bisection."""
    w, need = w / w.max(), need / w.max()
    low, high = 0.0, room.sum() + 1 if norm != "l2" else 1.0
    while norm == "l2" and gain(norm, high, w, room) < need:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if gain(norm, middle, w, room) >= need else (middle, high)
    return np.linalg.norm(np.minimum(room, high * w)) if norm == "l2" else high


@every_norm
@given(problem=problems())
def test_the_way_arrives_and_none_is_shorter(norm, problem):
    x, lead, slope, bounds, reach = problem
    delta = hyperplane.way(norm, x, lead, slope, *bounds)
    assert delta.dtype == np.float64
    assert delta.shape == x.shape
    width = bounds[1] - bounds[0]
    assert (x + delta >= bounds[0] - 1e-14 * width).all()
    assert (x + delta <= bounds[1] + 1e-14 * width).all()
    rows, (w, room) = delta.reshape(len(x), -1), directions(x, np.sign(lead), slope, bounds)
    most = (abs(w) * room).sum(axis=1)
    for i in range(len(x)):
        if reach[i] > 1 or most[i] == 0:
            continue
        negligible = 1e-150 * abs(w[i]).max() * room[i].sum()  # what pixels may do that are left alone
        assert abs(lead[i] + w[i] @ rows[i]) <= 1e-12 * most[i] + negligible
        if abs(lead[i]) > 1e3 * negligible:
            expected = least(norm, abs(lead[i]), abs(w[i]), room[i])
            assert NORMS[norm](rows[i : i + 1])[0] == pytest.approx(expected, rel=1e-9, abs=1e-12 * width)


@every_norm
@given(problem=problems())
def test_what_the_bounds_keep_away_is_approached_as_far_as_they_allow(norm, problem):
    """And a pixel stays that has no slope, or next to none."""
    x, _, slope, bounds, _ = problem
    _, room = directions(x, np.ones(len(x)), slope, bounds)
    beyond = 1e30 * (1 + abs(slope.astype(np.float64)).reshape(len(x), -1).sum(axis=1))
    delta = hyperplane.way(norm, x, beyond, slope, *bounds)
    steep = abs(slope) > 1e-150 * abs(slope).max(axis=tuple(range(1, x.ndim)), keepdims=True)
    np.testing.assert_array_equal(delta, -np.sign(slope) * steep * room.reshape(x.shape))


@every_norm
@given(problem=problems())
def test_between_far_bounds_the_way_is_as_long_as_the_distance(norm, problem):
    x, lead, slope, _, _ = problem
    distance, f, w = hyperplane.nearest(norm, [(lead, slope)])
    delta = hyperplane.way(norm, x, f, w, -1e12, 1e12)
    near = distance < 1e9
    np.testing.assert_allclose(NORMS[norm](delta.reshape(len(x), -1))[near], distance[near], rtol=1e-9)


@every_norm
@given(seed=seeds, count=st.integers(1, 5))
def test_the_nearest_boundary_is_the_one_of_the_shortest_way(norm, seed, count):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (6, 2, 3))
    boundaries = [(rng.normal(size=6), rng.normal(size=x.shape)) for _ in range(count)]
    distance, lead, slope = hyperplane.nearest(norm, boundaries)
    lengths = [NORMS[norm](hyperplane.way(norm, x, *each, -1e9, 1e9).reshape(6, -1)) for each in boundaries]
    np.testing.assert_allclose(distance, np.min(lengths, axis=0), rtol=1e-9)
    for i, k in enumerate(np.argmin(lengths, axis=0)):
        assert (lead[i], slope[i].tolist()) == (boundaries[k][0][i], boundaries[k][1][i].tolist())


@every_norm
def test_boundaries_that_are_none_are_no_way(norm):
    """Of the slopes 0, NaN and inf, and of a lead that is no number; but they hide no other boundary."""
    x, ones = np.full((5, 2), 0.5), np.ones((5, 2))
    lead = np.array([1.0, 1.0, 1.0, np.nan, np.inf])
    slope = ones * np.array([0.0, np.nan, np.inf, 1.0, 1.0])[:, None]
    distance, *boundary = hyperplane.nearest(norm, [(lead, slope)])
    assert (distance == np.inf).all()
    assert (hyperplane.way(norm, x, *boundary, 0.0, 1.0) == 0).all()
    distance, *boundary = hyperplane.nearest(norm, [(lead, slope), (np.full(5, -1e-3), ones), (lead, slope)])
    np.testing.assert_allclose(hyperplane.way(norm, x, *boundary, 0.0, 1.0).sum(axis=1), 1e-3)


@every_norm
@given(problem=problems())
def test_every_array_library_finds_the_same(xp, norm, problem):
    x, lead, slope, bounds, _ = problem
    expected = hyperplane.way(norm, x, lead, slope, *bounds)
    found = hyperplane.way(norm, *(xp.asarray(array) for array in (x, lead, slope)), *bounds)
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-12, atol=1e-14 * bounds[1])
