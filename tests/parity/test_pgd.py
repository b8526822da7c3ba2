"""PGD, BIM and MI-FGSM beside torchattacks, foolbox and ART: step by step the same points, from the same start.

A peer's points are those at which its network is asked for a gradient. Where it starts at random, we start at its
point. They agree to the rounding of the arithmetic, with three exceptions, each tested below. (1) At the bounds in l2,
torchattacks and foolbox scale into the ball and then clip, which loses budget; ART and we clip and then scale.
(2) torchattacks averages the loss over the batch and adds 1e-10 to the norm, so images of which the model is certain
take short steps. (3) They return the last point, we the best.

Their random starts are not compared: in linf all four are the same distribution; in l2 foolbox, ART and we are uniform
in the ball, torchattacks has a radius uniform in [0, eps]. ART starts at the image unless told otherwise.
"""

import numpy as np
import pytest

from tinyadv import nn
from tinyadv.attacks import APGD, BIM, FGSM, MIFGSM, PGD
from tinyadv.attacks.base.balls import ball_class

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")
pytest.importorskip("art")

from art.attacks import evasion as art  # noqa: E402
from art.attacks.evasion.projected_gradient_descent import projected_gradient_descent_pytorch as art_pgd  # noqa: E402
from art.estimators.classification import PyTorchClassifier  # noqa: E402
from peers import trained  # noqa: E402

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
COUNT, CLASSES = 12, 5
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-9}


def networks(dtype, scale=1.0):
    """A small network with random weights, here and in PyTorch."""
    ours = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.Flatten(), nn.Linear(256, CLASSES, rng=1))
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, CLASSES))
    for parameter in ours.parameters():
        parameter.data = parameter.data.astype(dtype)
    ours.parameters()[-2].data *= dtype(scale)
    theirs = theirs.double().eval() if dtype == np.float64 else theirs.eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    return ours, theirs


def images(dtype, low=0.0, high=1.0):
    """Noise in [low, high]; where that is all of [0, 1], with many black and white pixels."""
    noise = np.random.default_rng(0).uniform(-1, 2, (COUNT, 1, 8, 8))
    return np.clip(noise, low, high).astype(dtype)


def labels():
    y = np.arange(COUNT) % CLASSES
    return y, (y + 2) % CLASSES


def by_torchattacks(network, x, y, target, norm, eps, step_size, steps, random_start):
    attack = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm](network, eps, step_size, steps, random_start)
    if target is not None:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(torch.from_numpy(x), torch.from_numpy(y if target is None else target)).detach().numpy()


def by_foolbox(network, x, y, target, norm, eps, step_size, steps, random_start):
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    criterion = (foolbox.criteria.Misclassification(torch.from_numpy(y)) if target is None
                 else foolbox.criteria.TargetedMisclassification(torch.from_numpy(target)))
    attack = attack(abs_stepsize=step_size, steps=steps, random_start=random_start)
    return attack(foolbox.PyTorchModel(network, bounds=(0, 1)), torch.from_numpy(x), criterion, epsilons=eps)[1].numpy()


def by_art(network, x, y, target, norm, eps, step_size, steps, random_start, attack=art.ProjectedGradientDescent):
    classifier = PyTorchClassifier(network, torch.nn.CrossEntropyLoss(), x.shape[1:], CLASSES, clip_values=(0.0, 1.0))
    attack = attack(classifier, {"linf": np.inf, "l2": 2}[norm], eps, step_size, max_iter=steps, verbose=False,
                    targeted=target is not None, num_random_init=int(random_start))
    return attack.generate(x, y if target is None else target)


def watched(network, call, *arguments):
    """The points at which a peer asks for a gradient, (steps, N, ...), and what it returns."""
    points = []
    hook = network[0].register_forward_pre_hook(  # ART calls the layers one by one
        lambda _, inputs: points.append(inputs[0].detach().numpy().copy()) if inputs[0].requires_grad else None)
    found = call(network, *arguments)
    hook.remove()
    return np.array(points), found


def shown(attack, model, x, y, target):
    points = []
    result = attack.run(model, x, y, target=target, batch_size=len(x), callback=lambda step: points.append(step.points))
    return np.array(points), result


@pytest.fixture(autouse=True)
def _seeds(monkeypatch):
    """For the peers' global generators; ART's would be NumPy's."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(art_pgd, "random_sphere", lambda n, size, eps, norm: eps * rng.uniform(-1, 1, (n, size)) / (
        1 if norm == np.inf else np.sqrt(size)))


# Where the l2 ball reaches no bound, it does not matter what comes first. In linf it never does.
@pytest.mark.parametrize(("norm", "eps", "step_size", "span"), [
    ("linf", 0.1, 0.03, (0, 1)), ("linf", 8 / 255, 2 / 255, (0, 1)), ("l2", 0.25, 0.1, (0.3, 0.7)),
])
@pytest.mark.parametrize("random_start", [False, True], ids=["from the image", "from their start"])
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("peer", "dtype"), [  # ART computes in float32
    (by_torchattacks, np.float32), (by_torchattacks, np.float64), (by_foolbox, np.float32), (by_foolbox, np.float64),
    (by_art, np.float32),
])
def test_every_step_is_the_same(peer, dtype, targeted, random_start, norm, eps, step_size, span, monkeypatch):
    model, network = networks(dtype)
    x, (y, target) = images(dtype, *span), labels()
    target = target if targeted else None
    theirs, last = watched(network, peer, x, y, target, norm, eps, step_size, 12, random_start)
    start = theirs[0]
    assert (start == x).all() != random_start
    monkeypatch.setattr(ball_class(norm), "random", lambda ball, streams: ball.project(start))
    ours, result = shown(PGD(eps, step_size, 12, norm, random_start), model, x, y, target)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])
    assert (abs(ours[-1] - ours[0]).max(axis=(1, 2, 3)) > step_size / 20).all()

    # (3): no image that is misclassified at their last point, or at any other, is not at ours.
    with torch.no_grad():
        points = torch.from_numpy(np.concatenate([theirs, last[None]]).reshape(-1, *x.shape[1:]))
        predictions = network(points).argmax(1).numpy().reshape(-1, COUNT)
    reached = predictions == target if targeted else predictions != y
    np.testing.assert_array_equal(result.success, reached.any(axis=0))


@pytest.mark.parametrize("peer", [by_torchattacks, by_foolbox, by_art])
def test_at_the_bounds_the_l2_steps_of_two_peers_lose_budget(peer):
    """(1), after one step that leaves the ball."""
    eps, step_size, dtype = 1.0, 2.0, np.float32
    model, network = networks(dtype)
    x, (y, _) = images(dtype), labels()
    (_, theirs), _ = watched(network, peer, x, y, None, "l2", eps, step_size, 2, False)
    (_, ours), _ = shown(PGD(eps, step_size, 2, "l2", random_start=False), model, x, y, None)
    leaf = torch.from_numpy(x).requires_grad_()
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(leaf), torch.from_numpy(y)), leaf)

    def length(perturbation):
        return np.sqrt(np.square(perturbation).sum(axis=(1, 2, 3), keepdims=True))

    step = step_size * g.numpy() / length(g.numpy())
    scaled_then_clipped = np.clip(x + step * eps / step_size, 0, 1)
    inside = np.clip(x + step, 0, 1) - x
    clipped_then_scaled = x + inside * np.minimum(1, eps / length(inside))
    np.testing.assert_allclose(ours, clipped_then_scaled, rtol=0, atol=2e-6)
    expected = clipped_then_scaled if peer is by_art else scaled_then_clipped
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=2e-6)
    assert (length(scaled_then_clipped - x) < 0.95 * eps).all()
    np.testing.assert_allclose(length(ours - x), eps, rtol=1e-6)


def test_torchattacks_takes_short_l2_steps_where_the_model_is_certain():
    """(2), in float64: the gradient of an image that the model is certain of is about 1e-10, and then over N."""
    model, network = networks(np.float64, scale=200.0)
    x = images(np.float64, 0.3, 0.7)
    y = network(torch.from_numpy(x)).argmax(1).numpy()
    (_, theirs), _ = watched(network, by_torchattacks, x, y, None, "l2", 0.25, 0.1, 2, False)
    (_, ours), _ = shown(PGD(0.25, 0.1, 2, "l2", random_start=False), model, x, y, None)
    lengths, ours_lengths = (np.sqrt(np.square(points - x).sum(axis=(1, 2, 3))) for points in (theirs, ours))
    np.testing.assert_allclose(ours_lengths, 0.1, rtol=1e-9)
    assert lengths.min() < 0.01


def call_torchattacks(attack, network, x, y, eps, step_size, steps):
    attack = {BIM: torchattacks.BIM, MIFGSM: torchattacks.MIFGSM}[attack](network, eps, step_size, steps=steps)
    return attack(torch.from_numpy(x), torch.from_numpy(y))


def call_foolbox(attack, network, x, y, eps, step_size, steps):
    assert attack is BIM, "its MI-FGSM adds up the signs of the gradients, not the gradients over their l1 norms"
    attack = foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=step_size, steps=steps)
    return attack(foolbox.PyTorchModel(network, bounds=(0, 1)), torch.from_numpy(x), torch.from_numpy(y), epsilons=eps)


def call_art(attack, network, x, y, eps, step_size, steps):
    classifier = PyTorchClassifier(network, torch.nn.CrossEntropyLoss(), x.shape[1:], CLASSES, clip_values=(0.0, 1.0))
    if attack is MIFGSM:
        peer = art.MomentumIterativeMethod(classifier, np.inf, eps, step_size, 1.0, steps, verbose=False)
    else:
        peer = art.BasicIterativeMethod(classifier, eps, step_size, steps, verbose=False)
    return peer.generate(x, y)


@pytest.mark.parametrize(("attack", "peer"), [
    (BIM, call_torchattacks), (BIM, call_foolbox), (BIM, call_art), (MIFGSM, call_torchattacks), (MIFGSM, call_art),
])
def test_every_step_of_its_kin_is_the_same(attack, peer):
    """torchattacks divides by the mean of |g|, not its sum: another scale of the momentum, no other sign."""
    eps, step_size, steps, dtype = 0.1, 0.03, 8, np.float32
    model, network = networks(dtype)
    x, (y, _) = images(dtype), labels()
    theirs, _ = watched(network, lambda network: peer(attack, network, x, y, eps, step_size, steps))
    ours, _ = shown(attack(eps, step_size, steps), model, x, y, None)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])


@pytest.fixture(scope="module")
def digits():
    return trained(60)


@pytest.mark.parametrize("eps", [10, 50, 5000])
def test_in_l1_fewer_images_are_left_than_by_the_peer(digits, eps):
    """Its step is along g over its l1 norm, which the bounds cut off. Without a limit nothing is left by either."""
    ours, theirs, x, y = digits
    torch.manual_seed(0)

    def left(attack):
        return 1 - attack.run(ours, x, y).success.mean()

    def left_by_peer(attack):
        model = foolbox.PyTorchModel(theirs, bounds=(0, 1))
        return 1 - attack(model, torch.from_numpy(x), torch.from_numpy(y), epsilons=eps)[2].numpy().mean()

    step, walk = left_by_peer(foolbox.attacks.L1FastGradientAttack()), left_by_peer(foolbox.attacks.L1PGD())
    assert left(FGSM(eps, "l1")) <= step + 0.1
    for kind in (BIM, MIFGSM, PGD, APGD):
        assert left(kind(eps, norm="l1")) <= (walk + 0.05 if eps < 5000 else 0)
