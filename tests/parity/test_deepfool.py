"""DeepFool beside foolbox's, on the same weights: the same classes and the same distances."""

import numpy as np
import pytest
from references import in_float64

from tinyadv import data, driver, nn, ops
from tinyadv.attacks import DeepFool

torch = pytest.importorskip("torch")
foolbox = pytest.importorskip("foolbox")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)


def networks():
    """A smooth network with random weights, here and in PyTorch, in float64: a distance of 0.001 is 0.01 logits."""
    rng = np.random.default_rng(0)
    ours = nn.Sequential(nn.Conv2d(1, 6, 5, stride=2, rng=rng), ops.tanh, nn.Flatten(), nn.Linear(864, 10, rng=rng))
    in_float64(ours)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5, stride=2), torch.nn.Tanh(), torch.nn.Flatten(),
                                 torch.nn.Linear(864, 10)).double().eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("candidates", [3, 10])
@pytest.mark.parametrize(("norm", "peer"), [
    ("l2", foolbox.attacks.L2DeepFoolAttack), ("linf", foolbox.attacks.LinfDeepFoolAttack)])
def test_the_distances_are_those_of_foolbox(norm, peer, candidates):
    ours, theirs = networks()
    x = data.digits(0, 60, seed=1)[1].images.astype(np.float64)
    y = driver.logits(ours, x).argmax(axis=1)
    result = DeepFool(norm=norm, candidates=candidates).run(ours, x, y)
    model = foolbox.PyTorchModel(theirs, bounds=(0, 1))
    found, _, success = peer(steps=50, overshoot=0.02, candidates=candidates)(
        model, torch.from_numpy(x), torch.from_numpy(y), epsilons=None)
    assert result.success.all()
    assert success.all()
    order = {"l2": 2, "linf": np.inf}[norm]
    theirs_distances = np.linalg.norm((found.numpy() - x).reshape(60, -1), ord=order, axis=1)
    np.testing.assert_allclose(result.distances, theirs_distances, rtol=1e-4, atol=1e-7)
    assert (abs(result.x_adv - found.numpy()) > 1e-4).mean() < 1e-4  # a slope that is 0 but for rounding has any sign
