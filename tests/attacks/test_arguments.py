"""What goes into an attack and comes out of it: wrong arguments, hyper-parameters, callbacks, progress, results."""

import pickle
import re
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from itertools import permutations

import numpy as np
import pytest
from attack_cases import (
    ATTACKS,
    Surrogate,
    already_reached,
    check_budget,
    cnn,
    every_attack,
    every_black_box,
    every_single_attack,
    every_white_box,
    images,
    labels,
    name,
    predictions,
    rows,
    stage,
    targeted_or_not,
    varied,
)

from tinyadv import Tensor, attacks, ops
from tinyadv.attacks import FAB, FGSM, PGD, Attack, BoundaryAttack
from tinyadv.attacks.base import attack as base
from tinyadv.certify import Interval


def with_pixel(value):
    x = images(4)
    x[1, 0, 2, 3] = value
    return x


@every_attack
@pytest.mark.parametrize(("message", "change"), [
    (r"x must lie in bounds=\(0.0, 1.0\), got values from .* to 1.5", {"x": with_pixel(1.5)}),
    ("x must lie in bounds=.*, got values from -1.0", {"x": with_pixel(-1)}),
    ("x must be numbers, but 1 of its 4 images contain NaN", {"x": with_pixel(np.nan)}),
    (r"y must be integer classes.*got float64 of shape \(4, 5\): of one-hot labels, take y.argmax\(axis=1\)",
     {"y": np.eye(5)[labels(4)]}),
    ("x must lie in bounds=.*inf", {"x": with_pixel(np.inf)}),
    (r"x must have pixels, got shape \(4, 1, 0, 8\)", {"x": np.zeros((4, 1, 0, 8), np.float32)}),
    ("x must be a floating-point array.*got uint8.*astype", {"x": np.zeros((4, 1, 8, 8), np.uint8)}),
    ("x must be a floating-point array.*got list", {"x": [[0.5]]}),
    ("x must be a floating-point array.*got Tensor", {"x": Tensor(images(4))}),
    ("x must be a floating-point array.*got float32 of shape", {"x": np.zeros(4, np.float32)}),
    (r"y must be integer classes of shape \(4,\).*got int64 of shape \(3,\)", {"y": labels(3)}),
    (r"y must be integer classes.*got int64 of shape \(4, 1\)", {"y": labels(4)[:, None]}),
    (r"y must be integer classes.*got int64 of shape \(\)", {"y": 3}),
    ("y must be integer classes.*got float64", {"y": labels(4) * 1.0}),
    ("y must be integer classes.*got bool", {"y": labels(4) > 2}),
    (r"y: labels must lie in \[0, 5\).*from 5 to 5", {"y": np.full(4, 5)}),
    (r"y: labels must lie in \[0, 5\).*from -1", {"y": np.full(4, -1), "skip_misclassified": True}),
    (r"y: labels must lie in \[0, 5\).*from 5 to 5", {"y": np.full(4, 5), "target": 1}),
    (r"target must be integer classes of shape \(4,\).*got int64 of shape \(5,\)", {"target": labels(5)}),
    ("target must be integer classes.*got float64", {"target": 1.0}),
    ("target must be integer classes.*got bool", {"target": True}),
    ("target must be integer classes.*got <U3", {"target": "cat"}),
    (r"target: labels must lie in \[0, 5\).*from 7 to 7", {"target": 7}),
    (r"target: labels must lie in \[0, 5\).*from -1", {"target": -1}),
    ("seed must be an integer.*got -1", {"seed": -1}),
    ("seed must be an integer.*got 1.0", {"seed": 1.0}),
    ("seed must be an integer.*got None", {"seed": None}),
    ("workers must be an integer >= 1, got 0", {"workers": 0}),
    ("batch_size must be an integer >= 1, got 0", {"batch_size": 0}),
    (r"the model must return logits \(N, K\)", {"model": lambda x: x}),
    (r"the model must return logits \(N, K\) with N = ", {"model": lambda x: ops.flatten(x)[:1]}),
])
def test_a_wrong_argument_is_refused_by_name(attack, message, change):
    arguments = {"model": cnn(), "x": images(4), "y": labels(4), **change}
    for call in (attack, attack.run):
        with pytest.raises(ValueError, match=message):
            call(**arguments)


@every_white_box
def test_a_model_that_returns_an_array_has_no_gradient_to_attack_it_by(attack):
    x = images(4)
    with pytest.raises(TypeError, match="the model must return a Tensor of logits, got ndarray, which has no gradient"):
        attack(lambda x: ops.flatten(x).data, x, rows(x).argmax(axis=1))


@targeted_or_not
@every_black_box
def test_a_black_box_may_be_a_function_of_arrays(attack, targeted):
    """As it is: one on Tensors gives the same bytes."""
    w1, w2 = np.random.default_rng(3).normal(size=(2, 64, 64)) / 8
    x, y = images(6), labels(6)

    def by_numpy(x):
        return np.tanh(rows(x.data) @ w1) @ w2

    def by_tensors(x):
        return ops.tanh(Tensor(rows(x.data)) @ w1) @ w2

    found, expected = (attack.run(model, x, y, target=3 if targeted else None) for model in (by_numpy, by_tensors))
    assert found.x_adv.tobytes() == expected.x_adv.tobytes()
    np.testing.assert_array_equal(found.predictions, expected.predictions)


@every_attack
def test_a_function_may_write_into_what_it_gets(attack):
    """Its points stay those of the attack: the budget would be lost."""
    w1, w2 = np.random.default_rng(3).normal(size=(2, 64, 64)) / 8
    x, y = images(4), labels(4)

    def pure(x):
        return ops.tanh(ops.flatten(x - 0.5) @ w1) @ w2

    def writing(x):
        logits = pure(x)
        x.data[...] = -1
        return logits

    found, expected = (attack.run(model, x, y) for model in (writing, pure))
    assert found.x_adv.tobytes() == expected.x_adv.tobytes()
    np.testing.assert_array_equal(found.distances, expected.distances)


WRONG = {
    "eps": (-0.1, np.nan, np.inf, "0.3", None, True, (0.3,)),
    "norm": ("l3", "Linf", 2, None),
    "steps": (0, -1, 2.0, True, None),
    "bounds": ((1, 0), (0, 0), (0, np.inf), (np.nan, 1), (-1e308, 1e308), ("0", "1"), (0, 1, 2), [0, 1], 1),
}


@pytest.mark.parametrize(("attack", "field"), [
    pytest.param(attack, field, id=f"{type(attack).__name__}-{attack.norm}-{field.name}")
    for attack in ATTACKS for field in fields(attack) if field.init and field.name in WRONG
])
def test_a_wrong_hyper_parameter_is_refused_by_name(attack, field):
    for value in WRONG[field.name]:
        if value is not field.default:
            with pytest.raises(ValueError, match=f"^{field.name} must be .*got "):
                replace(attack, **{field.name: value})


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
@every_attack
def test_an_integer_may_be_one_of_numpy(attack, kind):
    """And is an int from then on: the attack equals, hashes and prints as with that."""
    for count in {"steps", "queries", "restarts", "eot"} & {field.name for field in fields(attack) if field.init}:
        other = replace(attack, **{count: kind(getattr(attack, count))})
        assert (other, hash(other), repr(other)) == (attack, hash(attack), repr(attack))
        with pytest.raises(ValueError, match=f"^{count} must be an integer >= [12], "):
            replace(attack, **{count: kind(0)})


@pytest.mark.parametrize("make", [attacks.SparseRS, lambda eps: PGD(eps, norm="l0")])
def test_a_number_of_pixels_is_in_no_units_of_the_data(make):
    with pytest.raises(ValueError, match=r"^eps must be a number >= 0, in pixels, got -1"):
        make(-1)


@pytest.mark.parametrize("attack", [attacks.SparseRS(0.3, queries=3), PGD(0.3, steps=2, norm="l0")])
def test_a_budget_of_less_than_one_pixel_is_doubted(attack):
    model, x = cnn(), images(2)
    y = predictions(model, x)
    with pytest.warns(UserWarning, match="^eps=0.3 is less than one pixel: l0 counts pixels, so give eps=10, say$"):
        attack(model, x, y)
    for eps in (0, 1):
        attack.with_eps(eps)(model, x, y)  # pytest makes warnings errors


@pytest.mark.parametrize("norm", ["l0", "l3", None])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_autoattack_names_the_norms_that_it_has(norm, version):
    with pytest.raises(ValueError, match=f"^norm must be linf or l2 or l1 for AutoAttack, got {norm!r}$"):
        attacks.AutoAttack(0.1, norm, version)


# A frozen dataclass


@every_attack
def test_an_attack_is_a_value(attack):
    again = pickle.loads(pickle.dumps(attack))
    names = vars(attacks) | {each.__name__: each for each in (type(attack), Surrogate)}
    for other in (again, replace(attack), eval(repr(attack), names)):
        assert other == attack
        assert hash(other) == hash(attack)
        assert repr(other) == repr(attack)
    for number in {"eps", "steps"} & {field.name for field in fields(attack)}:
        assert replace(attack, **{number: 2 * (getattr(attack, number) or 1)}) != attack
    assert varied(attack, bounds=(-1.0, 1.0)) != attack
    for field in fields(attack):
        with pytest.raises(FrozenInstanceError):
            setattr(attack, field.name, getattr(attack, field.name))


@pytest.mark.parametrize("attack", [
    attack for attack in ATTACKS if any((field.name, field.default) == ("eps", MISSING) for field in fields(attack))
], ids=name)
def test_a_required_hyper_parameter_has_no_default(attack):
    with pytest.raises(TypeError, match=r"missing .* required positional argument"):
        type(attack)()


# Callbacks, progress and the result


@targeted_or_not
@every_single_attack
def test_a_callback_sees_every_iteration_of_every_shard(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    steps = []
    left = ~already_reached(attack, model, x, y, target)
    searches = attack.minimum_norm or isinstance(attack, FAB)  # outside of the budget, and until all are done
    result = attack.run(model, x, y, target=target, callback=steps.append, workers=2, batch_size=4, seed=10)
    by_shard = {}
    for step in steps:
        by_shard.setdefault(int(step.examples[0]) // 4, []).append(step)
        assert step.points.shape == (len(step.examples), 1, 8, 8)
        assert step.losses.shape == (len(step.examples),)
        if not searches:
            wide = attack.norm == "l1" and not attack.minimum_norm  # APGD starts in a ball of three times the budget
            check_budget(attack.with_eps(3 * attack.eps) if wide else attack, x[step.examples], step.points)
    assert sorted(by_shard) == [0, 1, 2]
    for shard, own in by_shard.items():
        first = own[0]
        assert first.examples.tolist() == [i for i in np.flatnonzero(left) if i // 4 == shard]
        assert [step.index for step in own] == list(range(len(own)))
        assert searches or len(own) >= getattr(attack, "steps", 1)
    assert attack(model, x, y, target=target, workers=2, batch_size=4, seed=10).tobytes() == result.x_adv.tobytes()


def test_the_losses_that_a_callback_sees_are_the_objective():
    model, x, y, target = stage("float64", True)
    logits = model(Tensor(x)).data
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    others = np.where(np.arange(3) == y[:, None], -np.inf, logits).max(axis=1)
    others_than_target = np.where(np.arange(3) == target[:, None], -np.inf, logits).max(axis=1)
    for loss, goal, expected in [
        ("cross_entropy", None, -log_p[range(9), y]),
        ("cross_entropy", target, log_p[range(9), target]),
        ("margin", None, others - logits[range(9), y]),
        ("margin", target, logits[range(9), target] - others_than_target),
    ]:
        steps = []
        attack = PGD(0.1, steps=1, random_start=False, loss=loss)
        attack.run(model, x, y, target=goal, callback=steps.append, batch_size=9)
        np.testing.assert_allclose(steps[0].losses, expected, atol=1e-12)
        assert (steps[0].points == x).all()


def test_progress_moves_within_a_shard(capsys, monkeypatch):
    """A bar that waits for the end of a shard would be silent for minutes."""
    monkeypatch.setattr(base, "SHOWN_EVERY", 0)
    x = images(4)
    BoundaryAttack(queries=300).run(cnn(), x, predictions(cnn(), x), batch_size=4, progress=True)
    err = capsys.readouterr().err
    assert re.search(r"BoundaryAttack\(queries=300\), step \d+: +0%\| +\| 0/4", err)


def test_progress_is_a_bar_on_standard_error_that_ends(capsys):
    model, x, y, _ = stage("cnn", False)
    FGSM(0.1)(model, x, y, progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "9/9" in err
    assert "succeeded" in err
    FGSM(0.1)(model, x, y)
    assert capsys.readouterr() == ("", "")


@every_attack
def test_the_result_prints_and_pickles(attack):
    model, x, y, _ = stage("cnn", False)
    result = attack.run(model, x, y, seed=11)
    again = pickle.loads(pickle.dumps(result))
    assert again.x_adv.tobytes() == result.x_adv.tobytes()
    assert again.attack == attack
    for text in (str(attack), f"{result.success.sum()} of 9 succeeded", "seed 11"):
        assert text in result.summary()
    assert repr(attack) in repr(result)
    assert "0 of 0" in attack.run(model, x[:0], y[:0]).summary()


def test_no_images_may_have_an_empty_list_of_classes():
    x = images(0)
    for empty in [], ():
        assert PGD(0.1)(cnn(), x, empty, target=empty).shape == x.shape
        assert cnn()(Interval(x, x)).worst(empty).shape == (0, 5)
    with pytest.raises(ValueError, match=r"y must be integer classes of shape \(4,\), .* got int64 of shape \(0,\)"):
        PGD(0.1)(cnn(), images(4), [])


def test_an_attack_without_perturb_says_so():
    with pytest.raises(TypeError, match=r"Attack defines no perturb\(batch\)"):
        Attack()(cnn(), images(2), labels(2))


def test_parameters_of_one_name_come_in_one_order():
    """Of any two attacks; and the norm is first in none."""
    public = [getattr(attacks, each) for each in attacks.__all__]
    orders = [[field.name for field in fields(kind) if not field.kw_only]
              for kind in public if isinstance(kind, type) and issubclass(kind, Attack)]
    for one, other in permutations(orders, 2):
        assert [each for each in one if each in other] == [each for each in other if each in one]
    assert "norm" not in {order[0] for order in orders if order}


@pytest.mark.parametrize("call", [
    lambda norm: attacks.DeepFool(norm), lambda norm: attacks.DeepFool(norm, 20), lambda norm: FAB(norm, 20),
    lambda norm: FAB(norm, 20, 0.3), lambda norm: attacks.Square(0.3, norm), lambda norm: attacks.HopSkipJump(norm),
    lambda norm: PGD(0.3, norm), lambda norm: attacks.APGD(0.3, norm),
])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_norm_in_another_place_is_told_its_name(call, norm):
    with pytest.raises(ValueError, match=rf"^(eps|step_size|steps|queries) must not be a norm, got .*norm='{norm}' in"):
        call(norm)


def rounded(x):
    """A model that leaves the graph: its gradient would be zero, and white-box attacks would find nothing."""
    return Surrogate()(Tensor((x.data * 7).round() / 7))


@every_white_box
def test_a_model_that_leaves_the_graph_is_an_error_where_a_gradient_is_needed(attack):
    attack = replace(attack, surrogate=rounded) if isinstance(attack, attacks.Transfer) else attack
    with pytest.raises(ValueError, match="the operations that lead to the logits do not begin at x"):
        attack(rounded, images(4), labels(4))


@every_black_box
def test_a_model_that_leaves_the_graph_can_be_attacked_without_gradients(attack):
    attack.run(rounded, images(4), labels(4))


@every_white_box
def test_constant_logits_of_a_graph_are_legal(attack):
    attack = replace(attack, surrogate=cnn()) if isinstance(attack, attacks.Transfer) else attack
    attack.run(lambda x: Surrogate()(x) * 0, images(4), labels(4))
