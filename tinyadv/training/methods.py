"""What a network is trained on: clean images, adversarial ones, or both. Each method is one step on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinyadv import driver, ops
from tinyadv.attacks import PGD, Attack, Batch
from tinyadv.backend import Array, move
from tinyadv.data import Dataset
from tinyadv.executors import stopping
from tinyadv.nn import Module
from tinyadv.nn.optim import Schedule
from tinyadv.random import Streams
from tinyadv.ranks import sharing
from tinyadv.shapes import check_not_negative, is_number
from tinyadv.tensor import Tensor, no_grad
from tinyadv.training.update import Update, cross_entropy


@dataclass
class Scene:
    """What a method gets besides the batch.

    model: the network. update: the function that `updates` gives. streams: one random stream for each example, new in
    every step. strength: the present factor of the budget, in [0, 1]. memory: arrays by name, which a method may keep
    from batch to batch; a checkpoint saves them.
    """

    model: Module
    update: Callable[..., Update]
    streams: Streams
    strength: float
    memory: dict[str, np.ndarray]


@dataclass(frozen=True)
class Method:
    """The base class of all methods. A subclass defines the `inputs` of an update, and the `losses` on them.

    label_smoothing: the share of the probability that is spread evenly over all classes (Szegedy et al. 2016,
    arXiv:1512.00567). `Certified` and its subclasses refuse it.
    """

    label_smoothing: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not (is_number(self.label_smoothing) and 0 <= self.label_smoothing < 1):
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing!r}")

    @property
    def budget(self) -> float | None:
        """The eps of the attack; None if there is no attack."""
        return getattr(self, "eps", None)

    @property
    def watch(self) -> Attack | None:
        """The attack with which `fit` checks after each epoch whether the robustness has collapsed; None: no check."""
        return None

    def certified(self, model: Module, validation: Dataset) -> float | None:
        """The certified accuracy, which `fit` measures after each epoch; None for a method without certificates."""
        return None

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        """Train on one batch: images (n, C, H, W) and their labels (n,)."""
        return scene.update(self.inputs(scene, images, labels), labels, self.losses)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        """The inputs of `losses`: one array (n, C, H, W) or several."""
        return (images,)

    def shown(self, strength: float, *x: Tensor) -> tuple[Tensor, ...]:
        """What the model is called on in a step, of the inputs x; for the statistics of batch normalisation."""
        return x

    def losses(self, model: Callable, labels: Array, x: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (n,) on the inputs x, and the logits (n, K) that give the training accuracy."""
        (losses, logits), share = cross_entropy(model, labels, x), self.label_smoothing
        if share:
            losses = (1 - share) * losses - share * ops.mean(ops.log_softmax(logits), axis=1)
        return losses, logits


@dataclass(frozen=True)
class Standard(Method):
    """Standard training: the cross entropy of the clean images."""


@dataclass(frozen=True)
class Adversarial(Method):
    """Adversarial training: the cross entropy of adversarial images alone.

    The weights minimise the loss that the attack maximises within its budget: Madry et al. 2018, arXiv:1706.06083,
    eq. 2.1.

    attack: any attack with a budget. crafting: "eval" or "train", the mode of the model while it is attacked. In
    "train", batch normalisation uses the statistics of the batch and updates its running statistics in every step of
    the attack; the batch is then attacked as a whole.
    """

    attack: Attack
    crafting: str = field(default="eval", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, Attack) or self.attack.minimum_norm:
            raise ValueError(f"attack must be an attack with a budget eps, such as PGD(eps=0.3); got {self.attack!r}")
        if self.crafting not in ("eval", "train"):
            raise ValueError(f'crafting must be "eval" or "train", got {self.crafting!r}')

    @property
    def budget(self) -> float | None:
        return getattr(self.attack, "eps", None)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return (attacked(self.attack, scene, images, labels, self.crafting),)


@dataclass(frozen=True)
class Mixed(Adversarial):
    """A weighted mean of two cross entropies, that of the clean images and that of the adversarial images.

    Goodfellow et al. 2015, arXiv:1412.6572, section 6. They use FGSM and clean_weight 0.5.
    """

    clean_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.clean_weight) and 0 <= self.clean_weight <= 1):
            raise ValueError(f"clean_weight must be in [0, 1], got {self.clean_weight!r}")

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return images, *super().inputs(scene, images, labels)

    def losses(self, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        (clean, _), (attacked, logits) = (super(Mixed, self).losses(model, labels, each) for each in x)
        return self.clean_weight * clean + (1 - self.clean_weight) * attacked, logits


@dataclass(frozen=True)
class TRADES(Method):
    """The cross entropy of the clean images, plus beta times KL(f(x) || f(x')).

    KL is the Kullback-Leibler divergence sum p log(p / p'), where p and p' are the predicted distributions at the clean
    image x and the adversarial image x'. The attack maximises KL, too, and needs no labels. Zhang et al. 2019,
    arXiv:1901.08573, eq. 5 and algorithm 1. In the authors' code beta is 1 for MNIST and 6 for CIFAR-10.

    eps, norm: the budget of x', in the units of the data; bounds: those of the data. steps, step_size: of the attack;
    2.5 * eps / steps unless given. The authors take 40 steps of 0.01 for MNIST.
    """

    eps: float
    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("beta", self.beta)
        self._attack()  # checks the others

    def _attack(self) -> Attack:
        return _Divergence(self.eps, self.step_size, self.steps, self.norm, bounds=self.bounds)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return images, attacked(self._attack(), scene, images, labels)

    def losses(self, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        (losses, clean), adversarial = super().losses(model, labels, x[0]), model(x[1])
        difference = ops.log_softmax(clean) - ops.log_softmax(adversarial)
        return losses + self.beta * ops.sum(ops.softmax(clean) * difference, axis=1), adversarial


@dataclass(frozen=True)
class _Divergence(PGD):
    """PGD on KL(f(x) || f(x')). It starts near x, because the gradient at x is zero, and returns the last point."""

    def perturb(self, batch: Batch) -> Array:
        with no_grad():
            p = ops.softmax(batch.logits(Tensor(batch.x))).data
        ball, step_size = batch.ball, self.step_size or self._reach * self.eps / self.steps
        x = ball.project(batch.x + move(1e-3 * batch.streams.normal(batch.x.shape[1:]), batch.x))
        for _ in range(self.steps):  # KL is the cross entropy of p, but for the entropy of p, which is constant
            g = batch.evaluate(x, lambda logits: ops.cross_entropy(logits, p, "none"), candidate=False)[2]
            x = ball.step(x, g, step_size)
        return x


def attacked(attack: Attack, scene: Scene, images: np.ndarray, labels: np.ndarray, crafting: str = "eval") -> Array:
    """The adversarial images for the present weights; the clean images while the factor of the budget is 0."""
    if not scene.strength:
        return images
    attack = attack if scene.strength == 1 else attack.scaled(scene.strength)
    x, y = (move(each, driver.memory_of(scene.model, images)) for each in (images, labels))
    if crafting == "train":  # the driver sets the mode of a Module only, not that of a bare function
        with stopping(), sharing(None):  # running statistics change, on every rank, so a stop waits for the step's end
            return attack(scene.model.__call__, x, y, seed=scene.streams, batch_size=len(x), workers=1)
    return attack(scene.model, x, y, seed=scene.streams)


def ramp(until: float, start: float = 0.0) -> Schedule:
    """A schedule that is 0 until `start`, rises linearly to 1 at `until`, and stays 1; both are fractions of training.

    ValueError unless 0 <= start < until <= 1.
    """
    if not 0 <= start < until <= 1:
        raise ValueError(f"start and until must be fractions of training, 0 <= start < until <= 1; got {start!r} and "
                         f"{until!r}")
    return lambda progress: min(max(progress - start, 0) / (until - start), 1.0)
