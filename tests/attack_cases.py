"""What the tests of attacks share: the table of attacks, models and images that are hard for them, the exact budget.

A new attack is one line of ATTACKS.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tinyadv import Tensor, driver, nn, ops
from tinyadv.attacks import (
    APGD,
    BIM,
    DDN,
    EAD,
    FAB,
    FGSM,
    FMN,
    MIFGSM,
    PDGD,
    PDPGD,
    PGD,
    AtBudget,
    AutoAttack,
    BoundaryAttack,
    BrendelBethge,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    MultiAttack,
    Patch,
    SigmaZero,
    SparseRS,
    Square,
    Transfer,
)
from tinyadv.attacks.base.balls import L2Ball, LinfBall
from tinyadv.backend import array_module


@dataclass(frozen=True)
class Surrogate:
    """A linear model of five classes, for images of any shape, in any memory."""

    seed: int = 0

    def __call__(self, x):
        rows = ops.flatten(x)
        weight = np.random.default_rng(self.seed).normal(size=(5, rows.shape[1])).astype(x.dtype)
        return ops.linear(rows, array_module(x.data).asarray(weight))


class TinyAutoAttack(AutoAttack):
    """All of AutoAttack, in a moment."""

    _steps, _queries, _classes, _passes = 2, 4, 2, 2


ATTACKS = [
    FGSM(0.1),
    FGSM(0.5, norm="l2"),
    FGSM(1.0, norm="l1"),
    PGD(0.1, steps=3),
    PGD(0.5, steps=3, norm="l2", loss="margin"),
    PGD(1.0, steps=3, norm="l1", restarts=2),
    PGD(0.1, steps=2, eot=2),
    BIM(0.1, steps=3),
    MIFGSM(0.1, steps=3),
    MIFGSM(0.5, steps=3, norm="l2", loss="dlr"),
    FGSM(3, norm="l0"),
    PGD(4, steps=4, norm="l0"),
    MIFGSM(4, steps=3, norm="l0"),
    APGD(0.1, steps=5),
    APGD(0.5, steps=5, norm="l2", loss="dlr", restarts=2),
    APGD(1.0, steps=5, norm="l1", loss="margin"),
    DeepFool(steps=3),
    DeepFool(norm="linf", steps=3, candidates=2, eot=2),
    FAB(steps=4, restarts=2),
    FAB(norm="l2", steps=4, target_classes=2),
    FAB(norm="l1", steps=4, eps=2.0, restarts=2),
    Patch((2, 2), steps=3, restarts=2),
    Patch((1, 3), steps=2, places="all", loss="lavan"),
    CarliniWagner(binary_search_steps=2, steps=15, lr=0.3, initial_c=1.0),
    EAD(binary_search_steps=2, steps=15, lr=0.1, initial_c=1.0),
    DDN(steps=6),
    FMN(steps=6),
    FMN(norm="linf", steps=6, eot=2),
    FMN(norm="l1", steps=6),
    FMN(norm="l0", steps=6),
    PDGD(steps=6),
    PDPGD(steps=6),
    PDPGD(norm="l2", steps=6),
    PDPGD(norm="l1", steps=3, restarts=2),
    SigmaZero(steps=4, restarts=2),
    BrendelBethge(queries=60, steps=12),
    BrendelBethge(queries=60, steps=12, norm="linf"),
    BrendelBethge(queries=60, steps=12, norm="l1"),
    BrendelBethge(queries=60, steps=50),
    SparseRS(2, queries=8),
    Square(0.1, queries=8),
    Square(0.5, norm="l2", queries=8),
    BoundaryAttack(queries=40),
    HopSkipJump(queries=60, initial_directions=4),
    HopSkipJump(queries=60, initial_directions=4, norm="linf"),
    MultiAttack([FGSM(0.1), PGD(0.1, steps=2), Square(0.1, queries=5)]),
    MultiAttack([DeepFool(steps=2), DeepFool(steps=3, candidates=2)]),
    AtBudget(DDN(steps=9), 16),
    AtBudget(PGD(0.1, steps=2), 30),
    AtBudget(FGSM(2, norm="l0"), 12),
    Transfer(Surrogate(), PGD(0.1, steps=2)),
    TinyAutoAttack(0.1),
    TinyAutoAttack(0.5, norm="l2", version="plus"),
]
BLACK_BOX = (Square, SparseRS, BoundaryAttack, HopSkipJump, Transfer)
NORMS = {
    "linf": lambda x: abs(x).max(axis=1),
    "l2": lambda x: np.linalg.norm(x, axis=1),
    "l1": lambda x: abs(x).sum(axis=1),
}


def name(attack):
    return f"{type(attack).__name__}-{attack.norm}"


every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=name)
every_single_attack = pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if not isinstance(a, MultiAttack)], ids=name)
every_attack_with_eps = pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if hasattr(a, "eps") and not a.minimum_norm], ids=name)
every_white_box = pytest.mark.parametrize("attack", [a for a in ATTACKS if not isinstance(a, BLACK_BOX)], ids=name)
every_black_box = pytest.mark.parametrize("attack", [a for a in ATTACKS if isinstance(a, BLACK_BOX)], ids=name)
targeted_or_not = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def varied(attack, **changes):
    """The attack with other parameters or, if it is made of others, those with them."""
    if isinstance(attack, Transfer):
        return Transfer(attack.surrogate, varied(attack.attack, **changes))
    if isinstance(attack, AtBudget):
        return AtBudget(varied(attack.attack, **changes), attack.queries)
    if type(attack) is MultiAttack:
        return MultiAttack([varied(each, **changes) for each in attack.attacks])
    return replace(attack, **changes)


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


def noisy(shape=(1, 3, 3), classes=3):
    """A network with random layers before and behind it, in float64."""
    noise = nn.GaussianNoise(0.2, at_test=True), nn.GaussianNoise(0.1, at_test=True)
    return nn.Sequential(noise[0], dense(shape, classes, np.float64), noise[1])


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
    predicted = driver.logits(model, x).argmax(axis=1)  # a label also where a logit is NaN
    y = np.where(np.arange(len(x)) % 3 == 1, labels(len(x), classes), predicted)
    return model, x, y, labels(len(x), classes, seed=3) if targeted else None


def already_reached(attack, model, x, y, target):
    """The clean images that a minimum-norm attack has nothing to do for."""
    return reached(predictions(model, x), y, target) & attack.minimum_norm


def reached(predicted, y, target):
    """Whether classes (N,) are a success: NaN, which is -1, never is."""
    return (predicted != y) & (predicted >= 0) if target is None else predicted == target


def shown(attack, model, x, y, **options):
    """The points of every step, (steps, N, ...)."""
    points = []
    attack(model, x, y, batch_size=len(x), callback=lambda step: points.append(step.points), **options)
    return np.array(points)


def stepped(ball, points, g, size):
    """The points (N, ...) after a step of steepest ascent, written out for one image at a time; bounds (0, 1)."""
    found = []
    for point, slope in zip(points, g, strict=True):
        if isinstance(ball, LinfBall):
            step = size * np.sign(slope)
        elif isinstance(ball, L2Ball):
            step = size * slope / np.linalg.norm(slope)
        else:
            step, left = np.zeros_like(point), size
            for k in np.argsort(-abs(slope).ravel()):
                room = 1 - point.flat[k] if slope.flat[k] > 0 else point.flat[k]
                step.flat[k] = np.sign(slope.flat[k]) * min(room, left)
                left -= abs(step.flat[k])
        found.append(point + step)
    return ball.project(np.array(found))


def rows(x):
    return x.reshape(len(x), math.prod(x.shape[1:]))


def predictions(model, x):
    """The classes (N,) that the model gives, -1 where it gives NaN."""
    logits = driver.logits(model, x)
    return np.where(np.isnan(logits).any(axis=1), -1, logits.argmax(axis=1))


def lengths(norm, x):
    """The norms (N,) of images (N, ...). "l0" counts pixels: all axes between N and the last two are channels."""
    if norm != "l0":
        return NORMS[norm](rows(x))
    moved = (x != 0).any(axis=tuple(range(1, x.ndim - 2)))
    return moved.sum(axis=tuple(range(1, moved.ndim)))


def budget(attack):
    """The eps of an attack; infinite if it has none."""
    return math.inf if attack.minimum_norm else getattr(attack, "eps", math.inf)


def check_budget(attack, x, x_adv):
    """Guarantee 1, in float64 arithmetic and without a tolerance."""
    difference = x_adv.astype(np.float64) - x.astype(np.float64)
    if difference.size:
        assert lengths(attack.norm, difference).max() <= budget(attack)
        assert x_adv.astype(np.float64).min() >= attack.bounds[0]
        assert x_adv.astype(np.float64).max() <= attack.bounds[1]


def on_device(model, library):
    """The model with its parameters and buffers in the memory of an array library."""
    for _, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                value.data, value.grad = library.asarray(value.data), None
            elif isinstance(value, np.ndarray):
                setattr(module, name, library.asarray(value))
    return model


def to_boundaries(x, y, layer, norm):
    """The distance of each image from its boundary with each class, (N, K), without bounds: inf for its own class.

    layer: the weight and the bias of a linear model.
    """
    weight, bias = layer
    f = rows(x) @ weight.T + bias
    slopes = np.linalg.norm(weight - weight[y][:, None], ord={"linf": 1, "l2": 2, "l1": np.inf}[norm], axis=2)
    lead = f - f[np.arange(len(y)), y][:, None]
    return np.where(slopes > 0, abs(lead) / np.where(slopes > 0, slopes, 1), np.inf)
