"""Ops that move elements and compute nothing: each result element is one operand element (or padding)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import DTYPES, DType, f32
from tgc.errors import ShapeError
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Array, Attribute, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Batch, Case, Equalities, GraphBuilder, Jvp, Meaning, OpDef, TypeRule, Vjp
from tgc.ir.types import Layout, TensorType

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
    """The vjp of an op of one operand, from ``rule(builder, node, cotangent)``."""

    def vjp(b: GraphBuilder, node: Node, cotangents: Optionals) -> list[Value | None]:
        (t,) = cotangents
        return [None if t is None else rule(b, node, t)]

    return vjp


def movement(
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
    equalities: Equalities | None = None,
) -> OpDef:
    """An op that moves elements: ``attributes`` by name and meaning; it takes every dtype."""
    types, first = cases[0]
    others = [
        (tuple(t.with_dtype(d) for t in types), {name: _in_dtype(value, d) for name, value in first.items()})
        for d in DTYPES.values()
        if d is not f32
    ]
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
        equalities=equalities,
        cases=(*cases, *others),
        foldable=True,
    )


def _in_dtype(value: Attribute, dtype: DType) -> Attribute:
    return value.with_dtype(dtype) if isinstance(value, TensorType) else value


def case(attributes: Attributes, *shapes: tuple[int, ...]) -> Case:
    """A case of f32 operands of those shapes."""
    return (tuple(TensorType(f32, s) for s in shapes), attributes)


# -- reshape and transpose ---------------------------------------------------------------------------------------


def _reshape_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    shape = rules.shape(attributes)
    have, want = types[0].size, product(shape)
    if rules.provably_different(have, want):
        raise ShapeError(
            f"{types[0]} of {have} elements cannot become [{rules.listed(shape)}] of {want}",
            hint="the number of elements must stay the same; a size of -1 is what remains",
        )
    return (TensorType(types[0].dtype, shape),)


def _reshape_equalities(types: Types, attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    yield types[0].size, product(rules.shape(attributes))


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


def _broadcast_equalities(types: Types, attributes: Attributes) -> Iterator[tuple[Dim, Dim]]:
    shape, axes = rules.shape(attributes), rules.integers(attributes, "axes")
    return ((size, shape[axis]) for size, axis in zip(types[0].shape, axes, strict=True) if size != 1)


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


# -- reverse ---------------------------------------------------------------------------------------------------


def _reverse_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    rules.checked_axes("reverse", types[0], attributes)
    return (TensorType(types[0].dtype, types[0].shape),)


def _reverse(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (np.flip(operands[0], rules.integers(attributes, "axes")),)


def _reverse_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    return b.op("reverse", t, attributes=node.attributes)


# -- relayout ----------------------------------------------------------------------------------------------------


def _relayout_type(types: Types, attributes: Attributes, regions: Regions) -> tuple[TensorType, ...]:
    result = rules.tensor_type(attributes)
    rules.require_same_dtype("relayout", (types[0], result))
    rules.common_shape("relayout", (types[0], result))
    return (result,)


def _relayout(operands: Arrays, attributes: Attributes, types: Types) -> tuple[Array, ...]:
    return (operands[0],)


def _relayout_vjp(b: GraphBuilder, node: Node, t: Value) -> Value:
    return t


def _relayout_batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> tuple[Value, ...]:
    """The value itself: layouts are chosen once nothing is batched any more."""
    return (rules.with_batch(b, operands[0], batched[0], size),)


OPS_MOVEMENT: tuple[OpDef, ...] = (
    movement(
        "reshape",
        "The elements, in row-major order, in another shape of the same size.",
        {"shape": "the result's shape"},
        _reshape_type,
        _reshape,
        unary_vjp(_reshape_vjp),
        rules.shifted_batch("reshape", _with_size),
        [
            case({"shape": (3, 2)}, (2, 3)),
            case({"shape": (2, 1, 2)}, (4,)),
            case({"shape": (5, 0)}, (0, 3)),
            case({"shape": ()}, (1,)),
        ],
        equalities=_reshape_equalities,
    ),
    movement(
        "transpose",
        "Result dimension i is operand dimension ``permutation[i]``.",
        {"permutation": "of the dimensions"},
        _transpose_type,
        _transpose,
        unary_vjp(_transpose_vjp),
        rules.shifted_batch("transpose", _transpose_shift),
        [
            case({"permutation": (1, 0)}, (2, 3)),
            case({"permutation": (2, 0, 1)}, (2, 3, 4)),
            case({"permutation": (1, 0)}, (0, 1)),
        ],
    ),
    movement(
        "broadcast",
        "Operand dimension i becomes result dimension ``axes[i]``, a literal 1 stretches; other dimensions are new.",
        {"shape": "the result's shape", "axes": "result dimension of each operand dimension, increasing"},
        _broadcast_type,
        _broadcast,
        unary_vjp(_broadcast_vjp),
        rules.shifted_batch("broadcast", _broadcast_shift),
        [
            case({"shape": (2, 3), "axes": (1,)}, (3,)),
            case({"shape": (2, 3), "axes": ()}, ()),
            case({"shape": (4, 3), "axes": (0, 1)}, (1, 3)),
            case({"shape": (3, 2, 5), "axes": (0, 2)}, (3, 1)),
            case({"shape": (0,), "axes": (0,)}, (1,)),
        ],
        equalities=_broadcast_equalities,
    ),
    movement(
        "reverse",
        "The elements in the opposite order along ``axes``.",
        {"axes": "dimensions, increasing"},
        _reverse_type,
        _reverse,
        unary_vjp(_reverse_vjp),
        rules.shifted_batch("reverse", rules.shift_axes),
        [case({"axes": (1,)}, (2, 3)), case({"axes": (0, 1)}, (2, 3)), case({"axes": (0,)}, (0, 1))],
    ),
    movement(
        "relayout",
        "x in the layout of ``type``. Made by the layout pass, where two ops disagree.",
        {"type": "the result's type"},
        _relayout_type,
        _relayout,
        unary_vjp(_relayout_vjp),
        _relayout_batch,
        [
            case({"type": TensorType(f32, (2, 3), Layout((1, 0)))}, (2, 3)),
            case({"type": TensorType(f32, (5,), Layout((0,), tiles=((0, 4),)))}, (5,)),
        ],
    ),
)
