"""The seven guarantees, for every attack in one table, over models and images that make them hard to keep.

A new attack is one line of ATTACKS.
"""

import math
import pickle
import random
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, nn, ops
from tinyadv.attacks import FGSM, PGD, Attack, driver
from tinyadv.attacks.norms import ball_class
from tinyadv.backend import to_host
from tinyadv.random import Streams

ATTACKS = [
    FGSM(0.1),
    FGSM(0.5, norm="l2"),
    FGSM(1.0, norm="l1"),
    PGD(0.1, steps=3),
    PGD(0.5, steps=3, norm="l2", loss="margin"),
    PGD(1.0, steps=3, norm="l1", restarts=2),
]
NORMS = {
    "linf": lambda x: abs(x).max(axis=1),
    "l2": lambda x: np.linalg.norm(x, axis=1),
    "l1": lambda x: abs(x).sum(axis=1),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__}-{attack.norm}")
targeted_or_not = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def dense(shape, classes, dtype=np.float32, scale=2.0, seed=0):
    """A small smooth network for images of any shape."""
    rng, size = np.random.default_rng(seed), math.prod(shape)
    w1 = Tensor((scale * rng.normal(size=(8, size)) / np.sqrt(size)).astype(dtype))
    w2 = Tensor((scale * rng.normal(size=(classes, 8)) / np.sqrt(8)).astype(dtype))
    return lambda x: ops.linear(ops.tanh(ops.linear(ops.flatten(x), w1)), w2)


def cnn(seed=0):
    """With every kind of layer that has a mode or a state, and flags that are neither all on nor all off."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Normalize([0.4], [0.3]), nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 5, rng=rng),
    ).train()
    model.layers[3].training = False
    for parameter in model.parameters():
        parameter.grad = np.full(parameter.shape, 7.0, np.float32)
    return model


def images(count, shape=(1, 8, 8), dtype=np.float32, seed=1):
    return np.random.default_rng(seed).random((count, *shape)).astype(dtype)


def labels(count, classes=5, seed=2):
    return np.random.default_rng(seed).integers(0, classes, count)


def constant(x):
    """Logits that do not depend on x, though the graph does not show it: all gradients are zero."""
    return ops.linear(ops.flatten(x), np.zeros((3, x.size // max(1, len(x))), x.dtype)) + np.eye(3, dtype=x.dtype)[1]


def with_nans(x):
    """No number for every image whose first pixel is above one half."""
    bad = np.where(x.data.reshape(len(x), -1)[:, :1] > 0.5, np.nan, 1).astype(x.dtype)
    return dense(x.shape[1:], 3)(x) * bad


SCENES = {  # name: (model, x, number of classes)
    "cnn": (cnn(), images(9), 5),
    "float64": (dense((1, 3, 3), 3, np.float64), images(9, (1, 3, 3), np.float64), 3),
    "float16": (dense((1, 3, 3), 3, np.float16), images(9, (1, 3, 3), np.float16), 3),
    "float32 images, float64 model": (dense((1, 3, 3), 3, np.float64), images(9, (1, 3, 3)), 3),
    "float64 images, float32 model": (dense((1, 3, 3), 3), images(9, (1, 3, 3), np.float64), 3),
    "two classes": (dense((1, 4, 4), 2), images(9, (1, 4, 4)), 2),
    "one pixel": (dense((1, 1, 1), 3), images(9, (1, 1, 1)), 3),
    "not square": (dense((3, 2, 5), 3), images(9, (3, 2, 5)), 3),
    "no images but vectors": (dense((6,), 3), images(9, (6,)), 3),
    "black": (dense((1, 4, 4), 3), np.zeros((9, 1, 4, 4), np.float32), 3),
    "white": (dense((1, 4, 4), 3), np.ones((9, 1, 4, 4), np.float32), 3),
    "constant logits": (constant, images(9, (1, 4, 4)), 3),
    "logits from nowhere": (lambda x: Tensor(np.ones((len(x), 3))), images(9, (1, 4, 4)), 3),
    "some logits are NaN": (with_nans, images(9, (1, 4, 4)), 3),
    "all logits are NaN": (lambda x: dense((1, 4, 4), 3)(x) * np.nan, images(9, (1, 4, 4)), 3),
    "one image": (cnn(), images(1), 5),
    "no image": (cnn(), images(0), 5),
}
every_scene = pytest.mark.parametrize("scene", SCENES)


def stage(scene, targeted):
    """(model, x, y, target) of a scene; about one label in three is wrong, or was the target all along."""
    model, x, classes = SCENES[scene]
    predicted = predictions(model, x)
    y = np.where(np.arange(len(x)) % 3 == 1, labels(len(x), classes), predicted)
    return model, x, y, labels(len(x), classes, seed=3) if targeted else None


def rows(x):
    return x.reshape(len(x), math.prod(x.shape[1:]))


def predictions(model, x):
    return driver.logits(model, x).argmax(axis=1)


def check_budget(attack, x, x_adv):
    """Guarantee 1, in float64 arithmetic and without a tolerance."""
    difference = x_adv.astype(np.float64) - x.astype(np.float64)
    if difference.size:
        assert NORMS[attack.norm](rows(difference)).max() <= attack.eps
        assert x_adv.astype(np.float64).min() >= attack.bounds[0]
        assert x_adv.astype(np.float64).max() <= attack.bounds[1]


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
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.success, result.predictions != y if target is None else result.predictions == target)
    distances = NORMS[attack.norm](rows(result.x_adv.astype(np.float64) - x))
    np.testing.assert_allclose(result.distances, distances, rtol=1e-12)
    assert result.success.dtype == bool
    assert result.predictions.dtype == np.int64
    assert result.distances.dtype == np.float64
    assert (result.attack, result.seed) == (attack, 1)


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
    attack = replace(attack, eps=eps, bounds=bounds)
    check_budget(attack, x, attack(dense((1, 3, 4), 3, scale=1 / high), x, labels(5, 3), seed=3))


@every_attack
def test_a_budget_of_nothing_changes_nothing(attack):
    model, x, y, _ = stage("cnn", False)
    result = replace(attack, eps=0).run(model, x, y)
    assert result.x_adv.tobytes() == x.tobytes()
    np.testing.assert_array_equal(result.success, predictions(model, x) != y)


@targeted_or_not
@every_attack
def test_images_with_strides_of_their_own_are_attacked_alike(attack, targeted):
    """Read-only ones, too."""
    model, x, y, target = stage("cnn", targeted)
    expected = attack(model, x, y, target=target, seed=4)
    strange = np.asfortranarray(np.flip(x, axis=3))[:, :, :, ::-1]
    strange.flags.writeable = False
    assert attack(model, strange, y, target=target, seed=4).tobytes() == expected.tobytes()


# 2 one stream per example


@every_scene
@targeted_or_not
@every_attack
def test_the_bytes_do_not_depend_on_threads_or_runs(attack, targeted, scene):
    model, x, y, target = stage(scene, targeted)
    before = random.getstate()  # conftest watches over NumPy's
    results = [attack(model, x, y, target=target, seed=5, workers=workers, batch_size=2) for workers in (1, 2, 2, None)]
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


@pytest.mark.parametrize("attack", [a for a in ATTACKS if isinstance(a, PGD)], ids=lambda attack: attack.norm)
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
        assert attacked == set(np.flatnonzero(~wrong) if skip else range(len(x)))
        if skip:
            assert result.x_adv[wrong].tobytes() == x[wrong].tobytes()
            assert (result.distances[wrong] == 0).all()
        assert (result.x_adv[~wrong] != x[~wrong]).any()
        np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
        np.testing.assert_array_equal(result.success, result.predictions != y if target is None else result.predictions == target)


@every_attack
def test_to_skip_all_is_no_attack(attack):
    model, x, _, _ = stage("cnn", False)
    result = attack.run(model, x, (predictions(model, x) + 1) % 5, skip_misclassified=True)
    assert result.x_adv.tobytes() == x.tobytes()
    assert result.success.all()


def test_more_restarts_break_no_fewer():
    """The first run is that of one restart, and what it has broken stays broken."""
    model, x, y, _ = stage("cnn", False)
    once, often = (PGD(0.03, steps=2, restarts=restarts).run(model, x, y, seed=8) for restarts in (1, 5))
    assert (often.success >= once.success).all()
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


@every_attack
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


def on_device(model, library):
    """The model with its parameters and buffers in the memory of an array library."""
    for _, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                value.data, value.grad = library.asarray(value.data), None
            elif isinstance(value, np.ndarray):
                setattr(module, name, library.asarray(value))
    return model


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


def with_pixel(value):
    x = images(4)
    x[1, 0, 2, 3] = value
    return x


@every_attack
@pytest.mark.parametrize(("message", "change"), [
    (r"x must lie in bounds=\(0.0, 1.0\), got values from .* to 1.5", {"x": with_pixel(1.5)}),
    ("x must lie in bounds=.*, got values from -1.0", {"x": with_pixel(-1)}),
    ("x must lie in bounds=.*nan", {"x": with_pixel(np.nan)}),
    ("x must lie in bounds=.*inf", {"x": with_pixel(np.inf)}),
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


@every_attack
def test_a_model_that_returns_an_array_is_refused(attack):
    with pytest.raises(TypeError, match="the model must return a Tensor of logits, got ndarray"):
        attack(lambda x: ops.flatten(x).data, images(4), labels(4))


@every_attack
@pytest.mark.parametrize(("name", "value"), [
    *(("eps", value) for value in (-0.1, np.nan, np.inf, "0.3", None, True, (0.3,))),
    *(("norm", value) for value in ("l3", "Linf", 2, None)),
    *(("bounds", value) for value in ((1, 0), (0, 0), (0, np.inf), (np.nan, 1), ("0", "1"), (0, 1, 2), 1, [0, 1], None)),
])
def test_a_wrong_hyper_parameter_is_refused_by_name(attack, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*got "):
        replace(attack, **{name: value})


# A frozen dataclass


@every_attack
def test_an_attack_is_a_value(attack):
    again = pickle.loads(pickle.dumps(attack))
    for other in (again, replace(attack), eval(repr(attack), {type(attack).__name__: type(attack)})):
        assert other == attack
        assert hash(other) == hash(attack)
        assert repr(other) == repr(attack)
    for change in ({"eps": attack.eps / 2}, {"bounds": (-1.0, 1.0)}):
        assert replace(attack, **change) != attack
    for field in fields(attack):
        with pytest.raises(FrozenInstanceError):
            setattr(attack, field.name, getattr(attack, field.name))


@every_attack
def test_a_required_hyper_parameter_has_no_default(attack):
    with pytest.raises(TypeError, match="eps"):
        type(attack)()


# Callbacks, progress and the result


@targeted_or_not
@every_attack
def test_a_callback_sees_every_iteration_of_every_shard(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    steps = []
    result = attack.run(model, x, y, target=target, callback=steps.append, workers=2, batch_size=4, seed=10)
    by_shard = {}
    for step in steps:
        by_shard.setdefault(int(step.examples[0]) // 4, []).append(step)
        assert step.points.shape == (len(step.examples), 1, 8, 8)
        assert step.losses.shape == (len(step.examples),)
        check_budget(attack, x[step.examples], step.points)
    assert sorted(by_shard) == [0, 1, 2]
    for shard, own in by_shard.items():
        first = own[0]
        assert first.examples.tolist() == list(range(9))[4 * shard : 4 * shard + 4]
        assert first.index == 0
        indices = [step.index for step in own[: getattr(attack, "steps", 1)]]
        assert indices == list(range(getattr(attack, "steps", 1)))
    assert attack(model, x, y, target=target, workers=2, batch_size=4, seed=10).tobytes() == result.x_adv.tobytes()


def test_the_losses_that_a_callback_sees_are_the_objective():
    model, x, y, target = stage("float64", True)
    steps = []
    FGSM(0.1).run(model, x, y, callback=steps.append, batch_size=9)
    FGSM(0.1).run(model, x, y, target=target, callback=steps.append, batch_size=9)
    log_p = ops.log_softmax(model(Tensor(x))).data
    np.testing.assert_allclose(steps[0].losses, -log_p[range(9), y])
    np.testing.assert_allclose(steps[1].losses, log_p[range(9), target])
    assert all((step.points == x).all() for step in steps)


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
    for text in (repr(attack), f"{result.success.sum()} of 9 succeeded", "seed 11"):
        assert text in result.summary()
    assert repr(attack) in repr(result)
    assert "0 of 0" in attack.run(model, x[:0], y[:0]).summary()


def test_an_attack_without_perturb_says_so():
    with pytest.raises(TypeError, match=r"Attack defines no perturb\(batch\)"):
        Attack()(cnn(), images(2), labels(2))
