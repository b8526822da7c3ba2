"""The Square attack as the paper defines it, seen query by query through the callback."""

import numpy as np
import pytest
from attack_cases import dense, images, predictions, stage
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor
from tinyadv.attacks import Square
from tinyadv.attacks.base.balls import LinfBall

every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])
EPS = {"linf": 0.05, "l2": 0.3}
SHAPES = [(1, 8, 8), (3, 6, 6), (2, 3, 7), (1, 9, 2), (1, 1, 1), (12,), (4, 6)]


def walk(attack, shape, seed, count=3, dtype=np.float64):
    """The model, x, y, and of every example the (points, losses) of its queries."""
    model, x = dense(shape, 4, dtype, seed=seed), images(count, shape, dtype, seed)
    y, seen = predictions(model, x), [([], []) for _ in x]

    def look(step):
        for example, point, loss in zip(step.examples, step.points, step.losses, strict=True):
            seen[example][0].append(point)
            seen[example][1].append(loss)

    return model, x, y, attack.run(model, x, y, seed=seed, callback=look), seen


def bests(points, losses):
    """(candidate, the best point before it) for every query but the first, as the algorithm must have had them."""
    best, value = points[0], losses[0]
    for point, loss in zip(points[1:], losses[1:], strict=True):
        yield point, best
        if loss > value:
            best, value = point, loss


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
def test_every_query_moves_one_window_to_the_corners_of_the_budget(shape, loss, seed):
    """The first is the start, in stripes; each other one is the best so far with a square that is new."""
    attack = Square(0.05, queries=25, loss=loss)
    _, x, _, _, seen = walk(attack, shape, seed)
    image = (1,) * (3 - len(shape)) + shape
    ball = LinfBall(x, 0.05, (0, 1))
    for i, (points, losses) in enumerate(seen):
        low, high = ball.low[i], ball.high[i]
        assert all(((point == low) | (point == high)).all() for point in points)
        up = (points[0] == high).reshape(image)
        assert (up == up[:, :1]).all()  # columns
        for query, (point, best) in enumerate(bests(points, losses), 1):
            moved = (point != best).reshape(image)
            assert moved.any()
            height, width = attack._sides(query, *image[1:])
            lines, columns = (np.flatnonzero(moved.any(axis=axes)) for axes in ((0, 2), (0, 1)))
            assert np.ptp(lines) < height
            assert np.ptp(columns) < width
    assert np.max([len(points) for points, _ in seen]) <= 25


def test_the_perturbation_is_eps_wherever_the_bounds_let_it():
    model, x, y, _ = stage("cnn", False)
    x_adv = Square(0.1, queries=30)(model, x, y)
    wide = np.clip(x + np.where(x_adv > x, 0.1, -0.1), 0, 1)
    np.testing.assert_allclose(x_adv, wide, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
def test_the_whole_l2_budget_is_used_until_the_bounds_cut_it(shape, seed):
    """But for a channel in which the new bump is the opposite of what is there: then line 7 has nothing left."""
    eps = 0.3
    _, x, _, _, seen = walk(Square(eps, norm="l2", queries=25), shape, seed)
    for clean, (points, losses) in zip(x, seen, strict=True):
        for point, best in [(points[0], clean), *bests(points, losses)]:
            length, moved = np.linalg.norm(point - clean), point != best
            assert length <= eps
            channels = [slice(None)] if len(shape) == 1 else range(shape[0])
            cancelled = any(moved[c].any() and (point == clean)[c][moved[c]].all() for c in channels)
            assert length > eps * (1 - 1e-9) or cancelled or ((point == 0) | (point == 1)).any()


@every_norm
@given(seed=seeds, more=st.integers(1, 40))
def test_the_loss_never_worsens_from_query_to_query(norm, seed, more):
    """With the schedule of 10,000 a run of more queries is the same run, continued."""
    model, x = dense((1, 5, 6), 3, np.float64, seed=seed), images(4, (1, 5, 6), np.float64, seed)
    y = predictions(model, x)

    def margin(queries):
        attack = Square(EPS[norm], norm=norm, queries=queries, rescale_schedule=False)
        logits = model(Tensor(attack(model, x, y, seed=seed))).data
        others = np.where(np.arange(3) == y[:, None], -np.inf, logits).max(axis=1)
        return others - logits[range(4), y]

    assert (margin(1 + more) >= margin(1)).all()
    assert (margin(10 + more) >= margin(10)).all()


def test_squares_reach_every_row_and_column_as_often():
    """The last ones too: positions are uniform from 0 to H - s."""
    attack, counts = Square(0.1, queries=1500, p_init=0.05, rescale_schedule=False), np.zeros((2, 10))
    still = lambda x: Tensor(np.tile([1.0, 0.0], (len(x), 1)))  # noqa: E731  never broken, and no query is an improvement
    start = []

    def look(step):
        if not start:
            start.append(step.points)
        moved = (step.points != start[0])[:, 0]
        for corner, axis in enumerate((2, 1)):
            present = moved.any(axis=axis)
            np.add.at(counts[corner], present.argmax(axis=1)[present.any(axis=1)], 1)

    attack(still, images(4, (1, 10, 10)), np.zeros(4, int), callback=look, workers=1, batch_size=4)
    assert attack._sides(1400, 10, 10) == (1, 1)
    assert (counts > 0.7 * counts.mean()).all()


@every_norm
def test_broken_examples_cost_no_more_queries(norm):
    model, x, y, target = stage("float64", True)
    for goal in (None, target):
        result = Square(3 * EPS[norm], norm=norm, queries=40).run(model, x, y, target=goal, batch_size=9)
        assert (result.forwards[~result.success] == 41).all()
        assert (result.forwards[result.success] <= 41).all()
        assert result.success.any()
        assert (result.forwards < 41).any()
        assert not result.backwards.any()


@every_norm
def test_an_example_of_a_long_run_does_not_depend_on_its_batch(norm):
    """Over several blocks of random numbers, while its neighbours drop out."""
    model, x = dense((1, 5, 5), 3, np.float64), images(8, (1, 5, 5), np.float64)
    y, attack = predictions(model, x), Square(EPS[norm] * 1.5, norm=norm, queries=250)
    whole = attack.run(model, x, y, seed=3, batch_size=8)
    alone = attack.run(model, x, y, seed=3, batch_size=1)
    assert len(set(whole.forwards)) > 2
    np.testing.assert_array_equal(whole.forwards, alone.forwards)
    np.testing.assert_allclose(whole.x_adv, alone.x_adv, rtol=0, atol=1e-12)


@every_norm
def test_more_queries_break_more(norm):
    model, x = dense((1, 6, 6), 3, np.float64), images(40, (1, 6, 6), np.float64)
    y = predictions(model, x)
    few, many = (Square(EPS[norm], norm=norm, queries=queries).run(model, x, y).success.sum() for queries in (1, 200))
    assert many > few


def test_the_schedule_of_the_paper():
    """On MNIST: the sides of p = 0.8 halved after 10, 50, ..., 8000 of 10,000 queries, odd and at least 3 for l2."""
    sides = [25, 18, 13, 9, 6, 4, 3, 2, 2, 1]
    after = [1, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    attack = Square(0.3, queries=10_000)
    assert [attack._sides(query, 28, 28)[0] for query in after] == sides
    assert [attack._sides(query - 1, 28, 28)[0] for query in after[1:]] == sides[:-1]
    fewer = Square(0.3, queries=5000)
    assert [fewer._sides(query // 2 + 1, 28, 28)[0] for query in after] == sides
    fixed = Square(0.3, queries=5000, rescale_schedule=False)
    assert fixed._sides(5000, 28, 28) == (2, 2)
    assert [Square(0.3, norm="l2", queries=10_000)._sides(query, 28, 28)[0] for query in after] == [
        25, 19, 13, 9, 7, 5, 3, 3, 3, 3]
    assert attack._sides(1, 4, 100) == (4, 18)


@pytest.mark.parametrize(("message", "change"), [
    ("norm must be linf or l2 for Square, got 'l1'", {"norm": "l1"}),
    ("queries must be an integer >= 1, got 0", {"queries": 0}),
    ("queries must be an integer >= 1, got 2.0", {"queries": 2.0}),
    (r"p_init must be a number in \(0, 1\], got 0", {"p_init": 0}),
    (r"p_init must be a number in \(0, 1\], got 1.5", {"p_init": 1.5}),
    (r"p_init must be a number in \(0, 1\], got '0.8'", {"p_init": "0.8"}),
    ("loss must be one of", {"loss": "hinge"}),
])
def test_a_wrong_hyper_parameter_is_refused_by_name(message, change):
    with pytest.raises(ValueError, match=message):
        Square(0.1, **change)
