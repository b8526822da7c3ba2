"""Which library an array belongs to, moving it, a missing GPU, and OpenBLAS set up before NumPy."""

import contextlib
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import strict_device

from tinyadv import backend
from tinyadv.backend import array_module, blas_kernel_override, describe, move, to_device, to_host, usable_cores

ROOT = Path(__file__).parents[1]


class Foreign:
    """No array, of a module that is not on the path any more."""


Foreign.__module__ = "gone.with.the.wind"


def test_the_module_of_an_array(xp):
    array = xp.asarray([1.0])
    assert array_module(array) is xp
    assert array_module(2.0, [1], array, np.ones(1)) is xp


@pytest.mark.parametrize("value", [1, 2.0, [1.0], None, np.float32(1), "text", Foreign(), np.ma.ones(2), types])
def test_what_is_no_array_counts_as_numpy(value):
    assert array_module(value) is np
    assert array_module() is np


def test_to_host_copies_from_the_device_alone(xp):
    array = xp.asarray([[1.0, 2.0]])
    assert to_host(array).tolist() == [[1, 2]]
    assert isinstance(to_host(array), np.ndarray)
    assert (to_host(array) is array) == (xp is np)


def test_move_goes_where_the_other_is(xp):
    here, there = np.arange(3.0), xp.asarray([1.0])
    assert array_module(move(here, like=there)) is xp
    assert array_module(move(there, like=here)) is np
    assert move(there, like=there) is there
    assert move(here, like=here) is here
    assert to_host(move(here, like=there)).tolist() == [0, 1, 2]


# Devices, with a CuPy that is made up here


class NoDriver(RuntimeError):
    pass


def pretended_cupy(device_count):
    """A module like cupy on a machine with so many GPUs; None for one without a driver."""
    library = types.ModuleType("cupy")
    used = []

    def get_device_count():
        if device_count is None:
            raise NoDriver("no driver")
        return device_count

    @contextlib.contextmanager
    def device(index):
        used.append(index)
        yield

    library.__version__ = "0.0"
    library.used, library.asarray, library.ndarray = used, strict_device.asarray, strict_device.ndarray
    runtime = types.SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=NoDriver,
                                    getDeviceProperties=lambda i: {"name": b"Pretended GPU"})
    library.cuda = types.SimpleNamespace(runtime=runtime, Device=device)
    return library


def test_to_device(monkeypatch):
    cupy = pretended_cupy(2)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    array = np.arange(3.0)
    assert to_device(array, "cpu") is array
    there = to_device(array, "cuda")
    assert isinstance(there, strict_device.ndarray)
    assert to_device(there, "cuda:1") is there
    assert cupy.used == [None, 1]
    assert to_device(there, "cpu").tolist() == [0, 1, 2]


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "mps"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:<number>", got'):
        to_device(np.ones(1), device)


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [(None, "CuPy is not installed"), (pretended_cupy(None), r"CuPy finds no usable GPU \(no driver\)"),
     (pretended_cupy(0), "this machine has no GPU")],
    ids=["no CuPy", "no driver", "no GPU"],
)
def test_cuda_that_is_not_there_is_an_error_with_a_remedy(monkeypatch, cupy, reason):
    monkeypatch.setitem(sys.modules, "cupy", cupy)  # None makes the import fail
    remedy = r'install CuPy with `pip install "cupy-cuda12x\[ctk\]"` .*, or use device="cpu"'
    with pytest.raises(RuntimeError, match=f"^CUDA was asked for, but {reason}: {remedy}$"):
        to_device(np.ones(1), "cuda")
    assert re.search(f"GPU: none. CUDA was asked for, but {reason}", describe())
    assert to_device(np.ones(1), "cpu").tolist() == [1]


def test_the_description_lists_what_there_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", pretended_cupy(2))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "SkylakeX")
    text = describe()
    for fact in (
        f"numpy {np.__version__}", "Python 3.", "tinyadv ", "matplotlib ", "BLAS: ", " threads", "cuda:0: ",
        "OPENBLAS_CORETYPE: SkylakeX", f"CPU: {usable_cores()} usable cores", "cuda:1: Pretended GPU (CuPy 0.0)",
    ):
        assert fact in text
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "OPENBLAS_CORETYPE: not set (OpenBLAS chooses)" in describe()


def test_the_remedy_for_a_missing_gpu_installs_what_the_extras_do():
    """From a clone or not: tinyadv itself need not be on a package index."""
    (package,) = re.findall(r'pip install "(.*?)"', (ROOT / "tinyadv/backend.py").read_text(encoding="utf-8"))
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"cuda12": ["{package}"]' in setup
    assert f'"cuda13": ["{package.replace("12x", "13x")}"]' in setup


def test_the_module_run_as_a_program_says_what_it_does():
    found = {}
    for options in ((), ("--help",)):
        done = subprocess.run([sys.executable, "-m", "tinyadv", *options], capture_output=True, text=True, cwd=ROOT,
                              check=True)
        found[options] = done.stdout
    assert found[()].startswith(f"tinyadv {backend.VERSION}\n")
    assert found["--help",].startswith("usage: python -m tinyadv")


def test_usable_cores_are_counted():
    assert 1 <= usable_cores() <= os.cpu_count()


# OpenBLAS

AVX512 = "fpu sse avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


def cpuinfo(vendor="AuthenticAMD", family=26, flags=AVX512):
    core = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel name\t: A CPU: fast\nflags\t\t: {flags}\npower:\n"
    return "\n".join(f"processor\t: {i}\n{core}" for i in range(2))


@pytest.mark.parametrize(
    ("text", "environment", "kernels"),
    [
        (cpuinfo(), {}, "SkylakeX"),
        (cpuinfo(family=27), {"PATH": "/bin"}, "SkylakeX"),
        (cpuinfo(family=25), {}, None),
        (cpuinfo(vendor="GenuineIntel", family=6), {}, None),
        (cpuinfo(vendor="GenuineIntel", family=26), {}, None),
        (cpuinfo(flags="fpu sse avx2"), {}, None),
        (cpuinfo(flags="fpu avx2 avx512f"), {}, None),
        (cpuinfo(), {"OPENBLAS_CORETYPE": "Haswell"}, None),
        (cpuinfo(), {"OPENBLAS_CORETYPE": ""}, None),
        ("", {}, None),
        ("Processor : ARMv8\nFeatures : asimd\n", {}, None),
    ],
)
def test_blas_kernels_are_overridden_where_openblas_misses_avx512(text, environment, kernels):
    assert blas_kernel_override(text, environment) == kernels


def python(code, **environment):
    """What a fresh Python prints, with the environment changed: None unsets."""
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=changed, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("setting", ["Haswell", "Zen"])
def test_the_users_own_kernels_are_kept(setting):
    printed = python("import os, tinyadv; print(os.environ['OPENBLAS_CORETYPE'])", OPENBLAS_CORETYPE=setting)
    assert printed.strip() == setting


@pytest.mark.parametrize(("setting", "library", "asked"), [
    ({}, "glibc", True), ({"OPENBLAS_CORETYPE": "Zen"}, "glibc", True), ({}, "", False),
    ({"TINYADV_MALLOC": "0"}, "glibc", False), ({"TINYADV_MALLOC": "1"}, "glibc", True),
    ({"MALLOC_ARENA_MAX": "4"}, "glibc", False), ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, "glibc", False),
])
@pytest.mark.parametrize("refused", [None, -8])
def test_freed_memory_is_kept_in_one_arena_unless_the_user_has_a_say(monkeypatch, setting, library, asked, refused):
    def mallopt(parameter, value):
        settings[parameter] = value
        return int(parameter != refused)

    settings = {}
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda name: types.SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(backend.platform, "libc_ver", lambda: (library, "2.40"))
    assert backend.keep_freed_memory(setting) == (asked and refused is None)
    # of malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
    assert settings == ({-1: 512 << 20, -3: 32 << 20, -8: 1} if asked else {})


def test_kernels_are_chosen_before_numpy_is_loaded_and_not_after():
    code = "import os, tinyadv.backend as b; print(os.environ.get('OPENBLAS_CORETYPE'))"
    assert "None" in python(f"import numpy; {code}", OPENBLAS_CORETYPE=None)
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    expected = blas_kernel_override(found, {})
    assert python(code, OPENBLAS_CORETYPE=None).strip() == str(expected)


def test_importing_is_fast():
    """It takes about twice as long as NumPy's own import, and never four times: seconds differ with the machine."""
    code = ("from time import process_time as now; a = now(); import numpy; b = now(); import tinyadv; "
            "print((now() - b) / (b - a))")
    assert min(float(python(code)) for _ in range(3)) < 4


def test_importing_loads_nothing_heavy():
    code = "import sys, tinyadv; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    heavy = {"matplotlib", "PIL", "pooch", "requests", "tqdm", "cupy", "torch", "scipy"}
    assert not heavy & set(python(code).split())
