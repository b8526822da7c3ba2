"""The seven guarantees, for every attack of the table in attack_cases.py, in every scene that it has."""

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from attack_cases import (
    ATTACKS,
    NORMS,
    already_reached,
    budget,
    check_budget,
    cnn,
    dense,
    every_attack,
    every_attack_with_eps,
    every_scene,
    images,
    labels,
    lengths,
    name,
    noisy,
    on_device,
    predictions,
    reached,
    stage,
    targeted_or_not,
    varied,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, evaluation, gradients, nn, ops
from tinyadv.attacks import (
    APGD,
    EAD,
    FGSM,
    PDPGD,
    PGD,
    AtBudget,
    Attack,
    AutoAttack,
    BoundaryAttack,
    DeepFool,
    HopSkipJump,
    MultiAttack,
    Square,
    Transfer,
    WhiteBox,
)
from tinyadv.attacks.base.balls import ball_class
from tinyadv.backend import to_host
from tinyadv.random import Streams, drawing_from


def check_report(result, model, y, target):
    """The predictions are those at the points that are returned, and success is what it says."""
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.success, reached(result.predictions, y, target))


# 1 exact budget, 5 failure is data, 6 target apart from y, 7 dtype and shape: for every attack in every scene


@every_scene
@targeted_or_not
@every_attack
def test_the_result_keeps_the_guarantees(attack, targeted, scene):
    model, x, y, target = stage(scene, targeted)
    result = attack.run(model, x, y, target=target, seed=1)
    check_budget(attack, x, result.x_adv)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == x.dtype
    check_report(result, model, y, target)
    distances = lengths(attack.norm, result.x_adv.astype(np.float64) - x)
    np.testing.assert_allclose(result.distances, distances, rtol=1e-12)
    assert result.success.dtype == bool
    assert result.predictions.dtype == np.int64
    assert result.distances.dtype == np.float64
    assert (result.attack, result.seed) == (attack, 1)


@pytest.mark.filterwarnings("ignore:eps=")  # in other units than the bounds
@every_attack
@given(data=st.data())
def test_the_budget_is_exact(attack, data):
    """For budgets, bounds and images of every size, even where x cannot move by eps or at all."""
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    low, high = bounds = data.draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0, 255), (0.1, 0.7)]))
    eps = data.draw(st.sampled_from([0, 1e-9, 8 / 255, 0.3, np.float32(0.3), np.float64(0.3), 5, 1e3]))
    x = images(5, (1, 3, 4), np.float64, data.draw(seeds))
    x = data.draw(st.sampled_from([x, np.round(x), np.round(x * 255) / 255])) * (high - low) + low
    lowest, highest = (np.nextafter(dtype(bound), dtype(0.5)) if bound in (0.1, 0.7) else bound for bound in bounds)
    x = np.clip(x.astype(dtype), lowest, highest)
    attack = varied(attack, bounds=bounds, **({"eps": eps} if budget(attack) < math.inf else {}))
    check_budget(attack, x, attack(dense((1, 3, 4), 3, scale=1 / high), x, labels(5, 3), seed=3))


UNITS = [a for a in ATTACKS if not isinstance(
    a, MultiAttack | AtBudget | Transfer | DeepFool | PDPGD | BoundaryAttack)]
UNITS += [HopSkipJump(queries=200, initial_directions=5, norm=norm) for norm in ("l2", "linf")]


@pytest.mark.parametrize("attack", UNITS, ids=name)
def test_in_a_wider_range_the_points_are_the_same_in_its_units(attack):
    """If the lengths among the parameters grow with it.

    DeepFool has a length of its own, 1e-4 beyond the boundary; PDPGD and PDGD weigh the loss against a length; of the
    boundary attack, points on a sphere are as near up to rounding.
    """
    def model(points):  # of three classes, also for noise
        return dense((1, 3, 3), 3, np.float64)(points - 0.5)

    low, width, x = -1.0, 4.0, images(9, (1, 3, 3), np.float64)
    y = predictions(model, x)
    powers = {"eps": attack.norm != "l0", "step_size": 1, "initial_c": 2, "beta": isinstance(attack, EAD)}
    sizes = {key: getattr(attack, key) * width**power for key, power in powers.items() if getattr(attack, key, None)}
    wider = replace(attack, bounds=(low, low + width), **sizes)
    narrow, wide, options = [], [], {"seed": 3, "batch_size": len(x)}
    expected = attack.run(model, x, y, callback=lambda step: narrow.append(step.points), **options)
    found = wider.run(lambda points: model((points - low) / width), low + width * x, y,
                      callback=lambda step: wide.append((step.points - low) / width), **options)
    for one, other in zip([*narrow, expected.x_adv], [*wide, (found.x_adv - low) / width], strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
    np.testing.assert_array_equal(found.success, expected.success)


@dataclass(frozen=True)
class Careless(WhiteBox):
    """An attack that does what its author must not do."""

    mistake: str = "writes"

    def perturb(self, batch):
        if self.mistake == "writes":
            batch.x[:] = 1
        return {"writes": batch.x, "shape": batch.x[:1], "nothing": None}[self.mistake]


@pytest.mark.parametrize(("mistake", "message"), [
    ("writes", "must not write into batch.x"), ("shape", r"must return points of shape \(7, .*got \(1, "),
    ("nothing", r"must return points of shape \(7, .*got NoneType")])
def test_an_attack_that_breaks_its_contract_is_refused(mistake, message):
    model, x, y, _ = stage("cnn", False)
    with pytest.raises(ValueError, match=f"Careless.perturb {message}"):
        Careless(mistake=mistake).run(model, x, y, batch_size=7)


@every_attack_with_eps
def test_a_budget_of_nothing_changes_nothing(attack):
    model, x, y, _ = stage("cnn", False)
    result = attack.with_eps(0).run(model, x, y)
    assert result.x_adv.tobytes() == x.tobytes()
    np.testing.assert_array_equal(result.success, predictions(model, x) != y)


@targeted_or_not
@every_attack
def test_images_with_strides_of_their_own_are_attacked_alike(attack, targeted):
    """Read-only ones, too, and those of a subclass of arrays, such as memmap."""
    model, x, y, target = stage("cnn", targeted)
    expected = attack(model, x, y, target=target, seed=4)
    strange = np.asfortranarray(np.flip(x, axis=3))[:, :, :, ::-1]
    strange.flags.writeable = False
    assert attack(model, strange, y, target=target, seed=4).tobytes() == expected.tobytes()
    for skip in (False, True):
        found = attack.run(model, x.view(np.memmap), y, target=target, seed=4, skip_misclassified=skip).x_adv
        assert type(found) is np.ndarray
        assert skip or found.tobytes() == expected.tobytes()


# 2 one stream per example


@every_scene
@targeted_or_not
@every_attack
def test_the_bytes_do_not_depend_on_threads_or_runs(attack, targeted, scene):
    model, x, y, target = stage(scene, targeted)
    before = random.getstate()  # conftest watches over NumPy's
    results = [attack(model, x, y, target=target, seed=5, workers=workers, batch_size=2) for workers in (1, 2)]
    results.append(attack.run(model, x, y, target=target, seed=5, batch_size=2, progress=True).x_adv)
    assert len({result.tobytes() for result in results}) == 1
    assert random.getstate() == before


@targeted_or_not
@every_attack
def test_an_example_does_not_depend_on_its_batch(attack, targeted):
    """In float64 the rounding of matrix products shows in the last digits only."""
    model, x, y, target = stage("float64", targeted)
    whole = attack(model, x, y, target=target, seed=6)
    for batch_size in (1, 2, 7, 200):
        parts = attack(model, x, y, target=target, seed=6, batch_size=batch_size)
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)
    first = attack(model, x[:4], y[:4], target=None if target is None else target[:4], seed=6)
    np.testing.assert_allclose(first, whole[:4], rtol=0, atol=1e-12)


@targeted_or_not
@every_attack
def test_random_layers_draw_from_the_examples_streams(attack, targeted):
    """So the bytes do not depend on threads, nor an example on its batch, and the next run meets the same draws."""
    model, (_, x, y, target) = noisy(), stage("float64", targeted)
    before = [vars(layer).copy() for layer in model.layers if isinstance(layer, nn.Random)]
    options = {"target": target, "seed": 6}
    results = [attack.run(model, x, y, workers=workers, batch_size=2, **options) for workers in (1, 2)]
    assert len({result.x_adv.tobytes() for result in results}) == 1
    np.testing.assert_array_equal(results[0].predictions_clean, evaluation.predict(model, x, seed=6))
    whole = attack.run(model, x, y, **options)
    for batch_size in (1, 7):
        parts = attack.run(model, x, y, batch_size=batch_size, **options)
        np.testing.assert_allclose(parts.x_adv, whole.x_adv, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(parts.success, whole.success)
    goal = target if target is None else target[5:]
    some = attack.run(model, x[5:], y[5:], target=goal, seed=Streams(6, range(5, 9)))
    np.testing.assert_allclose(some.x_adv, whole.x_adv[5:], rtol=0, atol=1e-10)
    assert [vars(layer) for layer in model.layers if isinstance(layer, nn.Random)] == before


@pytest.mark.parametrize("attack", [a for a in ATTACKS if isinstance(a, WhiteBox)], ids=name)
def test_each_pass_has_draws_of_its_own(attack):
    """With ever the same draws, an attack would break the noise and not the model."""
    model, (_, x, y, _), seen = noisy(), stage("float64", False), []

    def watched(points):
        logits = model(points)
        seen.append((logits.data - model.layers[1](points).data).round(9).ravel()[0])
        return logits

    once = replace(attack, eot=1).run(watched, x[:1], y[:1], batch_size=1)
    assert len(set(seen)) == len(seen) > 1
    often = replace(attack, eot=3).run(watched, x[:1], y[:1], batch_size=1)
    assert often.backwards.sum() % 3 == 0
    assert once.backwards.sum() <= often.backwards.sum()


def test_a_gradient_is_the_mean_over_the_passes():
    """Of FGSM in l2, whose step is along the gradient: that of all the passes, made one by one."""
    model, (_, x, y, _) = noisy(), stage("float64", False)
    found = FGSM(1e-3, norm="l2", eot=4)(model, x, y, seed=3) - x
    mean = np.zeros_like(x)
    for number in range(4):
        points = Tensor(x)
        with drawing_from(Streams(3, range(len(x))).of_pass(number)):
            mean += gradients(ops.cross_entropy(model(points), y, "sum"), [points])[0] / 4
    inside = (x > 2e-3) & (x < 1 - 2e-3)  # where no bound is near
    expected = 1e-3 * mean / np.sqrt((mean**2).sum(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-9)


@dataclass(frozen=True)
class Averaged(WhiteBox):
    eps: float = 0.1

    def perturb(self, batch):
        return batch.x + batch.evaluate(batch.x, lambda logits: ops.cross_entropy(logits, batch.y))[2]


def test_one_loss_for_all_examples_is_refused():
    with pytest.raises(ValueError, match=r"an objective must return one loss for each example, of shape \(6,\)"):
        Averaged().run(cnn(), images(6), labels(6, 3), batch_size=6)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if getattr(a, "random_start", isinstance(a, APGD))], ids=name)
def test_another_seed_is_another_start(attack):
    model, x, y, _ = stage("cnn", False)
    starts = [[], [], []]
    for seed, points in zip((1, 2, 1), starts, strict=True):
        attack.run(model, x, y, seed=seed, workers=1, callback=lambda step, points=points: points.append(step.points))
    assert starts[0][0].tobytes() == starts[2][0].tobytes()
    assert starts[0][0].tobytes() != starts[1][0].tobytes()


@dataclass(frozen=True)
class RandomPoint(Attack):
    """Any point of the ball."""

    eps: float
    norm: str = "linf"

    def perturb(self, batch):
        return batch.ball.random(batch.streams)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(seed=st.integers(0, 2**64 - 1), batch_size=st.integers(1, 12))
def test_example_i_draws_from_seed_and_i(norm, seed, batch_size):
    x = images(9)
    found = RandomPoint(0.5, norm)(cnn(), x, labels(9), seed=seed, batch_size=batch_size)
    for i in range(9):
        alone = ball_class(norm)(x[i : i + 1], 0.5, (0, 1)).random(Streams(seed, [i]))
        assert found[i : i + 1].tobytes() == alone.tobytes()


# 3 best point kept


PALETTE = 11  # the pixel values 0, 0.1, ..., 1


def looked_up(table):
    """A model of images of one pixel that looks up their logits, (PALETTE, K)."""
    return lambda x: Tensor(table[np.rint(x.data.ravel() * (PALETTE - 1)).astype(int)])


@dataclass(frozen=True)
class Showing(Attack):
    """Shows the pixels of each example's list, and writes into its own arrays while it goes on."""

    shown: tuple[tuple[int, ...], ...] = ()
    eps: float = 1.0

    def perturb(self, batch):
        points = np.empty_like(batch.x)
        for i, column in enumerate(np.array(self.shown)[batch.streams.examples].T):
            points[:] = (column / (PALETTE - 1)).reshape(points.shape)
            if i % 2:
                batch.gradient(points)
            elif i + 1 < len(self.shown[0]):
                batch.consider(points)
        return points


@targeted_or_not
@given(data=st.data())
def test_the_best_candidate_is_returned(targeted, data):
    """A broken one before one that is not, and then the highest loss: the cross entropy, or minus the target's."""
    rng = np.random.default_rng(data.draw(seeds))
    count, candidates, classes = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(2, 4)))
    table = rng.normal(size=(PALETTE, classes)) * data.draw(st.sampled_from([0.1, 1, 5]))
    table[rng.random(PALETTE) < 0.2] = np.nan
    shown = rng.integers(0, PALETTE, (count, candidates))
    y, target = rng.integers(0, classes, (2, count))
    attack = Showing(tuple(map(tuple, shown.tolist())))
    result = attack.run(looked_up(table), np.zeros((count, 1, 1, 1)), y, target=target if targeted else None,
                        batch_size=data.draw(st.integers(1, 5)))
    log_p = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
    for i in range(count):
        losses = log_p[:, target[i]] if targeted else -log_p[:, y[i]]
        losses = np.where(np.isnan(losses), -np.inf, losses)
        broken = table.argmax(axis=1) == target[i] if targeted else table.argmax(axis=1) != y[i]
        broken &= ~np.isnan(table).any(axis=1)
        found = np.rint(result.x_adv[i].item() * (PALETTE - 1)).astype(int)
        best = max((broken[k], losses[k]) for k in shown[i])
        assert (broken[found], losses[found]) == (best[0], pytest.approx(best[1]))
        assert result.success[i] == best[0]


@given(seed=seeds, eps=st.sampled_from([0.0, 0.1, 0.34, 0.5]))
def test_a_candidate_outside_the_budget_counts_where_it_is_projected_to(seed, eps):
    rng = np.random.default_rng(seed)
    table, y = rng.normal(size=(PALETTE, 3)), rng.integers(0, 3, 4)
    attack = Showing(tuple(map(tuple, rng.integers(0, PALETTE, (4, 5)).tolist())), eps)
    x = np.full((4, 1, 1, 1), 0.5)
    result = attack.run(looked_up(table), x, y)
    check_budget(attack, x, result.x_adv)
    np.testing.assert_array_equal(result.predictions, predictions(looked_up(table), result.x_adv))


@targeted_or_not
@every_attack
def test_every_example_is_attacked_unless_it_is_to_be_skipped(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    wrong = predictions(model, x) != y
    assert 0 < wrong.sum() < len(x)
    for skip in (False, True):
        attacked = set()
        result = attack.run(model, x, y, target=target, seed=7, skip_misclassified=skip, batch_size=4,
                            callback=lambda step, attacked=attacked: attacked.update(step.examples.tolist()))
        left = ~already_reached(attack, model, x, y, target) & ~(wrong & skip)
        assert attacked == set(np.flatnonzero(left))
        if skip:
            assert result.x_adv[wrong].tobytes() == x[wrong].tobytes()
            assert (result.distances[wrong] == 0).all()
        assert (result.x_adv[~wrong] != x[~wrong]).any()
        check_report(result, model, y, target)


@every_attack
def test_to_skip_all_is_no_attack(attack):
    model, x, _, _ = stage("cnn", False)
    result = attack.run(model, x, (predictions(model, x) + 1) % 5, skip_misclassified=True)
    assert result.x_adv.tobytes() == x.tobytes()
    assert result.success.all()


def test_more_restarts_break_no_fewer():
    """The first run is that of one restart, and what it has broken stays broken."""
    model, x = cnn(), images(60)
    y = predictions(model, x)
    once, often = (PGD(0.05, steps=2, restarts=restarts).run(model, x, y, seed=8) for restarts in (1, 5))
    assert (often.success >= once.success).all()
    assert often.success.sum() > once.success.sum()
    check_report(often, model, y, None)
    assert often.x_adv[once.success].tobytes() == once.x_adv[once.success].tobytes()


# 4 nothing is left behind


def everything(model, *arrays):
    modules = [module for _, module in model.named_modules()]
    return (
        {name: array.tobytes() for name, array in model.state_dict().items()},
        [(id(parameter.data), parameter.grad.tobytes()) for parameter in model.parameters()],
        [(module.training, vars(module).get("calls")) for module in modules],
        [array.tobytes() for array in arrays],
    )


@targeted_or_not
@every_attack
def test_nothing_is_left_behind(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    target = target if targeted else np.zeros(0, int)
    before = everything(model, x, y, target)
    for options in ({}, {"skip_misclassified": True, "progress": True, "batch_size": 2}):
        attack.run(model, x, y, target=target if targeted else None, **options)
        assert everything(model, x, y, target) == before


@pytest.mark.parametrize("workers", [1, 2])
@every_attack
def test_nothing_is_left_behind_when_the_model_fails(attack, workers):
    """The exception comes through, and afterwards all is as before and gradients are recorded again."""
    model, x, y, _ = stage("cnn", False)
    model, calls = cnn(), []

    def fails(tensor):
        calls.append(len(tensor))
        if len(calls) > 2:
            raise ZeroDivisionError("in the third shard")
        return tensor

    setattr(model, "8", fails)
    before = everything(model, x, y)
    with pytest.raises(ZeroDivisionError, match="in the third shard"):
        attack.run(model, x, y, workers=workers, batch_size=2, progress=True)
    assert everything(model, x, y) == before
    leaf = Tensor(np.ones(2))
    (leaf * 2.0).sum().backward()
    assert (leaf.grad == 2).all()


@every_attack
def test_nothing_is_left_behind_when_the_callback_fails(attack):
    def stop(step):
        raise StopIteration(f"at {step.index}")

    model, x, y, _ = stage("cnn", False)
    before = everything(model, x, y)
    with pytest.raises(StopIteration, match="at 0"):
        attack.run(model, x, y, callback=stop, workers=2, batch_size=2)
    assert everything(model, x, y) == before


# 6 target is apart from y


@pytest.mark.parametrize("norm", NORMS)
@given(seed=seeds)
def test_a_small_step_raises_the_loss_of_y_or_lowers_that_of_the_target(norm, seed):
    shape = (1, 3, 4)
    model, x = dense(shape, 4, np.float64, seed=seed), 0.25 + images(6, shape, np.float64, seed) / 2
    y, target = np.random.default_rng(seed).integers(0, 4, (2, 6))

    def loss(points, classes):
        return ops.cross_entropy(model(Tensor(points)), classes, "none").data

    away = FGSM(1e-6, norm)(model, x, y)
    towards = FGSM(1e-6, norm)(model, x, y, target=target)
    assert (loss(away, y) > loss(x, y)).all()
    assert (loss(towards, target) < loss(x, target)).all()


@pytest.mark.parametrize(  # in the formulas of the DLR loss and of LaVAN there is y
    "attack", [a for a in ATTACKS if a.loss not in ("dlr", "lavan") and not isinstance(a, AutoAttack)], ids=name)
def test_a_targeted_attack_does_not_look_at_y(attack):
    model, x, y, target = stage("cnn", True)
    expected = attack.run(model, x, y, target=target)
    other = attack.run(model, x, (y + 1) % 5, target=target)
    assert other.x_adv.tobytes() == expected.x_adv.tobytes()
    np.testing.assert_array_equal(other.success, expected.success)


@every_attack
@pytest.mark.parametrize("target", [2, np.int64(2), [2] * 9, np.full(9, 2, np.uint8)], ids=lambda t: type(t).__name__)
def test_one_target_for_all(attack, target):
    model, x, y, _ = stage("cnn", False)
    expected = attack(model, x, y, target=np.full(9, 2))
    assert attack(model, x, y.tolist(), target=target).tobytes() == expected.tobytes()


# 7 dtype, shape, library and memory are kept, and what is wrong is refused by name


@pytest.mark.parametrize("skip", [False, True])
@targeted_or_not
@every_attack
def test_data_and_model_may_lie_in_different_memories(xp, attack, targeted, skip):
    _, x, y, target = stage("cnn", targeted)
    options = {"seed": 9, "skip_misclassified": skip}
    expected = attack.run(cnn(), x, y, target=target, **options)
    for model, data, classes, goal in [
        (on_device(cnn(), xp), x, y, target),
        (cnn(), xp.asarray(x), xp.asarray(y), target if target is None else xp.asarray(target)),
        (on_device(cnn(), xp), xp.asarray(x), y, target),
    ]:
        result = attack.run(model, data, classes, target=goal, **options)
        assert type(result.x_adv) is type(data)
        check_budget(attack, x, to_host(result.x_adv))
        np.testing.assert_allclose(to_host(result.x_adv), expected.x_adv, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(result.success, expected.success)
        np.testing.assert_array_equal(result.predictions, expected.predictions)


@pytest.mark.parametrize("attack", [PGD(0.1, steps=3, restarts=2), APGD(0.1, steps=6), Square(0.1, queries=12)],
                         ids=lambda attack: type(attack).__name__)
def test_a_callback_that_writes_into_what_it_sees_changes_nothing(attack):
    def spoil(step):
        step.points[:], step.losses[:], step.examples[:] = 0, -1, 0

    model, x, y = cnn(), images(6), labels(6, 5)
    expected = attack.run(model, x, y, seed=3, batch_size=3)
    found = attack.run(model, x, y, seed=3, batch_size=3, callback=spoil)
    assert found.x_adv.tobytes() == expected.x_adv.tobytes()
