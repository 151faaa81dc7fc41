"""Modules and layers, in the manner of PyTorch."""

from tgc.nn import functional
from tgc.nn.containers import ModuleList, Sequential
from tgc.nn.layers import Conv1d, Conv2d, Conv3d, ConvTranspose2d, Dropout, Embedding, Linear
from tgc.nn.module import Buffer, Module, Parameter

__all__ = [
    "Buffer",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "Sequential",
    "functional",
]
