"""Sorting and searching. Sorts are stable, and NaN comes last in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import tgc.ops.rules as rules
from tgc.dtypes import bf16, f32, f64, i32, i64, u8
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, GraphBuilder, OpDef
from tgc.ir.types import TensorType


def _sort_type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    rules.require_kinds("sort", types, rules.NUMERIC)
    rules.checked_axis("sort", types[0], attributes)
    rules.flag(attributes, "descending")
    return (TensorType(types[0].dtype, types[0].shape),)


def _argsort_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    (sorted_type,) = _sort_type(types, attributes, regions)
    return (TensorType(i64, sorted_type.shape),)


def _searchsorted_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    rules.require_kinds("searchsorted", types, rules.NUMERIC)
    rules.require_same_dtype("searchsorted", types)
    rules.require_rank("searchsorted", types[0], 1)
    rules.text(attributes, "side", ("left", "right"))
    return (TensorType(i64, types[1].shape),)


# -- meaning -----------------------------------------------------------------------------------------------------


def _order(x: Array, attributes: Attributes) -> NDArray[np.int64]:
    """The stable order along ``axis``. Descending: the order of −1 − rank, where equal elements have equal ranks."""
    axis = rules.integer(attributes, "axis")
    if not rules.flag(attributes, "descending"):
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64)
    backwards = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    order = x.shape[axis] - 1 - backwards
    # NaN, sorted last, are first now: they move back to the end, in their order
    late = np.isnan(np.take_along_axis(rules.as_floats(x), order, axis))
    return np.take_along_axis(order, np.argsort(late, axis=axis, kind="stable"), axis).astype(np.int64)


def _argsort(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (_order(operands[0], attributes),)


def _sort(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    (x,) = operands
    return (np.take_along_axis(x, _order(x, attributes), rules.integer(attributes, "axis")),)


def _searchsorted(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    entries, values = operands
    right = rules.text(attributes, "side") == "right"
    found = np.searchsorted(entries, values, side="right" if right else "left")
    return (np.asarray(found, np.int64),)


# -- errors ------------------------------------------------------------------------------------------------------


def _sort_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    """Order statistics move by no more than the largest change of an element."""
    axis = rules.integer(attributes, "axis")
    worst = np.max(errors[0], axis=axis, keepdims=True, initial=0.0)
    return (np.broadcast_to(worst, results[0].shape),)


def _order_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> Sequence[Array]:
    uncertain = any(np.any(e) for e in errors)
    return (np.full(results[0].shape, np.inf if uncertain else 0.0),)


# -- gradients ---------------------------------------------------------------------------------------------------


def _sort_vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """Cotangents go back to where their elements came from."""
    if g[0] is None:
        return (None,)
    (x,) = node.operands
    order = b.op("argsort", x, attributes=node.attributes)
    attributes: Attributes = {"axis": rules.integer(node.attributes, "axis"), "mode": "add"}
    return (b.op("scatter_along_axis", b.full_like(x, 0.0), order, g[0], attributes=attributes),)


def _sort_jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    """Tangents are sorted as their elements are."""
    if t[0] is None:
        return (None,)
    order = b.op("argsort", node.operands[0], attributes=node.attributes)
    return (b.op("take_along_axis", t[0], order, attributes={"axis": rules.integer(node.attributes, "axis")}),)


def _searchsorted_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    """With entries per sample: how many of them are less than (or equal to) each value, counted."""
    entries, values = operands
    if not batched[0]:
        return (b.op("searchsorted", entries, values, attributes=attributes),)
    values = rules.with_batch(b, values, batched[1], size)
    shape = (*values.shape, entries.shape[1])
    every = b.broadcast(entries, shape, [0, len(shape) - 1])
    each = b.broadcast(values, shape, range(len(shape) - 1))
    left = rules.text(attributes, "side") == "left"
    before = b.op("lt", every, each) if left else b.op("le", every, each)
    # NaN comes after everything, itself included only for "right"
    nan = b.op("ne", each, each)
    real = b.op("eq", every, every)
    before = b.select(nan, real if left else b.op("bitwise_or", real, nan), before)
    return (b.sum(b.cast(before, i64), [len(shape) - 1]),)


# -- table -------------------------------------------------------------------------------------------------------

_ATTRIBUTES: Mapping[str, AttributeSpec] = {
    "axis": AttributeSpec("the dimension that is sorted"),
    "descending": AttributeSpec("whether the largest comes first", required=False, default=False),
}
_N = symbol("n")


def _cases() -> tuple[Case, ...]:
    types = (
        (TensorType(f32, (3, 7)), 1),
        (TensorType(f64, (5, 2)), 0),
        (TensorType(bf16, (9,)), 0),
        (TensorType(i32, (2, 4, 3)), 1),
        (TensorType(u8, (6,)), 0),
        (TensorType(f32, (_N, 2)), 0),
    )
    return tuple(((t,), {"axis": axis, "descending": down}) for t, axis in types for down in (False, True))


OPS_SORT: tuple[OpDef, ...] = (
    OpDef(
        name="sort",
        doc="""x sorted along ``axis``, stably; NaN last, also when ``descending``.""",
        kind=OpKind.SORT,
        operands=1,
        infer=_sort_type,
        attributes=_ATTRIBUTES,
        evaluate=_sort,
        vjp=_sort_vjp,
        jvp=_sort_jvp,
        batch=rules.shifted_batch("sort", rules.shift_axis),
        error=_sort_error,
        cases=_cases(),
        foldable=True,
    ),
    OpDef(
        name="argsort",
        doc="""The indices (i64) that sort x along ``axis``: take_along_axis(x, argsort(x)) is sort(x).

        Equal elements keep their order, also when ``descending``; NaN comes last.""",
        kind=OpKind.SORT,
        operands=1,
        infer=_argsort_type,
        attributes=_ATTRIBUTES,
        evaluate=_argsort,
        batch=rules.shifted_batch("argsort", rules.shift_axis),
        error=_order_error,
        cases=_cases(),
        differentiable=False,
        foldable=True,
    ),
    OpDef(
        name="searchsorted",
        doc="""(entries[n] in increasing order, values) -> where to insert each value so that the order is kept (i64).

        ``side`` "left": before equal entries; "right": after them. NaN is taken as the largest number.""",
        kind=OpKind.SORT,
        operands=2,
        infer=_searchsorted_type,
        attributes={"side": AttributeSpec('"left" or "right"', required=False, default="left")},
        evaluate=_searchsorted,
        batch=_searchsorted_batch,
        error=_order_error,
        cases=tuple(
            ((TensorType(d, (n,)), TensorType(d, shape)), {"side": side})
            for d, n, shape in ((f32, 7, (2, 3)), (i32, 5, ()), (bf16, 1, (4,)), (f64, 0, (2,)))
            for side in ("left", "right")
        ),
        differentiable=False,
        foldable=True,
        extra={"first_sorted": True},
    ),
)
