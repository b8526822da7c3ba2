"""The boundary attack beside foolbox: from the same images, after as many steps, as near or nearer."""

import numpy as np
import pytest

from tinyadv.attacks import BoundaryAttack

torch = pytest.importorskip("torch")
foolbox = pytest.importorskip("foolbox")

from peers import trained  # noqa: E402  it needs torch

pytestmark = pytest.mark.parity
torch.set_num_threads(1)


def test_as_many_steps_come_as_near():
    ours_net, their_net, x, y = trained(40)
    pool, classes, x, y = x[12:], y[12:], x[:12], y[:12]
    distances = np.linalg.norm((x[:, None] - pool).reshape(len(x), len(pool), -1), axis=2)
    starts = pool[np.where(classes == y[:, None], np.inf, distances).argmin(axis=1)]  # those that ours finds

    ours = BoundaryAttack(queries=1100, starts=pool).run(ours_net, x, y)
    attack = foolbox.attacks.BoundaryAttack(steps=1000)
    found = attack.run(foolbox.PyTorchModel(their_net, bounds=(0, 1)), torch.from_numpy(x), torch.from_numpy(y),
                       starting_points=torch.from_numpy(starts)).numpy()
    theirs = np.linalg.norm((found - x).reshape(len(x), -1), axis=1)
    assert ours.success.all()
    assert np.median(ours.distances) <= 1.1 * np.median(theirs)
