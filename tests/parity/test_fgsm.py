"""FGSM beside torchattacks and foolbox on the same weights: the same pixels, and every other one explained.

Three things make a pixel differ. They round the box outwards, so that |x_adv - x| exceeds eps by a rounding. Where
the gradient is zero to within float32, its sign is anybody's; for images of which the model is certain that is
everywhere, if one computes p - 1 there. And where two pixels of a pooling window tie, as in a stroke of constant
brightness, rounding decides which one the gradient goes to. The judge is PyTorch in float64.
"""

import numpy as np
import pytest

from tinyadv import data, models, nn, training
from tinyadv.attacks import FGSM

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
ULP = 2.0**-23


@pytest.fixture(scope="module")
def trained():
    """The weights of a SmallCNN after a little training on the built-in digits, and a hundred others with labels."""
    train, test = data.digits(600, 100, seed=1)
    model = models.SmallCNN(seed=0)
    training.fit(model, train, epochs=2, optimizer=nn.optim.SGD(model, lr=0.05, momentum=0.9), seed=0)
    return model.state_dict(), test.images, test.labels


def networks(state, sharpness):
    """The network here, in PyTorch, and in PyTorch with float64; its logits are multiplied by the sharpness."""
    state = {name: array * sharpness if name.startswith("9.") else array for name, array in state.items()}
    ours = models.SmallCNN()
    ours.load_state_dict(state)
    theirs, judge = (torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 64, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(3136, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10),
    ).eval() for _ in range(2))
    for network in (theirs, judge):
        network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return ours, theirs, judge.double()


def judged(judge, x, classes, noise=0.0):
    """In float64: the gradient of the cross entropy at x, and 1 - p, the sum of the other probabilities, (N, 1, 1, 1)."""
    leaf = torch.from_numpy(x + np.random.default_rng(0).normal(0, noise, x.shape)).requires_grad_()
    logits, classes = judge(leaf), torch.from_numpy(classes)
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, classes, reduction="sum"), leaf)
    p = logits.detach().softmax(1)
    p[range(len(x)), classes] = 0
    return g.numpy(), p.sum(1).numpy().reshape(-1, 1, 1, 1)


def by_torchattacks(network, x, classes, eps, targeted):
    attack = torchattacks.FGSM(network, eps)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(torch.from_numpy(x), torch.from_numpy(classes)).numpy()


def by_foolbox(network, x, classes, eps, targeted, attack=foolbox.attacks.LinfFastGradientAttack):
    assert not targeted, "its FGSM has no targets"
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    return attack()(model, torch.from_numpy(x), torch.from_numpy(classes), epsilons=eps)[1].numpy()


@pytest.mark.parametrize("noise", [0, 0.05], ids=["digits", "noisy digits"])
@pytest.mark.parametrize("sharpness", [1, 4], ids=["hesitant", "certain"])
@pytest.mark.parametrize("eps", [0.3, 0.1, 8 / 255])
@pytest.mark.parametrize(("peer", "targeted"), [(by_torchattacks, False), (by_torchattacks, True), (by_foolbox, False)])
def test_every_pixel_is_the_same_or_explained(trained, peer, targeted, eps, sharpness, noise):
    state, x, y = trained
    x = np.clip(x + np.random.default_rng(1).normal(0, noise, x.shape), 0, 1).astype(np.float32)
    classes = (y + 1) % 10 if targeted else y
    ours_net, their_net, judge = networks(state, sharpness)
    ours = FGSM(eps)(ours_net, x, y, target=classes if targeted else None)
    theirs = peer(their_net, x, classes, eps, targeted)

    outside = abs(theirs.astype(np.float64) - x) > eps
    assert outside.any()
    assert not (abs(ours.astype(np.float64) - x) > eps).any()
    rounding = ULP * np.maximum(np.maximum(x, theirs), eps)
    differ = ours != theirs
    box = differ & (abs(ours - theirs) <= rounding)
    assert outside[box].all()  # they are wrong at every such pixel

    sign = differ & ~box
    g, others = judged(judge, x, classes)
    largest = abs(g).max(axis=(1, 2, 3), keepdims=True)
    nearby = np.stack([g, *(judged(judge, x, classes, scale * 1e-10)[0] for scale in (1, 2, 3, 4))])
    tie = (nearby.max(axis=0) > 0) & (nearby.min(axis=0) < 0)  # the gradient jumps
    zero = abs(g) <= largest * ULP * (100 + 4 / others)
    assert (tie | zero)[sign].all()
    assert tie[sign].mean() < 1e-3
    if noise:
        assert not tie[sign & ~zero].any()
    expected = np.clip(x + (-1 if targeted else 1) * eps * np.sign(g), 0, 1)
    ours_right, theirs_right = ((abs(found - expected) <= rounding)[sign & ~tie].sum() for found in (ours, theirs))
    assert ours_right >= theirs_right
    if sharpness == 4 and not targeted:
        assert ours_right > 10 * theirs_right


@pytest.mark.parametrize("sharpness", [1, 4], ids=["hesitant", "certain"])
def test_the_l2_step_is_that_of_foolbox(trained, sharpness):
    """As closely as float32 holds 1 - p there, and that of float64 in any case. The noise leaves no ties."""
    state, x, y = trained
    x = np.clip(x + np.random.default_rng(1).normal(0, 0.05, x.shape), 0, 1).astype(np.float32)
    ours_net, their_net, judge = networks(state, sharpness)
    ours = FGSM(1.0, norm="l2")(ours_net, x, y)
    theirs = by_foolbox(their_net, x, y, 1.0, False, foolbox.attacks.L2FastGradientAttack)
    g, others = judged(judge, x, y)
    expected = np.clip(x + g / np.sqrt((g * g).sum(axis=(1, 2, 3), keepdims=True)), 0, 1)
    assert abs(ours - expected).max() < 1e-6
    assert (abs(ours - theirs) * np.minimum(1, others)).max() < 1e-6
