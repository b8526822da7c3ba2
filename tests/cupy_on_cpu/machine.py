"""The stand-in for a GPU: compiled, and put below CuPy before it is imported."""

import ctypes
import hashlib
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

VERSION = "14.2.0"
HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "cupy_on_cpu"
FLAGS = ["g++", "-std=c++17", "-w", "-fPIC", "-fpermissive", "-fno-strict-aliasing", "-ffp-contract=off"]
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\w+\s*\)\s*)?([\w\s:<>,]+?)\s+(\w+)\s*\[\s*\]\s*;")


@dataclass
class Counts:
    """kernels: {name: launches}; products: calls of cuBLAS; to_host, to_device: copies; waits: explicit ones."""

    kernels: dict[str, int]
    to_host: int
    to_device: int
    waits: int
    products: int

    @property
    def launches(self):
        return sum(self.kernels.values())


def missing():
    """What is missing here to run CuPy on the CPU, in words; None if it can run."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "it runs on Linux on x86-64"
    try:
        found = version("cupy-cuda12x")
    except PackageNotFoundError:
        return f"cupy-cuda12x {VERSION} is not installed"
    if found != VERSION:
        return f"cupy-cuda12x is {found}, and must be {VERSION}"
    if not shutil.which("g++"):
        return "there is no g++"
    return None if Path(sysconfig.get_path("include"), "Python.h").exists() else "there is no Python.h"


def build(name, *arguments, source):
    """The path of a file in the cache, compiled from the source with g++ unless it is there."""
    text = source if isinstance(source, str) else source.read_text(encoding="utf-8")
    key = hashlib.sha256("\n".join([VERSION, sys.version, name, *map(str, arguments), text]).encode()).hexdigest()[:20]
    folder = CACHE / key
    if not (folder / name).exists():
        ours = folder.with_name(f"{key}.{os.getpid()}")
        ours.mkdir(parents=True)
        (ours / "source.cpp").write_text(text, encoding="utf-8")
        command = [*FLAGS, *arguments, ours / "source.cpp", "-o", ours / name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{ours / 'source.cpp'}:\n{done.stderr[:4000]}")
        if not folder.exists():  # else another process was faster
            try:
                ours.rename(folder)
            except OSError:
                shutil.rmtree(ours)
    return folder / name


class Machine:
    """The stand-in for the GPU."""

    def __init__(self):
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)  # for the kernels, which call it
        path = build("device.so", "-O2", "-shared", f"-I{sysconfig.get_path('include')}", source=HERE / "device.cpp")
        sys.path.insert(0, str(path.parent))
        self.device = importlib.import_module("device")
        sys.path.remove(str(path.parent))
        versions = CACHE / "versions"
        versions.write_text("libcublas.so.12 { global: *; };\n")
        self.blas = ctypes.CDLL(build("libcublas.so.12", "-O3", "-shared", f"-Wl,--version-script={versions}",
                                      "-Wl,-soname,libcublas.so.12", source=HERE / "cublas.cpp"), os.RTLD_GLOBAL)
        self.blas.cpu_products.restype = ctypes.c_longlong
        sys.setdlopenflags(os.RTLD_LAZY)  # what of cuBLAS is not there is not called
        self._replace()
        sys.setdlopenflags(flags)

    def counts(self):
        """The Counts since the last call."""
        return Counts(*self.device.counts(), self.blas.cpu_products())

    def _replace(self):
        os.environ["CUPY_ACCELERATORS"] = ""  # neither CUB nor cuTENSOR
        from cupy_backends.cuda.api import driver, runtime

        self.device.install(runtime.__pyx_capi__, driver.__pyx_capi__)
        runtime.getDevice, runtime.setDevice = self.device.get_device, self.device.set_device
        runtime.getDeviceCount, runtime.deviceSynchronize = lambda: 2, self.device.synchronize
        runtime.runtimeGetVersion = runtime.driverGetVersion = lambda: 12090
        runtime.getDeviceProperties = self.device.properties
        runtime.pointerGetAttributes = lambda p: runtime.PointerAttributes(0, p, p, 2)
        import cupy_backends.cuda.libs as libraries

        libraries.cublas = importlib.import_module("cupy_backends.cuda.libs.cublas")
        import cupy
        from cuda import pathfinder
        from cupy._core import core
        from cupy.cuda import compiler, function, thrust

        pathfinder.find_nvidia_header_directory = lambda name: str(CACHE)  # none are needed
        core.assemble_cupy_compiler_options = lambda options: options
        include = Path(cupy.__file__).parent / "_core" / "include"
        namespace = CACHE / "include" / "cupy" / "complex"
        namespace.mkdir(parents=True, exist_ok=True)
        (namespace / "namespace.h").write_text("#define THRUST_NAMESPACE_BEGIN namespace thrust {\n"
                                               "#define THRUST_NAMESPACE_END }\n#define THRUST_NS_QUALIFIER thrust\n")
        headers = ("complex", "carray", "atomics")
        text = "".join([f'#include "{HERE}/kernel.h"\n', *(f"#include <cupy/{name}.cuh>\n" for name in headers),
                        "#include <cupy/math_constants.h>\n", f"// {(HERE / 'kernel.h').stat().st_mtime_ns}\n"])
        self._flags = ["-O1", f"-I{CACHE / 'include'}", f"-I{include}"]
        self._common = build("common.h.gch", *self._flags, "-x", "c++-header", source=text)
        self._common.with_suffix("").write_text(text, encoding="utf-8")
        self._core, self._module = core, function.Module
        compiler._compile_module_with_cache = self._compile
        thrust.sort, thrust.argsort, thrust.lexsort, thrust.available = self._sort, self._argsort, self._lexsort, True

    def _compile(self, source, options=(), *, name_expressions=None, **ignored):
        """What CuPy calls instead of NVIDIA's compiler."""
        for header in self._core._cupy_header_list:
            source = source.replace(f"#include <{header}>\n", "")
        source = SHARED.sub(r"\1* \2 = (\1*)cpu_dynamic_shared;", source)
        names = {name: name for name in KERNEL.findall(source)}
        mapping = {expression: f"instance_{i}" for i, expression in enumerate(name_expressions or ())}
        names |= {short: expression for expression, short in mapping.items()}
        barriers = any(word in source for word in ("__syncthreads", "__syncwarp", "__shfl"))
        kind = 2 if barriers else 1 if "CUPY_FOR" in source else 0  # the Kind of device.cpp
        source += "".join(f'\nextern "C" void cpu_call_{short}(void** arguments) {{ cpu_call(&{name}, arguments); }}'
                          for short, name in names.items()) + f'\nextern "C" int cpu_kind = {kind};\n'
        defines = [option for option in options if option.startswith("-D")]
        path = build("kernels.so", *self._flags, *defines, "-shared", "-include", self._common.with_suffix(""),
                     source=source)
        module = self._module()
        module.load(os.fsencode(path))
        if mapping:
            module._set_mapping(mapping)
        return module

    def _sort(self, dtype, data, keys, shape):
        self.device.note("thrust_sort")
        _array(dtype, data, shape).sort(axis=-1, kind="stable")

    def _argsort(self, dtype, index, data, keys, shape):
        self.device.note("thrust_argsort")
        values = _array(dtype, data, shape)
        order = values.argsort(axis=-1, kind="stable")
        _array(np.intp, index, shape)[...] = order
        values[...] = np.take_along_axis(values, order, -1)

    def _lexsort(self, dtype, index, keys, k, n):
        self.device.note("thrust_lexsort")
        _array(np.intp, index, (n,))[...] = np.lexsort(_array(dtype, keys, (k, n)))


def _array(dtype, pointer, shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer), dtype).reshape(shape)
