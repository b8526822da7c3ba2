"""The SHA-256 of adversarial images, as an executor makes them. A program, because workers may import it:

    python tests/cluster_digests.py processes
    python tests/cluster_digests.py dask
    mpiexec -n 3 python -m mpi4py.futures tests/cluster_digests.py mpi
"""

import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context

from attack_cases import TinyAutoAttack, cnn, images, labels

from tinyadv import nn
from tinyadv.attacks import PGD, Square


@contextmanager
def dask():
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client.get_executor()


def mpi():
    from mpi4py.futures import MPIPoolExecutor

    return MPIPoolExecutor()


EXECUTORS = {"one thread": nullcontext, "dask": dask, "mpi": mpi,
             "processes": lambda: ProcessPoolExecutor(3, mp_context=get_context("spawn"))}


def main(kind):
    model = nn.Sequential(nn.GaussianNoise(0.1, at_test=True), cnn())
    with EXECUTORS[kind]() as executor:
        for attack in (PGD(0.1, steps=3, restarts=2), Square(0.1, queries=8), TinyAutoAttack(0.1)):
            x_adv = attack(model, images(20), labels(20), seed=5, batch_size=3, workers=1 if executor is None else None,
                           executor=executor)
            print(type(attack).__name__, hashlib.sha256(x_adv.tobytes()).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
