"""The SHA-256 of weights that ranks of MPI have trained together; with `stop`, it ends in the middle:

    mpiexec -n 2 python -m mpi4py tests/cluster_training.py checkpoint.npz [stop]
"""

import hashlib
import sys
from pathlib import Path

from mpi4py import MPI
from rank_cases import trained

from tinyadv.attacks import PGD
from tinyadv.ranks import ranks, sharing
from tinyadv.training import Adversarial, update


def main(path, stop=None):
    update.driver.SHARD = 12 * 16  # so that these small batches have four parts
    steps = []

    def hook():
        steps.append(1)
        if len(steps) == 4 and stop:
            raise SystemExit

    with sharing(MPI.COMM_WORLD):
        weights, _ = trained(Adversarial(PGD(0.1, steps=2)), hook=hook, checkpoint=Path(path), minutes=0, resume=True)
        print(f"rank {ranks().number}: {hashlib.sha256(weights).hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
