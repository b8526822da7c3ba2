"""The attack of Carlini and Wagner beside foolbox's, on the same weights, with the same search and as many steps.

The steps are the same, until rounding decides on which side of the boundary a point is. The two abort differently:
foolbox all examples at once, by the sum of their objectives, ours each by the least value of its own.
"""

import numpy as np
import pytest
from references import in_float64

from tinyadv import data, driver, nn, training
from tinyadv.attacks import CarliniWagner

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
    assert result.distances.mean() <= distances.mean() * 1.005  # both end by oscillating
    np.testing.assert_allclose(result.distances, distances, rtol=0.05)


@pytest.mark.parametrize(("targeted", "kappa"), [(False, 0.0), (False, 0.05), (True, 0.05)])
def test_every_step_is_the_same(targeted, kappa):
    """For four values of c, in float64; foolbox keeps c in float32, which holds these."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, rng=0), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5, rng=1))
    in_float64(model)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                                  torch.nn.Linear(256, 5)).double().eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    x = np.random.default_rng(0).uniform(size=(6, 1, 8, 8)).round(1)  # some pixels at the bounds
    y = driver.logits(model, x).argmax(axis=1)
    target = (y + 1) % 5 if targeted else None
    criterion = (foolbox.criteria.TargetedMisclassification(torch.from_numpy(target)) if targeted
                 else foolbox.criteria.Misclassification(torch.from_numpy(y)))

    ours, theirs = [], []
    result = CarliniWagner(kappa, binary_search_steps=4, steps=40, lr=0.03, initial_c=0.125).run(
        model, x, y, target=target, batch_size=6, callback=lambda step: ours.append(step.points))
    peer = foolbox.attacks.L2CarliniWagnerAttack(4, 40, 0.03, kappa, 0.125, abort_early=False)
    wrapped = foolbox.PyTorchModel(network, bounds=(0, 1))
    network.register_forward_pre_hook(lambda _, inputs: theirs.append(inputs[0].detach().numpy().copy()))
    found, _, _ = peer(wrapped, torch.from_numpy(x), criterion, epsilons=None)
    np.testing.assert_allclose(ours, theirs[:160], rtol=0, atol=1e-9)
    assert result.success.all()
    np.testing.assert_allclose(result.x_adv, found.numpy(), rtol=0, atol=1e-9)
