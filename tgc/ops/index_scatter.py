"""Scatter: elements are put at indices that are data.

Indices that lie outside are dropped. Where several updates meet, they are combined in the order of their positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, bool_, f32, f64, from_numpy, i32, i64
from tgc.errors import DTypeError
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Batch, Case, Equalities, ErrorBound, GraphBuilder, Meaning, OpDef, float_info
from tgc.ir.types import TensorType
from tgc.ops.composite import size_of
from tgc.ops.index import fold, gathered, offsets, others, positions, taken, unfold

MODES = ("set", "add", "max", "min")


# -- type rules --------------------------------------------------------------------------------------------------


_Part = Callable[[str, Sequence[TensorType], Attributes], TensorType]


def _check(name: str, part: _Part, types: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, indices, updates = types
    mode = rules.text(attributes, "mode", MODES)
    if x.dtype is not updates.dtype or (x.dtype is bool_ and mode != "set"):
        raise DTypeError(f"{name} with mode {mode!r} of {updates} into {x}")
    rules.common_shape(f"{name} into {x} at {indices}", [updates, part(name, (x, indices), attributes)])
    return TensorType(x.dtype, x.shape)


def _equalities(part: _Part) -> Equalities:
    def equalities(types: Sequence[TensorType], attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
        x, indices, updates = types
        if part is taken:
            yield from others([x, indices], attributes)
        yield from zip(updates.shape, part("scatter", [x, indices], attributes).shape, strict=True)

    return equalities


# -- meaning -----------------------------------------------------------------------------------------------------


def _combine(target: Array, where: Any, updates: Array, mode: str) -> None:
    """``target[where] op= updates``, in order of position."""
    if mode == "set":
        target[where] = updates
    else:
        ufunc = {"add": np.add, "max": np.maximum, "min": np.minimum}[mode]
        ufunc.at(target, where, updates)


def _scatter(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, indices, updates = operands
    axis, rank = rules.integer(attributes, "axis"), indices.ndim
    result = x.copy()
    front = np.moveaxis(result, axis, 0)
    moved = np.moveaxis(updates, range(axis, axis + rank), range(rank))
    where, inside = positions(indices.reshape(-1), x.shape[axis])
    rows = moved.reshape(indices.size, *moved.shape[rank:])
    _combine(front, where[inside], rows[inside], rules.text(attributes, "mode"))
    return (result,)


def _scatter_along(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    x, indices, updates = operands
    axis = rules.integer(attributes, "axis")
    where, inside = positions(indices, x.shape[axis])
    grid: list[Array] = [np.asarray(g) for g in np.indices(indices.shape)]
    grid[axis] = where
    result = x.copy()
    _combine(result, tuple(g[inside] for g in grid), updates[inside], rules.text(attributes, "mode"))
    return (result,)


# -- errors ------------------------------------------------------------------------------------------------------


def _put_error(meaning: Meaning) -> ErrorBound:
    """Sums: one rounding, in the dtype itself, for each update; else errors move, the largest of those that meet."""

    def error(
        operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
    ) -> Sequence[Array]:
        types = [TensorType(f64, results[0].shape)]
        x, indices, updates = operands
        if np.any(errors[1]):
            return (np.full(results[0].shape, np.inf),)
        if rules.text(attributes, "mode") != "add":
            kept = attributes if rules.text(attributes, "mode") == "set" else {**attributes, "mode": "max"}
            return meaning([errors[0], indices, errors[2]], kept, types)
        (incoming,) = meaning([errors[0], indices, errors[2]], attributes, types)
        dtype = from_numpy(results[0].dtype)
        if not dtype.is_float:
            return (incoming,)
        sizes = [np.abs(rules.as_floats(v)) + e for v, e in ((x, errors[0]), (updates, errors[2]))]
        (total,) = meaning([sizes[0], indices, sizes[1]], attributes, types)
        (count,) = meaning([np.zeros(x.shape), indices, np.ones(updates.shape)], attributes, types)
        roundings = (count + 1) * float_info(dtype)[0]
        relative = np.where(roundings < 1, roundings / np.where(roundings < 1, 1 - roundings, 1), np.inf)
        return (incoming + np.where(total > 0, relative * total, 0.0),)

    return error


# -- gradients ---------------------------------------------------------------------------------------------------

_TAKE_OF: Mapping[str, str] = {"scatter": "gather", "scatter_along_axis": "take_along_axis"}


class _Scatter:
    """A scatter node and the maps that its derivatives are made of."""

    def __init__(self, b: GraphBuilder, node: Node) -> None:
        self.b = b
        self.node = node
        self.x, indices, self.updates = node.operands
        self.axis = rules.integer(node.attributes, "axis")
        self.mode = rules.text(node.attributes, "mode", MODES)
        self.indices = b.cast(indices, i64)

    def put(self, x: Value, updates: Value, mode: str) -> Value:
        """A scatter to the same places."""
        attributes: Attributes = {"axis": self.axis, "mode": mode}
        return self.b.op(self.node.op, x, self.indices, updates, attributes=attributes)

    def take(self, x: Value) -> Value:
        """What ``x`` has at these places; anything where the update was dropped."""
        return self.b.op(_TAKE_OF[self.node.op], x, self.indices, attributes={"axis": self.axis})

    def where(self, condition: Value, x: Value) -> Value:
        """``x``, 0 where the condition does not hold."""
        return self.b.select(condition, x, self.b.full_like(x, 0.0))

    def kept(self) -> Value:
        """Which updates were not dropped, and with mode "set" are the last at their place."""
        b = self.b
        if self.mode != "set":
            first = b.op("ge", self.indices, b.full_like(self.indices, 0))
            size = b.broadcast_to(size_of(b, self.x.shape, (self.axis,), i64), self.indices.shape)
            inside = b.op("bitwise_and", first, b.op("lt", self.indices, size))
            return self._over_updates(inside)
        shape = self.updates.shape
        count: Dim = 1
        for size_along in shape:
            count = count * size_along
        order = b.op("iota", attributes={"shape": (count,), "axis": 0, "dtype": i64})
        order = b.reshape(order, shape)
        winners = self.put(b.full(-1, self.x.shape, i64), order, "set")
        return b.op("eq", self.take(winners), order)

    def _over_updates(self, of_indices: Value) -> Value:
        """A value for each index, repeated over the elements of its update."""
        if self.node.op == "scatter_along_axis":
            return of_indices
        axes = range(self.axis, self.axis + len(of_indices.shape))
        return self.b.broadcast(of_indices, self.updates.shape, list(axes))

    def shares(self) -> tuple[Value, Value]:
        """With mode "max" and "min": what part of the result each element of x and of the updates has; ties share."""
        b, y = self.b, self.node.result
        one, none = b.full_like(self.x, 1.0), b.full_like(self.x, 0.0)
        from_x = b.select(b.op("eq", self.x, y), one, none)
        wins = b.op("bitwise_and", b.op("eq", self.updates, self.take(y)), self.kept())
        from_updates = self.where(wins, b.full_like(self.updates, 1.0))
        count = self.put(from_x, from_updates, "add")
        count = b.op("maximum", count, one)
        return b.div(from_x, count), b.div(from_updates, self.take(count))


def _vjp(b: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    if g[0] is None:
        return (None, None, None)
    scatter = _Scatter(b, node)
    if scatter.mode in ("max", "min"):
        of_x, of_updates = scatter.shares()
        return b.mul(g[0], of_x), None, b.mul(scatter.take(g[0]), of_updates)
    updates = scatter.where(scatter.kept(), scatter.take(g[0]))
    if scatter.mode == "add":
        return g[0], None, updates
    return scatter.put(g[0], b.full_like(scatter.updates, 0.0), "set"), None, updates


def _jvp(b: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    if t[0] is None and t[2] is None:
        return (None,)
    scatter = _Scatter(b, node)
    x = b.full_like(scatter.x, 0.0) if t[0] is None else t[0]
    updates = b.full_like(scatter.updates, 0.0) if t[2] is None else t[2]
    if scatter.mode in ("max", "min"):
        of_x, of_updates = scatter.shares()
        return (scatter.put(b.mul(x, of_x), b.mul(updates, of_updates), "add"),)
    return (scatter.put(x, updates, scatter.mode),)


# -- batching ----------------------------------------------------------------------------------------------------


def _scatter_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    x, indices, updates = operands
    axis = rules.integer(attributes, "axis")
    x, updates = (rules.with_batch(b, v, has, size) for v, has in ((x, batched[0]), (updates, batched[2])))
    if not batched[1]:
        return (b.op("scatter", x, indices, updates, attributes={**attributes, "axis": axis + 1}),)
    rank = len(indices.shape) - 1
    count = size_of(b, x.shape, (axis + 1,), i64)
    wide = b.cast(indices, i64)
    inside = b.op(
        "bitwise_and", b.op("ge", wide, b.full_like(wide, 0)), b.op("lt", wide, b.broadcast_to(count, wide.shape))
    )
    where = b.select(inside, b.add(wide, offsets(b, wide, count)), b.full_like(wide, -1))
    order = [0, *range(axis + 1, axis + 1 + rank), *range(1, axis + 1), *range(axis + 1 + rank, len(updates.shape))]
    attributes = {**attributes, "axis": 0}
    result = b.op("scatter", fold(b, x, axis), where, b.transpose(updates, order), attributes=attributes)
    return (unfold(b, result, axis, size),)


# -- table -------------------------------------------------------------------------------------------------------


def _op(name: str, doc: str, part: _Part, meaning: Meaning, batch: Batch, cases: Sequence[Case]) -> OpDef:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        return (_check(name, part, types, attributes),)

    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.INDEX,
        operands=3,
        infer=infer,
        attributes={
            "axis": AttributeSpec("the dimension that is indexed"),
            "mode": AttributeSpec(
                'how updates are combined: "set", "add", "max" or "min"', required=False, default="set"
            ),
        },
        evaluate=meaning,
        vjp=_vjp,
        jvp=_jvp,
        batch=batch,
        error=_put_error(meaning),
        equalities=_equalities(part),
        domain=((-4.0, 4.0), (-2, 7), (-4.0, 4.0)),
        cases=tuple(cases),
    )


def _cases(
    dtype: DType,
    shape: tuple[Dim, ...],
    index: DType,
    indices: tuple[Dim, ...],
    updates: tuple[Dim, ...],
    axis: int,
    modes: Sequence[str] = MODES,
) -> list[Case]:
    types = (TensorType(dtype, shape), TensorType(index, indices), TensorType(dtype, updates))
    return [(types, {"axis": axis, "mode": mode}) for mode in modes]


_N = symbol("n")

OPS_INDEX_SCATTER: tuple[OpDef, ...] = (
    _op(
        "scatter",
        """(x, indices, updates) -> x with ``updates`` put at ``indices`` along ``axis``: the inverse of gather.

        updates has the shape x[:axis] + indices + x[axis+1:]. Indices outside are dropped. Updates that meet are
        combined in increasing order of position: with "set" the last wins, with "add" each sum is rounded.""",
        gathered,
        _scatter,
        _scatter_batch,
        (
            *_cases(f32, (5, 3), i64, (4,), (4, 3), 0),
            *_cases(f64, (2, 6, 3), i32, (2, 2), (2, 2, 2, 3), 1),
            *_cases(bf16, (7,), i64, (9,), (9,), 0),
            *_cases(i32, (4,), i64, (6,), (6,), 0),
            *_cases(f32, (_N + 1, 2), i64, (_N,), (_N, 2), 0),
            *_cases(bool_, (4,), i64, (2,), (2,), 0, ("set",)),
        ),
    ),
    _op(
        "scatter_along_axis",
        """(x, indices, updates) -> x with x[…, indices[…, j, …], …] op= updates[…, j, …].

        The inverse of take_along_axis: indices and updates have one shape, x's but for ``axis``. Otherwise as
        scatter.""",
        taken,
        _scatter_along,
        rules.shifted_batch("scatter_along_axis", rules.shift_axis),
        (
            *_cases(f32, (5, 3), i64, (4, 3), (4, 3), 0),
            *_cases(bf16, (2, 4), i32, (2, 6), (2, 6), 1),
            *_cases(i32, (3, 4), i64, (3, 2), (3, 2), 1),
        ),
    ),
)
