"""Ops that move elements and compute nothing: each result element is one operand element (or padding)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from tgc.dtypes import DTYPES, f32
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, dim_max, product
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Batch, Case, GraphBuilder, Jvp, Meaning, OpDef, TypeRule, Vjp
from tgc.ir.types import TensorType
from tgc.ops import rules

Types = Sequence[TensorType]
Regions = Sequence[Graph]
Arrays = Sequence[Array]
Optionals = Sequence[Value | None]


def movement_error(evaluate: Meaning) -> Callable[[Arrays, Arrays, Attributes, Arrays], tuple[Array, ...]]:
    """Errors move as the elements do."""

    def error(operands: Arrays, errors: Arrays, attributes: Attributes, results: Arrays) -> tuple[Array, ...]:
        return evaluate(errors, attributes, [TensorType(f32, y.shape) for y in results])

    return error


def linear_jvp(b: GraphBuilder, node: Node, tangents: Optionals) -> list[Value | None]:
    """The op applied to the tangents; operands without one count as zero."""
    if all(t is None for t in tangents):
        return [None]
    values = [b.full_like(x, 0.0) if t is None else t for x, t in zip(node.operands, tangents, strict=True)]
    return [b.op(node.op, *values, attributes=node.attributes)]


def unary_vjp(rule: Callable[[GraphBuilder, Node, Value], Value]) -> Vjp:
    def vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
        (t,) = cotangents
        return [None if t is None else rule(b, node, t)]

    return vjp


def _movement(
    name: str,
    doc: str,
    attributes: dict[str, str],
    infer: TypeRule,
    evaluate: Meaning,
    vjp: Vjp,
    batch: Batch,
    cases: Sequence[Case],
    *,
    operands: int | None = 1,
    jvp: Jvp = linear_jvp,
) -> OpDef:
    types, first = cases[0]
    others = [(tuple(TensorType(d, t.shape) for t in types), first) for d in DTYPES.values() if d is not f32]
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.MOVEMENT,
        operands=operands,
        infer=infer,
        attributes={key: AttributeSpec(text) for key, text in attributes.items()},
        evaluate=evaluate,
        vjp=vjp,
        jvp=jvp,
        batch=batch,
        error=movement_error(evaluate),
        cases=(*cases, *others),
        foldable=True,
    )


def _case(*shapes: tuple[int, ...], **attributes: object) -> Case:
    return (tuple(TensorType(f32, s) for s in shapes), attributes)  # type: ignore[return-value]


# -- reshape and transpose ---------------------------------------------------------------------------------------


def _reshape_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    shape = rules.shape(attributes)
    have, want = types[0].size, product(shape)
    if rules.provably_different(have, want):
        raise ShapeError(f"{types[0]} of {have} elements cannot become [{rules.listed(shape)}] of {want}")
    return (TensorType(types[0].dtype, shape),)


def _reshape(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (operands[0].reshape(rules.integers(attributes, "shape")),)


def _reshape_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    return b.reshape(t, node.operands[0].shape)


def _with_size(attributes: Attributes, size: Dim) -> Attributes:
    return {**attributes, "shape": (size, *rules.shape(attributes))}


def _transpose_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    permutation = rules.integers(attributes, "permutation")
    if sorted(permutation) != list(range(types[0].rank)):
        raise ShapeError(f"[{rules.listed(permutation)}] is not a permutation of the dimensions of {types[0]}")
    return (TensorType(types[0].dtype, [types[0].shape[p] for p in permutation]),)


def _transpose(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (operands[0].transpose(rules.integers(attributes, "permutation")),)


def _transpose_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    permutation = rules.integers(node.attributes, "permutation")
    return b.transpose(t, tuple(permutation.index(i) for i in range(len(permutation))))


def _transpose_shift(attributes: Attributes, size: Dim) -> Attributes:
    return {"permutation": (0, *(p + 1 for p in rules.integers(attributes, "permutation")))}


# -- broadcast ---------------------------------------------------------------------------------------------------


def _broadcast_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    (x,), shape, axes = types, rules.shape(attributes), rules.integers(attributes, "axes")
    if len(axes) != x.rank or any(not 0 <= a < len(shape) for a in axes):
        raise ShapeError(f"axes [{rules.listed(axes)}] do not place {x} in [{rules.listed(shape)}]")
    if any(a >= b for a, b in pairwise(axes)):
        raise ShapeError(f"broadcast: axes [{rules.listed(axes)}] must be increasing, each given once")
    for size, axis in zip(x.shape, axes, strict=True):
        if size != 1 and rules.provably_different(size, shape[axis]):
            raise ShapeError(
                f"{x} does not broadcast to [{rules.listed(shape)}]: {size} against {shape[axis]}",
                hint="sizes must be equal, or the operand's 1",
            )
    return (TensorType(x.dtype, shape),)


def _broadcast(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    shape, axes = rules.integers(attributes, "shape"), rules.integers(attributes, "axes")
    aligned = [1] * len(shape)
    for size, axis in zip(operands[0].shape, axes, strict=True):
        aligned[axis] = size
    return (np.broadcast_to(operands[0].reshape(aligned), shape),)


def _broadcast_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    axes, x = rules.integers(node.attributes, "axes"), node.operands[0]
    stretched = {a for a, d in zip(axes, x.shape, strict=True) if d == 1 and t.shape[a] != 1}
    total = b.sum(t, [i for i in range(len(t.shape)) if i not in axes or i in stretched])
    return b.reshape(total, x.shape)


def _broadcast_shift(attributes: Attributes, size: Dim) -> Attributes:
    axes = (0, *(a + 1 for a in rules.integers(attributes, "axes")))
    return {"shape": (size, *rules.shape(attributes)), "axes": axes}


# -- slice, pad and reverse --------------------------------------------------------------------------------------


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


def _reverse_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    rules.checked_axes("reverse", types[0], attributes)
    return (TensorType(types[0].dtype, types[0].shape),)


def _reverse(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (np.flip(operands[0], rules.integers(attributes, "axes")),)


def _reverse_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    return b.op("reverse", t, attributes=node.attributes)


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


OPS_MOVEMENT: tuple[OpDef, ...] = (
    _movement(
        "reshape",
        "The elements, in row-major order, in another shape of the same size.",
        {"shape": "the result's shape"},
        _reshape_type,
        _reshape,
        unary_vjp(_reshape_vjp),
        rules.shifted_batch("reshape", _with_size),
        [_case((2, 3), shape=(3, 2)), _case((4,), shape=(2, 1, 2)), _case((0, 3), shape=(5, 0)), _case((1,), shape=())],
    ),
    _movement(
        "transpose",
        "Result dimension i is operand dimension ``permutation[i]``.",
        {"permutation": "of the dimensions"},
        _transpose_type,
        _transpose,
        unary_vjp(_transpose_vjp),
        rules.shifted_batch("transpose", _transpose_shift),
        [_case((2, 3), permutation=(1, 0)), _case((2, 3, 4), permutation=(2, 0, 1)), _case((0, 1), permutation=(1, 0))],
    ),
    _movement(
        "broadcast",
        "Operand dimension i becomes result dimension ``axes[i]``, a literal 1 stretches; other dimensions are new.",
        {"shape": "the result's shape", "axes": "result dimension of each operand dimension, increasing"},
        _broadcast_type,
        _broadcast,
        unary_vjp(_broadcast_vjp),
        rules.shifted_batch("broadcast", _broadcast_shift),
        [
            _case((3,), shape=(2, 3), axes=(1,)),
            _case((), shape=(2, 3), axes=()),
            _case((1, 3), shape=(4, 3), axes=(0, 1)),
            _case((3, 1), shape=(3, 2, 5), axes=(0, 2)),
            _case((1,), shape=(0,), axes=(0,)),
        ],
    ),
    _movement(
        "slice",
        "Every ``step``-th element from ``start`` up to, not including, ``stop``.",
        {"start": "first index", "stop": "end, exclusive", "step": "distance, at least 1"},
        _slice_type,
        _slice,
        unary_vjp(_slice_vjp),
        rules.shifted_batch("slice", _slice_shift),
        [
            _case((4, 5), start=(1, 0), stop=(3, 5), step=(1, 2)),
            _case((7,), start=(1,), stop=(6,), step=(3,)),
            _case((4,), start=(2,), stop=(2,), step=(2,)),
            _case((0, 1), start=(0, 0), stop=(0, 1), step=(1, 1)),
        ],
    ),
    _movement(
        "pad",
        "x with ``value`` around it and between its elements.",
        {"low": "elements before", "high": "elements after", "interior": "elements between neighbours"},
        _pad_type,
        _pad,
        _pad_vjp,
        _pad_batch,
        [
            _case((2, 3), (), low=(1, 0), high=(0, 2), interior=(0, 1)),
            _case((4,), (), low=(0,), high=(1,), interior=(2,)),
            _case((0,), (), low=(1,), high=(2,), interior=(3,)),
            _case((1,), (), low=(0,), high=(0,), interior=(2,)),
        ],
        operands=2,
    ),
    _movement(
        "concatenate",
        "The operands one after another along ``axis``.",
        {"axis": "dimension along which they are joined"},
        _concatenate_type,
        _concatenate,
        _concatenate_vjp,
        rules.shifted_batch("concatenate", rules.shift_axis),
        [_case((2, 3), (2, 1), (2, 0), axis=1), _case((3,), axis=0), _case((1, 2), (4, 2), axis=0)],
        operands=None,
    ),
    _movement(
        "reverse",
        "The elements in the opposite order along ``axes``.",
        {"axes": "dimensions, increasing"},
        _reverse_type,
        _reverse,
        unary_vjp(_reverse_vjp),
        rules.shifted_batch("reverse", rules.shift_axes),
        [_case((2, 3), axes=(1,)), _case((2, 3), axes=(0, 1)), _case((0, 1), axes=(0,))],
    ),
)
