"""The nearest adversarial example beside foolbox and adversarial-library: from the same images, as near or nearer."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from tinyadv.attacks import DDN, EAD, FMN, PDGD, PDPGD, BrendelBethge, SigmaZero

torch = pytest.importorskip("torch")
foolbox = pytest.importorskip("foolbox")

from peers import trained  # noqa: E402  it needs torch

pytestmark = pytest.mark.parity
torch.set_num_threads(1)
LENGTHS = {
    "linf": lambda d: abs(d).max(axis=1), "l2": lambda d: np.linalg.norm(d, axis=1),
    "l1": lambda d: abs(d).sum(axis=1), "l0": lambda d: (d != 0).sum(axis=1),
}
DUELS = [  # ours, foolbox's, and by how much the median distance of ours may be larger
    (DDN(steps=100), lambda: foolbox.attacks.DDNAttack(steps=100), 0.01),
    (EAD(binary_search_steps=5, steps=100, initial_c=0.1),
     lambda: foolbox.attacks.EADAttack(binary_search_steps=5, steps=100, initial_const=0.1, decision_rule="L1",
                                       abort_early=False), 0.02),
    (BrendelBethge(steps=100), lambda: foolbox.attacks.L2BrendelBethgeAttack(steps=100), 0.02),
    (BrendelBethge(steps=100, norm="linf"), lambda: foolbox.attacks.LinfinityBrendelBethgeAttack(steps=100), 0.02),
    (BrendelBethge(steps=100, norm="l1"), lambda: foolbox.attacks.L1BrendelBethgeAttack(steps=100), 0.02),
]
LIBRARY = [  # ours, and the name and arguments in adversarial-library
    (DDN(steps=100), "ddn", {"steps": 100, "levels": None}),
    (FMN(steps=100), "fmn", {"steps": 100, "norm": 2}),
    (FMN(steps=100, norm="linf"), "fmn", {"steps": 100, "norm": np.inf, "α_init": 10}),
    (FMN(steps=100, norm="l1"), "fmn", {"steps": 100, "norm": 1}),
    (FMN(steps=100, norm="l0"), "fmn", {"steps": 100, "norm": 0}),
    (PDGD(steps=100), "pdgd", {"num_steps": 100}),
    (PDPGD(steps=100), "pdpgd", {"num_steps": 100, "norm": np.inf}),
    (PDPGD(steps=100, norm="l2"), "pdpgd", {"num_steps": 100, "norm": 2}),
    (PDPGD(steps=100, norm="l1"), "pdpgd", {"num_steps": 100, "norm": 1}),
    (SigmaZero(steps=100), "sigma_zero", {"num_steps": 100}),
]


@pytest.fixture(scope="module")
def scene():
    return trained(24)


def check(ours, theirs, found, scene, slack):
    """Ours succeeds as often, and the median distance is no larger, up to the slack."""
    _, network, x, y = scene
    with torch.no_grad():
        success = network(found).argmax(dim=1).numpy() != y
    distances = LENGTHS[ours.norm]((found.numpy().astype(np.float64) - x).reshape(len(x), -1))
    assert ours.success.mean() >= success.mean()
    assert np.median(np.where(ours.success, ours.distances, np.inf)) <= (1 + slack) * np.median(
        np.where(success, distances, np.inf)), theirs


@pytest.mark.filterwarnings("ignore:At the first initialisation the optimizer needs to be compiled")
@pytest.mark.parametrize(("attack", "theirs", "slack"), DUELS, ids=lambda value: "theirs" if hasattr(value, "__code__")
                         else str(value)[:40])
def test_as_near_as_foolbox(scene, attack, theirs, slack):
    ours, network, x, y = scene
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    extra = {}
    if isinstance(attack, BrendelBethge):  # from the nearest image of another class
        attack, far = replace(attack, starts=x), np.linalg.norm((x[:, None] - x).reshape(len(x), len(x), -1), axis=2)
        extra = {"starting_points": torch.from_numpy(x[np.where(y == y[:, None], np.inf, far).argmin(axis=1)])}
    found = theirs().run(model, torch.from_numpy(x), torch.from_numpy(y), **extra)
    check(attack.run(ours, x, y), theirs, found, scene, slack)


@pytest.mark.parametrize(("attack", "name", "options"), LIBRARY, ids=lambda value: str(value)[:40])
def test_as_near_as_adversarial_library(scene, attack, name, options, monkeypatch):
    """Which is skipped where it is not installed: it needs torchvision, of which these attacks use nothing."""
    for absent in "torchvision", "torchvision.models", "visdom":
        if absent not in sys.modules:
            monkeypatch.setitem(sys.modules, absent, types.ModuleType(absent))
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]
    sys.modules["visdom"].Visdom = object
    library = pytest.importorskip("adv_lib.attacks")
    ours, network, x, y = scene
    found = getattr(library, name)(network, torch.from_numpy(x), torch.from_numpy(y), **options)
    check(attack.run(ours, x, y), name, found.detach(), scene, 0.01 if attack.norm != "l0" else 0.1)
