"""Where the tests run (`xp`), how long hypothesis searches, and the seal on global state."""

import importlib.util  # noqa: I001  tinyadv comes before NumPy, as it asks
import os

from tinyadv import backend

import numpy as np
import pytest
import strict_device
from hypothesis import settings

from tinyadv import tensor

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("intense", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["parity/*"]


def _array_libraries():
    yield np
    yield strict_device
    try:
        on_gpu = backend.to_device(np.zeros(1), "cuda")
    except RuntimeError:
        return
    yield pytest.param(backend.array_module(on_gpu), marks=pytest.mark.gpu)


@pytest.fixture(scope="session", params=_array_libraries(), ids=lambda library: library.__name__)
def xp(request):
    """The array library to run on: NumPy, a stand-in as strict as CuPy, and CuPy itself where there is a GPU."""
    return request.param


@pytest.fixture(autouse=True)
def _sealed():
    """No test leaves the recording switch off or draws from NumPy's global generator."""
    before = _global_random_state()
    yield
    assert tensor._recording.get(), "the test left no_grad() switched on"
    assert _global_random_state() == before, "the test drew from NumPy's global generator"


def _global_random_state():
    name, key, *rest = np.random.get_state()  # noqa: NPY002  to see that nobody else touches it
    return name, key.tobytes(), *rest
