"""Which array library an array belongs to, and moving arrays between host and device.

An operation runs where its arrays are: `array_module(x)` is NumPy for a NumPy array and CuPy for a CuPy
array. All other files use only the names that both libraries share. This is the only file that names CuPy,
and it imports it only when a GPU is asked for.

This file is imported before NumPy, because OpenBLAS chooses its kernels while it is loaded. It also asks the
allocator to keep freed memory. Each of the two can double the speed; `python -m tinyadv` shows what was chosen.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, ParamSpec, TypeVar


def blas_kernel_override(cpuinfo: str, environment: dict[str, str]) -> str | None:
    """The value that OPENBLAS_CORETYPE should have on this CPU, or None to leave the choice to OpenBLAS.

    OpenBLAS before 0.3.30 does not know AMD's family 26 (Zen 5) and uses AVX2 kernels there, which halves the
    speed of every matrix product. Newer versions choose the AVX-512 kernels themselves. A value that the user
    has set is never changed.

    cpuinfo: the text of /proc/cpuinfo; environment: the process environment.
    """
    if "OPENBLAS_CORETYPE" in environment:
        return None
    fields = dict(line.split(":", 1) for line in cpuinfo.partition("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    new_amd = fields.get("vendor_id") == "AuthenticAMD" and int(fields.get("cpu family", 0)) >= 26
    avx512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= set(fields.get("flags", "").split())
    return "SkylakeX" if new_amd and avx512 else None


def _choose_blas_kernels() -> None:
    if platform.system() == "Linux" and platform.machine() == "x86_64" and "numpy" not in sys.modules:
        try:
            cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
        except OSError:
            return
        if kernels := blas_kernel_override(cpuinfo, dict(os.environ)):
            os.environ["OPENBLAS_CORETYPE"] = kernels


def keep_freed_memory(environment: dict[str, str]) -> bool:
    """Let glibc keep up to half a gigabyte of freed memory for the next arrays; returns whether it does.

    By default, glibc returns the memory of a freed array to the system, and the system has to zero new pages for the
    next array. A network with a few megabytes of activations can spend half its time on that. All threads share one
    arena, because only the first arena keeps freed memory. That may not suit a program of many threads: nothing is
    changed if TINYADV_MALLOC is 0, if the user has set MALLOC_... or GLIBC_TUNABLES, or for another allocator.
    """
    set_by_user = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)
    if set_by_user or environment.get("TINYADV_MALLOC") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 512 << 20) and mallopt(arena_max, 1))


_choose_blas_kernels()
_keeps_freed_memory = keep_freed_memory(dict(os.environ))

import numpy as np  # noqa: E402  (after the kernels are chosen)

P = ParamSpec("P")
T = TypeVar("T")
Array = Any  # a NumPy or a CuPy array
VERSION = (pathlib.Path(__file__).parent / "VERSION").read_text().strip()  # of the library


def array_module(*arrays: Array) -> ModuleType:
    """The library (`numpy` or `cupy`) of the first argument that is an array; NumPy if none is."""
    for array in arrays:
        if type(array) is np.ndarray:  # the usual case first: this is called several times in every operation
            return np
        if is_array(array):
            return _library(array)
    return np


def is_array(value: Any) -> bool:
    """Whether the value is an array of some array library."""
    return isinstance(value, getattr(_library(value), "ndarray", ()))


def _library(value: Any) -> ModuleType:
    return sys.modules.get(type(value).__module__.partition(".")[0], np)


def wide(array: Array) -> np.dtype:
    """The dtype in which to sum an array up: float32 at least, because 65,504 is the most that float16 holds."""
    return np.promote_types(array.dtype, np.float32)


def to_host(array: Array) -> np.ndarray:
    """The array as a NumPy array: the same object if it is one already, a copy from the GPU otherwise."""
    return array if array_module(array) is np else array.get()


def move(array: Array, like: Array) -> Array:
    """The array in the memory (host or device) where `like` is; the same object if it is there already."""
    xp = array_module(like)
    if xp is np:
        return to_host(array)
    with device_of(like):
        return _to_current(array, xp)


def _to_current(array: Array, xp: ModuleType) -> Array:
    """The array on the current GPU."""
    try:
        return xp.asarray(array)
    except NotImplementedError:  # from one GPU to another CuPy copies contiguous arrays only
        with device_of(array):
            array = xp.ascontiguousarray(array)
        return xp.asarray(array)


def memory(array: Array) -> str:
    """The name of the memory that holds the array, as `to_device` takes it: "cpu" or "cuda:0"."""
    return "cpu" if array_module(array) is np else f"cuda:{array.device.id}"


def device_of(*values: Any) -> AbstractContextManager[Any]:
    """A block in which the GPU that holds the first array there is the current one; on a CPU it does nothing.

    CuPy computes only on the current GPU, and a thread begins with "cuda:0".
    """
    cupy = sys.modules.get("cupy")  # what was not imported has made no array
    on_gpu = [value for value in values if isinstance(value, cupy.ndarray)] if cupy else []
    return on_gpu[0].device if on_gpu else nullcontext()


def on_its_device(function: Callable[P, T]) -> Callable[P, T]:
    """The function, called in a block of `device_of` its arguments."""

    @functools.wraps(function)
    def there(*args: P.args, **kwargs: P.kwargs) -> T:
        with device_of(*args, *kwargs.values()):
            return function(*args, **kwargs)

    return there


def fused(function: Callable[..., T]) -> Callable[..., T]:
    """A function (xp, *values) of element-wise operations, called with the values: on a GPU, one kernel (cupy.fuse)."""

    @functools.cache
    def kernel() -> Callable[..., T]:
        cupy = _cupy()
        return cupy.fuse(kernel_name=function.__name__)(lambda *values: function(cupy, *values))

    @functools.wraps(function)
    def run(*values: Any) -> T:
        xp = array_module(*values)
        return kernel()(*values) if xp is not np and hasattr(xp, "fuse") else function(xp, *values)

    return run


def surely_none(mask: Array) -> bool:
    """Whether no element of the mask is true, if that costs nothing: a GPU is not asked, as an answer would wait for
    all that it has been given to do.
    """
    return array_module(mask) is np and not mask.any()


def rows_of(mask: Array) -> Array:
    """The indices of the true elements of a mask (N,), to select rows with: a GPU would scan a mask at each use."""
    return array_module(mask).flatnonzero(mask)


def to_device(array: Array, device: str) -> Array:
    """The array on "cpu", "cuda" (the current GPU) or "cuda:1"; the same object if it is there already.

    Raises ValueError for any other name, and RuntimeError if there is no usable GPU.
    """
    device = str(device)  # one of PyTorch, say
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return to_host(array)
    if kind != "cuda" or not (index.isdecimal() or device == "cuda"):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:<number>", got {device!r}')
    cupy = _cupy()
    with cupy.cuda.Device(int(index) if index else None):
        return _to_current(array, cupy)


def _cupy() -> ModuleType:
    remedy = 'install CuPy with `pip install "cupy-cuda12x[ctk]"` (or 13x), or use device="cpu"'
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(f"CUDA was asked for, but CuPy is not installed: {remedy}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"CUDA was asked for, but CuPy finds no usable GPU ({error}): {remedy}") from error
    if count == 0:
        raise RuntimeError(f"CUDA was asked for, but this machine has no GPU: {remedy}")
    return cupy


def usable_cores() -> int:
    """The number of CPU cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def describe() -> str:
    """Versions, devices, BLAS kernels and threads, one fact per line: what `python -m tinyadv` prints."""
    from importlib.metadata import PackageNotFoundError, version

    from threadpoolctl import threadpool_info

    lines = [f"tinyadv {VERSION}", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    for package in ("numpy", "matplotlib"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed")
    for blas in threadpool_info():
        kernels = f", {blas['architecture']} kernels" if "architecture" in blas else ""
        lines.append(f"BLAS: {blas['internal_api']} {blas['version']}{kernels}, {blas['num_threads']} threads")
    setting = os.environ.get("OPENBLAS_CORETYPE")
    lines.append(f"OPENBLAS_CORETYPE: {setting or 'not set (OpenBLAS chooses)'}")
    lines.append(f"Freed memory: {'kept for the next arrays' if _keeps_freed_memory else 'left to the allocator'}")
    lines.append(f"CPU: {usable_cores()} usable cores")
    try:
        cupy = _cupy()
        for i in range(cupy.cuda.runtime.getDeviceCount()):
            name = cupy.cuda.runtime.getDeviceProperties(i)["name"].decode()
            lines.append(f"cuda:{i}: {name} (CuPy {cupy.__version__})")
    except RuntimeError as error:
        lines.append(f"GPU: none. {error}")
    return "\n".join(lines)
