"""Initial values, as PyTorch's layers have them by default, from tgc's own generator. Nothing is compiled for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tgc.frontend.initial import Initial
from tgc.frontend.random import default_generator


def uniform(shape: Sequence[int], bound: float) -> Initial:
    """f32 in [-bound, bound)."""
    return default_generator().initial_uniform(-bound, bound, tuple(shape))


def by_fan_in(shape: Sequence[int], fan_in: int) -> Initial:
    """Uniform within ±1/√fan_in: He et al. (arXiv 1502.01852) with a = √5, as in PyTorch's layers."""
    return uniform(shape, 1 / math.sqrt(fan_in) if fan_in else 0.0)


def xavier_uniform(shape: Sequence[int]) -> Initial:
    """Uniform within ±√(6 / (fan_in + fan_out)) for a matrix (Glorot & Bengio, 2010)."""
    return uniform(shape, math.sqrt(6 / (shape[0] + shape[1])))


def normal(shape: Sequence[int]) -> Initial:
    """The standard normal distribution."""
    return default_generator().initial_normal(tuple(shape))
