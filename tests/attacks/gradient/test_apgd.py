"""APGD against the two papers, written out for one example at a time, and what its steps must do."""

import math

import numpy as np
import pytest
from attack_cases import dense, images, labels, shown
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, gradients, ops
from tinyadv.attacks import APGD, PGD
from tinyadv.attacks.base.balls import ball_class
from tinyadv.attacks.base.objectives import objective
from tinyadv.attacks.gradient.apgd import checkpoints
from tinyadv.random import Streams

every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
SHAPE = (1, 4, 5)


@pytest.mark.parametrize(("steps", "expected"), [
    (100, [22, 41, 57, 70, 80, 87, 93, 99]),
    (50, [11, 21, 29, 35, 40, 44, 47, 50]),
    (10, [3, 5, 6, 7, 8, 9, 10]),
    (1, [1]),
])
def test_the_checkpoints_are_those_of_the_paper(steps, expected):
    assert sorted(w for w in checkpoints(steps) if 0 < w <= steps) == expected


def route(norm, eps, steps, rho, f, x, start):
    """Go through the points x^(0), ..., x^(steps - 1) of one example, in linf or l2; f(point) -> (value, gradient)."""
    ball, points, values, halved = ball_class(norm)(x[None], eps, (0, 1)), [start], [], False
    eta, w, w_last, best = 2 * eps, checkpoints(steps), 0, None

    def project(point):
        return ball.project(point[None])[0]

    for i in range(steps):
        here, (value, g) = points[-1], f(points[-1])
        values.append(value)
        if best is None or value > best[0]:
            best = (value, here, g)
        if i == 0:
            best_at_checkpoint = value
        elif i in w:
            rises = sum(values[j + 1] > values[j] for j in range(w_last, i))
            halved = rises < rho * (i - w_last) or (not halved and best[0] == best_at_checkpoint)
            w_last, best_at_checkpoint = i, best[0]
            if halved:
                eta, (values[-1], here, g) = eta / 2, best
        points[-1] = here  # as x^(k) in the next step's momentum
        z = project(here + eta * (np.sign(g) if norm == "linf" else ball.steepest(g[None])[0]))
        points.append(project(here + 0.75 * (z - here) + 0.25 * (here - points[-2])) if i else z)


def sparse_route(eps, steps, f, x, start):
    """The same in l1: in balls of 3, 2 and 1 times eps. It ends early where rounding decides what comes next."""
    wide = math.floor(0.3 * steps + 1e-9)
    for radius, count in (3 * eps, wide), (2 * eps, wide), (eps, steps - 2 * wide):
        ball, eta, changed = ball_class("l1")(x[None], radius, (0, 1)), radius, 0
        here, best = ball.project(start[None])[0], (-math.inf, start, None)
        for i in range(count):
            value, g = f(here)
            if abs(value - best[0]) < 1e-12:
                return
            if value > best[0]:
                best = (value, here, g)
            if i % max(1, math.floor(0.04 * count + 1e-9)) == 0:
                difference = abs(best[1] - x)
                if ((difference > 0) & (difference < 1e-12)).any():
                    return
                changed_now = int((difference > 0).sum())
                if i and changed_now < 0.95 * changed:
                    eta, (_, here, g) = radius, best
                elif i:
                    eta = max(eta / 1.5, radius / 10)
                changed, k = changed_now, max(1, math.ceil(changed_now / 1.5))
            order, direction = np.argsort(-abs(g).ravel()), np.zeros(x.size)
            largest, others = order[:k], order[k:k + 1]
            if (abs(g).ravel()[largest[-1]] - abs(g).ravel()[others] < 1e-12).any():
                return
            direction[largest] = np.sign(g.ravel()[largest]) / k
            here = ball.project((here + eta * direction.reshape(x.shape))[None])[0]
        start = best[1]


@every_norm
@given(seed=seeds, steps=st.sampled_from([1, 7, 30, 60]), loss=st.sampled_from(["cross_entropy", "margin", "dlr"]),
       eps=st.sampled_from([0.02, 0.4, 1.9]), rho=st.sampled_from([0.5, 0.75]), targeted=st.booleans())
def test_every_step_is_that_of_the_paper(norm, seed, steps, loss, eps, rho, targeted):
    """For one image: in a batch, matrix products are rounded otherwise, which decides where the loss stays the same."""
    model, x, y = dense(SHAPE, 5, np.float64, scale=6, seed=seed), images(1, SHAPE, np.float64, seed), labels(1)
    target, seen = (y + 1) % 5 if targeted else None, []

    def f(point):
        seen.append(point)
        leaf = Tensor(point[None])
        value = objective(loss)(model(leaf), y, target)
        return value.data[0], gradients(value.sum(), [leaf])[0][0]

    found = shown(APGD(eps, steps, norm, rho, loss=loss), model, x, y, target=target, seed=4)
    radius = 3 * eps if norm == "l1" and steps > 3 else eps
    start = ball_class(norm)(x, radius, (0, 1)).random(Streams(4, [0]))[0]
    if norm == "l1":
        sparse_route(eps, steps, f, x[0], start)
    else:
        route(norm, eps, steps, rho, f, x[0], start)
    np.testing.assert_allclose(found[:len(seen), 0], seen, rtol=0, atol=1e-4 * eps)


def test_in_l1_the_balls_shrink_to_the_budget():
    """To the first two the callback is the only witness: their points are no candidates."""
    model, x, y = dense(SHAPE, 5, np.float64), images(8, SHAPE, np.float64), labels(8)
    points = shown(APGD(0.5, 20, "l1"), model, x, y)
    distances = abs(points - x).sum(axis=(2, 3, 4)).max(axis=1)
    for part, radius in (slice(6), 1.5), (slice(6, 12), 1.0), (slice(12, 20), 0.5):
        assert distances[part].max() == pytest.approx(radius)


@every_norm
def test_the_step_shrinks_and_the_loss_settles_at_a_maximum_inside_the_ball(norm):
    """A concave objective whose maximum is inside: fixed steps of 2 * eps would go to and fro around it for ever."""
    shape, eps = (6,), {"linf": 0.1, "l2": 0.2, "l1": 0.4}[norm]
    x = np.full((4, *shape), 0.5)
    peak = x + 0.02 * np.random.default_rng(0).choice([-1.0, 1.0], x.shape)

    def model(points):
        bowl = ((points - peak[: len(points)]) * (points - peak[: len(points)])).sum(axis=1)
        return ops.reshape(bowl, (-1, 1)) * np.array([[1.0, 0.0]])

    y = np.zeros(4, int)  # the margin is minus the squared distance from the peak
    result = APGD(eps, 100, norm, loss="margin").run(model, x, y, batch_size=4, seed=1)
    fixed = PGD(eps, 2 * eps, 100, norm, loss="margin").run(model, x, y, batch_size=4, seed=1)
    gap, gap_fixed = (np.square(r.x_adv - peak).sum(axis=1) for r in (result, fixed))
    assert (gap < 0.1 * gap_fixed).all()
    assert not result.success.any()


@every_norm
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_run_costs_a_gradient_for_each_step(norm, restarts):
    """Later runs are spent on what is not broken yet; the last point of each costs a forward pass."""
    model, x, y = dense(SHAPE, 5, seed=2), images(8, SHAPE), labels(8)
    result = APGD(0.05, 9, norm, restarts=restarts).run(model, x, y)
    runs = result.backwards // 9
    assert (result.backwards % 9 == 0).all()
    assert (result.forwards == 10 * runs).all()
    assert (runs[~result.success] == restarts).all()
    assert runs[result.success].min() == 1


@pytest.mark.parametrize("rho", [-0.1, 1.5, np.nan, "0.75", None, True])
def test_a_wrong_rho_is_refused(rho):
    with pytest.raises(ValueError, match=r"rho must be a number in \[0, 1\], got"):
        APGD(0.1, rho=rho)


def test_it_prints_as_it_is_written():
    assert APGD(0.3) == APGD(eps=0.3, steps=100, norm="linf", rho=0.75, restarts=1, loss="cross_entropy")
    assert str(APGD(0.3, norm="l2")) == "APGD(eps=0.3, norm='l2')"
