"""The attacks that search for the nearest misclassified point, where it is known: on linear models of two classes."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from attack_cases import lengths, name, predictions, rows, shown
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, evaluation, ops
from tinyadv.attacks import (
    APGD,
    DDN,
    EAD,
    FGSM,
    FMN,
    PDGD,
    PDPGD,
    PGD,
    AtBudget,
    BrendelBethge,
    CarliniWagner,
    MultiAttack,
    SigmaZero,
    SparseRS,
)
from tinyadv.attacks.base.balls import BALLS
from tinyadv.attacks.base.batch import Batch
from tinyadv.attacks.minimum_norm import hyperplane
from tinyadv.attacks.minimum_norm.brendel_bethge import best_step
from tinyadv.attacks.minimum_norm.primal_dual import _sigmoid

SHAPE = (1, 6, 7)
FAR = np.stack([np.zeros(SHAPE), np.ones(SHAPE)])  # images of both classes, for attacks that start at one


def problem(seed, count=6, shape=SHAPE):
    """A float64 model, images and their classes, the model's lead at them (negative) and its slope."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=shape)
    slope += (0.2 - slope.mean()) * rng.choice([-1, 1])  # black and white are of different classes
    x, middle = rng.uniform(0.1, 0.9, size=(count, *shape)), 0.5 * slope.sum()
    x += 0.1 * np.sign((slope * x).sum(axis=(1, 2, 3), keepdims=True) - middle) * np.sign(slope)  # not too near to it
    weight = np.stack([-rows(slope[None])[0], rows(slope[None])[0]]) / 2

    def model(points):
        return ops.linear(ops.flatten(points), Tensor(weight), Tensor(np.array([middle, -middle]) / 2))

    y = predictions(model, x)
    sign = np.where(y == 0, 1, -1)
    return model, x, y, sign * ((slope * x).sum(axis=(1, 2, 3)) - middle), sign[:, None, None, None] * slope


def nearest(norm, x, lead, slope):
    """The distance of the nearest misclassified point within (0, 1)."""
    if norm != "l0":
        return lengths(norm, hyperplane.way(norm, x, lead, slope, 0.0, 1.0))
    gains = np.sort((slope * ((slope > 0) - x)).sum(axis=1).reshape(len(x), -1))[:, ::-1]
    return (gains.cumsum(axis=1) <= -lead[:, None]).sum(axis=1) + 1


CONVERGED = [  # with steps enough, and by how much of the distance they may miss it
    (DDN(steps=300), 0.01),
    (FMN(steps=200), 0.01),
    (FMN(steps=200, norm="linf"), 0.01),
    (FMN(steps=200, norm="l1"), 0.01),
    (PDGD(steps=1000), 0.03),
    (PDPGD(steps=1000), 0.03),
    (PDPGD(steps=1000, norm="l2"), 0.03),
    (PDPGD(steps=1000, norm="l1"), 0.05),
    (CarliniWagner(steps=300), 0.02),
    (EAD(steps=300, beta=0.1, initial_c=0.1), 0.08),
    (BrendelBethge(steps=150, lr=0.02, starts=FAR), 0.01),
    (BrendelBethge(steps=150, lr=0.02, norm="linf", starts=FAR), 0.01),
    (BrendelBethge(steps=150, lr=0.02, norm="l1", starts=FAR), 0.01),
    (AtBudget(PGD(0.1, steps=20), 600), 0.01),
    (AtBudget(APGD(0.5, steps=20, norm="l2"), 800), 0.02),
]
SOON = [DDN(steps=60), FMN(steps=40), FMN(steps=40, norm="linf"), FMN(steps=40, norm="l1"), AtBudget(FGSM(0.1), 30)]
PIXELS = [FMN(steps=200, norm="l0"), SigmaZero(steps=200), AtBudget(SparseRS(4, queries=300), 3000)]


@pytest.mark.parametrize(("attack", "slack"), CONVERGED, ids=lambda value: str(value))
def test_the_nearest_point_is_found_and_none_that_is_nearer(attack, slack):
    for seed in range(3):
        model, x, y, lead, slope = problem(seed)
        least = nearest(attack.norm, x, lead, slope)
        result = attack.run(model, x, y, seed=seed)
        assert result.success.all()
        assert (result.distances >= (1 - 1e-12) * least).all()
        assert (result.distances <= (1 + slack) * least).all()


@pytest.mark.parametrize("attack", SOON, ids=name)
def test_a_few_steps_come_near(attack):
    model, x, y, lead, slope = problem(5, count=40)
    result = attack.run(model, x, y)
    assert result.success.mean() > 0.6
    found = np.where(result.success, result.distances, np.inf)
    assert np.median(found / nearest(attack.norm, x, lead, slope)) <= 1.05


@pytest.mark.parametrize("attack", PIXELS, ids=str)
def test_the_fewest_pixels_are_found_up_to_one(attack):
    model, x, y, lead, slope = problem(3, count=20)
    least, result = nearest("l0", x, lead, slope), attack.run(model, x, y)
    assert result.success.all()
    assert (result.distances >= least).all()
    assert (result.distances <= least + 1).all()
    assert np.median(result.distances - least) == 0


def test_the_channels_of_a_pixel_count_once():
    """Each pixel has as much slope in its three channels as the grey one: the same number of pixels is found."""
    grey = problem(4, count=10, shape=(1, 4, 4))
    colours = np.repeat(grey[1], 3, axis=1)
    weight = np.repeat(grey[4][:1], 3, axis=1) / 3

    def model(points):
        lead = ops.linear(ops.flatten(points), Tensor(rows(weight))) + float(-0.5 * grey[4][0].sum())
        return ops.linear(lead, Tensor(np.array([[-0.5], [0.5]])))

    y = predictions(model, colours)
    for attack in SigmaZero(steps=200), FMN(steps=200, norm="l0"):
        found = attack.run(model, colours, y)
        assert found.success.all()
        np.testing.assert_allclose(found.distances, attack.run(grey[0], grey[1], grey[2]).distances, atol=1)


@given(seed=seeds, norm=st.sampled_from(["l2", "l1", "linf"]), radius=st.sampled_from([0.02, 0.1, 0.3]))
def test_a_step_of_brendel_and_bethge_is_the_best_of_the_trust_region(seed, norm, radius):
    """No point of the region that reaches the boundary is nearer to the image; two points and all between are tried."""
    rng = np.random.default_rng(seed)
    x, x0, b = rng.uniform(0, 1, (2, 1, 8)).tolist()[0], rng.uniform(0, 1, (1, 8)), rng.normal(size=(1, 8))
    x, box = np.array(x), (-np.array(x), 1 - np.array(x))
    reach = np.sqrt((b**2).sum())
    c = np.array([rng.uniform(-0.3, 0.3) * radius * reach])
    d = best_step(norm, x0 - x, b, c, radius, box, 1.0)
    assert np.sqrt((d**2).sum()) <= radius * (1 + 1e-12)
    assert ((box[0] <= d) & (d <= box[1])).all()
    missed = abs((b * d).sum() - c[0])
    if missed > 0.05 * abs(c[0]) + 1e-6 * radius * reach:  # out of reach, in the box
        return
    length = {"l2": lambda v: np.sqrt((v**2).sum(axis=1)), "l1": lambda v: abs(v).sum(axis=1),
              "linf": lambda v: abs(v).max(axis=1)}[norm]
    others = rng.normal(size=(2000, 8)) * radius * rng.uniform(0, 1, (2000, 1))
    others = np.concatenate([others, d + 0.05 * others]).clip(*box)
    others = others + b * ((c - (others * b).sum(axis=1, keepdims=True).T).T / reach**2)
    fits = (np.sqrt((others**2).sum(axis=1)) <= radius) & ((box[0] <= others) & (others <= box[1])).all(axis=1)
    slack = 8 * missed / abs(b).max() + 0.005 * radius  # off the boundary, and short of the radius by bisection
    assert (length(x0 - x - others[fits]) >= length(x0 - x - d) - slack).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(seed=seeds)
def test_a_proximal_step_minimises_the_norm_and_the_distance(norm, seed):
    rng = np.random.default_rng(seed)
    x, moved = np.full((3, 1, 2, 3), 0.5), 0.3 * rng.normal(size=(3, 1, 2, 3)).clip(-1, 1)
    mu = rng.uniform(0.01, 0.2, 3)
    batch = Batch(None, BALLS[norm](x, math.inf, (-9.0, 9.0)), None, np.zeros(3, int), None, None, None)
    found = PDPGD(norm=norm)._nearer(batch, moved, np.ones_like(x), mu)

    def objective(points):
        return mu * lengths(norm, points) + ((points - moved) ** 2).sum(axis=(1, 2, 3)) / 2

    for scale in 1e-3, 1e-2, 0.1:
        for _ in range(20):
            other = found + scale * rng.normal(size=x.shape)
            assert (objective(other) >= objective(found) - 1e-9).all()


@pytest.mark.parametrize("attack", [
    PDGD(steps=9, restarts=3), PDPGD(steps=9, norm="l1", restarts=3), SigmaZero(steps=9, restarts=3)], ids=name)
def test_later_runs_begin_at_noise_of_half_the_range(attack):
    model, x, _, _, _ = problem(2, count=40)
    x, bounds = 2 * x - 1, (-1.0, 1.0)
    y = predictions(model, x)
    often, first = (replace(attack, restarts=runs, bounds=bounds) for runs in (3, 1))
    points = shown(often, model, x, y, seed=1)
    assert len(points) == 27
    np.testing.assert_array_equal(points[:9], shown(first, model, x, y, seed=1))
    starts = points[9], points[18]
    for start in starts:
        far = abs(start - x)
        assert far.max() <= 1
        assert far.max() > 0.95
        inside = (start > -1) & (start < 1)
        assert abs((start - x)[inside & (abs(x) < 0.1)].mean()) < 0.1  # to both sides
    assert (starts[0] != starts[1]).any(axis=(1, 2, 3)).all()
    found = (each.run(model, x, y, seed=1) for each in (often, first))
    far, once = (np.where(each.success, each.distances, np.inf) for each in found)
    assert (far <= once).all()


def test_the_norm_of_ddn_shrinks_at_misclassified_points_and_grows_at_others():
    model, x, y, _, _ = problem(1)
    points = shown(DDN(steps=30), model, x, y)[1:]
    length = np.array([lengths("l2", each - x) for each in points])
    wrong = np.array([predictions(model, each) != y for each in points])
    inside = ((points > 0) & (points < 1)).all(axis=(2, 3, 4))  # where clipping has not changed the norm
    both = inside[:-1] & inside[1:]
    factor = np.where(wrong[:-1], 0.95, 1.05)
    assert both.sum() > 5
    np.testing.assert_allclose((length[1:] / length[:-1])[both], factor[both], rtol=1e-9)


def test_every_step_of_ddn_is_that_of_the_paper():
    """delta + alpha g / |g|, scaled to a norm that shrinks or grows by gamma, from 1 on, in units of the range."""
    model, x, y, _, slope = problem(3)
    points, length = shown(DDN(steps=30), model, x, y), np.ones(len(x))
    for step, (before, after) in enumerate(pairwise(points)):
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * step / 30)) / 2
        moved = before - x + alpha * BALLS["l2"].steepest(slope)
        length = length * np.where(predictions(model, before) != y, 0.95, 1.05)
        expected = x + length[:, None, None, None] * BALLS["l2"].steepest(moved)
        np.testing.assert_allclose(after, expected.clip(0, 1), atol=1e-9)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_every_step_of_fmn_is_that_of_the_paper(norm):
    """But for the factor of the first steps, which grows; and gamma falls along half a cosine, as alpha does."""
    model, x, y, _, slope = problem(3)
    points, kind, steps = shown(FMN(steps=40, norm=norm), model, x, y), BALLS[norm], 40
    best, epsilon = np.full(len(x), np.inf), np.full(len(x), np.inf)
    for step, (before, after) in enumerate(pairwise(points)):
        share = (1 + math.cos(math.pi * step / steps)) / 2
        alpha, gamma = (10 if norm == "linf" else 1) * (0.01 + 0.99 * share), 0.05 * (0.02 + 0.98 * share)
        found, delta = predictions(model, before) != y, before - x
        best = np.where(found, np.minimum(best, lengths(norm, delta)), best)
        logits = model(Tensor(before)).data
        near = abs(logits[:, 0] - logits[:, 1]) / hyperplane.DUAL[norm].distance(slope)
        up = np.where(best < np.inf, (1 + gamma) * epsilon, lengths(norm, delta) + (1 + step / 10) * near)
        epsilon = np.where(found, np.minimum((1 - gamma) * epsilon, best), up)
        moved = delta + alpha * BALLS["l2"].steepest(slope)
        scaled = (epsilon[:, None, None, None] * kind.steepest(moved) if norm == "l2" else kind.shrink(moved, epsilon))
        np.testing.assert_allclose(after, (x + scaled).clip(0, 1), atol=1e-9)


def test_every_step_of_sigma_zero_is_that_of_the_paper():
    """Adam on gradients of linf norm 1, then the threshold, by which the small changes are undone."""
    model, x, y, _, slope = problem(3)
    points, steps, first, second, tau = shown(SigmaZero(steps=100), model, x, y), 100, 0.0, 0.0, np.full(len(x), 0.3)
    for step, (before, after) in enumerate(pairwise(points), 1):
        lr = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        wrong, delta = (predictions(model, before) != y)[:, None, None, None], before - x
        g = 2e-3 * delta / (delta**2 + 1e-3) ** 2 / 42 - np.where(wrong, 0, slope)
        g = g / abs(g).max(axis=(1, 2, 3), keepdims=True)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        direction = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        moved = (before - lr * direction).clip(0, 1) - x
        tau = (tau + 0.01 * lr * np.where(wrong[:, 0, 0, 0], 1, -1)).clip(0, 1)
        sure = abs(abs(moved) - tau[:, None, None, None]) > 0.02  # the rate may lag behind by a step
        expected = np.where(abs(moved) >= tau[:, None, None, None], before - lr * direction, x).clip(0, 1)
        np.testing.assert_allclose(after[sure], expected[sure], atol=0.02)


def test_where_there_is_no_slope_ddn_takes_a_random_direction_of_the_examples_stream():
    def model(points):
        return ops.linear(ops.flatten(points), Tensor(np.zeros((3, 42)))) + np.eye(3)[1]

    x = problem(0)[1]
    points = shown(DDN(steps=3), model, x, np.ones(len(x), int), seed=5)
    assert (points[1] != x).any(axis=(1, 2, 3)).all()
    alone = shown(DDN(steps=3), model, x[:2], np.ones(2, int), seed=5)
    np.testing.assert_array_equal(alone, points[:, :2])


def test_the_sigmoid_does_not_overflow():
    np.testing.assert_array_equal(_sigmoid(np.array([-1e9, 0.0, 1e9])) > 0, [True, True, True])


# An attack at a budget of passes


@pytest.mark.parametrize("attack", [PGD(0.3, steps=4), FMN(steps=50), DDN(steps=9), SparseRS(2, queries=7)], ids=name)
@pytest.mark.parametrize("queries", [1, 10, 33])
def test_only_points_within_the_passes_count(attack, queries):
    """The best point is one that the model has been shown by then, and the search does not go on long after."""
    model, x, y, _, _ = problem(2, count=1)
    seen = []

    def watched(points):
        seen.append(points.data.copy())
        return model(points)

    result = AtBudget(attack, queries).run(watched, x, y)
    shown = np.concatenate(seen[:queries])
    assert not result.success.any() or (shown == result.x_adv).all(axis=(1, 2, 3)).any()
    if not attack.minimum_norm:
        cost = attack.run(model, x, y)
        assert result.forwards + result.backwards <= queries + (cost.forwards + cost.backwards + 2)


@pytest.mark.parametrize("queries", [20, 33, 70])
def test_brendel_and_bethge_keep_to_their_queries(queries):
    model, x, y, _, _ = problem(8)
    result = BrendelBethge(queries=queries, steps=50, starts=FAR).run(model, x, y)
    assert (result.forwards <= queries).all()
    assert result.success.all()


@pytest.mark.parametrize("queries", [30, 34, 61])
@pytest.mark.parametrize("eot", [1, 5])
def test_brendel_and_bethge_show_the_model_their_last_point(eot, queries):
    model, x, y, _, _ = problem(8)
    result = BrendelBethge(queries=queries, steps=1000, starts=FAR, eot=eot).run(model, x, y)
    assert (result.forwards > queries - eot).all()
    assert (result.forwards <= queries).all()


def test_where_a_large_logit_has_no_slope_nothing_overflows_in_fmn():
    model, x, y, _, _ = problem(8)
    flat = lambda x: model(x) * 0 + np.eye(model(x).shape[1], dtype=x.dtype)[y[0]] * 3e9  # noqa: E731
    for norm in ("linf", "l2", "l1"):
        assert FMN(steps=3, norm=norm)(flat, x, np.full(len(x), y[0])).tobytes() == x.tobytes()


@pytest.mark.parametrize("steps", [5, 9, 30])
def test_a_success_within_the_passes_counts_though_the_run_goes_on(steps):
    model, x, y, _, _ = problem(8)
    assert AtBudget(PGD(0.5, steps=steps), 19).run(model, x, y).success.all()


@pytest.mark.parametrize("attack", [AtBudget(PGD(0.3, steps=5), 30), AtBudget(DDN(steps=20), 40)], ids=str)
def test_rounding_to_8_bits_is_no_pass(attack):
    model, x, y, _, _ = problem(8)
    x = np.round(x * 255) / 255
    y = predictions(model, x)
    assert attack.run(model, x, y, quantize=True).success.mean() > 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_linf_a_success_at_eps_is_one_whatever_the_difference_is_rounded_to(dtype):
    model, x, y, lead, slope = problem(8)
    result = AtBudget(PGD(0.3, steps=10), 400).run(model, x.astype(dtype), y)
    least = nearest("linf", x, lead, slope)
    assert (result.distances <= 1.01 * least).all()


def test_pixels_are_counted_in_any_range():
    model, x, y, _, _ = problem(9)
    wide = AtBudget(FGSM(2, norm="l0"), 60).run(model, x, y)
    narrow = AtBudget(FGSM(2, norm="l0", bounds=(0.0, 0.1)), 60).run(lambda points: model(points * 10), x / 10, y)
    np.testing.assert_array_equal(wide.distances, narrow.distances)
    assert narrow.success.all()


def test_a_search_for_pixels_begins_with_one():
    model, x, y, _, _ = problem(9)
    attack = PGD(1, norm="l0", step_size=1.0, steps=3)
    from_one, from_less = (AtBudget(each, 200).run(model, x, y) for each in (attack, replace(attack, eps=0.3)))
    assert from_one.success.all()
    np.testing.assert_array_equal(from_less.success, from_one.success)


def test_more_passes_are_never_worse():
    model, x, y, _, _ = problem(6)
    for attack in PGD(0.3, steps=5, norm="l2"), FMN(steps=300, norm="l1"), FGSM(3, norm="l0"):
        found = [evaluation.at_budget(queries)(attack).run(model, x, y, seed=1) for queries in (60, 200, 700)]
        distances = [np.where(each.success, each.distances, np.inf) for each in found]
        assert (distances[0] >= distances[1]).all()
        assert (distances[1] >= distances[2]).all()
        assert found[2].success.all()


@pytest.mark.parametrize(("attack", "message"), [
    (MultiAttack([FGSM(0.1)]), "attack must be one that is not made of others, got MultiAttack"),
    (AtBudget(PGD(0.1)), "attack must be one that is not made of others, got AtBudget"),
    (PGD(0.0), "attack must be of minimum norm, or have an eps above 0 to vary, got PGD"),
    ("PGD", "attack must be one that is not made of others, got 'PGD'"),
])
def test_what_cannot_be_run_at_a_budget_is_said(attack, message):
    with pytest.raises(ValueError, match=message):
        AtBudget(attack)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DDN(gamma=1.0), r"gamma must be a number in \(0, 1\), got 1.0"),
    (lambda: FMN(gamma=0), r"gamma must be a number in \(0, 1\), got 0"),
    (lambda: FMN(lr=-1), "lr must be a number above 0, got -1"),
    (lambda: PDPGD(lr=math.inf), "lr must be a number above 0, got inf"),
    (lambda: PDPGD(norm="l0"), "norm must be linf or l2 or l1 for PDPGD, got 'l0'"),
    (lambda: SigmaZero(sigma=0), "sigma must be a number above 0, got 0"),
    (lambda: EAD(beta=0), "beta must be a number above 0, got 0"),
    (lambda: EAD(kappa=-1), "kappa must be a number >= 0, in logits, got -1"),
    (lambda: BrendelBethge(lr=0), "lr must be a number above 0, got 0"),
    (lambda: SparseRS(3, p_init=1.0), r"p_init must be a number in \(0, 1\), got 1.0"),
    (lambda: AtBudget(FMN(), 0), "queries must be an integer >= 1, got 0"),
])
def test_a_senseless_parameter_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_margin_is_kept_by_the_elastic_net():
    model, x, y, _, _ = problem(7)
    result = EAD(kappa=0.5, steps=200, beta=0.1, initial_c=0.1).run(model, x, y)
    logits = model(Tensor(result.x_adv)).numpy()
    margin = logits[np.arange(len(y)), 1 - y] - logits[np.arange(len(y)), y]
    assert result.success.all()
    assert (margin > 0.5).all()


