"""Movement with borders: slice, pad and concatenate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, dim_max
from tgc.ir.graph import Array, Attributes, Node, Value
from tgc.ir.opdef import GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.movement import Arrays, Optionals, Regions, Types, case, movement, unary_vjp

# -- slice and pad --------------------------------------------------------------------------------------


def _slice_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    (x,) = types
    start, stop, step = (
        rules.dims(attributes, "start"),
        rules.dims(attributes, "stop"),
        rules.integers(attributes, "step"),
    )
    if not len(start) == len(stop) == len(step) == x.rank:
        raise ShapeError(f"slice takes start, stop and step for each dimension of {x}")
    for size, low, high, by in zip(x.shape, start, stop, step, strict=True):
        if by < 1 or rules.provably_less(low, 0) or rules.provably_less(high, low) or rules.provably_less(size, high):
            raise ShapeError(
                f"slice {low}:{high}:{by} does not lie in the {size} elements of a dimension of {x}",
                hint="0 <= start <= stop <= size, and a step of at least 1",
            )
    sizes = [(high - low + (by - 1)) // by for low, high, by in zip(start, stop, step, strict=True)]
    return (TensorType(x.dtype, sizes),)


def _slice_equalities(types: Types, attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    """0 <= start <= stop <= size."""
    for size, low, high in zip(
        types[0].shape, rules.dims(attributes, "start"), rules.dims(attributes, "stop"), strict=True
    ):
        yield from ((dim_max(0, low), low), (dim_max(low, high), high), (dim_max(high, size), size))


def _slice(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    bounds = (rules.integers(attributes, name) for name in ("start", "stop", "step"))
    return (operands[0][tuple(slice(*b) for b in zip(*bounds, strict=True))],)


def _slice_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    start, step = rules.dims(node.attributes, "start"), rules.integers(node.attributes, "step")
    sizes = [spaced(n, by - 1) for n, by in zip(t.shape, step, strict=True)]
    high = [d - low - n for d, low, n in zip(node.operands[0].shape, start, sizes, strict=True)]
    attributes = {"low": start, "high": tuple(high), "interior": tuple(by - 1 for by in step)}
    return b.op("pad", t, b.constant(0.0, t.dtype), attributes=attributes)


def _slice_shift(attributes: Attributes, size: Dim) -> Attributes:
    return {
        "start": (0, *rules.dims(attributes, "start")),
        "stop": (size, *rules.dims(attributes, "stop")),
        "step": (1, *rules.integers(attributes, "step")),
    }


def spaced(size: Dim, interior: int) -> Dim:
    """The extent of ``size`` elements with ``interior`` more between neighbours."""
    return size + interior * dim_max(size - 1, 0) if interior else size


def _pad_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    x, value = types
    rules.require_same_dtype("pad", types)
    if value.rank:
        raise ShapeError(f"pad takes a value of rank 0, not {value}")
    low, high, interior = (
        rules.dims(attributes, "low"),
        rules.dims(attributes, "high"),
        rules.integers(attributes, "interior"),
    )
    if not len(low) == len(high) == len(interior) == x.rank:
        raise ShapeError(f"pad takes low, high and interior for each dimension of {x}")
    if any(rules.provably_less(amount, 0) for amount in (*low, *high, *interior)):
        raise ShapeError(f"pad by a negative amount: low [{rules.listed(low)}], high [{rules.listed(high)}]")
    sizes = [a + spaced(d, gap) + b for d, a, b, gap in zip(x.shape, low, high, interior, strict=True)]
    return (TensorType(x.dtype, sizes),)


def _pad(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    x, value = operands
    low, interior = rules.integers(attributes, "low"), rules.integers(attributes, "interior")
    result = np.full(rules.concrete(types[0]), value, dtype=x.dtype)
    inside = tuple(slice(a, a + d * (gap + 1), gap + 1) for a, d, gap in zip(low, x.shape, interior, strict=True))
    result[inside] = x
    return (result,)


def _pad_vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
    (t,) = cotangents
    if t is None:
        return [None, None]
    x = node.operands[0]
    low, interior = rules.dims(node.attributes, "low"), rules.integers(node.attributes, "interior")
    stop = tuple(a + spaced(d, gap) for d, a, gap in zip(x.shape, low, interior, strict=True))
    window = {"start": low, "stop": stop, "step": tuple(gap + 1 for gap in interior)}
    ones = b.op("pad", b.full_like(x, 0.0), b.constant(1.0, x.dtype), attributes=node.attributes)
    return [b.op("slice", t, attributes=window), b.sum(b.mul(t, ones), range(len(t.shape)))]


def _pad_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> tuple[Value, ...]:
    x, value = rules.with_batch(b, operands[0], batched[0], size), operands[1]
    wider = {
        "low": (0, *rules.dims(attributes, "low")),
        "high": (0, *rules.dims(attributes, "high")),
        "interior": (0, *rules.integers(attributes, "interior")),
    }
    if not batched[1]:
        return (b.op("pad", x, value, attributes=wider),)
    zero = b.constant(0, x.dtype)
    padded = b.op("pad", x, zero, attributes=wider)
    unit = b.op("ne", b.full_like(x, 0), b.full_like(x, 0))
    border = b.op("pad", unit, b.op("eq", zero, zero), attributes=wider)
    return (b.select(border, b.broadcast(value, padded.shape, (0,)), padded),)


# -- concatenate -------------------------------------------------------------------------------------------------


def _concatenate_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    if not types:
        raise ShapeError("concatenate takes at least one operand")
    dtype = rules.require_same_dtype("concatenate", types)
    axis = rules.checked_axis("concatenate", types[0], attributes)
    for type_ in types:
        rules.require_rank("concatenate", type_, types[0].rank)
    # sizes along the axis may differ: what is left must not
    rest = rules.common_shape("concatenate", [t.with_shape((*t.shape[:axis], 0, *t.shape[axis + 1 :])) for t in types])
    total: Dim = 0
    for type_ in types:
        total = total + type_.shape[axis]
    return (TensorType(dtype, (*rest[:axis], total, *rest[axis + 1 :])),)


def _concatenate_equalities(types: Types, attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    axis = rules.integer(attributes, "axis")
    for type_ in types[1:]:
        pairs = zip(types[0].shape, type_.shape, strict=True)
        yield from (pair for i, pair in enumerate(pairs) if i != axis)


def _concatenate(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (np.concatenate(list(operands), axis=rules.integer(attributes, "axis")),)


def _concatenate_vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
    (t,) = cotangents
    if t is None:
        return [None] * len(node.operands)
    axis = rules.integer(node.attributes, "axis")
    result: list[Value | None] = []
    position: Dim = 0
    for x in node.operands:
        start: tuple[Dim, ...] = tuple(position if i == axis else 0 for i in range(len(t.shape)))
        position = position + x.shape[axis]
        stop = tuple(position if i == axis else d for i, d in enumerate(t.shape))
        result.append(b.op("slice", t, attributes={"start": start, "stop": stop, "step": (1,) * len(t.shape)}))
    return result


OPS_MOVEMENT_BORDER: tuple[OpDef, ...] = (
    movement(
        "slice",
        "Every ``step``-th element from ``start`` up to, not including, ``stop``.",
        {"start": "first index", "stop": "end, exclusive", "step": "distance, at least 1"},
        _slice_type,
        _slice,
        unary_vjp(_slice_vjp),
        rules.shifted_batch("slice", _slice_shift),
        [
            case({"start": (1, 0), "stop": (3, 5), "step": (1, 2)}, (4, 5)),
            case({"start": (1,), "stop": (6,), "step": (3,)}, (7,)),
            case({"start": (2,), "stop": (2,), "step": (2,)}, (4,)),
            case({"start": (0, 0), "stop": (0, 1), "step": (1, 1)}, (0, 1)),
        ],
        equalities=_slice_equalities,
    ),
    movement(
        "pad",
        "x with ``value`` around it and between its elements.",
        {"low": "elements before", "high": "elements after", "interior": "elements between neighbours"},
        _pad_type,
        _pad,
        _pad_vjp,
        _pad_batch,
        [
            case({"low": (1, 0), "high": (0, 2), "interior": (0, 1)}, (2, 3), ()),
            case({"low": (0,), "high": (1,), "interior": (2,)}, (4,), ()),
            case({"low": (1,), "high": (2,), "interior": (3,)}, (0,), ()),
            case({"low": (0,), "high": (0,), "interior": (2,)}, (1,), ()),
        ],
        operands=2,
    ),
    movement(
        "concatenate",
        "The operands one after another along ``axis``.",
        {"axis": "dimension along which they are joined"},
        _concatenate_type,
        _concatenate,
        _concatenate_vjp,
        rules.shifted_batch("concatenate", rules.shift_axis),
        [case({"axis": 1}, (2, 3), (2, 1), (2, 0)), case({"axis": 0}, (3,)), case({"axis": 0}, (1, 2), (4, 2))],
        operands=None,
        equalities=_concatenate_equalities,
    ),
)
