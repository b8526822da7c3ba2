"""tinyadv: everything between a pixel and its adversarial gradient, in NumPy and, unchanged, in CuPy."""

import importlib
import sys

from tinyadv import backend  # isort: skip  (first: it chooses the BLAS kernels before NumPy is loaded)
from tinyadv import analysis, attacks, certify, data, defenses, evaluation, models, nn, ops, training
from tinyadv.spellings import NotATensor, missing
from tinyadv.tensor import Tensor, gradients, no_grad

__all__ = [
    "Tensor", "analysis", "attacks", "backend", "certify", "data", "defenses", "evaluation", "gradients", "models",
    "nn", "no_grad", "ops", "training",
]
__version__ = backend.VERSION
sys.modules["tinyadv.tensor"].__class__ = NotATensor


def __getattr__(name: str) -> object:
    """Import `tinyadv.plots` when it is first used: matplotlib takes longer to import than everything else."""
    if name == "plots":
        return importlib.import_module("tinyadv.plots")
    raise missing(__name__, name)
