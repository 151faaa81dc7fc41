"""Reads that depend on conditions or on data: pad, concatenate, gather, dynamic slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from tgc.dtypes import i64
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim, bounds
from tgc.ir.graph import Node
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.indices import Index
from tgc.kernels.ir import Value
from tgc.ops import rules


class Guard(NamedTuple):
    """When a read may happen: one condition for all lanes, and one for each lane. None is always."""

    scalar: Value | None = None
    vector: Value | None = None


class Reader(Protocol):
    """What these rules need of :class:`tgc.kernels.access.Point`."""

    @property
    def builder(self) -> KernelBuilder: ...
    def value(self, v: graph.Value, at: Coordinates, guard: Guard = ...) -> Value: ...
    def number(self, index: Index) -> Value: ...
    def opaque(self, value: Value) -> Index: ...
    def limits(self, index: Index) -> tuple[int, int] | None: ...
    def divide(self, index: Index, by: Dim) -> tuple[Index, Index]: ...


def both(b: KernelBuilder, guard: Guard, condition: Value | None) -> Guard:
    """A guard and one more condition."""
    if condition is None:
        return guard
    if condition.lanes == 1:
        return Guard(condition if guard.scalar is None else b.bit_and(guard.scalar, condition), guard.vector)
    return Guard(guard.scalar, condition if guard.vector is None else b.bit_and(guard.vector, condition))


def chosen(b: KernelBuilder, condition: Value, a: Value, other: Value) -> Value:
    """``select`` of values of which some are the same in every lane."""
    lanes = max(condition.lanes, a.lanes, other.lanes)
    return b.select(condition, b.splat(a, lanes), b.splat(other, lanes))


def _conjunction(b: KernelBuilder, conditions: Sequence[Value]) -> Guard:
    guard = Guard()
    for condition in conditions:
        guard = both(b, guard, condition)
    return guard


def _inside(p: Reader, index: Index, size: Dim, *, below: bool, above: bool) -> list[Value] | None:
    """Conditions for ``0 <= index < size``, as far as they are open at the two ends; None if it never holds."""
    b, limits = p.builder, p.limits(index)
    if limits is not None:
        low, high = limits
        below = below and low < 0
        if isinstance(size, int):
            above = above and high >= size
            if low >= size:
                return None
        if high < 0:
            return None
    if not below and not above:
        return []
    number = p.number(index)
    found = [b.compare("ge", number, 0)] if below else []
    if above:
        found.append(b.compare("lt", number, b.index(size)))
    return found


def _select(p: Reader, guard: Guard, a: Value, other: Value) -> Value:
    """``a`` where both conditions of ``guard`` hold."""
    for condition in guard:
        if condition is not None:
            a = chosen(p.builder, condition, a, other)
    return a


def _pad(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    x, fill = node.operands
    low, high = rules.dims(node.attributes, "low"), rules.dims(node.attributes, "high")
    interior = rules.integers(node.attributes, "interior")
    read: list[Index] = []
    conditions: list[Value] = []
    for index, size, before, after, gap in zip(at, x.shape, low, high, interior, strict=True):
        position = index.shifted(0 - before)
        found: list[Value] | None
        if gap:
            # what lies before the first element must not round towards it
            found = _inside(p, position, size, below=before != 0, above=False)
            position, rest = p.divide(position, gap + 1)
            conditions.append(p.builder.compare("eq", p.number(rest), 0))
            more = _inside(p, position, size, below=False, above=True)
            found = None if found is None or more is None else found + more
        else:
            found = _inside(p, position, size, below=before != 0, above=after != 0)
        if found is None:
            return p.value(fill, (), guard)
        conditions += found
        read.append(position)
    inside = _conjunction(p.builder, conditions)
    both_hold = guard
    for condition in inside:
        both_hold = both(p.builder, both_hold, condition)
    return _select(p, inside, p.value(x, tuple(read), both_hold), p.value(fill, (), guard))


def _concatenate(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    b, axis = p.builder, rules.integer(node.attributes, "axis")
    limits = p.limits(at[axis])
    start: Dim = 0
    pieces: list[tuple[graph.Value, Dim, Dim]] = []
    for x in node.operands:
        end = start + x.shape[axis]
        outside = limits is not None and (
            isinstance(end, int) and end <= limits[0] or isinstance(start, int) and start > limits[1]
        )
        if x.shape[axis] != 0 and not outside:
            pieces.append((x, start, end))
        start = end
    if not pieces:
        return b.constant(0, node.types[0].dtype)
    place = p.number(at[axis]) if len(pieces) > 1 else None
    result: Value | None = None
    for k, (x, start, end) in enumerate(pieces):
        after = None if place is None or result is None else b.compare("ge", place, b.index(start))
        inside = both(b, guard, after)
        if place is not None and k < len(pieces) - 1:
            inside = both(b, inside, b.compare("lt", place, b.index(end)))
        read = p.value(x, (*at[:axis], at[axis].shifted(0 - start), *at[axis + 1 :]), inside)
        result = read if result is None or after is None else chosen(b, after, read, result)
    if result is None:
        raise CompilerBug("a concatenation of nothing", stage="schedule")
    return result


def _clamped(p: Reader, index: Value, most: Dim) -> Value:
    """An integer as an i64 between 0 and ``most``."""
    b = p.builder
    wide = b.convert(index, i64)
    if index.dtype.kind == "uint" and index.dtype.bits == 64:
        wide = b.select(b.compare("lt", wide, 0), b.splat(b.index(most), wide.lanes), wide)
    return b.maximum(b.minimum(wide, b.index(most)), 0)


def _nonempty(p: Reader, size: Dim, guard: Guard) -> Guard:
    """There is nothing to read in an empty dimension, whatever the index."""
    if (bounds(size, {})[0] or 0) >= 1:
        return guard
    return both(p.builder, guard, p.builder.compare("gt", p.builder.index(size), 0))


def gathered(p: Reader, node: Node, at: Coordinates, guard: Guard) -> tuple[Coordinates, Guard]:
    """Where a gather reads its operand, and when."""
    x, indices = node.operands
    axis, rank = rules.integer(node.attributes, "axis"), len(indices.shape)
    found = p.value(indices, at[axis : axis + rank], guard)
    place = p.opaque(_clamped(p, found, x.shape[axis] - 1))
    return (*at[:axis], place, *at[axis + rank :]), _nonempty(p, x.shape[axis], guard)


def _gather(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    return p.value(node.operands[0], *gathered(p, node, at, guard))


def _take_along_axis(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    x, indices = node.operands
    axis = rules.integer(node.attributes, "axis")
    found = p.value(indices, at, guard)
    place = p.opaque(_clamped(p, found, x.shape[axis] - 1))
    return p.value(x, (*at[:axis], place, *at[axis + 1 :]), _nonempty(p, x.shape[axis], guard))


def hoist_place(p: Reader, node: Node, at: Coordinates) -> Coordinates | None:
    """Computes here where an op will read its first operand in the loops that follow, which negative numbers stand for.

    None if that differs from round to round, or depends on more than indices. Stores might change the indices, for all
    that LLVM knows: left in the loop, they were read for each vector, and rows of a table took twice as long.
    """
    if node.op == "gather":
        axis, rank = rules.integer(node.attributes, "axis"), len(node.operands[1].shape)
        if not any(number < 0 for index in at[axis : axis + rank] for number, _ in index.terms):
            return gathered(p, node, at, Guard())[0]
    elif node.op == "dynamic_slice":
        _starts(p, node, 1, rules.dims(node.attributes, "sizes"))
    elif node.op == "dynamic_update_slice":
        _starts(p, node, 2, node.operands[1].shape)
    return None


def _starts(p: Reader, node: Node, first: int, sizes: Sequence[Dim]) -> list[Index]:
    x = node.operands[0]
    return [
        p.opaque(_clamped(p, p.value(start, ()), whole - size))
        for start, whole, size in zip(node.operands[first:], x.shape, sizes, strict=True)
    ]


def _dynamic_slice(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    starts = _starts(p, node, 1, rules.dims(node.attributes, "sizes"))
    read = tuple([i.plus(s) for i, s in zip(at, starts, strict=True)])
    return p.value(node.operands[0], read, guard)


def _dynamic_update_slice(p: Reader, node: Node, at: Coordinates, guard: Guard) -> Value:
    x, update = node.operands[:2]
    read, conditions = [], []
    for index, start, size, whole in zip(at, _starts(p, node, 2, update.shape), update.shape, x.shape, strict=True):
        if size == whole:
            read.append(index)
            continue
        position = index.plus(start.scaled(-1))
        found = _inside(p, position, size, below=True, above=True)
        if found is None:
            return p.value(x, at, guard)
        conditions += found
        read.append(position)
    inside = _conjunction(p.builder, conditions)
    both_hold = guard
    for condition in inside:
        both_hold = both(p.builder, both_hold, condition)
    return _select(p, inside, p.value(update, tuple(read), both_hold), p.value(x, at, guard))


CONDITIONAL: Final[Mapping[str, Callable[[Reader, Node, Coordinates, Guard], Value]]] = MappingProxyType(
    {
        "pad": _pad,
        "concatenate": _concatenate,
        "gather": _gather,
        "take_along_axis": _take_along_axis,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
    }
)
