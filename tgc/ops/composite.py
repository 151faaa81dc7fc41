"""Softmax, and what every composite is written with: inner precision, sizes as values, reductions along rows.

A composite is one node with a body in primitives. Floats of 16 bits are computed in f32 inside and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, f16, f32, f64, i64
from tgc.ir.dims import Dim, product, symbol
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef, TypeRule
from tgc.ir.types import TensorType

AXIS = AttributeSpec("the dimension along which it normalizes")


def widen(builder: GraphBuilder, x: Value) -> Value:
    """``x`` in the dtype that composites compute in: f32 for bf16 and f16."""
    return builder.cast(x, x.dtype.compute)


def along(builder: GraphBuilder, name: str, x: Value, axes: Sequence[int]) -> Value:
    """The reduction ``name`` (sum, max, …) of ``x`` over ``axes``, repeated over them again."""
    reduced = builder.op(name, x, attributes={"axes": tuple(axes)})
    return repeat(builder, reduced, x.shape, axes)


def repeat(builder: GraphBuilder, reduced: Value, shape: Sequence[Dim], axes: Sequence[int]) -> Value:
    """What a reduction over ``axes`` gave, broadcast back to ``shape``."""
    return builder.broadcast(reduced, shape, [i for i in range(len(shape)) if i not in axes])


def size_of(builder: GraphBuilder, shape: Sequence[Dim], axes: Sequence[int], dtype: DType) -> Value:
    """The number of elements along ``axes`` as a value of rank 0; a constant where it is known."""
    size = product(shape[i] for i in axes)
    if isinstance(size, int):
        return builder.constant(size, dtype)
    return builder.op("dimension", attributes={"size": size, "dtype": dtype})


def mean(builder: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    """The mean of ``x`` over ``axes``, which the result does not have."""
    return builder.div(builder.sum(x, axes), size_of(builder, x.shape, axes, x.dtype))


def float_rule(name: str) -> TypeRule:
    """The type rule of a composite that maps one float tensor to one of the same type along ``axis``."""

    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        rules.require_kinds(name, types, rules.FLOAT)
        rules.checked_axis(name, types[0], attributes)
        return (TensorType(types[0].dtype, types[0].shape),)

    return infer


# -- dimension ---------------------------------------------------------------------------------------------------


def _dimension_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    result = TensorType(rules.dtype(attributes), ())
    rules.require_kinds("dimension", [result], rules.NUMERIC)
    rules.dim(attributes, "size")
    return (result,)


def _dimension(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (np.asarray(rules.dim(attributes, "size")),)


# -- softmax -----------------------------------------------------------------------------------------------------


def shifted(builder: GraphBuilder, x: Value, axes: Sequence[int]) -> Value:
    """``x`` minus its maximum over ``axes``, so that no exponential of it overflows."""
    return builder.sub(x, along(builder, "max", x, axes))


def _softmax_body(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    (x,) = operands
    axes = (rules.integer(attributes, "axis"),)
    e = builder.op("exp", shifted(builder, widen(builder, x), axes))
    # one division for each row: the sum lies between 1 and the row's length, so that its reciprocal is a normal number
    share = repeat(builder, builder.op("reciprocal", builder.sum(e, axes)), e.shape, axes)
    return (builder.cast(builder.mul(e, share), x.dtype),)


def _softmax_derivative(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """y·(g − Σ g·y): the Jacobian diag(y) − y yᵀ is symmetric, so this is both the vjp and the jvp."""
    if g[0] is None:
        return (None,)
    axes = (rules.integer(node.attributes, "axis"),)
    y, dy = widen(builder, node.result), widen(builder, g[0])
    inner = along(builder, "sum", builder.mul(dy, y), axes)
    return (builder.cast(builder.mul(y, builder.sub(dy, inner)), node.result.dtype),)


def _log_softmax_body(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    (x,) = operands
    axes = (rules.integer(attributes, "axis"),)
    z = shifted(builder, widen(builder, x), axes)
    total = builder.op("sum", builder.op("exp", z), attributes={"axes": axes})
    return (builder.cast(builder.sub(z, repeat(builder, builder.op("log", total), z.shape, axes)), x.dtype),)


def _log_softmax_vjp(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """g − exp(y)·Σ g."""
    if g[0] is None:
        return (None,)
    axes = (rules.integer(node.attributes, "axis"),)
    y, dy = widen(builder, node.result), widen(builder, g[0])
    total = along(builder, "sum", dy, axes)
    return (builder.cast(builder.sub(dy, builder.mul(builder.op("exp", y), total)), node.result.dtype),)


def _log_softmax_jvp(builder: GraphBuilder, node: Node, t: Sequence[Value | None]) -> Sequence[Value | None]:
    """t − Σ exp(y)·t."""
    if t[0] is None:
        return (None,)
    axes = (rules.integer(node.attributes, "axis"),)
    y, dx = widen(builder, node.result), widen(builder, t[0])
    total = along(builder, "sum", builder.mul(builder.op("exp", y), dx), axes)
    return (builder.cast(builder.sub(dx, total), node.result.dtype),)


def _cases(
    *shapes_and_axes: tuple[DType, tuple[Dim, ...], int],
) -> tuple[tuple[tuple[TensorType, ...], Attributes], ...]:
    return tuple(((TensorType(dtype, shape),), {"axis": axis}) for dtype, shape, axis in shapes_and_axes)


_SOFTMAX_CASES = _cases((f32, (3, 17), 1), (f64, (4, 3, 2), 1), (bf16, (2, 9), 1), (f16, (5,), 0), (f32, (2, 1), 1))

OPS_COMPOSITE: tuple[OpDef, ...] = (
    OpDef(
        name="dimension",
        doc="""The dimension ``size`` as a number of rank 0, for means over symbolic dimensions.

        Exact in i64, then converted to ``dtype``.""",
        kind=OpKind.CREATE,
        operands=0,
        infer=_dimension_type,
        attributes={"size": AttributeSpec("the dimension"), "dtype": AttributeSpec("the number's dtype")},
        evaluate=_dimension,
        cases=(
            ((), {"size": 7, "dtype": f32}),
            ((), {"size": symbol("n") * 2 + 1, "dtype": f32}),
            ((), {"size": symbol("n"), "dtype": i64}),
        ),
        foldable=True,
    ),
    OpDef(
        name="softmax",
        doc="""exp(x − max x) · (1 / Σ exp(x − max x)) along ``axis``.

        A row that is −∞ throughout, or has +∞ or NaN, gives NaN.""",
        kind=OpKind.COMPOSITE,
        operands=1,
        infer=float_rule("softmax"),
        attributes={"axis": AXIS},
        body=_softmax_body,
        vjp=_softmax_derivative,
        jvp=_softmax_derivative,
        batch=rules.shifted_batch("softmax", rules.shift_axis),
        domain=((-8.0, 8.0),),
        cases=_SOFTMAX_CASES,
    ),
    OpDef(
        name="log_softmax",
        doc="""The logarithm of softmax along ``axis``, without its underflow: z − log Σ exp z, z = x − max x.""",
        kind=OpKind.COMPOSITE,
        operands=1,
        infer=float_rule("log_softmax"),
        attributes={"axis": AXIS},
        body=_log_softmax_body,
        vjp=_log_softmax_vjp,
        jvp=_log_softmax_jvp,
        batch=rules.shifted_batch("log_softmax", rules.shift_axis),
        domain=((-8.0, 8.0),),
        cases=_SOFTMAX_CASES,
    ),
)
