"""Data sets, and the loop over their batches."""

from .digits import digits
from .fetch import DataUnavailable
from .loader import Dataset, batches
from .mnist import mnist

__all__ = ["DataUnavailable", "Dataset", "batches", "digits", "mnist"]
