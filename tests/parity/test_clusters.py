"""The same bytes on a cluster: by Dask and by MPI, each in programs of their own, as docs/scale.md starts them."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "cluster_digests.py"
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # Open MPI, in a container
CROWDED = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}

pytestmark = pytest.mark.parity


def skip_without(kind):
    there = {"dask": importlib.util.find_spec("distributed"),
             "mpi": importlib.util.find_spec("mpi4py") and shutil.which("mpiexec")}
    if not there[kind]:
        pytest.skip(f"{kind} is not installed: pip install -e '.[parity]' brings Dask, mpi4py and an mpiexec")


def said(kind, program, *arguments):
    """What the program prints, run by MPI on three ranks or else by Python."""
    mpi = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([*(mpi if kind == "mpi" else [sys.executable]), program, *arguments], text=True, timeout=120,
                          env=os.environ | AS_ROOT | CROWDED | {"PYTHONPATH": paths}, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["dask", "mpi"])
def test_the_bytes_are_those_of_one_thread(kind):
    skip_without(kind)
    assert said(kind, PROGRAM, kind) == said(None, PROGRAM, "one thread") != ""


@pytest.mark.parametrize("kind", ["dask", "mpi"])
def test_the_script_of_the_page_runs_and_says_what_it_says_there(kind, tmp_path):
    skip_without(kind)
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    scripts = re.findall(r"^```py\n(.*?)^```\n\n```console\n.*?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    ((code, text),) = [(code, text) for code, text in scripts if re.search(rf"^from {kind}", code)]
    (tmp_path / "script.py").write_text(code)
    assert said(kind, tmp_path / "script.py") == text
