"""The attack of Carlini and Wagner: margins, the search for c, and linear models, where the nearest point is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from attack_cases import dense, images, labels, predictions, rows, targeted_or_not
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, ops
from tinyadv.attacks import CarliniWagner
from tinyadv.attacks.base.objectives import margin

SHORT = CarliniWagner(binary_search_steps=4, steps=60, lr=0.05, initial_c=0.1)


def problem(targeted, count=20):
    """A curved float64 model, images, their classes, and targets that these are not."""
    model, x = dense((1, 8, 8), 5, np.float64, scale=3.0), images(count, dtype=np.float64)
    y = predictions(model, x)
    return model, x, y, (y + 1 + labels(count, 4)) % 5 if targeted else None


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-100.0, 155.0)])
@pytest.mark.parametrize("kappa", [0.0, 0.5])
@given(seed=seeds)
@settings(max_examples=2)
def test_it_comes_close_to_the_hyperplane(kappa, bounds, seed):
    """On which the margin is kappa, and which it crosses."""
    rng, (low, high), middle = np.random.default_rng(seed), bounds, sum(bounds) / 2
    weight, offset = rng.normal(size=(2, 20)) / (high - low), rng.uniform(-0.05, 0.05, (6, 20))
    bias = -weight.sum(axis=1) * middle  # equal logits in the middle, and the images at 0.1 to 0.2 from there
    normal = (weight[1] - weight[0]) / np.linalg.norm(weight[1] - weight[0])
    offset += (rng.choice([-1, 1], 6) * rng.uniform(0.1, 0.2, 6) - offset @ normal)[:, None] * normal
    x = (middle + (high - low) * offset).reshape(6, 1, 4, 5)

    def model(points):
        return ops.linear(ops.flatten(points), Tensor(weight), Tensor(bias))

    attack = CarliniWagner(kappa, steps=250, initial_c=0.1 * (high - low) ** 2, bounds=bounds)
    f = rows(x) @ weight.T + bias
    y, gap = f.argmax(axis=1), abs(f[:, 1] - f[:, 0])
    result = attack.run(model, x, y, batch_size=6)
    nearest = (gap + kappa) / np.linalg.norm(weight[1] - weight[0])
    assert result.success.all()
    assert (result.distances > nearest * (1 - 1e-9)).all()
    assert (result.distances < nearest * 1.02).all()


@targeted_or_not
@pytest.mark.parametrize("kappa", [0.0, 0.3, 2.0])
def test_what_is_returned_has_the_margin_or_is_the_image(targeted, kappa):
    model, x, y, target = problem(targeted)
    result = replace(SHORT, kappa=kappa).run(model, x, y, target=target)
    margins = margin(model(Tensor(result.x_adv)), y, target).data
    assert result.success.any()
    assert (margins[result.success] > kappa * (1 - 1e-12)).all()
    assert result.x_adv[~result.success].tobytes() == x[~result.success].tobytes()
    assert np.median(margins[result.success]) < kappa + 0.1  # and no more of it than need be


@targeted_or_not
def test_a_margin_out_of_reach_is_a_failure(targeted):
    """Also where every image can be misclassified."""
    model, x, y, target = problem(targeted)
    result = replace(SHORT, kappa=1e3).run(model, x, y, target=target)
    assert not result.success.any()
    assert result.x_adv.tobytes() == x.tobytes()
    assert SHORT.run(model, x, y, target=target).success.any()


@targeted_or_not
@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_no_search_step_loses_anything(targeted, kappa):
    model, x, y, target = problem(targeted)
    before, successes = np.full(len(x), np.inf), []
    for count in range(1, 7):
        result = replace(SHORT, kappa=kappa, binary_search_steps=count).run(model, x, y, target=target)
        distances = np.where(result.success, result.distances, np.inf)
        assert (distances <= before).all()
        before = distances
        successes.append(result.success.sum())
    assert successes[0] < successes[-1] == len(x)


@targeted_or_not
def test_only_differences_of_logits_count(targeted):
    """Negative ones are no worse: to mask a class with 0, and not with -inf, is a known error."""
    model, x, y, target = problem(targeted)
    expected = SHORT.run(model, x, y, target=target)
    shifted = SHORT.run(lambda points: model(points) - 64.0, x, y, target=target)
    np.testing.assert_allclose(shifted.x_adv, expected.x_adv, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(shifted.success, expected.success)


@given(seed=seeds, value=st.sampled_from([0.0, 1.0]))
@settings(max_examples=5)
def test_pixels_at_a_bound_can_leave_it(seed, value):
    rng, x = np.random.default_rng(seed), np.full((4, 1, 4, 5), value)
    weight = abs(rng.normal(size=(1, 20))) * np.array([[1.0], [-1.0]]) * (1 if value == 0 else -1)

    def model(points):  # the first class wins as soon as the pixels have moved by 0.05 or so
        return ops.linear(ops.flatten(points) - value, Tensor(weight)) - Tensor(np.array([1.0, 0.0]))

    attack = CarliniWagner(binary_search_steps=2, steps=300, lr=0.05, initial_c=1.0)
    result = attack.run(model, x, np.ones(4, int), batch_size=4)
    assert result.success.all()
    assert (abs(result.x_adv - value) > 1e-3).any(axis=(1, 2, 3)).all()


def test_each_example_searches_for_its_own_c():
    """With others that need a c a thousand times as large an example ends up where it does alone."""
    _, x, _, _ = problem(False)
    weight = np.random.default_rng(3).normal(size=(3, 64))

    def model(points):  # logits a thousand times as high where the first pixel is above one half
        scale = np.where(points.data.reshape(len(points), -1)[:, :1] > 0.5, 1.0, 1e-3)
        return ops.linear(ops.flatten(points), Tensor(weight)) * scale

    y = predictions(model, x)
    together = SHORT.run(model, x, y, batch_size=len(x))
    alone = SHORT.run(model, x, y, batch_size=1)
    np.testing.assert_allclose(together.x_adv, alone.x_adv, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(together.backwards, alone.backwards)


def test_an_example_whose_objective_no_longer_falls_is_done():
    """With each c, at the first check at which a pixel could have left its bound; the others and the indices go on."""
    model, x, y, _ = problem(False)
    bright = np.arange(len(x)) % 3 == 0
    x[:, 0, 0, 0] = np.where(bright, 0.9, 0.1)

    def stuck(points):  # where the first pixel is bright
        return model(points) * np.where(rows(points.data)[:, :1] > 0.5, 0.0, 100.0)

    y, steps = predictions(stuck, x), []
    attack = CarliniWagner(kappa=10.0, binary_search_steps=3, steps=200, lr=0.1, initial_c=1.0)
    result = attack.run(stuck, x, y, batch_size=len(x), callback=steps.append)
    backwards = result.backwards
    assert (backwards[bright] == 3 * 81).all()  # a check every 20 steps, and 72.5 to come half the way
    assert backwards[~bright].max() > 3 * 81
    assert not result.success[bright].any()
    assert result.success[~bright].all()
    assert [step.index for step in steps] == list(range(len(steps)))
    assert sum(len(step.examples) for step in steps) == backwards.sum()


@pytest.mark.parametrize(("name", "value"), [
    *(("binary_search_steps", value) for value in (0, -1, 9.0, True, None)),
    *(("kappa", value) for value in (-1, math.inf, math.nan, True, "0")),
    *((name, value) for name in ("lr", "initial_c") for value in (0, -1e-3, math.inf, math.nan, None)),
])
def test_a_wrong_hyper_parameter_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got "):
        CarliniWagner(**{name: value})
