"""AutoAttack: what it consists of, that it survives to be killed, and its warnings."""

import itertools
import operator
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from attack_cases import TinyAutoAttack, check_budget, cnn, dense, images, labels, predictions, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import Tensor, driver, nn, ops
from tinyadv.attacks import APGD, FAB, FGSM, PGD, AutoAttack, DeepFool, MultiAttack, Square
from tinyadv.attacks.base.parameters import describe
from tinyadv.attacks.combined import multi
from tinyadv.defenses import bpda
from tinyadv.nn.archive import StateError, read, write
from tinyadv.random import Streams

SHAPE = (1, 4, 4)


def scene(count=12, classes=5):
    """A smooth model, and images of which it gets all right but every fourth."""
    model, x = dense(SHAPE, classes, np.float64), images(count, SHAPE, np.float64)
    y = predictions(model, x)
    return model, x, np.where(np.arange(count) % 4 == 3, (y + 1) % classes, y)


def same(one, other):
    """Whether two results are the same, byte for byte, but for the time they took."""
    def timeless(result):
        return replace(result, seconds=0.0, table=tuple((*row[:3], 0.0, *row[4:]) for row in result.table))

    return timeless(one) == timeless(other) and one.x_adv.tobytes() == other.x_adv.tobytes()


# What it consists of


def test_the_parameters_are_frozen():
    """As published, and as the issue of this library has them."""
    assert dict(zip(AutoAttack(0.3).names, AutoAttack(0.3).attacks, strict=True)) == {
        "APGD-CE": APGD(0.3, steps=100, rho=0.75, restarts=1, loss="cross_entropy"),
        "APGD-T": APGD(0.3, steps=100, rho=0.75, restarts=1, loss="dlr", target_classes=9),
        "FAB-T": FAB(norm="linf", steps=100, eps=0.3, restarts=1, alpha_max=0.1, eta=1.05, beta=0.9, target_classes=9),
        "Square": Square(0.3, queries=5000, p_init=0.8, loss="margin", rescale_schedule=False),
    }
    plus = AutoAttack(0.5, "l2", "plus", bounds=(-1.0, 1.0))
    common = {"norm": "l2", "bounds": (-1.0, 1.0)}
    assert list(zip(plus.names, plus.attacks, strict=True)) == [
        ("APGD-CE", APGD(0.5, restarts=5, **common)),
        ("APGD-DLR", APGD(0.5, restarts=5, loss="dlr", **common)),
        ("FAB", FAB(eps=0.5, restarts=5, **common)),
        ("Square", Square(0.5, queries=5000, rescale_schedule=False, **common)),
        ("APGD-T", APGD(0.5, loss="dlr", target_classes=9, **common)),
        ("FAB-T", FAB(eps=0.5, target_classes=9, **common)),
    ]
    assert AutoAttack(0.3, version="rand").attacks == (APGD(0.3, eot=20), APGD(0.3, loss="dlr", eot=20))
    assert AutoAttack(12.0, "l1").attacks == (
        APGD(12.0, norm="l1", restarts=5), APGD(12.0, norm="l1", loss="dlr", target_classes=5),
        FAB(norm="l1", eps=12.0, target_classes=9))


def test_it_is_a_value_of_three_parameters():
    attack = AutoAttack(0.3)
    assert str(attack) == "AutoAttack(eps=0.3)"
    assert repr(attack) == "AutoAttack(bounds=(0.0, 1.0), eps=0.3, norm='linf', version='standard')"
    assert list(describe(attack)["parameters"]) == ["bounds", "eps", "norm", "version"]
    assert attack.with_eps(0.1) == AutoAttack(0.1)
    assert attack.with_eps(0.1).attacks == AutoAttack(0.1).attacks
    for arguments, message in [
        ({"eps": 0.3, "version": "best"}, "version must be one of standard, plus, rand; got 'best'"),
        ({"eps": -1}, "eps must be a number >= 0"), ({"eps": 0.3, "norm": "l3"}, "norm must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            AutoAttack(**arguments)


@pytest.mark.parametrize("version", ["standard", "plus"])
def test_it_is_the_worst_case_over_its_attacks(version):
    model, x, y = scene()
    attack = TinyAutoAttack(0.1, version=version)
    result = attack.run(model, x, y, seed=3, skip_misclassified=True)
    several = MultiAttack(attack.attacks).run(model, x, y, seed=3, skip_misclassified=True)
    assert result.x_adv.tobytes() == several.x_adv.tobytes()
    assert [row[1:3] for row in result.table] == [row[1:3] for row in several.table]
    assert [row[0] for row in result.table] == [*attack.names, "all"]
    assert set(result.broken_by) <= {"", *attack.names}
    assert 0 < result.table[-1][1] < (result.predictions_clean == y).sum()
    assert result.table[-1][1] / len(x) == result.to_json()["robust_accuracy"]


@pytest.mark.parametrize("attack", [TinyAutoAttack(1.0, "l1"), TinyAutoAttack(0.1, version="rand"),
                                    TinyAutoAttack(1.0, "l1", "plus")], ids=lambda a: f"{a.norm} {a.version}")
@pytest.mark.parametrize("targeted", [False, True])
def test_the_other_versions_keep_the_budget_and_report_what_is_so(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    result = attack.run(model, x, y, target=target, seed=1)
    check_budget(attack, x, result.x_adv)
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.success, result.predictions == target if targeted else result.predictions != y)


def test_what_is_broken_is_not_attacked_again():
    """With a large budget the first attack breaks everything, and the others cost nothing."""
    model, x, y = scene()
    result = TinyAutoAttack(0.9).run(model, x, y)
    (_, left, broken, *_), *others, total = result.table
    assert (left, broken) == (0, (result.predictions_clean == y).sum())
    assert all(row[1:3] == (0, 0) and row[4:] == (0, 0) for row in others)
    assert total[1] == 0


def test_two_and_three_classes_are_attacked_with_what_is_defined():
    for classes in (2, 3):
        model, x, y = scene(40, classes)
        result = TinyAutoAttack(0.15).run(model, x, y, skip_misclassified=True)
        assert result.success.any()
        (warning,) = result.warnings
        assert f"there are {classes} classes, and the DLR loss needs 3, the targeted one 4" in warning


# Killed, and resumed


class Killed(Exception):
    """In the middle of it."""


def fails_at(number):
    """A callback that does so when it is called for that time."""
    count = itertools.count(1)

    def callback(step):
        if next(count) == number:
            raise Killed

    return callback


def killed_at(number, attack, *arguments, **options):
    """Run the attack until it has called back so often; whether it was then killed."""
    try:
        attack.run(*arguments, callback=fails_at(number), **options)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("attack", [
    TinyAutoAttack(0.05), TinyAutoAttack(0.25, "l2", "plus"), TinyAutoAttack(0.05, version="rand"),
    MultiAttack([FGSM(0.05), PGD(0.05, steps=2)]),
    MultiAttack([DeepFool(steps=2), DeepFool(steps=3, overshoot=0.5), DeepFool(steps=3, candidates=2)]),
], ids=lambda attack: str(attack)[:22])
@settings(max_examples=8)
@given(data=st.data())
def test_killed_and_resumed_it_gives_the_same(attack, tmp_path_factory, data):
    """However often, and wherever: the same bytes and the same table as in one go without a file."""
    (model, x, y), steps = scene(30), []
    options = {"seed": 5, "skip_misclassified": data.draw(st.booleans()), "workers": 1,
               "batch_size": data.draw(st.sampled_from([None, 4]))}
    expected = attack.run(model, x, y, callback=steps.append, **options)
    path = tmp_path_factory.mktemp("state") / "state.npz"
    for moment in data.draw(st.lists(st.integers(1, len(steps)), min_size=1, max_size=3)):
        killed_at(moment, attack, model, x, y, state=path, **options)
        assert path.exists()
    result = attack.run(model, x, y, state=path, **options | {"workers": data.draw(st.sampled_from([1, 2]))})
    assert same(result, expected)


@pytest.mark.parametrize("moment", [3, 9, 16])
def test_the_shards_are_those_of_a_run_in_one_go(moment, tmp_path, monkeypatch):
    """Though some of what was in them is broken by then: on their size hang the last bits of matrix products."""
    monkeypatch.setattr(multi, "SHARDS", 1)
    model, x, y = scene(40)
    shards, attack, options = {True: set(), False: set()}, TinyAutoAttack(0.05), {"workers": 1, "batch_size": None}
    with pytest.raises(Killed):
        attack.run(model, x, y, state=tmp_path / "state.npz", callback=fails_at(moment), **options)
    for resumed in (True, False):
        attack.run(model, x, y, state=tmp_path / "state.npz" if resumed else None, **options,
                   callback=lambda step, own=shards[resumed]: own.add(tuple(step.examples.tolist())))
    assert shards[True] < shards[False]


def test_what_is_done_is_not_done_again(tmp_path):
    (model, x, y), seen = scene(40), []

    def counted(points):
        seen.append(len(points))
        return model(points)

    options = {"state": tmp_path / "state.npz", "batch_size": 5, "workers": 1, "skip_misclassified": True}
    attack = TinyAutoAttack(0.1)
    assert killed_at(40, attack, counted, x, y, **options)
    before = sum(seen)
    seen.clear()
    result = attack.run(counted, x, y, **options)
    rest, expected = sum(seen), attack.run(model, x, y, batch_size=5, skip_misclassified=True)
    assert same(result, expected)
    assert rest < 0.7 * expected.forwards.sum() < rest + before
    assert result.seconds >= sum(row[3] for row in result.table[:-1])
    seen.clear()
    assert same(attack.run(counted, x, y, **options), expected)  # a file of a run that has ended
    assert sum(seen) == 3 * len(x) + (result.predictions_clean == y).sum()  # the model, its noise, its gradient


def test_a_process_that_is_killed_leaves_a_file_to_go_on_from(tmp_path):
    path = tmp_path / "state.npz"
    program = f"""
import itertools, os
from test_autoattack import TinyAutoAttack, scene
count = itertools.count()
model, x, y = scene()
TinyAutoAttack(0.1).run(model, x, y, seed=2, state={str(path)!r}, batch_size=4, workers=1,
                        callback=lambda step: next(count) == 12 and os.kill(os.getpid(), 9))
"""
    folder = os.path.dirname(__file__)
    found = os.pathsep.join([folder, os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))])
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": found}, check=False)
    assert killed.returncode == -9
    assert read(path, "a state", "run")[1]["tried"].any()
    model, x, y = scene()
    options = {"seed": 2, "batch_size": 4}
    result, expected = (TinyAutoAttack(0.1).run(model, x, y, state=state, **options) for state in (path, None))
    assert same(result, expected)


@pytest.mark.parametrize(("differs", "change"), [
    ("x", {"x": images(12, SHAPE, np.float64, 9)}),
    ("y", {"y": labels(12)}),
    ("target", {"target": 1}),
    ("seed", {"seed": 6}),
    ("seed", {"seed": Streams(5, range(1, 13))}),
    ("options", {"batch_size": 5}),
    ("options", {"skip_misclassified": True}),
    ("options", {"quantize": True}),
    ("attacks", {"attack": TinyAutoAttack(0.11)}),
    ("attacks", {"attack": TinyAutoAttack(0.1, version="plus")}),
    ("model", {"model": dense(SHAPE, 5, np.float64, seed=1)}),
    ("model", {"model": lambda x: ops.concatenate([dense(SHAPE, 5, np.float64)(x)] * 2, axis=1)}),
    ("x, y", {"x": images(12, SHAPE, np.float64, 9), "y": labels(12)}),
])
def test_the_state_of_another_run_is_refused(differs, change, tmp_path):
    path, (model, x, y) = tmp_path / "state.npz", scene()
    arguments = {"attack": TinyAutoAttack(0.1), "model": model, "x": x, "y": y, "seed": 5, "state": path}

    def run(attack, **options):
        return attack.run(**options)

    expected, before = run(**arguments), path.read_bytes()
    with pytest.raises(StateError, match=f"state.npz: the state of another run, which differs in {differs}.*: name"):
        run(**arguments | change)
    assert path.read_bytes() == before
    assert same(run(**arguments), expected)


class Masked(nn.Module):
    """A model with one class more, which is never predicted."""

    def __init__(self, model):
        self.model = model

    def forward(self, x):
        z = self.model(x)
        return ops.concatenate([z, Tensor(np.full((len(z), 1), -np.inf, z.dtype))], axis=1)


def changed(images):
    return images


class Counting(nn.Module):
    """It counts, and holds what is no number: neither makes another model of it."""

    def __init__(self):
        self.model, self.queries, self.others = scene()[0], 0, (object(), "a")

    def forward(self, x):
        self.queries += len(x)
        return self.model(x)


def test_what_a_model_counts_is_no_setting(tmp_path):
    (_, x, y), attack, path = scene(), MultiAttack([FGSM(0.1)]), tmp_path / "state.npz"
    result = attack.run(model := Counting(), x, y, state=path)
    for again in model, Counting():
        assert same(attack.run(again, x, y, state=path), result)


def times(factor):
    return lambda x: x * factor


class Straight(nn.Module):
    def forward(self, x):
        return x * 1


class Dead(nn.Module):
    """The same logits, but no gradient."""

    def forward(self, x):
        return defended(x)


defended = bpda(changed, gradient="zero")


@dataclass(frozen=True)
class Times:
    factor: float

    def __call__(self, x):
        return x * self.factor


@pytest.mark.parametrize("others", [
    [nn.Sequential(bpda(changed, gradient=gradient), scene()[0]) for gradient in ("identity", "zero")],
    [nn.Sequential(bpda(changed, smooth), scene()[0]) for smooth in (ops.tanh, ops.sigmoid)],
    [nn.Sequential(bpda(changed, times(factor)), scene()[0]) for factor in (1.0, 2.0)],
    [nn.Sequential(bpda(changed, times(np.array(factor))), scene()[0]) for factor in (1.0, 2.0)],
    [nn.Sequential(bpda(changed, partial(operator.mul, factor)), scene()[0]) for factor in (1.0, 2.0)],
    [nn.Sequential(bpda(changed, Times(factor)), scene()[0]) for factor in (1.0, 2.0)],
    [nn.Sequential(layer(), scene()[0]) for layer in (Straight, Dead)],
    [Masked(dense(SHAPE, 5, np.float64, seed=seed)) for seed in (0, 1)],
], ids=["gradient", "stand-in", "closure", "array", "partial", "object", "class", "infinite logits"])
def test_the_state_of_another_model_is_refused_even_where_the_logits_are_alike(others, tmp_path):
    (_, x, y), (one, other) = scene(), others
    attack, path = MultiAttack([FGSM(0.1)]), tmp_path / "state.npz"
    result = attack.run(one, x, y, state=path)
    assert same(attack.run(one, x, y, state=path), result)
    with pytest.raises(StateError, match="the state of another run, which differs in model: name"):
        attack.run(other, x, y, state=path)


def test_the_state_of_another_version_is_refused_and_so_is_another_file(tmp_path):
    path, (model, x, y) = tmp_path / "state.npz", scene()
    result = TinyAutoAttack(0.1).run(model, x, y, state=path)
    header, arrays = read(path, "a state", "run")
    write(path, header | {"run": header["run"] | {"version": "0.0"}}, arrays)
    with pytest.raises(StateError, match="differs in version"):
        TinyAutoAttack(0.1).run(model, x, y, state=path)
    result.save(path)
    with pytest.raises(StateError, match="not the state of a run of tinyadv"):
        TinyAutoAttack(0.1).run(model, x, y, state=path)
    path.write_bytes(b"nothing")
    with pytest.raises(StateError, match=r"not a readable \.npz file"):
        TinyAutoAttack(0.1).run(model, x, y, state=path)


@pytest.mark.parametrize(("name", "change"), [
    ("x_adv", lambda a: a[:1]), ("x_adv", lambda a: a.astype(np.float32)), ("x_adv", lambda a: a + 0.2),
    ("x_adv", lambda a: a * np.nan), ("x_adv", lambda a: np.full_like(a, 2.0)), ("success", lambda a: a.astype(int)),
    ("success", lambda a: a | True), ("predictions", lambda a: a[:, None]), ("distances", lambda a: a + 0.01),
    ("by", lambda a: a + 9), ("by", lambda a: a - 9), ("tried", lambda a: a + 9), ("rows", lambda a: a - 1e9),
    ("rows", lambda a: a[:1]), ("forwards", lambda a: -1 - a), ("backwards", lambda a: -1 - a),
    ("worth", lambda a: a[:3]), ("logits", lambda a: a.astype("U9")), ("more", None), ("by", None), ("logits", None),
])
def test_a_state_that_no_run_has_written_is_not_taken_over(name, change, tmp_path):
    """It is whole, and of this very run, but for one array: wrong in shape, dtype, budget or numbers."""
    path, (model, x, y) = tmp_path / "state.npz", scene()
    killed_at(9, TinyAutoAttack(0.1), model, x, y, state=path, batch_size=4, workers=1)
    header, arrays = read(path, "a state", "run")
    arrays = arrays | {name: change(arrays[name])} if change else {
        **{key: array for key, array in arrays.items() if key != name}, **{key: x for key in [name] if key == "more"}}
    write(path, header, arrays)
    message = rf"state\.npz: (the state of this run, but its .*{name}|.*differs in model|not the state)"
    with pytest.raises(StateError, match=message):
        TinyAutoAttack(0.1).run(model, x, y, state=path, batch_size=4, workers=1,
                                callback=lambda step: pytest.fail("an attack has begun"))


def test_a_state_has_one_run_at_a_time(tmp_path):
    (model, x, y), path, seen = scene(), tmp_path / "state.npz", []

    def second(step):
        if not seen:
            with pytest.raises(StateError, match=r"another run writes to this file, process \d+ on "):
                TinyAutoAttack(0.1).run(model, x, y, state=path)
            seen.append(step)

    TinyAutoAttack(0.1).run(model, x, y, state=path, callback=second, workers=1)
    assert seen
    assert os.listdir(tmp_path) == ["state.npz"]


def test_a_place_that_cannot_be_written_to_is_an_error_before_the_first_attack(tmp_path):
    model, x, y = scene()
    with pytest.raises(FileNotFoundError):
        TinyAutoAttack(0.1).run(model, x, y, state=tmp_path / "nowhere" / "state.npz",
                                callback=lambda step: pytest.fail("an attack has begun"))


def test_a_random_model_can_be_gone_on_with(tmp_path):
    """Its logits at the clean images are never those of the file, and another one's are further away."""
    (model, x, y), noise = scene(), np.random.default_rng(0)

    def random(points):
        return model(points) + 0.01 * noise.normal(size=(len(points), 5))

    attack, options = TinyAutoAttack(0.1, version="rand"), {"state": tmp_path / "state.npz", "workers": 1}
    assert killed_at(5, attack, random, x, y, batch_size=4, **options)
    assert attack.run(random, x, y, batch_size=4, **options).warnings == ()
    with pytest.raises(StateError, match="differs in model"):
        attack.run(lambda points: random(points) * 2.0, x, y, batch_size=4, **options)


# Averages for random models


def test_noise_that_cancels_over_the_passes_does_no_harm():
    """Two passes with opposite noise have the mean gradient of the model without."""
    model, x, y = scene()
    pull, turn = Tensor(np.random.default_rng(1).normal(size=(5, 16))), itertools.count()

    def random(points):
        sign = 10.0 * (-1) ** next(turn)
        return model(points) + ops.linear(ops.flatten(points), pull) * sign

    steps, options = {1: [], 2: []}, {"batch_size": len(x), "workers": 1}
    for eot, network in ((1, model), (2, random)):
        attack = APGD(0.1, steps=4, loss="margin", eot=eot)
        attack.run(network, x, y, callback=lambda step, own=steps[eot]: own.append(step.points), **options)
    for step, points in enumerate(steps[1][:2]):  # where the largest logit is the same for both signs; else no mean is
        assert np.median(abs(steps[2][2 * step] - points)) < 1e-12
    assert len(steps[2]) == 2 * len(steps[1])


@pytest.mark.parametrize("judged", [0, 1])
def test_of_the_passes_the_last_is_judged(judged):
    """As by the authors: or an image would be broken that any of 20 passes gets wrong."""
    x, turn, steps = images(4, SHAPE), itertools.count(), 3

    def random(points):
        number = next(turn)
        wrong = number < 2 * steps and number % 2 == judged
        return ops.flatten(points)[:, :2] * 0.0 + np.array([0.0, 1.0 if wrong else -1.0])

    result = APGD(0.1, steps=steps, eot=2).run(random, x, np.zeros(4, int), batch_size=4)
    assert (result.success == judged).all()


# Target classes


def test_apgd_t_breaks_what_one_of_its_targets_breaks():
    """And any misclassification counts, as for AutoAttack; with a target, that is all that is aimed at."""
    model, x = dense(SHAPE, 6, np.float64), images(60, SHAPE, np.float64)
    y = predictions(model, x)
    attack = APGD(0.06, steps=20, loss="dlr", target_classes=3)
    result = attack.run(model, x, y, seed=1)
    order = np.argsort(-driver.logits(model, x), axis=1)
    single = [replace(attack, target_classes=None).run(model, x, y, target=order[:, k], seed=1) for k in range(1, 4)]
    reached = np.any([found.predictions != y for found in single], axis=0)
    assert 10 < result.success.sum() < 50
    assert (result.success != reached).sum() <= 2  # the second and third run start from other random points
    first = replace(attack, target_classes=1).run(model, x, y, seed=1)
    assert (result.success >= first.success).all()
    assert result.success.sum() > first.success.sum()
    aimed = replace(attack, target_classes=None)
    assert attack(model, x, y, target=2).tobytes() == aimed(model, x, y, target=2).tobytes()
    few = replace(attack, target_classes=np.int64(50))
    assert few == replace(attack, target_classes=50)
    assert few.run(model, x, y).success.sum() >= result.success.sum() - 2


# Warnings


def found(model, x, y, attack=None, **options):
    return (attack or TinyAutoAttack(0.1)).run(model, x, y, **options).warnings


def test_there_is_nothing_to_say_of_a_sound_model():
    assert found(*scene()) == ()


@pytest.mark.parametrize("mask", [lambda model: model, Masked])
def test_random_outputs_and_the_wrong_version_for_them(mask):
    (model, x, y), noise = scene(), np.random.default_rng(0)
    model = mask(model)

    def random(points):
        z = model(points)
        return z + 0.1 * noise.normal(size=z.shape)

    (warning,) = found(random, x, y, workers=1)
    assert "outputs are random" in warning
    assert 'version="rand"' in warning
    rand = TinyAutoAttack(0.1, version="rand")
    assert found(random, x, y, rand, workers=1) == ()
    (warning,) = found(model, x, y, rand)
    assert 'not random: version="standard" is stronger' in warning


def test_probabilities_for_logits():
    model, x, y = scene()

    def softmax(points):
        odds = ops.exp(model(points))
        return odds / odds.sum(axis=1, keepdims=True)

    with pytest.warns(UserWarning, match="returns probabilities"):  # of each attack as well
        (warning,) = found(softmax, x, y)
    assert "returns probabilities" in warning


def test_zero_gradients_and_a_black_box_that_beats_the_white_ones():
    """Logits without slope, which all the same depend on the image."""
    model, x, y = scene(40)

    def masked(points):
        return model(Tensor(points.data)) + ops.flatten(points)[:, :1] * 0.0

    gradients, square = found(masked, x, y, AutoAttackOfManyQueries(0.3))
    right = (predictions(model, x) == y).sum()
    assert f"at {right} of {right} right images the cross entropy's gradient is 0" in gradients
    assert "Square, which sees no gradient, broke" in square


class AutoAttackOfManyQueries(TinyAutoAttack):
    """Enough for Square to find something."""

    _queries = 60


@pytest.mark.parametrize(("eps", "y", "said"), [
    (0.5, [0, 1, 1, 3], True), (0.49, [0, 1, 1, 3], False), (0.5, [1, 1, 1, 1], False)])
def test_an_eps_beyond_which_nothing_can_be_told_apart(eps, y, said):
    """Images of two classes cannot both be right when they are the same; those of one class can."""
    def knows_the_order(points):
        return ops.flatten(points)[:, :4] * 1e-3 + 2 * np.eye(4)[y]

    warnings = found(knows_the_order, images(4, SHAPE), np.array(y), TinyAutoAttack(eps), batch_size=4)
    assert len(warnings) == said
    assert not said or "images of 3 classes are left, though with this eps all can become" in warnings[0]


# Silence, and progress


def test_it_is_silent_unless_asked_and_then_tells_its_parameters(capfd):
    model, x, y = scene()
    attack = TinyAutoAttack(0.1)
    quiet = attack.run(model, x, y)
    assert capfd.readouterr() == ("", "")
    assert same(attack.run(model, x, y, progress=True), quiet)
    out, err = capfd.readouterr()
    assert out == ""
    for name, part in zip(attack.names, attack.attacks, strict=True):
        assert f"{name}: {part!r}\n" in err
    for name, left, broken, *_ in quiet.table[:-1]:
        assert f"{name}: {left} left, {broken} broken, " in err
    attack.run(lambda points: model(points)[:, :3], x, y % 3, progress=True)
    assert "warning: " in capfd.readouterr().err


def test_no_images_are_no_problem(tmp_path):
    for _ in range(2):
        result = TinyAutoAttack(0.1).run(cnn(), images(0), labels(0), state=tmp_path / "state.npz")
        assert result.table[-1] == ("all", 0, 0, 0.0, 0, 0)
        assert result.warnings == ()
