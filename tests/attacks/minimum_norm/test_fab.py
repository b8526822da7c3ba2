"""FAB where its result is known: on linear models, and beside a plain transcription of its algorithm."""

import math
from dataclasses import replace

import numpy as np
import pytest
from attack_cases import (
    NORMS,
    SCENES,
    check_budget,
    dense,
    images,
    predictions,
    reached,
    rows,
    shown,
    stage,
    targeted_or_not,
    to_boundaries,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, evaluation, ops
from tinyadv.attacks import FAB, PGD, DeepFool, MultiAttack
from tinyadv.attacks.minimum_norm import hyperplane
from tinyadv.data import Dataset

every_norm = pytest.mark.parametrize("norm", NORMS)
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
SHAPE, WIDE = (1, 4, 5), (-100.0, 100.0)
BUDGET = {"linf": 0.017, "l2": 0.11, "l1": 0.37}  # in which about half of the images of `problem` are robust


def linear(seed, classes, count=6, spread=1.0):
    """A float64 linear model, images, their classes, and the model's (weight, bias)."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(classes, math.prod(SHAPE))), spread * rng.normal(size=classes)
    x = rng.uniform(0, 1, size=(count, *SHAPE))

    def model(points):
        return ops.linear(ops.flatten(points), Tensor(weight), Tensor(bias))

    return model, x, predictions(model, x), (weight, bias)


def problem(count=40, classes=5):
    """A smooth model with its own classes for labels, in float64."""
    model, x = dense((1, 8, 8), classes, np.float64, scale=4.0), images(count, dtype=np.float64)
    return model, x, predictions(model, x)


def check_near(found, expected):
    """At a hyperplane the steps end half of a percent beyond it, and the final search on it."""
    assert (found > expected).all()
    np.testing.assert_allclose(found, expected, rtol=2e-4)


@every_norm
@given(seed=seeds, classes=st.integers(2, 10))
def test_the_nearest_hyperplane_is_found(norm, seed, classes):
    model, x, y, layer = linear(seed, classes)
    nearest = to_boundaries(x, y, layer, norm)
    first, *others = np.sort(nearest, axis=1).T
    assume(len(others) < 2 or (others[0] > 1.02 * first).all())  # or the steps may end beyond another one
    result = FAB(norm=norm, steps=5, bounds=WIDE).run(model, x, y)
    assert result.success.all()
    check_near(result.distances, nearest.min(axis=1))
    np.testing.assert_array_equal(result.predictions, nearest.argmin(axis=1))
    assert (result.backwards == 5 * (classes if classes > 2 else 1)).all()


@every_norm
@given(seed=seeds)
def test_between_bounds_the_nearest_point_of_the_hyperplane_is_found(norm, seed):
    """Which takes a box into account: to go where it leads without the bounds, and clip, is not enough."""
    model, x, y, (weight, bias) = linear(seed, 2, spread=4.0)
    x = np.round(x)
    y = predictions(model, x)
    slope = (weight[1 - y] - weight[y]).reshape(x.shape)
    lead = (bias[1 - y] - bias[y]) + (slope * x).sum(axis=(1, 2, 3))
    reachable = -lead < 0.9 * (np.maximum(slope, 0) * (1 - x) + np.maximum(-slope, 0) * x).sum(axis=(1, 2, 3))
    result = FAB(norm=norm, steps=30).run(model, x, y)
    assert result.success[reachable].all()
    least = NORMS[norm](rows(hyperplane.way(norm, x, lead, slope, 0.0, 1.0)))
    assert (result.distances >= least)[reachable].all()
    np.testing.assert_allclose(result.distances[reachable], least[reachable], rtol=5e-3)


def transcription(attack, model, x, y, weight_gradients):
    """The points x^(i) of algorithm 1 for one image in float64, as the paper has it."""
    x_orig, points, shown_points = x, x, []
    for _ in range(attack.steps):
        shown_points.append(points)
        f, slopes = weight_gradients(points)
        norms = [np.linalg.norm((slopes[l] - slopes[y]).ravel(), DUAL[attack.norm]) if l != y else 1 for l in
                 range(len(f))]
        s = min((l for l in range(len(f)) if l != y), key=lambda l: abs(f[l] - f[y]) / norms[l])
        w, b = slopes[s] - slopes[y], f[s] - f[y] - ((slopes[s] - slopes[y]) * points).sum()

        def proj(z, w=w, b=b):
            return hyperplane.way(attack.norm, z[None], np.array([(w * z).sum() + b]), w[None], *attack.bounds)[0]

        delta, delta_orig = proj(points), proj(x_orig)
        size, size_orig = (NORMS[attack.norm](d.reshape(1, -1))[0] for d in (delta, delta_orig))
        alpha = min(size / (size + size_orig), attack.alpha_max)
        points = (1 - alpha) * (points + attack.eta * delta) + alpha * (x_orig + attack.eta * delta_orig)
        points = np.clip(points, *attack.bounds)
        if predictions(model, points[None])[0] != y:
            points = (1 - attack.beta) * x_orig + attack.beta * points
    return np.array(shown_points)


@every_norm
@pytest.mark.parametrize("changes", [{}, {"alpha_max": 0.5, "eta": 1.3, "beta": 0.6}], ids=["paper", "other"])
def test_the_steps_are_those_of_the_paper(norm, changes):
    model, x, y = problem(8)

    def weight_gradients(points):
        f, slopes = [], []
        for k in range(5):
            leaf = Tensor(points[None].copy())
            logit = model(leaf)[0, k]
            logit.backward()
            f.append(float(logit.data))
            slopes.append(leaf.grad[0])
        return f, slopes

    attack = FAB(norm=norm, steps=8, **changes)
    ours = shown(attack, model, x, y)
    for i in range(len(x)):
        theirs = transcription(attack, model, x[i], y[i], weight_gradients)
        np.testing.assert_allclose(ours[:, i], theirs, rtol=0, atol=1e-9)


@every_norm
def test_the_end_is_on_the_boundary(norm):
    """A little nearer to x the class is that of x again."""
    model, x, y = problem()
    result = FAB(norm=norm, steps=15).run(model, x, y)
    assert result.success.mean() > 0.9
    back = x + 0.999 * (result.x_adv - x)
    assert (predictions(model, back) == y)[result.success].mean() > 0.95


@every_norm
def test_the_target_is_reached(norm):
    model, x, y = problem()
    target = (y + 1) % 5
    result = FAB(norm=norm, steps=30).run(model, x, y, target=target)
    assert result.success.mean() > 0.9
    np.testing.assert_array_equal(result.predictions == target, result.success)
    assert (result.backwards == 30).all()
    anything = FAB(norm=norm, steps=30).run(model, x, y)
    assert result.distances[result.success].mean() > 1.2 * anything.distances.mean()
    again = FAB(norm=norm, steps=30, target_classes=3).run(model, x, y, target=target)
    assert again.x_adv.tobytes() == result.x_adv.tobytes()


@every_norm
@given(seed=seeds, count=st.integers(1, 8))
def test_the_likeliest_classes_are_aimed_at_in_turn(norm, seed, count):
    model, x, y, layer = linear(seed, 6)
    result = FAB(norm=norm, steps=4, target_classes=count, bounds=WIDE).run(model, x, y)
    by_rank = np.argsort(-model(Tensor(x)).data, axis=1)[:, 1 : count + 1]
    nearest = np.take_along_axis(to_boundaries(x, y, layer, norm), by_rank, axis=1).min(axis=1)
    assert result.success.all()
    assert (result.distances <= 1.01 * nearest).all()  # another class than these may lie before
    if count >= 5:
        check_near(result.distances, nearest)
    assert (result.backwards == 4 * min(count, 5)).all()


@every_norm
def test_a_restart_begins_half_as_far_as_the_best_point_and_loses_nothing(norm):
    model, x, y = problem()
    attack = FAB(norm=norm, steps=3)
    once, steps = attack.run(model, x, y, batch_size=len(x)), []
    often = replace(attack, restarts=4).run(model, x, y, batch_size=len(x), seed=1, callback=steps.append)
    assert once.success.all()
    assert (often.distances <= once.distances).all()
    assert (often.distances < once.distances).any()
    start = rows(steps[3].points - x)
    assert (NORMS[norm](start) <= once.distances / 2 + 1e-12).all()
    assert (NORMS[norm](start) > 0.3 * once.distances).mean() > 0.5  # most of a ball is near its edge
    other = []
    replace(attack, restarts=2).run(model, x, y, batch_size=len(x), seed=2, callback=other.append)
    assert (rows(other[3].points - x) != start).any(axis=1).all()


# With a budget


@every_norm
@pytest.mark.parametrize("target_classes", [None, 3])
def test_within_a_budget_are_the_points_that_are_found_without_one(norm, target_classes):
    model, x, y = problem()
    attack = FAB(norm=norm, steps=20, target_classes=target_classes)
    free = attack.run(model, x, y)
    bounded = replace(attack, eps=BUDGET[norm]).run(model, x, y)
    assert attack.minimum_norm
    assert not bounded.attack.minimum_norm
    check_budget(bounded.attack, x, bounded.x_adv)
    within = free.distances <= BUDGET[norm]
    assert 0.2 < within.mean() < 0.8
    assert (bounded.success >= within).all()
    assert (bounded.success != within).mean() < 0.1  # a point that is too far may be one that can be projected
    np.testing.assert_array_equal(bounded.predictions != y, bounded.success)
    assert (bounded.backwards[~bounded.success] == free.backwards[~bounded.success]).all()
    assert bounded.backwards[bounded.success].mean() < 0.5 * free.backwards[bounded.success].mean()  # done early


@every_norm
def test_within_a_budget_restarts_are_of_what_is_left_and_begin_half_as_far(norm):
    model, x, y = problem()
    eps, steps = BUDGET[norm], []
    attack = FAB(norm=norm, steps=5, eps=eps, restarts=3)
    once = replace(attack, restarts=1).run(model, x, y)
    often = attack.run(model, x, y, batch_size=len(x), callback=steps.append)
    assert (often.success >= once.success).all()
    assert (often.backwards[once.success] == once.backwards[once.success]).all()
    left = np.flatnonzero(~once.success)
    start = steps[5]
    np.testing.assert_array_equal(start.examples, left)
    lengths = NORMS[norm](rows(start.points - x[left]))
    assert (lengths <= eps / 2 + 1e-12).all()
    assert lengths.max() > 0.4 * eps
    assert [step.index for step in steps] == list(range(len(steps)))


@targeted_or_not
@pytest.mark.parametrize("scene", SCENES)
@every_norm
def test_within_a_budget_the_guarantees_hold(norm, scene, targeted):
    model, x, y, target = stage(scene, targeted)
    attack = FAB(norm=norm, steps=3, eps=0.1, target_classes=2)
    result = attack.run(model, x, y, target=target, seed=1)
    check_budget(attack, x, result.x_adv)
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.success, reached(result.predictions, y, target))


def test_with_a_budget_it_stands_beside_other_attacks():
    model, x, y = problem()
    several = MultiAttack([PGD(0.02, step_size=0.005, steps=1), FAB(eps=0.02, steps=10)])
    result = several.run(model, x, y)
    check_budget(several, x, result.x_adv)
    assert set(result.broken_by) == {"", *map(str, several.attacks)}
    some = Dataset(x.astype(np.float32), y, "images", tuple("abcde"))
    curve = evaluation.epsilon_curve(model, FAB(steps=10, eps=0.0), some, [0.0, 0.03, 1.0])
    assert list(curve.values()) == sorted(curve.values(), reverse=True)
    assert (curve[0.0], curve[1.0]) == (1.0, 0.0)


@every_norm
def test_where_there_is_no_slope_nothing_moves(norm):
    model, x, _, (weight, _) = linear(0, 3)
    weight[:, ::2] = 0  # the model reads these arrays
    y = predictions(model, x)
    moved = rows(FAB(norm=norm, steps=3, bounds=WIDE)(model, x, y) != x)
    assert moved.any(axis=1).all()
    assert not moved[:, ::2].any()
    weight[:] = 0
    flat = FAB(norm=norm, steps=3, bounds=WIDE).run(model, x, predictions(model, x))
    assert flat.x_adv.tobytes() == x.tobytes()
    assert not flat.success.any()


@pytest.mark.parametrize(("name", "value"), [
    *((name, value) for name in ("alpha_max", "beta") for value in (-0.1, 1.1, np.nan, True, "0.5", None)),
    *(("eta", value) for value in (0.9, 2.1, np.inf, np.nan, True, None)),
    *(("target_classes", value) for value in (0, -1, 9.5, True, "9")),
])
def test_a_wrong_hyper_parameter_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got "):
        FAB(**{name: value})


def test_within_a_budget_the_last_search_depends_on_no_other_image():
    """Whether the first class breaks all images of a shard, or all but one."""
    model, x, y, _ = linear(0, 3)
    attack = FAB(eps=1.0, target_classes=2, bounds=WIDE)
    distances = FAB(target_classes=2, bounds=WIDE).run(model, x, y).distances
    attack = FAB(eps=float(np.sort(distances)[-2:].mean()), target_classes=2, bounds=WIDE)
    whole = attack.run(model, x, y)
    assert whole.success.sum() == 5
    some = np.flatnonzero(whole.success)
    np.testing.assert_allclose(attack.run(model, x[some], y[some]).distances, whole.distances[some], rtol=1e-9)


def test_without_a_budget_there_is_none_to_scale():
    assert FAB(eps=0.2).scaled(0.5) == FAB(eps=0.1)
    for attack in (FAB(), DeepFool()):
        with pytest.raises(ValueError, match="attack must have an eps to vary, got"):
            attack.scaled(0.5)


@pytest.mark.parametrize("count", [2, np.int64(3)])
def test_candidates_are_any_integer(count):
    assert DeepFool(candidates=count).candidates == count
    with pytest.raises(ValueError, match="candidates must be an integer >= 2, got True"):
        DeepFool(candidates=True)
