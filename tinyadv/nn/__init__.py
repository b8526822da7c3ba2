"""Layers, models' base class, initialisers, optimisers and saved state."""

from tinyadv.nn import init, optim
from tinyadv.nn.archive import StateError
from tinyadv.nn.latent import Latent
from tinyadv.nn.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from tinyadv.nn.module import Module
from tinyadv.nn.noise import Dropout, GaussianNoise, Random
from tinyadv.nn.normalization import BatchNorm1d, BatchNorm2d, Normalize, Standardize
from tinyadv.nn.pytorch import load_pytorch
from tinyadv.nn.safetensors import save_safetensors
from tinyadv.nn.state import load, save
from tinyadv.nn.transformer import GELU, Attention, LayerNorm
from tinyadv.spellings import missing

__all__ = [
    "GELU", "AdaptiveAvgPool2d", "Attention", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Dropout",
    "Flatten", "GaussianNoise", "GlobalAvgPool2d", "Latent", "LayerNorm", "LeakyReLU", "Linear", "MaxPool2d", "Module",
    "Normalize", "Random", "ReLU", "Sequential", "Sigmoid", "Standardize", "StateError", "Tanh", "init", "load",
    "load_pytorch", "optim", "save", "save_safetensors",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
