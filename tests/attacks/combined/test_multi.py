"""Several attacks as one: the worst case of each example, told by name."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from attack_cases import (
    SCENES,
    check_budget,
    cnn,
    dense,
    images,
    labels,
    on_device,
    predictions,
    reached,
    stage,
    targeted_or_not,
)

from tinyadv import Tensor, nn, ops
from tinyadv.attacks import BIM, FGSM, PGD, BoundaryAttack, DeepFool, MultiAttack, Transfer
from tinyadv.attacks.base import objectives
from tinyadv.backend import to_host
from tinyadv.defenses import JPEG
from tinyadv.nn.archive import StateError
from tinyadv.random import Streams

BUDGETED = MultiAttack([FGSM(0.03), PGD(0.03, steps=3), PGD(0.03, steps=6, loss="margin")])
NEAREST = MultiAttack([DeepFool(steps=3), DeepFool(steps=10, candidates=2)])
each = pytest.mark.parametrize("attack", [BUDGETED, NEAREST, MultiAttack([FGSM(0.03)])], ids=["eps", "minimum", "one"])


def margins(model, x, y, target):
    return objectives.margin(Tensor(model(Tensor(x)).data), y, target).data


@pytest.mark.parametrize("scene", SCENES)
@targeted_or_not
@each
def test_the_guarantees_hold(attack, targeted, scene):
    model, x, y, target = stage(scene, targeted)
    before = x.tobytes(), y.tobytes()
    result = attack.run(model, x, y, target=target, seed=1, batch_size=2)
    check_budget(attack, x, result.x_adv)
    assert (x.tobytes(), y.tobytes()) == before
    assert (result.x_adv.shape, result.x_adv.dtype) == (x.shape, x.dtype)
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.predictions_clean, predictions(model, x))
    np.testing.assert_array_equal(result.success, reached(result.predictions, y, target))
    again = attack(model, x, y, target=target, seed=1, batch_size=2, workers=1)
    assert again.tobytes() == result.x_adv.tobytes()


@targeted_or_not
def test_an_example_is_broken_where_any_attack_breaks_it(targeted):
    """The point is that of the first which does; attacks that draw no random numbers give what they give alone."""
    shape = (1, 4, 4)
    model, x, y = dense(shape, 4, np.float64), images(200, shape, np.float64), labels(200, 4)
    target = labels(200, 4, seed=5) if targeted else None
    attacks = [FGSM(0.2), BIM(0.2, steps=4), PGD(0.2, steps=9, random_start=False, loss="margin")]
    alone = [attack.run(model, x, y, target=target) for attack in attacks]
    result = MultiAttack(attacks).run(model, x, y, target=target)
    success = np.array([found.success for found in alone])
    np.testing.assert_array_equal(result.success, success.any(axis=0))
    first = success.argmax(axis=0)
    clean = result.reached(result.predictions_clean)
    for i in range(200):
        if result.success[i]:
            np.testing.assert_allclose(result.x_adv[i], alone[first[i]].x_adv[i], rtol=0, atol=1e-12)
            assert result.broken_by[i] == ("" if clean[i] else str(attacks[first[i]]))
            cost = sum(found.backwards[i] for found in alone[: first[i] + 1])
        else:
            best = max(margins(model, found.x_adv[i : i + 1], y[i : i + 1], None if target is None else
                               target[i : i + 1])[0] for found in alone)
            own = margins(model, result.x_adv[i : i + 1], y[i : i + 1], None if target is None else target[i : i + 1])
            assert own[0] == pytest.approx(best, abs=1e-9)
            assert result.broken_by[i] == ""
            cost = sum(found.backwards[i] for found in alone)
        assert result.backwards[i] == cost
    assert {"", str(attacks[0])} < set(result.broken_by)
    check_table(result, attacks, alone)


def check_table(result, attacks, alone):
    """A row for each attack and one for all: what was left, what it broke, what it cost; and they are in print."""
    *rows, total = result.table
    right, left = result.predictions_clean == result.y, np.ones(len(result.y), bool)
    assert [row[0] for row in rows] == list(map(str, attacks))
    for (name, right_left, broken, seconds, _, backwards), found in zip(rows, alone, strict=True):
        assert broken == (result.broken_by == name).sum()
        assert backwards == found.backwards[left].sum()
        left &= ~found.success
        assert right_left == (right & left).sum()
        assert seconds > 0
        line = next(line for line in result.summary().splitlines() if line.strip().startswith(f"{name} "))
        assert line.removeprefix(f"  {name}").split() == [
            str(right_left), str(broken), f"{seconds:.1f}", str(row_of(rows, name)[4]), str(backwards)]
    assert total[:2] == ("all", rows[-1][1])
    np.testing.assert_allclose(total[2:], np.sum([row[2:] for row in rows], axis=0))
    assert total[4:] == (result.forwards.sum(), result.backwards.sum())


def row_of(rows, name):
    return next(row for row in rows if row[0] == name)


@targeted_or_not
def test_of_minimum_norm_the_nearest_point_is_returned(targeted):
    shape = (1, 4, 4)
    model, x, y = dense(shape, 4, np.float64), images(60, shape, np.float64), labels(60, 4)
    target = labels(60, 4, seed=5) if targeted else None
    attacks = [DeepFool(steps=2), DeepFool(steps=20, overshoot=0.5), DeepFool(steps=20, candidates=2)]
    alone = [attack.run(model, x, y, target=target) for attack in attacks]
    result = MultiAttack(attacks).run(model, x, y, target=target)
    distances = np.array([np.where(found.success, found.distances, np.inf) for found in alone])
    np.testing.assert_array_equal(result.success, np.isfinite(distances).any(axis=0))
    np.testing.assert_allclose(result.distances, np.where(result.success, distances.min(axis=0), 0), atol=1e-12)
    assert (result.distances[~result.success] == 0).all()
    assert len(set(result.broken_by) - {""}) > 1


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("attack", [PGD(0.3, steps=2), DeepFool(steps=3)], ids=["eps", "minimum"])
@targeted_or_not
def test_one_attack_alone_is_itself(attack, targeted, scene):
    model, x, y, target = stage(scene, targeted)
    options = {"target": target, "seed": 2, "batch_size": 1}  # lest the shards differ, of which some are left out
    alone, result = (each.run(model, x, y, **options) for each in (attack, MultiAttack([attack])))
    assert result.x_adv.tobytes() == alone.x_adv.tobytes()
    for name in ("success", "predictions", "predictions_clean", "distances", "backwards"):
        np.testing.assert_array_equal(getattr(result, name), getattr(alone, name))


def test_two_equal_attacks_are_two_different_runs():
    model, x = cnn(), images(60)
    y = predictions(model, x)
    attack = PGD(0.02, steps=1)
    alone = attack.run(model, x, y, seed=3)
    result = MultiAttack([attack, attack, attack]).run(model, x, y, seed=3)
    assert (result.success >= alone.success).all()
    assert result.success.sum() > alone.success.sum()
    assert result.x_adv[alone.success].tobytes() == alone.x_adv[alone.success].tobytes()
    parts = MultiAttack([attack, attack, attack]).run(model, x, y, seed=3, batch_size=7, workers=2)
    np.testing.assert_array_equal(parts.success, result.success)


@targeted_or_not
@each
def test_what_the_model_gets_wrong_may_be_skipped(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    wrong, seen = predictions(model, x) != y, set()
    result = attack.run(model, x, y, target=target, skip_misclassified=True,
                        callback=lambda step: seen.update(step.examples.tolist()))
    assert result.x_adv[wrong].tobytes() == x[wrong].tobytes()
    assert not seen & set(np.flatnonzero(wrong))
    assert (result.broken_by[wrong] == "").all()
    assert (result.distances[wrong] == 0).all()


@each
def test_quantized_points_are_worst_cases_too(attack):
    model, x, y, _ = stage("cnn", False)
    x = np.rint(x * 255).astype(np.float32) / 255
    result = attack.run(model, x, y, quantize=True)
    assert (np.rint(result.x_adv * 255).astype(np.float32) / 255 == result.x_adv).all()
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))


@each
def test_data_and_model_may_lie_in_different_memories(xp, attack):
    _, x, y, target = stage("cnn", True)
    expected = attack.run(cnn(), x, y, target=target, seed=2)
    for model, data in [(on_device(cnn(), xp), x), (cnn(), xp.asarray(x)), (on_device(cnn(), xp), xp.asarray(x))]:
        result = attack.run(model, data, y, target=target, seed=2)
        assert type(result.x_adv) is type(data)
        np.testing.assert_array_equal(result.success, expected.success)
        np.testing.assert_allclose(to_host(result.x_adv), expected.x_adv, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("attacks", "message"), [
    ([], r"MultiAttack is made of attacks, got \(\)"),
    ([FGSM(0.1), 3], "MultiAttack is made of attacks, got .*3"),
    ([FGSM(0.1), FGSM(0.1, norm="l2")], "one threat model, got norm 'linf' and 'l2'"),
    ([FGSM(0.1), FGSM(0.1, bounds=(0, 255))], r"got bounds \(0.0, 1.0\) and \(0, 255\)"),
    ([FGSM(0.1), PGD(0.2)], "got eps 0.1 and 0.2"),
    ([FGSM(0.1, norm="l2"), DeepFool()], "got minimum_norm False and True"),
    ([DeepFool(), DeepFool(norm="linf")], "got norm 'l2' and 'linf'"),
])
def test_attacks_of_different_threat_models_are_refused(attacks, message):
    with pytest.raises(ValueError, match=message):
        MultiAttack(attacks)


def test_streams_of_a_part_draw_what_the_whole_would():
    model, x, y, _ = stage("cnn", False)
    whole, some = PGD(0.1, steps=2).run(model, x, y, seed=5), [2, 5, 6]
    part = PGD(0.1, steps=2).run(model, x[some], y[some], seed=Streams(5, some))
    np.testing.assert_allclose(part.x_adv, whole.x_adv[some], rtol=0, atol=1e-6)
    assert part.seed == 5
    with pytest.raises(ValueError, match="seed must be an integer, or Streams of 9 examples as x has; got Streams"):
        PGD(0.1)(model, x, y, seed=Streams(5, some))


def test_it_is_a_value_of_the_threat_model_of_its_attacks():
    attack = MultiAttack([FGSM(3.0, norm="l2", bounds=(0, 255)), PGD(3.0, norm="l2", bounds=(0, 255))])
    assert (attack.norm, attack.eps, attack.bounds, attack.minimum_norm) == ("l2", 3.0, (0, 255), False)
    assert NEAREST.minimum_norm
    assert not hasattr(NEAREST, "eps")
    assert attack == MultiAttack(attack.attacks) == replace(attack)
    assert hash(attack) == hash(replace(attack))
    again = pickle.loads(pickle.dumps(attack))
    assert (again, again.norm, again.eps, again.bounds) == (attack, "l2", 3.0, (0, 255))
    assert str(BUDGETED) == ("MultiAttack(attacks=(FGSM(eps=0.03), PGD(eps=0.03, steps=3), "
                             "PGD(eps=0.03, steps=6, loss='margin')))")


@dataclass(frozen=True)
class Drawn(PGD):
    """Tells what it draws first."""

    def perturb(self, batch):
        DRAWN.append(batch.streams.uniform(()).tobytes())
        return batch.x


DRAWN = []


@pytest.mark.parametrize(("count", "attack"), [
    (3, MultiAttack([MultiAttack([Drawn(0.1), Drawn(0.1)]), Drawn(0.1)])),
    (4, MultiAttack([Drawn(0.1), MultiAttack([Drawn(0.1), Drawn(0.1)]), Drawn(0.1)])),
])
def test_nor_do_attacks_of_attacks_share_their_streams(count, attack):
    DRAWN.clear()
    attack.run(dense((1, 4, 4), 3), images(5, (1, 4, 4)), labels(5, 3), workers=1, batch_size=5)
    assert len(set(DRAWN)) == len(DRAWN) == count


@dataclass(frozen=True)
class Known(PGD):
    """Returns x plus a number, always."""

    shift: float = 0.0

    def perturb(self, batch):
        return batch.x + self.shift


@pytest.mark.parametrize("order", [1, -1])
def test_a_point_with_logits_of_nan_is_the_worst_of_those_that_fail(order):
    def model(x):
        z = ops.mean(x, axis=(1, 2, 3))
        where = np.where(x.data.mean(axis=(1, 2, 3)) > 0.55, np.nan, 1.0).astype(x.dtype)
        return ops.reshape(z * where, (-1, 1)) * np.array([[1, -1]], x.dtype)

    x, y = np.full((3, 1, 2, 2), 0.5, np.float32), np.zeros(3, int)
    several = MultiAttack([Known(0.2, shift=0.1), Known(0.2, shift=-0.1)][::order])
    np.testing.assert_allclose(several(model, x, y), 0.4, rtol=1e-6)


FAR = images(40, seed=1)  # more numbers than a repr shows


class Foreign:
    """A model as an adapter has it: with an array, a library, and what leads back to itself."""

    def __init__(self, seed):
        self.weight = np.random.default_rng(seed).normal(size=(5, images(1).size)).astype(np.float32)
        self.xp, self.parts = np, [self]

    def __call__(self, x):
        return ops.linear(ops.flatten(x), self.weight)


@pytest.mark.parametrize("others", [
    [BoundaryAttack(queries=60, starts=starts) for starts in (FAR, np.where(np.arange(40) == 20, 1 - FAR.T, FAR.T).T)],
    [Transfer(cnn(seed=seed), PGD(0.2, steps=2)) for seed in (1, 2)],
    [Transfer(nn.Sequential(JPEG(quality), cnn()), PGD(0.2, steps=2)) for quality in (75, 10)],
    [Transfer(Foreign(seed), PGD(0.2, steps=2)) for seed in (1, 2)],
], ids=["array", "weights", "setting", "adapter"])
def test_a_state_is_not_that_of_an_attack_with_another_array_or_model(others, tmp_path):
    model, x, y = cnn(), images(5), labels(5, 3)
    one, other = (MultiAttack([attack]) for attack in others)
    found = one(model, x, y, state=tmp_path / "run.npz")
    assert one(model, x, y, state=tmp_path / "run.npz").tobytes() == found.tobytes()
    with pytest.raises(StateError, match="which differs in attacks"):
        other(model, x, y, state=tmp_path / "run.npz")


def test_a_run_goes_on_with_the_streams_that_it_had(tmp_path):
    model, x, y, path = dense((1, 4, 4), 3), images(30, (1, 4, 4)), labels(30, 3), tmp_path / "run.npz"
    attack, seen = MultiAttack([PGD(0.02, steps=2), PGD(0.02, steps=3)]), []

    def failing(x):
        seen.append(len(x.data))
        if len(seen) == 18:
            raise OSError("the machine is switched off")
        return model(x)

    streams = Streams(3, range(30))
    with pytest.raises(OSError, match="switched off"):
        attack.run(failing, x, y, seed=streams, batch_size=5, workers=1, state=path)
    found = attack.run(model, x, y, seed=streams, batch_size=5, workers=1, state=path)
    assert found.x_adv.tobytes() == attack.run(model, x, y, seed=3, batch_size=5, workers=1).x_adv.tobytes()
