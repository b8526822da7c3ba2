"""Data sets, batches and augmentation."""

from tinyadv.spellings import missing

from . import augment
from .cifar10 import cifar10
from .digits import digits
from .fetch import DataUnavailable
from .loader import Dataset, batches
from .mnist import mnist

__all__ = ["DataUnavailable", "Dataset", "augment", "batches", "cifar10", "digits", "mnist"]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
