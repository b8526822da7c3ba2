"""The Square attack beside torchattacks: the same bumps, and no less strength for the same queries."""

import pytest

from tinyadv.attacks import Square, square

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
