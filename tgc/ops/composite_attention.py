"""Scaled dot-product attention."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import tgc.ops.rules as rules
from tgc.dtypes import DType, bf16, bool_, f32, f64, i32
from tgc.errors import DTypeError, ShapeError, UserError
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Attributes, Graph, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, GraphBuilder, OpDef
from tgc.ir.types import TensorType
from tgc.ops.composite import size_of, widen
from tgc.ops.contract import common_dim

# The score of a key that is masked: so far below any other that its weight is 0, and finite, so that a row without any
# key has equal weights and no NaN in its gradient.
_MASKED = -1e30


def _type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    if not 3 <= len(types) <= 4:
        raise ShapeError(f"attention takes queries, keys, values and possibly a mask, not {len(types)} operands")
    q, k, v = types[:3]
    rules.require_kinds("attention", [q, k, v], rules.FLOAT)
    dtype = rules.require_same_dtype("attention", [q, k, v])
    rules.flag(attributes, "causal")
    scale = attributes["scale"]
    if scale is not None and type(scale) is not float:
        raise UserError(f"attribute scale must be a number, not {scale!r}")
    if q.rank < 2 or k.rank != q.rank or v.rank != q.rank or q.rank > 20:
        raise ShapeError(f"attention takes [*B, L, D], [*B, S, D] and [*B, S, E], not {rules.listed([q, k, v])}")
    leading = rules.common_shape(
        "attention, before the last two dimensions,", [t.with_shape(t.shape[:-2]) for t in types[:3]]
    )
    common_dim(q.shape[-1], k.shape[-1], f"attention: the last dimension of queries {q} and keys {k}")
    common_dim(k.shape[-2], v.shape[-2], f"attention: the length of keys {k} and values {v}")
    if len(types) == 4:
        mask, scores = types[3], (*leading, q.shape[-2], k.shape[-2])
        if mask.dtype not in (bool_, dtype):
            raise DTypeError(f"attention takes a mask of bool or {dtype}, not {mask}")
        fits = mask.rank <= len(scores) and not any(
            size != 1 and rules.provably_different(size, whole)
            for size, whole in zip(mask.shape, scores[len(scores) - mask.rank :], strict=True)
        )
        if not fits:
            raise ShapeError(f"attention: the mask {mask} does not broadcast to the scores [{rules.listed(scores)}]")
    return (TensorType(dtype, (*leading, q.shape[-2], v.shape[-1])),)


def _body(b: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    q, k, v = (widen(b, x) for x in operands[:3])
    rank = len(q.shape)
    letters = string.ascii_letters[: rank - 2]
    scale = attributes["scale"]
    if isinstance(scale, float):
        factor = b.constant(scale, q.dtype)
    elif isinstance(q.shape[-1], int):
        factor = b.constant(1 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0, q.dtype)
    else:
        size = size_of(b, q.shape, (rank - 1,), q.dtype)
        factor = b.op("rsqrt", b.op("maximum", size, b.constant(1.0, q.dtype)))
    scores = b.mul(b.contract(q, k, f"{letters}XZ,{letters}YZ->{letters}XY"), factor)
    masked = b.full_like(scores, _MASKED)
    if len(operands) == 4:
        mask = operands[3]
        given = b.broadcast_to(widen(b, mask) if mask.dtype.is_float else mask, scores.shape)
        scores = b.select(given, scores, masked) if mask.dtype is bool_ else b.add(scores, given)
    if rules.flag(attributes, "causal"):
        row, column = (
            b.op("iota", attributes={"shape": scores.shape, "axis": axis, "dtype": i32})
            for axis in (rank - 2, rank - 1)
        )
        scores = b.select(b.op("le", column, row), scores, masked)
    weights = b.op("softmax", scores, attributes={"axis": rank - 1})
    result = b.contract(weights, v, f"{letters}XY,{letters}YZ->{letters}XZ")
    return (b.cast(result, operands[0].dtype),)


def _batch(
    b: GraphBuilder, operands: Sequence[Value], batched: Sequence[bool], attributes: Attributes, size: Dim
) -> Sequence[Value]:
    values = [rules.with_batch(b, x, has, size) for x, has in zip(operands[:3], batched[:3], strict=True)]
    if len(operands) == 4:
        mask = operands[3]
        if batched[3]:
            between = len(values[0].shape) - len(mask.shape)
            mask = b.reshape(mask, (size, *[1] * between, *mask.shape[1:]))
        values.append(mask)
    return (b.op("attention", *values, attributes=attributes),)


def _case(dtype: DType, *shapes: tuple[Dim, ...], mask: TensorType | None = None, causal: bool = False) -> Case:
    types = tuple(TensorType(dtype, shape) for shape in shapes)
    return (types if mask is None else (*types, mask), {"causal": causal, "scale": None})


_N = symbol("n")

OPS_COMPOSITE_ATTENTION: tuple[OpDef, ...] = (
    OpDef(
        name="attention",
        doc="""softmax(scale·q kᵀ)·v over the keys (Vaswani et al., arXiv 1706.03762).

        q[*B, L, D], k[*B, S, D], v[*B, S, E] and possibly a mask that broadcasts to [*B, L, S]: bool, true where a
        query may see a key, or floats that are added to the scores. ``causal``: query i sees keys 0 to i alone.
        ``scale``: a number, or none for 1/√D. A query that sees no key gives the mean of the values.""",
        kind=OpKind.COMPOSITE,
        operands=None,
        infer=_type,
        attributes={
            "causal": AttributeSpec("whether keys after the query are masked", required=False, default=False),
            "scale": AttributeSpec("factor of the scores; none for 1/√D", required=False, default=None),
        },
        body=_body,
        batch=_batch,
        cases=(
            _case(f32, (2, 5, 4), (2, 7, 4), (2, 7, 3)),
            _case(f32, (6, 4), (6, 4), (6, 4), causal=True),
            _case(f32, (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), mask=TensorType(bool_, (2, 1, 1, 6))),
            _case(f32, (2, 5, 4), (2, 5, 4), (2, 5, 4), mask=TensorType(f32, (5, 5)), causal=True),
            _case(bf16, (2, 5, 4), (2, 5, 4), (2, 5, 4)),
            _case(f64, (_N, _N + 1, 4), (_N, _N + 1, 4), (_N, _N + 1, 2), causal=True),
        ),
    ),
)
