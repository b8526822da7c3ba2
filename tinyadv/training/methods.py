"""What a network is trained on: clean images, adversarial ones, or both. Each method is one step on one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinyadv import driver, ops
from tinyadv.attacks import PGD, Attack, Batch
from tinyadv.backend import Array, move
from tinyadv.nn import Module
from tinyadv.random import Streams
from tinyadv.tensor import Tensor, no_grad
from tinyadv.training.update import Update, cross_entropy


@dataclass
class Scene:
    """What a method sees of the training, besides the batch.

    update: as from `updates`. streams: of the examples, others in every step. strength: the factor of the budget,
    in [0, 1]. memory: arrays by name, which a method may keep from batch to batch; a checkpoint holds them.
    """

    model: Module
    update: Callable[..., Update]
    streams: Streams
    strength: float
    memory: dict[str, np.ndarray]


@dataclass(frozen=True)
class Method:
    """The base of all methods. A subclass says what its `inputs` are, and what the `losses` on them.

    label_smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567).
    """

    label_smoothing: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing!r}")

    @property
    def budget(self) -> float | None:
        """The eps of its attack, if there is one."""
        return getattr(self, "eps", None)

    @property
    def watch(self) -> Attack | None:
        """What `fit` has to watch the accuracy under, as it can collapse within an epoch; None where it does not."""
        return None

    def step(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> Update:
        """Train on one batch: images (n, C, H, W) and their labels (n,)."""
        return scene.update(self.inputs(scene, images, labels), labels, self.losses)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        """The images that the losses are of: one array (n, C, H, W) or several."""
        return (images,)

    def losses(self, model: Callable, labels: Array, x: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (n,) on one set of inputs, and the logits whose predictions are counted."""
        (losses, logits), share = cross_entropy(model, labels, x), self.label_smoothing
        if share:
            losses = (1 - share) * losses - share * ops.mean(ops.log_softmax(logits), axis=1)
        return losses, logits


@dataclass(frozen=True)
class Standard(Method):
    """The cross entropy of the images as they are."""


@dataclass(frozen=True)
class Adversarial(Method):
    """The cross entropy of what an attack makes of the images, and of that alone: min over weights, max over the ball.

    Madry et al. 2018, arXiv:1706.06083, eq. 2.1.

    attack: any with a budget. crafting: "eval" or "train", the mode of the model while it is attacked. In "train" batch
    normalisation uses the statistics of the batch, attacked as a whole, and its running ones follow every step.
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
    """A weighted mean of the cross entropies of the images and of their adversarial ones.

    Goodfellow et al. 2015, arXiv:1412.6572, section 6; their weight of the clean ones is 0.5, their attack FGSM.
    """

    clean_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.clean_weight <= 1:
            raise ValueError(f"clean_weight must be in [0, 1], got {self.clean_weight!r}")

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return images, *super().inputs(scene, images, labels)

    def losses(self, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        (clean, _), (attacked, logits) = (super(Mixed, self).losses(model, labels, each) for each in x)
        return self.clean_weight * clean + (1 - self.clean_weight) * attacked, logits


@dataclass(frozen=True)
class TRADES(Method):
    """The cross entropy of the images, plus beta times how far their adversarial ones are from them in distribution.

    Zhang et al. 2019, arXiv:1901.08573, eq. 5 and algorithm 1: the attack, and the second term, are of the
    Kullback-Leibler divergence KL(f(x) || f(x')), which needs no labels. In the authors' code beta is 1 for MNIST and 6
    for CIFAR-10. step_size: 2.5 * eps / steps unless given; their steps for MNIST are 40 of 0.01.
    """

    eps: float
    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise ValueError(f"beta must be a number >= 0, got {self.beta!r}")
        self._attack  # noqa: B018 - ValueError for a parameter that does not fit

    @property
    def _attack(self) -> Attack:
        return _Divergence(self.eps, self.step_size, self.steps, self.norm, bounds=self.bounds)

    def inputs(self, scene: Scene, images: np.ndarray, labels: np.ndarray) -> tuple[Array, ...]:
        return images, attacked(self._attack, scene, images, labels)

    def losses(self, model: Callable, labels: Array, *x: Tensor) -> tuple[Tensor, Tensor]:
        (losses, clean), adversarial = super().losses(model, labels, x[0]), model(x[1])
        difference = ops.log_softmax(clean) - ops.log_softmax(adversarial)
        return losses + self.beta * ops.sum(ops.softmax(clean) * difference, axis=1), adversarial


@dataclass(frozen=True)
class _Divergence(PGD):
    """PGD on KL(f(x) || f(x')), from a point near x, where the gradient at x itself is zero; the last point is it."""

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
    """The adversarial images for the model as it is now; the images themselves, as long as there is no budget."""
    if not scene.strength:
        return images
    attack = attack if scene.strength == 1 else attack.scaled(scene.strength)
    x, y = (move(each, driver.memory_of(scene.model, images)) for each in (images, labels))
    if crafting == "train":  # a callable that is no Module stays in the mode in which it is
        with driver.stopping():  # running statistics change, so that a stop must wait for the end of the step
            return attack(scene.model.__call__, x, y, seed=scene.streams, batch_size=len(x), workers=1)
    return attack(scene.model, x, y, seed=scene.streams)
