"""A success of an attack of minimum norm fools the same network in PyTorch, whose sums are rounded otherwise."""

import numpy as np
import pytest

from tinyadv import attacks, driver

torch = pytest.importorskip("torch")

from peers import trained  # noqa: E402  it needs torch

pytestmark = pytest.mark.parity
torch.set_num_threads(1)

SEARCHES = [
    attacks.FAB(norm="linf", steps=10), attacks.FAB(norm="l2", steps=10), attacks.FAB(norm="l1", steps=25),
    attacks.FAB(norm="l2", steps=10, target_classes=9), attacks.DeepFool(), attacks.DeepFool(norm="linf"),
    attacks.CarliniWagner(binary_search_steps=3, steps=100, lr=0.1, initial_c=10.0),
    attacks.BoundaryAttack(queries=500), attacks.HopSkipJump(queries=500), attacks.HopSkipJump(500, norm="linf"),
]


@pytest.fixture(scope="module")
def digits():
    return trained(40)


@pytest.mark.parametrize("attack", SEARCHES, ids=str)
def test_the_points_fool_one_by_one_in_another_batch_and_in_pytorch(digits, attack):
    ours, theirs, x, y = digits
    result = attack.run(ours, x, y, seed=1)
    assert result.success.mean() >= 0.9
    found, classes = result.x_adv[result.success], y[result.success]
    with torch.no_grad():
        for logits in (
            driver.logits(ours, found, batch_size=1), driver.logits(ours, found, batch_size=7),
            theirs(torch.from_numpy(found)).numpy(),
            np.concatenate([theirs(torch.from_numpy(point[None])).numpy() for point in found]),
        ):
            assert (logits.argmax(axis=1) != classes).all()
