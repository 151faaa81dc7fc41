"""Layers without weights: activations, pooling, flattening."""

from __future__ import annotations

import tgc.nn.functional as functional
from tgc.frontend.tensor import Tensor
from tgc.frontend.windows import Padding, Sizes
from tgc.nn.module import Module


class Identity(Module):
    """Gives what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.relu()


class GELU(Module):
    """x·Φ(x); ``approximate="tanh"`` for the approximation by tanh."""

    def __init__(self, *, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.gelu(approximate=self.approximate)


class SiLU(Module):
    """x·σ(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.silu()


class Sigmoid(Module):
    """1/(1 + e⁻ˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.sigmoid()


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.tanh()


class Softplus(Module):
    """log(1 + eˣ)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.softplus()


class LeakyReLU(Module):
    """x where it is positive, else ``negative_slope``·x."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functional.leaky_relu(x, negative_slope=self.negative_slope)


class ELU(Module):
    """x where it is positive, else ``alpha``·(eˣ − 1)."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return functional.elu(x, alpha=self.alpha)


class Softmax(Module):
    """eˣ divided by its sum along ``axis``."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.softmax(self.axis)


class LogSoftmax(Module):
    """The logarithm of :class:`Softmax`."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x.log_softmax(self.axis)


class Flatten(Module):
    """Axes ``start`` to ``end`` made one.

    >>> import tgc
    >>> Flatten()(tgc.tensor([[[1.0], [2.0]]])).shape
    (1, 2)
    """

    def __init__(self, start: int = 1, end: int = -1) -> None:
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] -> [N, elements], by default."""
        return x.flatten(self.start, self.end)


class MaxPool2d(Module):
    """The maximum of each window; ``stride`` is the window's size if not given."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return x.max_pool2d(self.kernel_size, self.stride, self.padding)


class AvgPool2d(Module):
    """The mean of each window; ``count_include_pad``: whether padding counts as zeros."""

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0, *, count_include_pad: bool = True
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W']."""
        return x.avg_pool2d(self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)
