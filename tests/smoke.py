"""What an installation must be able to do, in half a minute: `python tests/smoke.py`. It needs no other package.

The folder of this script comes first on Python's path, not that of the clone, so the installed package is tried.
"""

import os
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import tinyadv
from tinyadv import attacks, certify, data, evaluation, models, nn, training


def installed():
    print(f"tinyadv {tinyadv.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    print(f"in {Path(tinyadv.__file__).parent}")
    assert metadata.version("tinyadv") == tinyadv.__version__
    assert resources.files("tinyadv").joinpath("py.typed").is_file()


def works():
    test = data.digits(0, 20, seed=1)[1]
    for name in models.zoo.names():
        models.zoo.load(name)
    robust, natural = models.zoo.load("mnist-lenet-linf"), models.zoo.load("mnist-lenet-natural")
    clean = evaluation.accuracy(natural, test)
    assert clean > 0.8
    told("the zoo", f"{len(models.zoo.names())} networks; {clean:.0%} of {len(test)} digits right")

    result = attacks.PGD(eps=0.2, steps=10).run(robust, test.images, test.labels, seed=0)
    assert result.distances.max() <= 0.2
    told("PGD", f"robust accuracy {result.robust.mean():.0%}")
    result = attacks.AutoAttack(eps=0.2).run(natural, test.images, test.labels, skip_misclassified=True, seed=0)
    assert result.distances.max() <= 0.2
    assert result.robust.mean() < clean
    told("AutoAttack", f"robust accuracy {result.robust.mean():.0%}")
    told("certify", f"certified accuracy {certify.certified_accuracy(robust, test, eps=0.001).certified.mean():.0%}")

    model = models.LeNet(seed=0)
    training.fit(model, test, epochs=1, optimizer=nn.optim.SGD(model, lr=0.01), batch_size=10, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        nn.save(model, f"{folder}/model.npz")
        again = nn.load(f"{folder}/model.npz")
        assert all((again.state_dict()[name] == array).all() for name, array in model.state_dict().items())
        told("training", "saved, and loaded with the same weights")

        for arguments in ([], ["attack", "FGSM", "--model", "mnist-lenet-natural", "--data", "digits", "--images", "20",
                               "--eps", "0.2", "--out", "result.npz"]):
            subprocess.run([sys.executable, "-m", "tinyadv", *arguments], cwd=folder, check=True,
                           env=os.environ | {"MPLBACKEND": "agg"}, stdout=subprocess.DEVNULL)
        assert attacks.AttackResult.load(f"{folder}/result.npz").distances.max() <= 0.2
        assert Path(folder, "result.png").stat().st_size > 1000
        told("the command line", "result and figure saved")


def told(what, how):
    print(f"{what}: {how}", flush=True)


if __name__ == "__main__":
    installed()
    works()
