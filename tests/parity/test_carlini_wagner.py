"""The attack of Carlini and Wagner beside foolbox's, on the same weights, with the same search and as many steps."""

import numpy as np
import pytest

from tinyadv import data, nn, training
from tinyadv.attacks import CarliniWagner, driver

torch = pytest.importorskip("torch")
foolbox = pytest.importorskip("foolbox")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)


@pytest.mark.parametrize(("targeted", "kappa"), [(False, 0.0), (True, 2.0)])
def test_the_points_are_no_farther_than_those_of_foolbox(targeted, kappa):
    """On a small network, trained on the built-in digits."""
    train, test = data.digits(1000, 20, seed=1)
    ours = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, rng=1), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10, rng=2))
    training.fit(ours, train, epochs=2, optimizer=nn.optim.Adam(ours, lr=2e-3), seed=0)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1152, 10)).eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})

    x = test.images
    y = driver.logits(ours, x).argmax(axis=1)
    target = (y + 1) % 10
    attack = CarliniWagner(kappa, binary_search_steps=4, steps=150, lr=0.05, initial_c=0.1)
    result = attack.run(ours, x, y, target=target if targeted else None)
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=4, steps=150, stepsize=0.05, confidence=kappa,
                                                 initial_const=0.1)
    criterion = (foolbox.criteria.TargetedMisclassification(torch.from_numpy(target)) if targeted
                 else foolbox.criteria.Misclassification(torch.from_numpy(y)))
    model = foolbox.PyTorchModel(theirs, bounds=(0, 1))
    found, _, success = peer(model, torch.from_numpy(x), criterion, epsilons=None)
    distances = np.linalg.norm((found.numpy().astype(np.float64) - x).reshape(len(x), -1), axis=1)
    assert result.success.all()
    assert success.all()
    assert result.distances.mean() <= distances.mean() * 1.01  # both end by oscillating
    np.testing.assert_allclose(result.distances, distances, rtol=0.05)
