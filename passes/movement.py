"""Normal forms of movement: what merges, what disappears, and what moves below what. Exact, all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, Expr
from tgc.ir.graph import Node, Value

NodeRule: TypeAlias = Callable[[Builder, Node], "Value | None"]


def integers(node: Node, name: str) -> tuple[int, ...]:
    """The attribute ``name``, a list of integers."""
    value = node.attributes[name]
    return tuple(v for v in value if isinstance(v, int)) if isinstance(value, tuple) else ()


def dims(node: Node, name: str) -> tuple[Dim, ...]:
    """The attribute ``name``, a list of dimensions."""
    value = node.attributes[name]
    return tuple(v for v in value if isinstance(v, (int, Expr))) if isinstance(value, tuple) else ()


def _transpose(b: Builder, node: Node) -> Value | None:
    permutation, x = integers(node, "permutation"), node.operands[0]
    if permutation == tuple(range(len(permutation))):
        return x
    inner = x.node
    if inner.op == "transpose":
        below = integers(inner, "permutation")
        return b.transpose(inner.operands[0], [below[p] for p in permutation])
    if inner.op == "broadcast":
        axes = integers(inner, "axes")
        places = [permutation.index(a) for a in axes]
        order = sorted(range(len(axes)), key=places.__getitem__)
        return b.broadcast(b.transpose(inner.operands[0], order), node.types[0].shape, sorted(places))
    large = [p for p in permutation if x.shape[p] != 1]
    return b.reshape(x, node.types[0].shape) if large == sorted(large) else None


def _reshape(b: Builder, node: Node) -> Value | None:
    x, shape = node.operands[0], node.types[0].shape
    if x.shape == shape:
        return x
    if not x.shape:
        return b.broadcast(x, shape, ())
    if x.node.op == "reshape":
        return b.reshape(x.node.operands[0], shape)
    if x.node.op == "broadcast" and not x.node.operands[0].shape:
        return b.broadcast(x.node.operands[0], shape, ())
    return None


def _broadcast(b: Builder, node: Node) -> Value | None:
    x, shape, axes = node.operands[0], node.types[0].shape, integers(node, "axes")
    if x.shape == shape and len(axes) == len(shape):
        return x
    inner = x.node
    if inner.op == "broadcast":
        return b.broadcast(inner.operands[0], shape, [axes[a] for a in integers(inner, "axes")])
    if inner.op == "reshape":
        places = _among_ones(inner.operands[0].shape, x.shape)
        if places is not None:
            return b.broadcast(inner.operands[0], shape, [axes[p] for p in places])
    added = all(shape[i] == 1 for i in range(len(shape)) if i not in axes)
    kept = all(shape[a] == size for a, size in zip(axes, x.shape, strict=True))
    return b.reshape(x, shape) if added and kept and x.shape else None


def _among_ones(small: Sequence[Dim], large: Sequence[Dim]) -> list[int] | None:
    """Where the sizes ``small`` stand in ``large``, if all others there are 1."""
    places: list[int] = []
    for i, size in enumerate(large):
        if len(places) < len(small) and small[len(places)] == size:
            places.append(i)
        elif size != 1:
            return None
    return places if len(places) == len(small) else None


def _slice(b: Builder, node: Node) -> Value | None:
    x, start, stop, step = node.operands[0], dims(node, "start"), dims(node, "stop"), integers(node, "step")
    if all(low == 0 for low in start) and stop == x.shape and all(by == 1 for by in step):
        return x
    inner = x.node
    if inner.op == "slice":
        return _slice_of_slice(b, node, inner)
    if inner.op == "concatenate":
        return _slice_of_part(b, node, inner)
    if inner.op == "broadcast":
        repeated = _repeated(inner)
        whole = [
            low == 0 and high == d and by == 1 for low, high, d, by in zip(start, stop, x.shape, step, strict=True)
        ]
        if all(w or i in repeated for i, w in enumerate(whole)):
            return b.broadcast(inner.operands[0], node.types[0].shape, integers(inner, "axes"))
    return None


def _slice_of_slice(b: Builder, node: Node, inner: Node) -> Value | None:
    start: list[Dim] = []
    stop: list[Dim] = []
    by = integers(inner, "step")
    for origin, s, low, high in zip(dims(inner, "start"), by, dims(node, "start"), dims(node, "stop"), strict=True):
        if s == 1:
            start.append(origin + low)
            stop.append(origin + high)
        elif high == low:
            # s * low need not be in bounds
            start.append(origin)
            stop.append(origin)
        elif _at_least(high - low):
            # the end of the last element, which is in bounds where s * high need not be
            start.append(origin + s * low)
            stop.append(origin + s * (high - 1) + 1)
        else:
            return None
    step = tuple(s * t for s, t in zip(by, integers(node, "step"), strict=True))
    attributes = {"start": tuple(start), "stop": tuple(stop), "step": step}
    return b.op("slice", inner.operands[0], attributes=attributes)


def _repeated(broadcast: Node) -> set[int]:
    """Result dimensions along which all elements are equal."""
    x, axes = broadcast.operands[0], integers(broadcast, "axes")
    return set(range(broadcast.types[0].rank)) - {a for a, d in zip(axes, x.shape, strict=True) if d != 1}


def _slice_of_part(b: Builder, node: Node, joined: Node) -> Value | None:
    """A slice that lies within one operand of a concatenation."""
    axis = joined.attributes["axis"]
    start, stop = dims(node, "start"), dims(node, "stop")
    if not isinstance(axis, int):
        return None
    low, high = start[axis], stop[axis]
    position: Dim = 0
    for part in joined.operands:
        end = position + part.shape[axis]
        if _at_least(low - position) and _at_least(end - high):
            moved = {
                "start": (*start[:axis], low - position, *start[axis + 1 :]),
                "stop": (*stop[:axis], high - position, *stop[axis + 1 :]),
                "step": integers(node, "step"),
            }
            return b.op("slice", part, attributes=moved)
        position = end
    return None


def _at_least(difference: Dim) -> bool:
    return isinstance(difference, int) and difference >= 0


def _pad(b: Builder, node: Node) -> Value | None:
    x, value = node.operands
    low, high, interior = dims(node, "low"), dims(node, "high"), integers(node, "interior")
    if all(amount == 0 for amount in (*low, *high)) and all(
        gap == 0 or size == 1 for gap, size in zip(interior, x.shape, strict=True)
    ):
        return x
    inner = x.node
    if inner.op == "pad" and inner.operands[1] == value and not any(interior):
        return b.op(
            "pad",
            *inner.operands,
            attributes={
                "low": tuple(a + c for a, c in zip(low, dims(inner, "low"), strict=True)),
                "high": tuple(a + c for a, c in zip(high, dims(inner, "high"), strict=True)),
                "interior": integers(inner, "interior"),
            },
        )
    return None


def _concatenate(b: Builder, node: Node) -> Value | None:
    axis = node.attributes["axis"]
    if len(node.operands) == 1 or not isinstance(axis, int):
        return node.operands[0] if len(node.operands) == 1 else None
    parts: list[Value] = []
    for x in node.operands:
        nested = x.node.op == "concatenate" and x.node.attributes["axis"] == axis
        parts.extend(x.node.operands if nested else (x,))
    parts = [x for x in parts if x.shape[axis] != 0] or parts[:1]
    merged = [parts[0]]
    for x in parts[1:]:
        joined = _adjacent(b, merged[-1], x, axis)
        if joined is None:
            merged.append(x)
        else:
            merged[-1] = joined
    if tuple(merged) == node.operands:
        return None
    return b.op("concatenate", *merged, attributes={"axis": axis})


def _adjacent(b: Builder, left: Value, right: Value, axis: int) -> Value | None:
    """The slice that two neighbouring slices of the same value make together along ``axis``."""
    first, second = left.node, right.node
    if not first.op == second.op == "slice" or first.operands != second.operands:
        return None
    low, high = dims(first, "start"), dims(second, "stop")
    step = integers(first, "step")
    rest = [i for i in range(len(low)) if i != axis]
    if step[axis] != 1 or step != integers(second, "step") or dims(first, "stop")[axis] != dims(second, "start")[axis]:
        return None
    if any(low[i] != dims(second, "start")[i] or high[i] != dims(first, "stop")[i] for i in rest):
        return None
    return b.op("slice", first.operands[0], attributes={"start": low, "stop": high, "step": step})


def _reverse(b: Builder, node: Node) -> Value | None:
    x = node.operands[0]
    axes = set(integers(node, "axes"))
    effective = {a for a in axes if x.shape[a] != 1}
    if x.node.op == "reverse":
        x, effective = x.node.operands[0], effective ^ set(integers(x.node, "axes"))
    if x is node.operands[0] and effective == axes and axes:
        return None
    return b.op("reverse", x, attributes={"axes": tuple(sorted(effective))}) if effective else x


def _contract(b: Builder, node: Node) -> Value | None:
    """Transposes and repetitions of operands become part of the specification."""
    spec = str(node.attributes["spec"])
    letters, result = spec.split("->")
    terms = letters.split(",")
    operands = list(node.operands)
    for i, x in enumerate(node.operands):
        inner, term, other = x.node, terms[i], terms[1 - i]
        if inner.op == "transpose":
            permutation = integers(inner, "permutation")
            terms[i] = "".join(term[permutation.index(p)] for p in range(len(term)))
            operands[i] = inner.operands[0]
        elif inner.op == "broadcast":
            # a dimension that only repeats needs no elements where the other operand has the index too
            repeated = _repeated(inner)
            needless = {a for a in repeated if term[a] in other}
            axes = integers(inner, "axes")
            if needless and needless == repeated:
                source = inner.operands[0]
                kept = [j for j, a in enumerate(axes) if a not in needless]
                operands[i] = b.reshape(source, [source.shape[j] for j in kept])
                terms[i] = "".join(term[axes[j]] for j in kept)
    changed = f"{','.join(terms)}->{result}"
    return None if changed == spec else b.contract(operands[0], operands[1], changed)


MOVEMENT_RULES: Mapping[str, NodeRule] = MappingProxyType(
    {
        "transpose": _transpose,
        "reshape": _reshape,
        "broadcast": _broadcast,
        "slice": _slice,
        "pad": _pad,
        "concatenate": _concatenate,
        "reverse": _reverse,
        "contract": _contract,
    }
)
