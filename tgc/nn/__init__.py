"""Modules and layers, in the manner of PyTorch."""

from tgc.nn import functional, utils
from tgc.nn.attention import MultiheadAttention
from tgc.nn.containers import ModuleList, Sequential
from tgc.nn.layers import Conv1d, Conv2d, Conv3d, ConvTranspose2d, Dropout, Embedding, Linear
from tgc.nn.module import Buffer, Module, Parameter
from tgc.nn.norms import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from tgc.nn.recurrent import GRU, LSTM
from tgc.nn.shapes import (
    ELU,
    GELU,
    AvgPool2d,
    Flatten,
    Identity,
    LeakyReLU,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "MultiheadAttention",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "utils",
]
