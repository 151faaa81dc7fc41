"""Inputs to try an op on: the cases of its definition, filled with values of its domain. The same in every process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from tgc.dtypes import DType, f32, f64
from tgc.ir import dims
from tgc.ir.dims import Dim, Expr
from tgc.ir.graph import Array, Attribute, Attributes
from tgc.ir.opdef import OpDef
from tgc.ir.types import TensorType

DEFAULT_DOMAIN = (-3.0, 3.0)
SYMBOL_SIZE = 3  # what a symbolic dimension of a case stands for


class Input(NamedTuple):
    """One application of an op: concrete operand types, attributes, and arrays of those types."""

    types: tuple[TensorType, ...]
    attributes: Attributes
    arrays: tuple[Array, ...]


def cases(definition: OpDef) -> Iterator[Input]:
    """The cases of ``definition``, symbols bound to :data:`SYMBOL_SIZE`, with random values of its domain.

    >>> from tgc.ops import OPS
    >>> [str(i.types[0]) for i in cases(OPS["floor"])][:3]
    ['f32[]', 'f32[5]', 'f32[2, 3]']
    """
    for index, (types, attributes) in enumerate(definition.cases):
        rng = np.random.default_rng([crc32(definition.name.encode()), index])
        concrete = tuple(t.with_shape(tuple(map(_size, t.shape))) for t in types)
        yield Input(concrete, {k: _concrete(v) for k, v in attributes.items()}, values(definition, concrete, rng))


def values(definition: OpDef, types: Sequence[TensorType], rng: np.random.Generator) -> tuple[Array, ...]:
    """Random operands of ``types`` in the domain of ``definition``; in order where it takes them so."""
    drawn = [
        random(t, rng, definition.domain[i] if i < len(definition.domain) else DEFAULT_DOMAIN)
        for i, t in enumerate(types)
    ]
    if "first_sorted" in definition.extra:
        drawn[0] = np.sort(drawn[0])
    return tuple(drawn)


def random(type_: TensorType, rng: np.random.Generator, domain: tuple[float, float] = DEFAULT_DOMAIN) -> Array:
    """An array of a concrete type with values in ``domain``; bools by a coin."""
    shape = tuple(map(_size, type_.shape))
    if type_.dtype.kind == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if type_.dtype.is_float:
        drawn = rng.uniform(*domain, shape)
        inside = np.clip(drawn.astype(f32.numpy), *domain) if type_.dtype is not f64 else drawn
        return np.asarray(inside.astype(type_.dtype.numpy))
    info = np.iinfo(type_.dtype.numpy.name)
    low, high = max(int(np.ceil(domain[0])), int(info.min)), min(int(domain[1]), int(info.max))
    return rng.integers(low, high, shape, dtype=type_.dtype.numpy.name, endpoint=True)


def edge_values(dtype: DType) -> Array:
    """Values at which implementations go wrong: zeros of both signs, ends of the range, infinities, nan, subnormals."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy.name)
        near = [info.min, info.min + 1, -2, -1, 0, 1, 2, 3, 7, 31, 63, 64, info.max - 1, info.max]
        return np.array(sorted({v for v in near if info.min <= v <= info.max}), dtype.numpy)
    finite = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 10.0, 1e-3, 100.5, 3e4]
    width = {16: np.uint16, 32: np.uint32}.get(dtype.bits, np.uint64)
    infinity = int(np.asarray(np.inf, dtype.numpy).view(width))
    fraction = int(np.asarray(1.0, dtype.numpy).view(width))
    smallest_normal = infinity & -infinity
    bits = [1, smallest_normal - 1, smallest_normal, infinity - 1, infinity, infinity + (smallest_normal >> 1)]
    near_one = np.array([fraction - 1, fraction + 1, *bits], width).view(dtype.numpy)
    positive = np.concatenate([np.array(finite, dtype.numpy), near_one])
    return np.concatenate([positive, -positive])


def _size(d: Dim) -> int:
    return dims.evaluate(d, dict.fromkeys(dims.symbols(d), SYMBOL_SIZE))


def _concrete(value: Attribute) -> Attribute:
    if isinstance(value, Expr):
        return _size(value)
    if isinstance(value, tuple):
        return tuple(map(_concrete, value))
    return value.with_shape(tuple(map(_size, value.shape))) if isinstance(value, TensorType) else value
