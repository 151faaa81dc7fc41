"""Maps whose operands or results differ in dtype, and the barrier: cast, bitcast, select."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import DTYPES, DType, bf16, bool_, f16, f32, f64, i8, i32, i64, u8, u32, u64
from tgc.errors import DTypeError
from tgc.ir.graph import Array, Attributes, Graph, Node, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, GraphBuilder, OpDef, Scalar, ScalarBuilder
from tgc.ir.types import TensorType
from tgc.ops.maps import ANYWHERE, map_cases, map_jvp, map_vjp

_DTYPE = MappingProxyType({"dtype": AttributeSpec("the result's dtype")})


def converted(x: Array, dtype: DType) -> Array:
    """``x`` in ``dtype``: floats are rounded (to 16 bits through f32), floats to integers truncate and saturate, nan
    gives 0; integers wrap; to bool: whether it is not 0.

    >>> converted(np.array([300.7, -1e9, np.nan]), u8)
    array([255,   0,   0], dtype=uint8)
    """
    if dtype is bool_:
        return np.not_equal(x, 0)
    if dtype.is_float:
        return x.astype(dtype.compute.numpy).astype(dtype.numpy)
    if x.dtype.kind in "biu":
        return x.astype(dtype.numpy)
    info = np.iinfo(dtype.numpy.name)
    whole = np.trunc(rules.as_floats(x))
    too_low, too_high = whole <= float(info.min), whole >= float(info.max)
    inside = np.where(too_low | too_high | np.isnan(whole), 0.0, whole).astype(dtype.numpy)
    ends = np.where(too_high, np.asarray(info.max, dtype.numpy), np.asarray(info.min, dtype.numpy))
    return np.where(too_low | too_high, ends, inside)


def _cast_type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    return (TensorType(rules.dtype(attributes), types[0].shape),)


def _cast(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (converted(operands[0], types[0].dtype),)


def _cast_scalar(s: ScalarBuilder, operands: Sequence[Scalar], attributes: Attributes, dtype: DType) -> Scalar:
    return s.convert(operands[0], rules.dtype(attributes).compute)


def _cast_vjp(b: GraphBuilder, node: Node, cotangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = cotangents
    x = node.operands[0]
    return [b.cast(t, x.dtype) if t is not None and x.dtype.is_float and t.dtype.is_float else None]


def _cast_jvp(b: GraphBuilder, node: Node, tangents: Sequence[Value | None]) -> list[Value | None]:
    (t,) = tangents
    dtype = node.types[0].dtype
    return [b.cast(t, dtype) if t is not None and dtype.is_float and t.dtype.is_float else None]


def _bitcast_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    source, target = types[0].dtype, rules.dtype(attributes)
    if source.bits != target.bits or bool_ in (source, target):
        raise DTypeError(f"bitcast takes a dtype of the same width, not {source} and {target}")
    if bf16 in (source, target) or f16 in (source, target):
        raise DTypeError(f"bitcast does not take {source} and {target}", hint="cast to f32 first")
    return (TensorType(target, types[0].shape),)


def _bitcast(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (np.ascontiguousarray(operands[0]).view(types[0].dtype.numpy).reshape(operands[0].shape),)


def _bitcast_scalar(s: ScalarBuilder, operands: Sequence[Scalar], attributes: Attributes, dtype: DType) -> Scalar:
    return s.bitcast(operands[0], rules.dtype(attributes))


def _select_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    if types[0].dtype is not bool_:
        raise DTypeError(f"select takes a bool condition, not {types[0]}", hint="compare it with something")
    return (TensorType(rules.require_same_dtype("select", types[1:]), rules.common_shape("select", types)),)


def _select(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (np.where(operands[0], operands[1], operands[2]),)


def _select_scalar(s: ScalarBuilder, operands: Sequence[Scalar], attributes: Attributes, dtype: DType) -> Scalar:
    return s.select(*operands)


_SELECT_PARTIALS = (
    None,
    lambda b, t, condition, x, y, z: b.select(condition, t, b.full_like(t, 0)),
    lambda b, t, condition, x, y, z: b.select(condition, b.full_like(t, 0), t),
)


def _barrier_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    return (types[0].with_layout(None),)


def _barrier(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (operands[0],)


def _barrier_scalar(s: ScalarBuilder, operands: Sequence[Scalar], attributes: Attributes, dtype: DType) -> Scalar:
    return operands[0]


def _barrier_partial(b: GraphBuilder, t: Value, x: Value, y: Value) -> Value:
    return b.op("barrier", t)


def _to(source: DType, target: DType) -> Case:
    return ((TensorType(source, (2, 3)),), {"dtype": target})


OPS_CONVERT: tuple[OpDef, ...] = (
    OpDef(
        name="cast",
        doc="x in another dtype: floats are rounded (to 16 bits through f32), floats to integers truncate and "
        "saturate, nan gives 0; integers wrap; to bool: whether it is not 0.",
        kind=OpKind.MAP,
        operands=1,
        infer=_cast_type,
        attributes=_DTYPE,
        evaluate=_cast,
        scalar=_cast_scalar,
        vjp=_cast_vjp,
        jvp=_cast_jvp,
        batch=rules.map_batch("cast"),
        domain=((-500.0, 500.0),),
        cases=tuple(_to(source, target) for source in DTYPES.values() for target in DTYPES.values()),
        foldable=True,
    ),
    OpDef(
        name="bitcast",
        doc="The same bits read as another dtype of the same width; not bool, bf16 and f16.",
        kind=OpKind.MAP,
        operands=1,
        infer=_bitcast_type,
        attributes=_DTYPE,
        evaluate=_bitcast,
        scalar=_bitcast_scalar,
        batch=rules.map_batch("bitcast"),
        domain=(ANYWHERE,),
        cases=(_to(f32, i32), _to(u32, f32), _to(f64, u64), _to(i64, f64), _to(u8, i8), _to(i32, u32)),
        differentiable=False,
        foldable=True,
        extra=rules.AS_TYPED,
    ),
    OpDef(
        name="select",
        doc="a where the condition holds, else b.",
        kind=OpKind.MAP,
        operands=3,
        infer=_select_type,
        evaluate=_select,
        scalar=_select_scalar,
        vjp=map_vjp(_SELECT_PARTIALS),
        jvp=map_jvp(_SELECT_PARTIALS),
        batch=rules.map_batch("select"),
        ulp=0.0,
        domain=(ANYWHERE, ANYWHERE, ANYWHERE),
        cases=map_cases([(bool_, d, d) for d in (f32, *(d for d in DTYPES.values() if d is not f32))]),
        foldable=True,
    ),
    OpDef(
        name="barrier",
        doc="x. No pass before fusion removes it or looks through it: what follows is computed again from here.",
        kind=OpKind.BARRIER,
        operands=1,
        infer=_barrier_type,
        evaluate=_barrier,
        scalar=_barrier_scalar,
        vjp=map_vjp((_barrier_partial,)),
        jvp=map_jvp((_barrier_partial,)),
        batch=rules.map_batch("barrier"),
        domain=(ANYWHERE,),
        cases=map_cases([(d,) for d in (f32, *(d for d in DTYPES.values() if d is not f32))]),
    ),
)
