"""DeepFool where its result can be written down: on linear models, whose nearest boundary is a hyperplane."""

import math

import numpy as np
import pytest
from attack_cases import dense, images, predictions, rows, to_boundaries
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, ops
from tinyadv.attacks import DeepFool

every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])
DUAL = {"l2": 2, "linf": 1}
SHAPE, WIDE = (1, 4, 5), (-100.0, 100.0)


def linear(seed, classes, count=6):
    """A float64 linear model, images far from the bounds WIDE, their classes, and the model's (weight, bias)."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(classes, math.prod(SHAPE))), rng.normal(size=classes)
    x = rng.normal(size=(count, *SHAPE))

    def model(points):
        return ops.linear(ops.flatten(points), Tensor(weight), Tensor(bias))

    return model, x, predictions(model, x), (weight, bias)


@every_norm
@given(seed=seeds, classes=st.integers(2, 10), overshoot=st.sampled_from([0.02, 0.5, 1e-6]))
def test_one_step_crosses_the_nearest_hyperplane(norm, seed, classes, overshoot):
    """By 1e-4, and then by the overshoot."""
    model, x, y, layer = linear(seed, classes)
    result = DeepFool(norm=norm, overshoot=overshoot, bounds=WIDE).run(model, x, y)
    nearest = to_boundaries(x, y, layer, norm)
    np.testing.assert_allclose(result.distances, (1 + overshoot) * (nearest.min(axis=1) + 1e-4), rtol=1e-9)
    np.testing.assert_array_equal(result.predictions, nearest.argmin(axis=1))
    assert result.success.all()
    assert (result.backwards == classes).all()


@every_norm
@given(seed=seeds, candidates=st.integers(2, 7))
def test_the_candidates_are_the_classes_of_the_highest_logits(norm, seed, candidates):
    model, x, y, layer = linear(seed, 6)
    result = DeepFool(norm=norm, steps=1, candidates=candidates, bounds=WIDE).run(model, x, y)
    by_rank = np.argsort(-model(Tensor(x)).data, axis=1)[:, 1:candidates]
    nearest = np.take_along_axis(to_boundaries(x, y, layer, norm), by_rank, axis=1).min(axis=1)
    np.testing.assert_allclose(result.distances[result.success], 1.02 * (nearest + 1e-4)[result.success], rtol=1e-9)
    assert result.success.all() or candidates < 6  # another class than those may lie between: one step is too few
    assert (result.backwards == min(candidates, 6)).all()


@every_norm
@given(seed=seeds, classes=st.integers(2, 6))
def test_the_target_is_reached_no_nearer_than_its_hyperplane(norm, seed, classes):
    model, x, y, layer = linear(seed, classes)
    target = (y + 1) % classes
    result = DeepFool(norm=norm, bounds=WIDE).run(model, x, y, target=target)
    assert result.success.all()
    assert (result.predictions == target).all()
    own = to_boundaries(x, y, layer, norm)[np.arange(len(x)), target]
    assert (result.distances > own).all()
    if classes == 2:
        np.testing.assert_allclose(result.distances, 1.02 * (own + 1e-4), rtol=1e-9)


@every_norm
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 3.0)])
def test_a_curved_boundary_is_just_crossed(norm, bounds):
    """Going back by a little more than the overshoot undoes the success: the way is not straight, but nearly so."""
    model, x = dense((1, 8, 8), 5, np.float64, scale=1.0), images(40, dtype=np.float64)
    y = predictions(model, x)
    result = DeepFool(norm=norm, bounds=bounds).run(model, x, y)
    assert result.success.mean() > 0.9
    back = x + (result.x_adv - x) / 1.1
    assert (predictions(model, back) == y)[result.success].mean() > 0.9


@every_norm
def test_an_example_costs_what_it_takes_and_no_more(norm):
    """Once an example is misclassified the model sees it one last time, in the end."""
    model, x = dense((1, 8, 8), 5, np.float64, scale=6.0), images(40, dtype=np.float64)
    y = predictions(model, x)
    steps, seen = [], []
    result = DeepFool(norm=norm).run(lambda points: seen.append(len(points)) or model(points), x, y, batch_size=40,
                                callback=steps.append)
    taken = np.bincount(np.concatenate([step.examples for step in steps]), minlength=40)
    assert taken.min() < taken.max()
    np.testing.assert_array_equal(result.backwards, 5 * taken)
    assert result.forwards.sum() == sum(seen)
    again = DeepFool(norm=norm, steps=int(taken.max())).run(model, x, y, batch_size=40)
    assert again.x_adv.tobytes() == result.x_adv.tobytes()


@every_norm
def test_where_there_is_no_slope_nothing_moves(norm):
    model, x, _, (weight, _) = linear(0, 3)
    weight[:, ::2] = 0  # the model reads these arrays
    y = predictions(model, x)
    moved = rows(DeepFool(norm=norm, bounds=WIDE)(model, x, y) != x)
    assert moved.any(axis=1).all()
    assert not moved[:, ::2].any()
    weight[:] = 0
    flat = DeepFool(norm=norm, bounds=WIDE).run(model, x, predictions(model, x))
    assert flat.x_adv.tobytes() == x.tobytes()
    assert not flat.success.any()


@pytest.mark.parametrize(("name", "value"), [
    ("norm", "l1"), *(("overshoot", value) for value in (-0.1, np.inf, np.nan, True, "0.02")),
    *(("candidates", value) for value in (1, 0, 2.0, True, None)),
])
def test_a_wrong_hyper_parameter_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got "):
        DeepFool(**{name: value})
