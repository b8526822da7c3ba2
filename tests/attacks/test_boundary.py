"""The boundary attack: what the paper says of every step, and that decisions are all it needs."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from attack_cases import dense, images, predictions, rows
from hypothesis import given
from strategies import seeds

from tinyadv import Tensor, ops
from tinyadv.attacks import BoundaryAttack

SHAPE = (1, 4, 5)


def scene(seed=0, count=6, dtype=np.float64):
    """Images, their classes, and a model of three."""
    model, x = dense(SHAPE, 3, dtype, seed=seed), images(count, SHAPE, dtype, seed)
    return model, x, predictions(model, x)


def decisions(model):
    """The model's classes, one-hot, as an array: all that the attack may need."""
    return lambda x: np.eye(3)[model(x).data.argmax(axis=1)]


@given(seed=seeds)
def test_the_distance_never_grows_and_every_point_is_adversarial(seed):
    """A run of more steps is the same run, continued."""
    model, x, y = scene(seed)
    runs = [BoundaryAttack(steps=steps).run(model, x, y, seed=seed) for steps in (1, 2, 12, 40)]
    for before, after in pairwise(runs):
        np.testing.assert_array_equal(before.success, after.success)
        assert (after.distances <= before.distances).all()
    for run in runs:
        assert (predictions(model, run.x_adv) != y)[run.success].all()
        assert run.x_adv[~run.success].tobytes() == x[~run.success].tobytes()


@given(seed=seeds)
def test_a_step_is_nearer_by_epsilon(seed):
    """To begin with by a hundredth of the distance, or more where the bounds have cut the step along the sphere."""
    model, x, y = scene(seed)
    points = []
    start = BoundaryAttack(steps=1).run(model, x, y, seed=seed, callback=lambda step: points.append(step),
                                        batch_size=6)
    last = points[-1]
    before = BoundaryAttack(steps=1).run(model, x, y, seed=seed, batch_size=6)
    assert before.x_adv.tobytes() == start.x_adv.tobytes()
    at = np.linalg.norm(rows(last.points - x[last.examples]), axis=1)
    found = np.full(len(x), np.inf)  # the nearest adversarial point before the step
    for step in points[:-1]:
        wrong = predictions(model, step.points) != y[step.examples]
        distance = np.linalg.norm(rows(step.points - x[step.examples]), axis=1)
        found[step.examples[wrong]] = np.minimum(found[step.examples[wrong]], distance[wrong])
    assert (at <= 0.99 * found[last.examples] * (1 + 1e-9)).all()


def test_decisions_are_all_it_sees():
    model, x, y = scene()
    for target in (None, (y + 1) % 3):
        attack = BoundaryAttack(steps=60)
        by_logits, by_decisions = (attack.run(f, x, y, target=target, seed=2) for f in (model, decisions(model)))
        assert by_logits.x_adv.tobytes() == by_decisions.x_adv.tobytes()
        np.testing.assert_array_equal(by_logits.predictions, by_decisions.predictions)
        assert not by_logits.backwards.any()


@pytest.mark.parametrize("seed", range(4))
def test_between_two_classes_of_a_linear_model_it_comes_near_the_nearest_point(seed):
    """Where the way there is short, so that the bounds play no part: within a tenth after a thousand steps."""
    rng = np.random.default_rng(seed)
    x, weight = 0.4 + 0.2 * rng.random((3, 8)), rng.normal(size=8)
    offset = 0.1 * np.linalg.norm(weight)  # the distance of the middle image

    def model(points):
        lead = (ops.flatten(points) - x[1]) @ weight[:, None] - offset
        return ops.concatenate([lead * 0.0, lead], axis=1)

    y = predictions(model, x)
    exact = abs((x - x[1]) @ weight - offset) / np.linalg.norm(weight)
    result = BoundaryAttack(steps=1000).run(model, x, y, seed=seed)
    near = result.success & (exact < 0.3)
    assert near[1]
    assert (result.distances >= exact - 1e-9)[result.success].all()
    assert (result.distances <= 1.1 * exact + 1e-3)[near].all()


def test_each_step_is_a_query_and_every_tenth_one_more():
    model, x, y = scene()
    queries = {steps: BoundaryAttack(steps=steps).run(model, x, y, seed=1) for steps in (10, 50)}
    found = queries[10].success
    assert found.any()
    np.testing.assert_array_equal(queries[50].forwards[found] - queries[10].forwards[found], 44)


def test_what_has_converged_costs_nothing_more():
    """In float16 the last bit is soon reached."""
    model, x, y = scene(dtype=np.float16)
    few, many = (BoundaryAttack(steps=steps).run(model, x, y, seed=1) for steps in (1500, 3000))
    np.testing.assert_array_equal(few.forwards, many.forwards)
    assert few.x_adv.tobytes() == many.x_adv.tobytes()


# Starts


def test_a_failed_start_is_a_failure_of_that_example_alone():
    """A class that no noise and no blend is taken for."""
    def model(x):
        bright = x.data.reshape(len(x), -1)[:, 0]
        return np.stack([0 * bright, 1 - 2 * bright, 0 * bright - 9], axis=1)

    x = images(4, SHAPE) * 0.2 + 0.1
    result = BoundaryAttack(steps=5).run(model, x, predictions(model, x), target=np.array([2, 0, 2, 0]))
    np.testing.assert_array_equal(result.success, [False, True, False, True])
    assert result.x_adv[::2].tobytes() == x[::2].tobytes()
    assert (result.forwards[::2] > 100).all()


def test_a_targeted_attack_begins_at_the_nearest_start_of_its_class():
    model, x, y = scene(count=8)
    starts = images(40, SHAPE, np.float64, seed=9)
    classes, target = predictions(model, starts), (y + 1) % 3
    attack = BoundaryAttack(steps=3, starts=starts)
    result = attack.run(model, x, y, target=target, seed=1)
    distances = np.linalg.norm(rows(x)[:, None] - rows(starts), axis=2)
    distances[classes != target[:, None]] = np.inf
    reachable = np.isfinite(distances.min(axis=1))
    assert reachable.any()
    np.testing.assert_array_equal(result.success, reachable)
    assert (result.distances < distances.min(axis=1))[reachable].all()
    again = attack.run(model, x[:1], y[:1], target=target[:1], seed=1)
    np.testing.assert_allclose(again.x_adv, result.x_adv[:1], rtol=0, atol=1e-12)


def test_starts_of_no_use_are_a_failure():
    model, x, y = scene()
    result = BoundaryAttack(steps=5, starts=x[:1]).run(model, x[:1], y[:1])
    assert not result.success.any()
    assert result.distances.tolist() == [0]


@pytest.mark.parametrize("starts", [
    images(3, (1, 5, 4)), np.zeros((2, *SHAPE), int), images(0, SHAPE), images(2, SHAPE).tolist(),
    Tensor(images(2, SHAPE)),
], ids=["shape", "dtype", "none", "list", "tensor"])
def test_starts_that_are_no_images_like_x_are_refused(starts):
    model, x, y = scene()
    with pytest.raises(ValueError, match=r"starts must be a floating-point array of images of shape \(1, 4, 5\)"):
        BoundaryAttack(starts=starts)(model, x, y)


def test_it_is_a_value_with_starts_too():
    attack = BoundaryAttack(steps=7, starts=images(2, SHAPE))
    again = pickle.loads(pickle.dumps(attack))
    assert again == attack
    assert hash(again) == hash(attack)
    assert again.starts.tobytes() == attack.starts.tobytes()
    assert str(attack) == "BoundaryAttack(steps=7)"
