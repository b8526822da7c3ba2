"""AutoAttack beside torchattacks' APGD, APGDT, FAB and Square, put together with the parameters of the paper.

torchattacks' own AutoAttack is another attack: it leaves the first three at 10 steps, and rescales Square's schedule.
"""

import numpy as np
import pytest

from tinyadv import data, evaluation, nn, training
from tinyadv.attacks import AutoAttack

torch = pytest.importorskip("torch")
torchattacks = pytest.importorskip("torchattacks")

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
NORMS = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def trained():
    """A small CNN that knows the digits, here and in PyTorch, and images that it gets right, with their labels."""
    train, test = data.digits(train=2000, test=100)
    ours = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, rng=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 10, rng=2))
    training.fit(ours, train, epochs=3, optimizer=nn.optim.Adam(ours, lr=5e-3), seed=0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                                 torch.nn.Flatten(), torch.nn.Linear(288, 10)).eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    right = evaluation.predict(ours, test.images) == test.labels
    return ours, theirs, test.images[right][:40], test.labels[right][:40]


def by_torchattacks(network, x, y, norm, eps):
    """How many images are left."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    common = {"norm": NORMS[norm], "eps": eps}
    for attack in (
        torchattacks.APGD(network, steps=100, loss="ce", **common),
        torchattacks.APGDT(network, steps=100, n_classes=10, **common),
        torchattacks.FAB(network, steps=100, n_classes=10, multi_targeted=True, **common),
        torchattacks.Square(network, n_queries=5000, resc_schedule=False, **common),
    ):
        if len(images):
            with torch.no_grad():
                left = network(attack(images, labels)).argmax(dim=1) == labels
            images, labels = images[left], labels[left]
    return len(images)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_as_many_images_are_left(trained, norm, eps):
    """To one of 40."""
    model, network, x, y = trained
    result = AutoAttack(eps, norm).run(model, x, y)
    left = (~result.success).sum()
    assert 5 < left < 35
    assert abs(left - by_torchattacks(network, x, y, norm, eps)) <= 1
    assert result.warnings == ()
    np.testing.assert_array_equal(result.predictions, evaluation.predict(model, result.x_adv))
