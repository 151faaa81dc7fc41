"""Slices whose place is data: starts are clamped so that the slice lies inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import bf16, bool_, f32, i32, i64
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, dim_max, symbol
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.composite import size_of

_START = TensorType(i64, ())


def _check(name: str, x: TensorType, sizes: Sequence[Dim], starts: Sequence[TensorType]) -> None:
    if len(starts) != x.rank or any(start != _START for start in starts):
        raise ShapeError(f"{name} of {x} takes a start of type {_START} for each dimension, not {rules.listed(starts)}")
    if len(sizes) != x.rank or any(map(rules.provably_less, x.shape, sizes)):
        raise ShapeError(f"{name}: a slice of sizes [{rules.listed(sizes)}] does not fit in {x}")


def _slice_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, *starts = types
    sizes = rules.shape(attributes, "sizes")
    _check("dynamic_slice", x, sizes, starts)
    return (TensorType(x.dtype, sizes),)


def _update_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    x, update, *starts = types
    rules.require_same_dtype("dynamic_update_slice", [x, update])
    _check("dynamic_update_slice", x, update.shape, starts)
    return (TensorType(x.dtype, x.shape),)


def _slice_equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    sizes = rules.dims(attributes, "sizes")
    return ((dim_max(size, whole), whole) for size, whole in zip(sizes, types[0].shape, strict=True))


def _update_equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    return ((dim_max(size, whole), whole) for size, whole in zip(types[1].shape, types[0].shape, strict=True))


# -- meaning -----------------------------------------------------------------------------------------------------


def _window(x: Array, sizes: Sequence[int], starts: Sequence[Array]) -> tuple[slice, ...]:
    if any(size > n for size, n in zip(sizes, x.shape, strict=True)):
        raise ShapeError(f"a slice of sizes {tuple(sizes)} does not fit in the shape {x.shape}")
    first = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(a, a + size) for a, size in zip(first, sizes, strict=True))


def _slice(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, *starts = operands
    return (x[_window(x, rules.concrete(types[0]), starts)],)


def _update(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, update, *starts = operands
    result = x.copy()
    result[_window(x, update.shape, starts)] = update
    return (result,)


def _slice_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    if any(np.any(e) for e in errors[1:]):
        return (np.full(results[0].shape, np.inf),)
    return _slice([errors[0], *operands[1:]], attributes, [TensorType(f32, results[0].shape)])


def _update_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    if any(np.any(e) for e in errors[2:]):
        return (np.full(results[0].shape, np.inf),)
    return _update([errors[0], errors[1], *operands[2:]], attributes, [TensorType(f32, results[0].shape)])


# -- gradients ---------------------------------------------------------------------------------------------------


def _slice_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    x, *starts = node.operands
    none = (None,) * len(starts)
    if g[0] is None:
        return (None, *none)
    return (b.op("dynamic_update_slice", b.full_like(x, 0.0), g[0], *starts), *none)


def _slice_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    return (None if t[0] is None else b.op(node.op, t[0], *node.operands[1:], attributes=node.attributes),)


def _update_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    _, update, *starts = node.operands
    none = (None,) * len(starts)
    if g[0] is None:
        return (None, None, *none)
    outside = b.op("dynamic_update_slice", g[0], b.full_like(update, 0.0), *starts)
    return (outside, b.op("dynamic_slice", g[0], *starts, attributes={"sizes": update.shape}), *none)


def _update_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    if t[0] is None and t[1] is None:
        return (None,)
    x, update = (b.full_like(v, 0.0) if d is None else d for v, d in zip(node.operands[:2], t[:2], strict=True))
    return (b.op(node.op, x, update, *node.operands[2:]),)


# -- batching ----------------------------------------------------------------------------------------------------


def _clamped(b: GraphBuilder, start: Value, x: Value, axis: int, size: Value) -> Value:
    """The starts [B] along ``axis`` of x[B, …] for a slice of ``size``, as [B, 1, …]."""
    last = b.broadcast_to(b.sub(size_of(b, x.shape, (axis,), i64), size), start.shape)
    inside = b.op("clamp", start, b.full_like(start, 0), last)
    return b.reshape(inside, (start.shape[0], *[1] * (len(x.shape) - 1)))


def _iota(b: GraphBuilder, shape: Sequence[Dim], axis: int) -> Value:
    return b.op("iota", attributes={"shape": tuple(shape), "axis": axis, "dtype": i64})


def _slice_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    """With starts per sample, each dimension in turn is taken at start + 0, 1, 2, …"""
    sizes = rules.dims(attributes, "sizes")
    x = operands[0]
    if not any(batched[1:]):
        starts = [b.constant(0, i64), *operands[1:]]
        return (b.op("dynamic_slice", x, *starts, attributes={"sizes": (size, *sizes)}),)
    x = rules.with_batch(b, x, batched[0], size)
    for axis, (start, has, length) in enumerate(zip(operands[1:], batched[1:], sizes, strict=True), start=1):
        first = _clamped(b, rules.with_batch(b, start, has, size), x, axis, size_of(b, (length,), (0,), i64))
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        x = b.op("take_along_axis", x, b.add(_iota(b, shape, axis), first), attributes={"axis": axis})
    return (x,)


def _update_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    """With starts per sample, the update is stretched over x, and chosen where the position less the start is in it."""
    x, update = (rules.with_batch(b, v, has, size) for v, has in zip(operands[:2], batched[:2], strict=True))
    if not any(batched[2:]):
        return (b.op("dynamic_update_slice", x, update, b.constant(0, i64), *operands[2:]),)
    inside = b.full(True, x.shape, bool_)
    for axis, (start, has) in enumerate(zip(operands[2:], batched[2:], strict=True), start=1):
        length = size_of(b, update.shape, (axis,), i64)
        first = _clamped(b, rules.with_batch(b, start, has, size), x, axis, length)
        place = b.sub(_iota(b, x.shape, axis), first)
        after = b.op("ge", place, b.full_like(place, 0))
        before = b.op("lt", place, b.broadcast_to(length, place.shape))
        inside = b.op("bitwise_and", inside, b.op("bitwise_and", after, before))
        shape = (*update.shape[:axis], x.shape[axis], *update.shape[axis + 1 :])
        where = b.sub(_iota(b, shape, axis), first)
        update = b.op("take_along_axis", update, where, attributes={"axis": axis})
    return (b.select(inside, update, x),)


_N = symbol("n")

OPS_INDEX_DYNAMIC: tuple[OpDef, ...] = (
    OpDef(
        name="dynamic_slice",
        doc="""(x, start of each dimension) -> the slice of x of ``sizes`` that begins there.

        Starts are i64[] and clamped so that the slice lies inside.""",
        kind=OpKind.INDEX,
        operands=None,
        infer=_slice_type,
        attributes={"sizes": AttributeSpec("shape of the slice")},
        evaluate=_slice,
        vjp=_slice_vjp,
        jvp=_slice_jvp,
        batch=_slice_batch,
        error=_slice_error,
        equalities=_slice_equalities,
        domain=((-4.0, 4.0), (-2, 7), (-2, 7)),
        cases=(
            ((TensorType(f32, (5, 3)), _START, _START), {"sizes": (2, 3)}),
            ((TensorType(i32, (4,)), _START), {"sizes": (1,)}),
            ((TensorType(bf16, (_N + 3,)), _START), {"sizes": (3,)}),
        ),
        foldable=True,
    ),
    OpDef(
        name="dynamic_update_slice",
        doc="""(x, update, start of each dimension) -> x with ``update`` in the place that begins there.

        Starts are i64[] and clamped so that the update lies inside.""",
        kind=OpKind.INDEX,
        operands=None,
        infer=_update_type,
        evaluate=_update,
        vjp=_update_vjp,
        jvp=_update_jvp,
        batch=_update_batch,
        error=_update_error,
        equalities=_update_equalities,
        domain=((-4.0, 4.0), (-4.0, 4.0), (-2, 7), (-2, 7)),
        cases=(
            ((TensorType(f32, (5, 3)), TensorType(f32, (2, 3)), _START, _START), {}),
            ((TensorType(i32, (4,)), TensorType(i32, (1,)), _START), {}),
            ((TensorType(bf16, (_N + 3,)), TensorType(bf16, (3,)), _START), {}),
        ),
        foldable=True,
    ),
)
