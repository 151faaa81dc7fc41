"""Layers that normalise. Names and shapes are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tgc.nn.functional as functional
from tgc.errors import UserError
from tgc.frontend.base import assign_soon
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here
from tgc.nn.module import Buffer, Module, Parameter


def _ones(shape: Sequence[int]) -> Parameter:
    return Parameter(np.ones(tuple(shape), np.float32))


def _zeros(shape: Sequence[int]) -> Parameter:
    return Parameter(np.zeros(tuple(shape), np.float32))


class LayerNorm(Module):
    """Normalisation over the last dimensions, given by ``normalized_shape``.

    >>> import tgc
    >>> LayerNorm(2)(tgc.tensor([[1.0, 3.0]])).numpy().round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = _ones(shape) if elementwise_affine else None
        self.bias = _zeros(shape) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, eps=self.eps)


class RMSNorm(Module):
    """Division by the root mean square over the last dimensions; ``eps`` is f32's epsilon by default."""

    def __init__(
        self, normalized_shape: int | Sequence[int], *, eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = shape
        self.eps = float(np.finfo(np.float32).eps) if eps is None else eps
        self.weight = _ones(shape) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functional.rms_norm(x, self.normalized_shape, self.weight, eps=self.eps)


class GroupNorm(Module):
    """Normalisation of each sample's groups of channels."""

    def __init__(self, num_groups: int, num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise UserError(f"{num_channels} channels in {num_groups} groups", location=here())
        self.num_groups, self.eps = num_groups, eps
        self.weight = _ones((num_channels,)) if affine else None
        self.bias = _zeros((num_channels,)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, …] -> the same shape."""
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, eps=self.eps)


class _BatchNorm(Module):
    """Normalisation of each channel: by the batch in training, by running statistics in inference mode."""

    rank: int

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        self.eps, self.momentum = eps, momentum
        self.weight = _ones((num_features,)) if affine else None
        self.bias = _zeros((num_features,)) if affine else None
        tracked = track_running_stats
        self.running_mean = Buffer(np.zeros(num_features, np.float32)) if tracked else None
        self.running_var = Buffer(np.ones(num_features, np.float32)) if tracked else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int64)) if tracked else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, …] -> the same shape."""
        if self.rank and x.ndim != self.rank:
            raise UserError(f"{type(self).__name__} takes a tensor of rank {self.rank}, not {x.type}", location=here())
        if self.training and self.num_batches_tracked is not None:
            assign_soon([(self.num_batches_tracked, self.num_batches_tracked + 1)])
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Normalisation of each channel of [N, C] or [N, C, L]."""

    rank = 0


class BatchNorm2d(_BatchNorm):
    """Normalisation of each channel of [N, C, H, W]."""

    rank = 4
