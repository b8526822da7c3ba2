"""Those who are timed, on the same weights, images and labels: each function returns what one run of it is.

The labels are what the model predicts and the budget is too small to change that, so that nobody's attack can stop
early; every step is a forward pass, a gradient with respect to the images, and a projection.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from benchmarks.networks import mygrad_twin, torch_twin
from tinyadv import Tensor, attacks, backend, driver, gradients, nn, ops, training

EPS, STEP = 1e-6, 1e-7


@dataclass(frozen=True)
class Task:
    """A network and a batch, its twin in PyTorch and the same batch there, all on one device."""

    model: nn.Module
    images: backend.Array
    labels: backend.Array
    twin: torch.nn.Module
    x: torch.Tensor
    y: torch.Tensor
    steps: int


def task(model: nn.Module, batch: int, steps: int, device: str = "cpu") -> Task:
    """Random images and the labels that the model gives them; AssertionError if the twin's gradients differ."""
    rng = np.random.default_rng(1)
    images = rng.random((batch, *model.input_shape), dtype=np.float32)
    labels = driver.logits(model, images).argmax(axis=1)
    _agree(copy.deepcopy(model), images, labels)
    twin, x, y = torch_twin(model).to(device), torch.tensor(images).to(device), torch.tensor(labels).to(device)
    images, labels = backend.to_device(images, device), backend.to_device(labels, device)
    return Task(model.to(device), images, labels, twin, x, y, steps)


def _agree(model: nn.Module, images: backend.Array, labels: backend.Array) -> None:
    """In float64: in float32 a ReLU or a max pooling of a deep network has near-ties, which may fall either way."""
    x = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    loss = functional.cross_entropy(torch_twin(model).double()(x), torch.tensor(labels), reduction="sum")
    theirs = torch.autograd.grad(loss, x)[0].numpy()
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    leaf = Tensor(images.astype(np.float64))
    ours = gradients(ops.cross_entropy(model(leaf), labels, "sum"), [leaf])[0]
    errors = np.sqrt(((ours - theirs) ** 2).sum(axis=(1, 2, 3)) / (theirs**2).sum(axis=(1, 2, 3)))
    assert errors.max() < 1e-5, f"gradients differ: {np.sort(errors)[-5:]}"


def plain_attackers(t: Task) -> dict[str, Callable[[], object]]:
    """{name: one PGD attack on the batch} of tinyadv and of a loop in PyTorch."""
    return {
        "tinyadv": lambda: attacks.PGD(EPS, STEP, t.steps, random_start=False)(t.model, t.images, t.labels),
        "PyTorch": lambda: _torch_pgd(t, t.x, t.y),
    }


def attackers(t: Task) -> dict[str, Callable[[], object]]:
    """{name: one PGD attack on the batch} of everybody who is installed and can express the network, on the CPU."""
    runs = plain_attackers(t)
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        attack = torchattacks.PGD(t.twin, eps=EPS, alpha=STEP, steps=t.steps, random_start=False)
        runs["torchattacks"] = lambda: attack(t.x, t.y)
    if importlib.util.find_spec("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(t.twin, bounds=(0, 1), device="cpu")
        pgd = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=t.steps, random_start=False)
        runs["foolbox"] = lambda: pgd(model, t.x, t.y, epsilons=EPS)
    if importlib.util.find_spec("art"):
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(t.twin, torch.nn.CrossEntropyLoss(), t.images.shape[1:], 10, clip_values=(0, 1))
        art = ProjectedGradientDescentPyTorch(classifier, eps=EPS, eps_step=STEP, max_iter=t.steps,
                                              batch_size=len(t.x), verbose=False)
        runs["ART"] = lambda: art.generate(t.images, t.labels)
    if importlib.util.find_spec("mygrad") and (twin := mygrad_twin(t.model)):
        runs["MyGrad"] = lambda: _mygrad_pgd(t, twin)
    return runs


def trainers(t: Task) -> dict[str, Callable[[], object]]:
    """{name: steps of training with SGD on the batch}; the rate is 0, so that all rounds see the same weights."""
    ours, theirs = nn.optim.SGD(t.model, lr=0.0), torch.optim.SGD(t.twin.parameters(), lr=0.0)

    def tinyadv_step() -> None:
        with t.model.mode(training=True), training.updates(t.model, ours) as update:
            for _ in range(t.steps):
                update(t.images, t.labels)

    def torch_step() -> None:
        t.twin.train()
        for _ in range(t.steps):
            theirs.zero_grad()
            functional.cross_entropy(t.twin(t.x), t.y).backward()
            theirs.step()
        t.twin.eval()

    return {"tinyadv": tinyadv_step, "PyTorch": torch_step}


def _torch_pgd(t: Task, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    adversarial = x
    for _ in range(t.steps):
        adversarial = adversarial.detach().requires_grad_()
        (g,) = torch.autograd.grad(functional.cross_entropy(t.twin(adversarial), y, reduction="sum"), adversarial)
        stepped = adversarial.detach() + STEP * g.sign()
        adversarial = torch.clamp(torch.clamp(stepped, x - EPS, x + EPS), 0, 1)
    return adversarial


def _mygrad_pgd(t: Task, twin: Callable) -> np.ndarray:
    import mygrad

    adversarial = t.images
    for _ in range(t.steps):
        x = mygrad.tensor(adversarial)
        mygrad.nnet.losses.softmax_crossentropy(twin(x), t.labels).backward()
        stepped = adversarial + np.float32(STEP) * np.sign(x.grad)
        adversarial = np.clip(np.clip(stepped, t.images - np.float32(EPS), t.images + np.float32(EPS)), 0, 1)
    return adversarial
