"""HopSkipJump beside foolbox and ART: from the same points, after as many queries, as near or nearer."""

import numpy as np
import pytest

from tinyadv.attacks import HopSkipJump

torch = pytest.importorskip("torch")
foolbox = pytest.importorskip("foolbox")
art = pytest.importorskip("art.attacks.evasion")
from art.estimators.classification import PyTorchClassifier  # noqa: E402  as above
from peers import trained  # noqa: E402  it needs torch

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
IMAGES, ROUNDS = 10, 6
every_norm = pytest.mark.parametrize("norm", ["l2", "linf"])


@pytest.fixture(scope="module")
def scene():
    """(ours, theirs, x, y, starts): the network twice, images, and the nearest one of another class for each."""
    ours, theirs, x, y = trained(40)
    pool, classes, x, y = x[IMAGES:], y[IMAGES:], x[:IMAGES], y[:IMAGES]
    distances = np.linalg.norm((x[:, None] - pool).reshape(len(x), len(pool), -1), axis=2)
    return ours, theirs, x, y, pool[np.where(classes == y[:, None], np.inf, distances).argmin(axis=1)]


class Counted(torch.nn.Module):
    """A network that counts the images it is shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, x):
        self.seen += len(x)
        return self.network(x.float())  # of ART come float64


def compare(scene, norm, theirs, queries):
    """Ours with as many queries for each image as theirs have taken on average, beside their images."""
    network, _, x, y, starts = scene
    ours = np.array([HopSkipJump(queries=queries, norm=norm, starts=starts[i:i + 1]).run(
        network, x[i:i + 1], y[i:i + 1], seed=i).distances[0] for i in range(len(x))])
    order = 2 if norm == "l2" else np.inf
    distances = np.linalg.norm((theirs - x).reshape(len(x), -1), axis=1, ord=order)
    print(f"{norm}, {queries} queries: ours {np.median(ours):.4f}, theirs {np.median(distances):.4f}")
    assert np.median(ours) <= 1.1 * np.median(distances)


@every_norm
def test_as_near_as_foolbox(scene, norm):
    _, network, x, y, starts = scene
    counted = Counted(network).eval()
    torch.manual_seed(0)
    attack = foolbox.attacks.HopSkipJumpAttack(steps=ROUNDS, constraint=norm)
    found = attack.run(foolbox.PyTorchModel(counted, bounds=(0, 1)), torch.from_numpy(x), torch.from_numpy(y),
                       starting_points=torch.from_numpy(starts)).numpy()
    compare(scene, norm, found, counted.seen // len(x))


@every_norm
def test_as_near_as_art(scene, norm):
    _, network, x, y, starts = scene
    counted = Counted(network).eval()
    classifier = PyTorchClassifier(counted, torch.nn.CrossEntropyLoss(), x.shape[1:], 10, clip_values=(0, 1))
    attack = art.HopSkipJump(classifier, norm=2 if norm == "l2" else np.inf, max_iter=ROUNDS, verbose=False)
    state = np.random.get_state()  # noqa: NPY002  ART draws from NumPy's global generator, and has no other
    np.random.seed(0)  # noqa: NPY002
    try:
        found = attack.generate(x, y=np.eye(10)[y], x_adv_init=starts)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    compare(scene, norm, found, counted.seen // len(x))
