"""The same bytes on a cluster: by Dask and by MPI, each in programs of their own, as docs/scale.md starts them."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rank_cases import trained

from tinyadv.attacks import PGD
from tinyadv.training import Adversarial, update

ROOT = Path(__file__).parents[2]
PROGRAM, TRAINING = (ROOT / "tests" / f"cluster_{name}.py" for name in ("digests", "training"))
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # Open MPI, in a container
CROWDED = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}

pytestmark = pytest.mark.parity


def skip_without(kind):
    there = {"processes": True, "dask": importlib.util.find_spec("distributed"),
             "mpi": importlib.util.find_spec("mpi4py") and MPIEXEC}
    if not there[kind]:
        pytest.skip(f"{kind} is not installed: pip install -e '.[parity]' brings Dask, mpi4py and an mpiexec")


def said(kind, program, *arguments, ranks=3, module="mpi4py.futures"):
    """What the program prints, run by MPI or else by Python."""
    mpi = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", module]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([*(mpi if kind == "mpi" else [sys.executable]), program, *arguments], text=True, timeout=120,
                          env=os.environ | AS_ROOT | CROWDED | {"PYTHONPATH": paths}, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["processes", "dask", "mpi"])
def test_the_bytes_are_those_of_one_thread(kind):
    skip_without(kind)
    assert said(kind, PROGRAM, kind) == said(None, PROGRAM, "one thread") != ""


@pytest.mark.parametrize(("before", "size"), [(None, 1), (None, 2), (None, 4), (2, 4)])
def test_training_on_ranks_ends_with_the_weights_of_threads(before, size, tmp_path, monkeypatch):
    """Killed on `before` ranks, if it says so, and resumed."""
    skip_without("mpi")
    run = tmp_path / "run.npz"
    if before:
        assert said("mpi", TRAINING, run, "stop", ranks=before, module="mpi4py") == ""
        assert run.exists()
    digests = re.findall("[0-9a-f]{64}", said("mpi", TRAINING, run, ranks=size, module="mpi4py"))
    monkeypatch.setattr(update.driver, "SHARD", 12 * 16)
    weights, _ = trained(Adversarial(PGD(0.1, steps=2)))
    assert digests == [hashlib.sha256(weights).hexdigest()] * size


@pytest.mark.parametrize("kind", ["dask", "mpi"])
def test_the_script_of_the_page_runs_and_says_what_it_says_there(kind, tmp_path):
    skip_without(kind)
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    scripts = re.findall(r"^```py\n(.*?)^```\n\n```console\n.*?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    chosen = [(code, text) for code, text in scripts if re.search(rf"^from {kind}", code)]
    assert len(chosen) == {"dask": 1, "mpi": 2}[kind]
    for code, text in chosen:
        (tmp_path / "script.py").write_text(code)
        how = {} if "futures" in code else {"ranks": 2, "module": "mpi4py"}
        assert said(kind, tmp_path / "script.py", **how) == text
