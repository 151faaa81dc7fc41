"""Losses that are one op for the sake of their gradient: cross entropy from logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tgc.ops.rules as rules
from tgc.dtypes import bf16, f32, f64, i32, i64, u8
from tgc.errors import ShapeError
from tgc.ir.graph import Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.composite import repeat, shifted, size_of, widen


def _cross_entropy_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    logits, labels = types
    rules.require_kinds("cross_entropy", [logits], rules.FLOAT)
    rules.require_kinds("cross_entropy", [labels], rules.INTEGER)
    fits = logits.rank == labels.rank + 1 and not any(
        rules.provably_different(a, b) for a, b in zip(logits.shape[:-1], labels.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"cross_entropy of logits {logits} with labels {labels}",
            hint="classes are the last dimension of the logits; the labels have all other dimensions",
        )
    return (TensorType(logits.dtype, labels.shape),)


def _chosen(builder: GraphBuilder, logits: Value, labels: Value) -> tuple[Value, Value, Value]:
    """Where the label of a row points; whether it is not negative; whether it is below the number of classes."""
    shape, last = logits.shape, len(logits.shape) - 1
    classes = builder.op("iota", attributes={"shape": shape, "axis": last, "dtype": i32})
    pointed = repeat(builder, builder.cast(labels, i32), shape, (last,))
    wide = builder.cast(labels, i64)
    above = builder.op("ge", wide, builder.full_like(wide, 0))
    count = builder.broadcast_to(size_of(builder, shape, (last,), i64), labels.shape)
    below = builder.op("lt", wide, count)
    return builder.op("eq", pointed, classes), above, below


def _by_label(builder: GraphBuilder, value: Value, counts: Value, known: Value) -> Value:
    """0 where a row does not count, nan where its label is too large for a class: a mistake that must show."""
    value = builder.select(counts, value, builder.full_like(value, 0.0))
    return builder.select(known, value, builder.full_like(value, math.nan))


def _cross_entropy(builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    logits, labels = operands
    last = (len(logits.shape) - 1,)
    chosen, counts, known = _chosen(builder, logits, labels)
    z = shifted(builder, widen(builder, logits), last)
    total = builder.op("log", builder.sum(builder.op("exp", z), last))
    loss = builder.sub(total, builder.sum(builder.select(chosen, z, builder.full_like(z, 0.0)), last))
    return (builder.cast(_by_label(builder, loss, counts, known), logits.dtype),)


def _cross_entropy_vjp(builder: GraphBuilder, node: Node, g: Sequence[Value | None]) -> Sequence[Value | None]:
    """(softmax − onehot)·g; 0 for negative labels, nan for labels that are too large."""
    if g[0] is None:
        return (None, None)
    logits, labels = node.operands
    last = len(logits.shape) - 1
    chosen, counts, known = _chosen(builder, logits, labels)
    weight = repeat(builder, _by_label(builder, widen(builder, g[0]), counts, known), logits.shape, (last,))
    probability = builder.op("softmax", widen(builder, logits), attributes={"axis": last})
    one, zero = builder.full_like(probability, 1.0), builder.full_like(probability, 0.0)
    distance = builder.sub(probability, builder.select(chosen, one, zero))
    return builder.cast(builder.mul(distance, weight), logits.dtype), None


def _binary_cross_entropy(
    builder: GraphBuilder, operands: Sequence[Value], attributes: Attributes
) -> tuple[Value, ...]:
    x, target = (widen(builder, v) for v in operands)
    loss = builder.sub(builder.op("softplus", x), builder.mul(x, target))
    return (builder.cast(loss, operands[0].dtype),)


OPS_COMPOSITE_LOSS: tuple[OpDef, ...] = (
    OpDef(
        name="cross_entropy",
        doc="""−log softmax(logits)[label] per row, the classes being the last dimension of ``logits``.

        As log Σ exp z − z[label] with z = logits − max logits. A negative label gives loss 0 and gradient 0, one that
        is too large for a class nan for both. logits [*B, C] floats, labels [*B] integers; result [*B].""",
        kind=OpKind.COMPOSITE,
        operands=2,
        infer=_cross_entropy_type,
        body=_cross_entropy,
        vjp=_cross_entropy_vjp,
        batch=rules.map_batch("cross_entropy"),
        domain=((-6.0, 6.0), (0, 7)),
        cases=(
            ((TensorType(f32, (5, 8)), TensorType(i64, (5,))), {}),
            ((TensorType(f64, (2, 3, 4)), TensorType(i32, (2, 3))), {}),
            ((TensorType(bf16, (4, 10)), TensorType(u8, (4,))), {}),
        ),
    ),
    OpDef(
        name="binary_cross_entropy",
        doc="""−t·log σ(x) − (1 − t)·log(1 − σ(x)) of logits ``x`` and targets ``t`` in [0, 1].

        As softplus(x) − x·t.""",
        kind=OpKind.COMPOSITE,
        operands=2,
        infer=rules.map_rule("binary_cross_entropy", rules.FLOAT),
        body=_binary_cross_entropy,
        batch=rules.map_batch("binary_cross_entropy"),
        domain=((-6.0, 6.0), (0.0, 1.0)),
        cases=tuple(((TensorType(d, (4, 5)),) * 2, {}) for d in (f32, bf16)),
    ),
)
