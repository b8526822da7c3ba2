"""HopSkipJump round by round, as the paper has it. What it shares with other attacks is in test_decision.py."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from attack_cases import images, predictions, rows

from tinyadv import ops
from tinyadv.attacks import HopSkipJump

every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])
D = 20


def half_space(seed, distance=0.1):
    """(model, x, weight): two classes, the boundary at a distance from x, which is twelve times the middle."""
    rng = np.random.default_rng(seed)
    x, weight = np.full((12, D), 0.5), rng.normal(size=D)
    offset = weight @ x[0] + distance * np.linalg.norm(weight)

    def model(points):
        lead = ops.flatten(points) @ weight[:, None] - offset
        return ops.concatenate([lead * 0.0, lead], axis=1)

    return model, x, weight


# The gradient


def cosine(directions, delta=0.05, ahead=0.0):
    """Between the gradient that is estimated and the weight, which is the true one: mean over twelve starts.

    ahead: how far beyond the boundary, in standard deviations of what delta * u comes to across it.
    """
    model, x, weight = half_space(1)
    normal, found = weight / np.linalg.norm(weight), []

    @dataclass(frozen=True)
    class Probe(HopSkipJump):
        def approach(self, batch):
            points = self.bisect(batch, batch.best, 40) + ahead * delta / math.sqrt(D) * normal
            g = self._gradient(batch, points, np.full(len(x), delta), np.full(len(x), directions))
            found.extend(g @ normal / np.linalg.norm(g, axis=1))

    Probe(queries=10**6).run(model, x, np.zeros(len(x), int), batch_size=len(x))
    return np.mean(found)


def test_more_directions_are_a_better_gradient():
    """On a plane as much better as a mean of sign(u . n) u must be, where |u . n| is sqrt(2 / (pi d)) on average."""
    for directions in (4, 20, 100, 500):
        known = 2 / math.pi * directions
        assert cosine(directions) == pytest.approx(math.sqrt(known / (known + D - 1)), abs=0.06)


def test_the_baseline_bears_with_points_off_the_boundary():
    """Where about five in six decisions are alike, which is what it is for, 300 directions know nearly as much."""
    assert cosine(300, ahead=1) > 0.9 * cosine(300)


def test_decisions_all_alike_have_no_baseline():
    """It would leave nothing: the gradient is then the mean of the directions, any one."""
    assert 0 < abs(cosine(3, delta=1e-3, ahead=100)) < 1


# The rounds


@every_norm
def test_the_rounds_are_those_of_the_paper(norm):
    """B_0 sqrt(t) directions delta away; a step of r / sqrt(t), halved while it fails; and the way back, to theta."""
    (model, x, weight), points = half_space(2), []
    start = np.clip(x[:1] + np.sign(weight) * np.linspace(0.2, 0.4, D), 0, 1)
    HopSkipJump(queries=2000, norm=norm, initial_directions=16, starts=start).run(
        model, x[:1], np.zeros(1, int), callback=lambda step: points.append(step.points[0]))
    order, x = 2 if norm == "l2" else np.inf, x[0]
    halvings = math.ceil((1.5 if norm == "l2" else 2) * math.log2(D))

    def adversarial(point):
        return predictions(model, point[None])[0] == 1

    def take(count):
        return [points.pop(0) for _ in range(count)]

    at = [point for point in take(11) if adversarial(point)][-1]  # the start, and the way back from it
    for t in range(1, 6):
        r = np.linalg.norm(at - x, ord=order)
        around = take(int(16 * math.sqrt(t)))
        delta = 0.1 if t == 1 else r / D
        np.testing.assert_allclose(np.linalg.norm(np.array(around) - at, axis=1), delta, rtol=1e-9)
        phi = np.where([adversarial(point) for point in around], 1.0, -1.0)
        u = (np.array(around) - at) / delta
        v = (phi - phi.mean() * (abs(phi.mean()) < 1)) @ u
        v = v / np.linalg.norm(v) if norm == "l2" else np.sign(v)
        for k in range(10):
            (there,) = take(1)
            np.testing.assert_allclose(there, np.clip(at + r / math.sqrt(t) / 2**k * v, 0, 1), rtol=0, atol=1e-9)
            if adversarial(there):
                break
        back, far = take(halvings), there - x
        length = np.linalg.norm(far, ord=order)
        low, high, at = 0, 1, there
        for point in back:
            middle = (low + high) / 2
            expected = x + middle * far if norm == "l2" else x + far.clip(-middle * length, middle * length)
            np.testing.assert_allclose(point, expected, rtol=0, atol=1e-9)
            if adversarial(point):
                at, high = point, middle
            else:
                low = middle


@every_norm
@pytest.mark.parametrize("target", [None, 1])
def test_it_comes_near_the_nearest_point_of_a_plane(norm, target):
    """Whose distance in linf is that in l2, times the l2 norm of the weight over the l1 norm."""
    model, x, weight = half_space(3)
    exact = 0.1 if norm == "l2" else 0.1 * np.linalg.norm(weight) / abs(weight).sum()
    result = HopSkipJump(queries=1500, norm=norm).run(model, x, np.zeros(len(x), int), target=target)
    assert result.success.all()
    assert (result.distances >= exact * (1 - 1e-9)).all()
    assert (result.distances <= exact * 1.15).all()


@every_norm
def test_a_step_that_fails_is_none(norm):
    """Where the classes are all over the place no step need end well: the nearest point so far is returned."""
    def model(points):
        wild = np.sin(1e5 * rows(points.data).sum(axis=1))
        return np.stack([0 * wild, wild], axis=1)

    x = images(20, (1, 3, 3), np.float64)
    y = predictions(model, x)
    few, many = (HopSkipJump(queries=queries, norm=norm, initial_directions=5).run(model, x, y)
                 for queries in (60, 400))
    assert many.success.all()
    assert np.median(many.distances) < np.median(few.distances)
    assert many.forwards.max() <= 400


@pytest.mark.parametrize("count", [0, -1, 2.5, None])
def test_a_wrong_number_of_directions_is_refused(count):
    with pytest.raises(ValueError, match=r"^initial_directions must be an integer >= 1, got "):
        HopSkipJump(initial_directions=count)


def test_the_l1_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be l2 or linf for HopSkipJump, got 'l1'"):
        HopSkipJump(norm="l1")
