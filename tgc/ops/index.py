"""Gather: elements are taken at indices that are data.

Indices that lie outside are clamped. Negative indices are wrapped by the front end, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, bool_, f32, f64, i8, i32, i64, u64
from tgc.errors import DTypeError, ShapeError
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, ErrorBound, GraphBuilder, Meaning, OpDef, TypeRule
from tgc.ir.types import TensorType
from tgc.ops.composite import size_of

Indices = NDArray[np.int64]
_N = symbol("n")


# -- type rules --------------------------------------------------------------------------------------------------


def require_indices(name: str, types: Sequence[TensorType]) -> None:
    """:class:`DTypeError` unless the operands hold integers that fit in i64."""
    rules.require_kinds(name, types, rules.INTEGER)
    if any(t.dtype is u64 for t in types):
        raise DTypeError(f"{name} takes no indices of u64", hint="convert them to i64")


def gathered(name: str, types: Sequence[TensorType], attributes: Attributes) -> TensorType:
    """The type of a gather of ``types`` (operand, indices)."""
    x, indices = types
    require_indices(name, [indices])
    axis = rules.checked_axis(name, x, attributes)
    return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def taken(name: str, types: Sequence[TensorType], attributes: Attributes) -> TensorType:
    """The type of a take_along_axis of ``types`` (operand, indices)."""
    x, indices = types
    require_indices(name, [indices])
    axis = rules.checked_axis(name, x, attributes)
    rules.require_rank(name, indices, x.rank)
    shapes = [TensorType(i64, (*t.shape[:axis], *t.shape[axis + 1 :])) for t in types]
    others = rules.common_shape(f"{name} of {x} and {indices}, beyond axis {axis},", shapes)
    return TensorType(x.dtype, (*others[:axis], indices.shape[axis], *others[axis:]))


def others(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    """The sizes of operand and indices that must be equal where elements are taken along an axis."""
    axis = rules.integer(attributes, "axis")
    pairs = zip(types[0].shape, types[1].shape, strict=True)
    return (pair for i, pair in enumerate(pairs) if i != axis)


# -- meaning -----------------------------------------------------------------------------------------------------


def positions(indices: Array, size: int) -> tuple[Indices, NDArray[np.bool_]]:
    """The indices clamped to 0..size-1, and which of them lay inside."""
    wide = indices.astype(np.int64)
    return np.clip(wide, 0, max(size - 1, 0)), (wide >= 0) & (wide < size)


def _check_not_empty(x: Array, axis: int, indices: Array) -> None:
    if indices.size and not x.shape[axis]:
        raise ShapeError(f"an element is taken from dimension {axis}, which is empty")


def _gather(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, indices = operands
    axis = rules.integer(attributes, "axis")
    _check_not_empty(x, axis, indices)
    return (np.take(x, positions(indices, x.shape[axis])[0], axis),)


def _take_along(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, indices = operands
    axis = rules.integer(attributes, "axis")
    _check_not_empty(x, axis, indices)
    return (np.take_along_axis(x, positions(indices, x.shape[axis])[0], axis),)


# -- errors ------------------------------------------------------------------------------------------------------


def _take_error(meaning: Meaning) -> ErrorBound:
    """Errors move with the elements; an uncertain index leaves nothing certain."""

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> Sequence[Array]:
        types = [TensorType(f64, results[0].shape)]
        if np.any(errors[1]):
            return (np.full(results[0].shape, np.inf),)
        return meaning([errors[0], operands[1]], attributes, types)

    return error


# -- gradients ---------------------------------------------------------------------------------------------------


def clamped(b: GraphBuilder, indices: Value, size: Value) -> Value:
    """The indices in i64, clamped to 0..size-1."""
    wide = b.cast(indices, i64)
    last = b.broadcast_to(b.sub(size, b.constant(1, i64)), wide.shape)
    return b.op("clamp", wide, b.full_like(wide, 0), last)


def _size(b: GraphBuilder, x: Value, attributes: Attributes) -> Value:
    return size_of(b, x.shape, (rules.integer(attributes, "axis"),), i64)


def take_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """Cotangents are added up where their elements came from."""
    if g[0] is None:
        return (None, None)
    x, indices = node.operands
    where = clamped(b, indices, _size(b, x, node.attributes))
    attributes = {**node.attributes, "mode": "add"}
    return (b.op(_SCATTER_OF[node.op], b.full_like(x, 0.0), where, g[0], attributes=attributes), None)


def take_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    """The same elements of the tangent."""
    return (None if t[0] is None else b.op(node.op, t[0], node.operands[1], attributes=node.attributes),)


_SCATTER_OF: Mapping[str, str] = {"gather": "scatter", "take_along_axis": "scatter_along_axis"}


# -- batching ----------------------------------------------------------------------------------------------------


def fold(b: GraphBuilder, x: Value, axis: int) -> Value:
    """[B, *pre, n, *post] -> [B·n, *pre, *post]: samples follow each other along the axis that is indexed."""
    order = [0, axis + 1, *range(1, axis + 1), *range(axis + 2, len(x.shape))]
    moved = b.transpose(x, order)
    return b.reshape(moved, (moved.shape[0] * moved.shape[1], *moved.shape[2:]))


def unfold(b: GraphBuilder, x: Value, axis: int, size: Dim) -> Value:
    """The inverse of :func:`fold`."""
    parted = b.reshape(x, (size, x.shape[0] // size, *x.shape[1:]))
    return b.transpose(parted, [0, *range(2, axis + 2), 1, *range(axis + 2, len(parted.shape))])


def offsets(b: GraphBuilder, indices: Value, size: Value) -> Value:
    """For each of the indices [B, …] where its sample begins along a folded axis."""
    sample = b.op("iota", attributes={"shape": indices.shape, "axis": 0, "dtype": i64})
    return b.mul(sample, size)


def _gather_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    x, indices = operands
    axis = rules.integer(attributes, "axis")
    if not batched[1]:
        return (b.op("gather", x, indices, attributes={"axis": axis + 1}),)
    rank = len(indices.shape) - 1
    if not batched[0]:
        result = b.op("gather", x, indices, attributes=attributes)
        return (b.transpose(result, [axis, *range(axis), *range(axis + 1, len(result.shape))]),)
    count = size_of(b, x.shape, (axis + 1,), i64)
    where = b.add(clamped(b, indices, count), offsets(b, indices, count))
    result = b.op("gather", fold(b, x, axis), where, attributes={"axis": 0})
    order = [0, *range(rank + 1, rank + 1 + axis), *range(1, rank + 1), *range(rank + 1 + axis, len(result.shape))]
    return (b.transpose(result, order),)


# -- table -------------------------------------------------------------------------------------------------------


def _rule(name: str, part: Callable[[str, Sequence[TensorType], Attributes], TensorType]) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        return (part(name, types, attributes),)

    return infer


def _case(dtype: DType, shape: tuple[Dim, ...], index: DType, indices: tuple[Dim, ...], axis: int) -> Case:
    return ((TensorType(dtype, shape), TensorType(index, indices)), {"axis": axis})


_AXIS = AttributeSpec("the dimension that is indexed")

OPS_INDEX: tuple[OpDef, ...] = (
    OpDef(
        name="gather",
        doc="""(x, indices) -> x taken at ``indices`` along ``axis``: shape x[:axis] + indices + x[axis+1:].

        As NumPy's ``take``, with indices clamped to the dimension.""",
        kind=OpKind.INDEX,
        operands=2,
        infer=_rule("gather", gathered),
        attributes={"axis": _AXIS},
        evaluate=_gather,
        vjp=take_vjp,
        jvp=take_jvp,
        batch=_gather_batch,
        error=_take_error(_gather),
        domain=((-4.0, 4.0), (-2, 7)),
        cases=(
            _case(f32, (5, 3), i64, (4,), 0),
            _case(f32, (2, 6, 3), i32, (2, 2), 1),
            _case(bf16, (7,), i8, (), 0),
            _case(i32, (4,), i64, (3,), 0),
            _case(f32, (_N + 1, 3), i64, (_N,), 0),
            _case(bool_, (2, 3), i64, (2,), 1),
        ),
        foldable=True,
    ),
    OpDef(
        name="take_along_axis",
        doc="""(x, indices) -> y[…, j, …] = x[…, indices[…, j, …], …] along ``axis``, as in the Array API standard.

        The indices have x's rank, and its sizes but for ``axis``; they are clamped to the dimension.""",
        kind=OpKind.INDEX,
        operands=2,
        infer=_rule("take_along_axis", taken),
        attributes={"axis": _AXIS},
        evaluate=_take_along,
        vjp=take_vjp,
        jvp=take_jvp,
        batch=rules.shifted_batch("take_along_axis", rules.shift_axis),
        error=_take_error(_take_along),
        equalities=others,
        domain=((-4.0, 4.0), (-2, 7)),
        cases=(
            _case(f32, (5, 3), i64, (2, 3), 0),
            _case(f64, (2, 4, 3), i32, (2, 6, 3), 1),
            _case(bf16, (7,), i64, (3,), 0),
            _case(i32, (2, 4), i64, (2, 1), 1),
        ),
        foldable=True,
    ),
)
