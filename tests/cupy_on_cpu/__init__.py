"""The real CuPy without a GPU: a plugin of pytest, `-p cupy_on_cpu.plugin`, with this folder's parent on PYTHONPATH.

CuPy itself is unchanged: its checks of arguments, rules of dtypes, orders in memory, devices, and the kernels that it
writes. Below it, the memory of a device is that of the host; kernels are compiled by g++ (device.cpp, kernel.h), and
kept in build/cupy_on_cpu; products of matrices are loops (cublas.cpp), and sorts are NumPy's. As CuPy asks of its own
compiler, denormal numbers are 0. There are two devices, neither of which can read the other's memory.

It is slow, and no measure of speed; but it counts kernels, products and copies to the host, on which the speed of a GPU
depends where batches are small. What it cannot show: several streams, races, the bits of a GPU's own exp and log. It
holds to the internals of one version of CuPy, on Linux on x86-64.
"""
