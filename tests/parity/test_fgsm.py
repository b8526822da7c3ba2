"""FGSM beside torchattacks and foolbox on the same weights: the same pixels, and every other one explained.

Three things make a pixel differ. They round the box outwards, so that |x_adv - x| exceeds eps by a rounding. Where
the gradient is zero to within float32, its sign is anybody's; for images of which the model is certain that is
everywhere, if one computes p - 1 there. And where two pixels of a pooling window tie, as in a stroke of constant
brightness, rounding decides which one the gradient goes to. The judge is PyTorch in float64.
"""

import numpy as np
import pytest

from tinyadv import data, driver, models
from tinyadv.attacks import FGSM

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
ULP = 2.0**-23


def networks(x, spread):
    """A network with random weights here, in PyTorch, and in PyTorch with float64; the spread of its logits at x."""
    ours = models.SmallCNN(seed=0)
    last = ours.parameters()[-2]
    last.data = last.data * np.float32(spread / np.ptp(driver.logits(ours, x), axis=1).max())
    theirs, judge = (torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 64, 3, padding=1, bias=False), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(3136, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10),
    ).eval() for _ in range(2))
    for network in (theirs, judge):
        network.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    return ours, theirs, judge.double()


def images(noise):
    """A hundred of the built-in digits."""
    x = data.digits(0, 100, seed=1)[1].images
    return np.clip(x + np.random.default_rng(1).normal(0, noise, x.shape), 0, 1).astype(np.float32)


def judged(judge, x, classes, seed=None):
    """In float64: the gradient of the cross entropy, (N, 1, 28, 28), and 1 - p, the probability of the other classes.

    With a seed, not at x but at a point that float32 can hardly tell from it.
    """
    noise = np.zeros(x.shape) if seed is None else np.random.default_rng(seed).normal(0, ULP, x.shape)
    leaf = torch.from_numpy(x * (1 + noise)).requires_grad_()
    logits = judge(leaf)
    slope = logits.detach().softmax(1)
    slope[range(len(x)), classes] = 0
    others = slope.sum(1)  # 1 - p would be 0 long before
    slope[range(len(x)), classes] = -others
    (g,) = torch.autograd.grad(logits, leaf, slope)
    return g.numpy(), others.numpy().reshape(-1, 1, 1, 1)


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
@pytest.mark.parametrize("spread", [5, 60], ids=["hesitant", "certain"])
@pytest.mark.parametrize(("peer", "targeted"), [(by_torchattacks, False), (by_torchattacks, True), (by_foolbox, False)])
def test_every_pixel_is_the_same_or_explained(peer, targeted, spread, noise):
    x = images(noise)
    ours_net, their_net, judge = networks(x, spread)
    y = driver.logits(ours_net, x).argmax(axis=1)
    classes = (y + 1) % 10 if targeted else y
    g, others = judged(judge, x, classes)
    nearby = np.stack([g, *(judged(judge, x, classes, seed)[0] for seed in range(4))])
    largest = abs(g).max(axis=(1, 2, 3), keepdims=True)
    tie = nearby.max(axis=0) - nearby.min(axis=0) > 1e-4 * largest  # it jumps
    zero = abs(g) <= ULP * (100 + 4 / others) * largest

    for eps in (0.3, 0.1, 8 / 255):
        ours = FGSM(eps)(ours_net, x, y, target=classes if targeted else None)
        theirs = peer(their_net, x, classes, eps, targeted)
        outside = abs(theirs.astype(np.float64) - x) > eps
        assert outside.any()
        assert not (abs(ours.astype(np.float64) - x) > eps).any()

        differ, rounding = ours != theirs, ULP * np.maximum(np.maximum(x, theirs), eps)
        box = differ & (abs(ours - theirs) <= rounding)
        assert outside[box].all()  # they are wrong at every such pixel
        sign = differ & ~box
        assert (tie | zero)[sign].all()
        assert (sign & ~zero).mean() < 2e-4
        right = np.clip(x + (-1 if targeted else 1) * eps * np.sign(g), 0, 1)
        ours_right, theirs_right = ((abs(found - right) <= rounding)[sign & ~tie].sum() for found in (ours, theirs))
        assert ours_right >= theirs_right
        if spread == 60 and not targeted:
            assert ours_right > 100 * theirs_right


@pytest.mark.parametrize("spread", [5, 60], ids=["hesitant", "certain"])
def test_the_l2_step_is_that_of_foolbox(spread):
    """Of float64 to 1e-6, and of foolbox as closely as float32 holds 1 - p there; but for an image with a tie."""
    x = images(0.05)
    ours_net, their_net, judge = networks(x, spread)
    y = driver.logits(ours_net, x).argmax(axis=1)
    ours = FGSM(1.0, norm="l2")(ours_net, x, y)
    theirs = by_foolbox(their_net, x, y, 1.0, False, foolbox.attacks.L2FastGradientAttack)
    g, others = judged(judge, x, y)
    expected = np.clip(x + g / np.sqrt((g * g).sum(axis=(1, 2, 3), keepdims=True)), 0, 1)
    for error in (abs(ours - expected), abs(ours - theirs) * np.minimum(1, others)):
        assert np.quantile(error.max(axis=(1, 2, 3)), 0.95) < 1e-6
