"""`python -m tinyadv` says what was found on this machine."""

import subprocess
import sys
from pathlib import Path

from tinyadv.backend import describe


def test_it_prints_the_description():
    command = [sys.executable, "-m", "tinyadv"]
    ran = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert without_the_setting(ran.stdout) == without_the_setting(describe())


def without_the_setting(text):
    """The kernels may have been chosen in one process and inherited in the other, and pytest loads more BLAS users."""
    return [line for line in text.splitlines() if not line.startswith(("BLAS", "OPENBLAS_CORETYPE"))]
