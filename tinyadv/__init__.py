"""tinyadv: everything between a pixel and its adversarial gradient, in NumPy (and CuPy, unchanged)."""

from tinyadv import backend  # noqa: I001  first: it chooses the BLAS kernels before NumPy is loaded
