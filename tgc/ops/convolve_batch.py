"""Batching of convolutions: more samples, or more groups of channels."""

from __future__ import annotations

from collections.abc import Sequence

import tgc.ops.rules as rules
from tgc.errors import UnsupportedError
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes, Value
from tgc.ir.opdef import Batch, GraphBuilder


def _merge(b: GraphBuilder, x: Value, axis: int) -> Value:
    """``x`` with its leading dimension moved before ``axis`` (as counted without it) and merged with that."""
    order = [*range(1, axis + 1), 0, *range(axis + 1, len(x.shape))]
    moved = b.transpose(x, order)
    sizes = moved.shape
    return b.reshape(moved, (*sizes[:axis], sizes[axis] * sizes[axis + 1], *sizes[axis + 2 :]))


def _split(b: GraphBuilder, x: Value, axis: int, size: Dim) -> Value:
    """The inverse of :func:`_merge`."""
    sizes = x.shape
    parted = b.reshape(x, (*sizes[:axis], size, sizes[axis] // size, *sizes[axis + 1 :]))
    return b.transpose(parted, [axis, *range(axis), *range(axis + 1, len(sizes) + 1)])


def _scaled(attributes: Attributes, axis: int, size: Dim) -> Attributes:
    """The attributes with the given shape, if there is one, multiplied along ``axis``."""
    changed = dict(attributes)
    for name in ("input_shape", "filter_shape"):
        if name in changed:
            sizes = rules.dims(attributes, name)
            changed[name] = (*sizes[:axis], sizes[axis] * size, *sizes[axis + 1 :])
    return changed


def convolution_batch(name: str) -> Batch:
    """Without a batch of filters the batch becomes more samples; else it becomes groups of channels."""
    gives_filter = name == "convolution_filter_gradient"
    second_axis = 1 if gives_filter else 0

    def batch(
        b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
    ) -> Sequence[Value]:
        if not gives_filter and not batched[1]:
            samples = _merge(b, operands[0], 0)
            result = b.op(name, samples, operands[1], attributes=_scaled(attributes, 0, size))
            return (_split(b, result, 0, size),)
        groups = rules.integer(attributes, "groups") * size
        if not isinstance(groups, int):
            raise UnsupportedError(
                f"{name} with a filter per sample, batched by the symbolic size {size}",
                hint="give the batch a known size, or map over the input alone",
            )
        first, second = (rules.with_batch(b, v, has, size) for v, has in zip(operands, batched, strict=True))
        scaled = {**_scaled(attributes, 0 if gives_filter else 1, size), "groups": groups}
        result = b.op(name, _merge(b, first, 1), _merge(b, second, second_axis), attributes=scaled)
        return (_split(b, result, 0 if gives_filter else 1, size),)

    return batch
