"""Layers with weights of their own: linear, convolution, embedding. Names and shapes are PyTorch's."""

from __future__ import annotations

import math

import tgc.nn.functional as functional
import tgc.nn.initialise as initialise
from tgc.errors import UserError
from tgc.frontend.random import Generator
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.frontend.windows import Padding, Sizes, per_dimension
from tgc.nn.module import Module, Parameter


class Linear(Module):
    """x·weightᵀ + bias: weight [outputs, inputs].

    >>> import tgc
    >>> tgc.nn.Linear(3, 5)(tgc.tensor([[1.0, 2.0, 3.0]])).shape
    (1, 5)
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(initialise.by_fan_in((out_features, in_features), in_features))
        self.bias = Parameter(initialise.by_fan_in((out_features,), in_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[*, inputs] -> [*, outputs]."""
        return functional.linear(x, self.weight, self.bias)


class _Convolution(Module):
    """What convolutions of any rank share. The weight is [outputs, inputs / groups, *kernel]."""

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise UserError(f"{in_channels} and {out_channels} channels in {groups} groups", location=here())
        self.kernel_size = per_dimension(kernel_size, self.rank, "kernel_size")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        fan_in = in_channels // groups * math.prod(self.kernel_size)
        self.weight = Parameter(initialise.by_fan_in((out_channels, in_channels // groups, *self.kernel_size), fan_in))
        self.bias = Parameter(initialise.by_fan_in((out_channels,), fan_in)) if bias else None


class Conv1d(_Convolution):
    """Cross-correlation of [N, C, L]."""

    rank = 1

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, L] -> [N, outputs, L']."""
        return functional.conv1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv2d(_Convolution):
    """Cross-correlation of [N, C, H, W].

    >>> import tgc
    >>> layer = tgc.nn.Conv2d(1, 4, 3, padding=1)
    >>> layer.weight.shape, layer(tgc.tensor([[[[1.0, 2.0]]]])).shape
    ((4, 1, 3, 3), (1, 4, 1, 2))
    """

    rank = 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H', W']."""
        return functional.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv3d(_Convolution):
    """Cross-correlation of [N, C, D, H, W]."""

    rank = 3

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, D, H, W] -> [N, outputs, D', H', W']."""
        return functional.conv3d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2d(Module):
    """The transposed convolution; weight [inputs, outputs / groups, KH, KW]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise UserError(f"{in_channels} and {out_channels} channels in {groups} groups", location=here())
        kernel = per_dimension(kernel_size, 2, "kernel_size")
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups = dilation, groups
        # PyTorch takes the fan-in of the weight as it lies
        fan_in = out_channels // groups * math.prod(kernel)
        self.weight = Parameter(initialise.by_fan_in((in_channels, out_channels // groups, *kernel), fan_in))
        self.bias = Parameter(initialise.by_fan_in((out_channels,), fan_in)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H', W']."""
        return functional.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class Embedding(Module):
    """A table of vectors: weight [count, size], initially of the standard normal distribution."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = Parameter(initialise.normal((num_embeddings, embedding_dim)))

    def forward(self, indices: Tensor) -> Tensor:
        """[*] integers -> [*, size]."""
        return functional.embedding(indices, self.weight)


class Dropout(Module):
    """In training, each element 0 with probability ``p``, else divided by 1 − p."""

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        if not 0.0 <= p <= 1.0:
            raise UserError(f"dropout with probability {p}", location=here())
        self.p = p
        self._generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functional.dropout(x, self.p, training=self.training, generator=self._generator)
