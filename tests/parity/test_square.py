"""The Square attack beside torchattacks: the same schedule, the same queries from the same draws, no less strength.

The draws differ: torchattacks has one window and, for linf, one sign for all images of a batch; its windows never reach
the last row and column; and it spends queries on squares that are there already.
"""

import math

import numpy as np
import pytest

from tinyadv import driver, nn
from tinyadv.attacks import Square
from tinyadv.attacks.black_box import square

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")

from peers import trained  # noqa: E402  it needs torch

pytestmark = pytest.mark.parity
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scene():
    return trained(100)


def by_torchattacks(network, x, y, **options):
    """The robust accuracy."""
    x_adv = torchattacks.Square(network, **options)(torch.from_numpy(x), torch.from_numpy(y))
    with torch.no_grad():
        return (network(x_adv).argmax(dim=1).numpy() == y).mean()


@pytest.mark.parametrize("rescale", [True, False], ids=["rescaled", "as for 10,000"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 1.5)])
def test_as_many_queries_leave_no_more_images_unbroken(scene, norm, eps, rescale):
    """But for a few by luck: the two draw other squares, ours without losing queries on those that change nothing."""
    ours_net, their_net, x, y = scene
    attack = Square(eps, norm=norm, queries=200, rescale_schedule=rescale)
    ours = 1 - attack.run(ours_net, x, y).success.mean()
    theirs = by_torchattacks(their_net, x, y, norm=norm.capitalize(), eps=eps, n_queries=200, resc_schedule=rescale)
    assert 0.1 < theirs < 0.9
    assert ours <= theirs + 0.05


@pytest.mark.parametrize("side", [3, 5, 7, 13])
def test_the_bumps_are_the_same(side):
    theirs = torchattacks.Square(torch.nn.Linear(1, 1), norm="L2", eps=1.0)
    ours = square._eta(side, side)
    for _ in range(5):
        bump = theirs.eta(side).numpy()
        assert min(abs(bump - ours).max(), abs(bump - ours.T).max()) < 1e-6


@pytest.mark.parametrize("rescale", [True, False], ids=["rescaled", "as for 10,000"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_squares_shrink_alike(norm, rescale):
    """AutoAttack's schedule is the one that is not rescaled; torchattacks counts the queries from 0."""
    theirs = torchattacks.Square(torch.nn.Linear(1, 1), norm=norm.capitalize(), resc_schedule=rescale)
    ours = Square(0.1, norm=norm, rescale_schedule=rescale)
    assert ours.queries == theirs.n_queries == 5000
    for query in range(5000):
        side = max(round(math.sqrt(theirs.p_selection(query) * 28 * 28)), 1 if norm == "linf" else 3)
        side += norm == "l2" and side % 2 == 0
        assert ours._sides(query, 28, 28) == (side, side)


@pytest.fixture
def _float64():
    """Or torchattacks would draw, and keep the squares, in float32."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_every_query_is_the_same_from_the_same_draws(norm, eps, seed, monkeypatch):
    """The windows, bumps and signs that ours has drawn for an image are what torchattacks gets for random numbers."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5, rng=1))
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(400, 5))
    network.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    x = np.random.default_rng(seed).uniform(size=(1, 1, 10, 10))
    y = driver.logits(model, x).argmax(axis=1)

    windows, bumps, ours, theirs = [], [], [], []
    for name, calls in ("window", windows), ("_bumps", bumps):
        draw = getattr(square, name)
        monkeypatch.setattr(square, name, lambda *args, draw=draw, calls=calls: calls.append(draw(*args)) or calls[-1])
    Square(eps, norm=norm, queries=300, rescale_schedule=False).run(
        model, x, y, callback=lambda step: ours.append(step.points))
    corners = [(int(rows.min()), int(columns.min())) for _, _, rows, columns in windows]

    peer = torchattacks.Square(network, norm=norm.capitalize(), eps=eps, n_queries=299, resc_schedule=False)
    shrink, places, bump = peer.p_selection, iter(sum(corners, ())), iter(bumps)
    peer.p_selection = lambda query: shrink(query + 1)
    peer.random_int = lambda low, high: torch.tensor([next(places)])
    peer.eta = lambda side: torch.from_numpy(next(bump)[0, 0])
    peer.random_choice = lambda shape: torch.ones(1)  # the bumps have their signs
    if norm == "linf":  # the signs are read off our points: a square that is there already has been turned around
        start, *moves = (torch.from_numpy(np.sign(points - x)) for points in ours)
        signs = iter([start[:, :, :1], *(move[0, :, top:, left:][:, :1, :1]
                                         for move, (top, left) in zip(moves, corners, strict=False))])
        peer.random_choice = lambda shape: next(signs)
    network.register_forward_pre_hook(lambda _, inputs: theirs.append(inputs[0].numpy().copy()))
    peer(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(ours, theirs[1:1 + len(ours)], rtol=0, atol=1e-5)  # the first is the image itself
