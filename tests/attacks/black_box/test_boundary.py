"""The boundary attack: what the paper says of every step. What it shares with others is in test_decision.py."""

from itertools import pairwise

import numpy as np
import pytest
from attack_cases import dense, images, predictions
from hypothesis import given
from strategies import seeds

from tinyadv import ops
from tinyadv.attacks import BoundaryAttack
from tinyadv.random import in_hand

SHAPE = (1, 4, 5)


def scene(seed=0, count=6, dtype=np.float64):
    """Images, their classes, and a model of three."""
    model, x = dense(SHAPE, 3, dtype, seed=seed), images(count, SHAPE, dtype, seed)
    return model, x, predictions(model, x)


@given(seed=seeds)
def test_the_distance_never_grows_and_every_point_is_adversarial(seed):
    """A run of more queries is the same run, continued."""
    model, x, y = scene(seed)
    runs = [BoundaryAttack(queries=queries).run(model, x, y, seed=seed) for queries in (42, 43, 55, 90)]
    for before, after in pairwise(runs):
        np.testing.assert_array_equal(before.success, after.success)
        assert (after.distances <= before.distances).all()
    for run in runs:
        assert (predictions(model, run.x_adv) != y)[run.success].all()
        assert run.x_adv[~run.success].tobytes() == x[~run.success].tobytes()


@given(seed=seeds)
def test_a_step_leads_along_the_sphere_and_then_inwards(seed):
    """No query is of a point farther than the nearest so far, and ten of eleven are nearer, first by a hundredth."""
    model, x, y = scene(seed, count=1)
    start = images(1, SHAPE, np.float64, seed + 1)
    points = []
    attack = BoundaryAttack(queries=80, starts=start)
    attack.run(model, x, y, seed=seed, callback=lambda step: points.append(step.points))
    if predictions(model, start) == y:
        assert len(points) == 1  # no start, no walk
        return
    assert len(points) == 78
    distances = [np.linalg.norm(point - x) for point in points]
    wrong = [predictions(model, point)[0] != y[0] for point in points]
    nearest = np.minimum.accumulate(np.where(wrong, distances, np.inf))
    for query, (distance, before) in enumerate(zip(distances[11:], nearest[10:], strict=False)):
        assert distance <= before * (1 if query % 11 else 1 + 1e-12)
        assert query != 1 or distance <= 0.99 * before * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_between_two_classes_of_a_linear_model_it_comes_near_the_nearest_point(seed):
    """Where the way there is short, so that the bounds play no part: within a tenth after a thousand queries."""
    rng = np.random.default_rng(seed)
    x, weight = 0.4 + 0.2 * rng.random((3, 8)), rng.normal(size=8)
    offset = 0.1 * np.linalg.norm(weight)  # the distance of the middle image

    def model(points):
        lead = (ops.flatten(points) - x[1]) @ weight[:, None] - offset
        return ops.concatenate([lead * 0.0, lead], axis=1)

    y = predictions(model, x)
    exact = abs((x - x[1]) @ weight - offset) / np.linalg.norm(weight)
    result = BoundaryAttack(queries=1000).run(model, x, y, seed=seed)
    near = result.success & (exact < 0.3)
    assert near[1]
    assert (result.distances >= exact - 1e-9)[result.success].all()
    assert (result.distances <= 1.1 * exact + 1e-3)[near].all()


def test_what_has_converged_costs_nothing_more():
    """In float16 the last bit is soon reached."""
    model, x, y = scene(dtype=np.float16)
    few, many = (BoundaryAttack(queries=queries).run(model, x, y, seed=1) for queries in (2000, 4000))
    np.testing.assert_array_equal(few.forwards, many.forwards)
    assert few.forwards.max() < 2000
    assert few.x_adv.tobytes() == many.x_adv.tobytes()


def test_at_distance_0_there_is_no_direction():
    """A model of random outputs may take x itself for another class, and then nothing is nearer."""
    def model(x):
        return np.eye(2)[(in_hand().uniform(()) < 0.5).astype(int)]

    x = images(20, SHAPE)
    result = BoundaryAttack(queries=400).run(model, x, np.zeros(20, int))
    assert (result.distances[result.success] == 0).any()
