"""The plugin: it has to be loaded before anything imports CuPy."""

import pytest

from cupy_on_cpu.machine import Machine, missing

machine = None if missing() else Machine()  # before conftest.py looks for a GPU


def pytest_configure(config):
    """Without what it needs, say so and end."""
    if machine is None:
        pytest.exit(f"CuPy on the CPU: nothing was tested, {missing()}", returncode=0)


@pytest.fixture
def counts():
    """A function: the Counts since it was called last."""
    return machine.counts
