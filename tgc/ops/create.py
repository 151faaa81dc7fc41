"""Ops without operands: constants, iota, and the values that a function starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc import dtypes
from tgc.dtypes import DType
from tgc.errors import DTypeError, UserError
from tgc.ir.graph import Array, Attributes, Graph
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, Case, OpDef, TypeRule
from tgc.ir.types import TensorType


def _constant_type(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    dtype, value = rules.dtype(attributes), attributes["value"]
    expected = {"bool": bool, "float": float}.get(dtype.kind, int)
    if type(value) is not expected:
        raise UserError(f"a constant of {dtype} takes a {expected.__name__}, not {value!r}")
    if dtype.is_integer and isinstance(value, int):
        info = np.iinfo(dtype.numpy.name)
        if not info.min <= value <= info.max:
            raise DTypeError(f"{value} is no {dtype}", hint=f"its range is {info.min} to {info.max}")
    return (TensorType(dtype, ()),)


def _constant(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    return (np.asarray(attributes["value"], dtype=types[0].dtype.numpy),)


def _iota_type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    result = TensorType(rules.dtype(attributes), rules.shape(attributes))
    rules.require_kinds("iota", [result], rules.NUMERIC)
    rules.checked_axis("iota", result, attributes)
    return (result,)


def _iota(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    axis, shape = rules.integer(attributes, "axis"), rules.concrete(types[0])
    column = np.arange(shape[axis], dtype=np.int64).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return (np.broadcast_to(column, shape),)


def _typed(name: str) -> TypeRule:
    def infer(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
        return (rules.tensor_type(attributes),)

    return infer


def _source(name: str, doc: str, key: str, key_doc: str) -> OpDef:
    """An op that stands for a value given from outside."""
    return OpDef(
        name=name,
        doc=doc,
        kind=OpKind.CREATE,
        operands=0,
        infer=_typed(name),
        attributes={key: AttributeSpec(key_doc), "type": AttributeSpec("its type")},
    )


def _iota_case(dtype: DType, shape: tuple[int, ...], axis: int) -> Case:
    return ((), {"shape": shape, "axis": axis, "dtype": dtype})


OPS_CREATE: tuple[OpDef, ...] = (
    OpDef(
        name="constant",
        doc="A number of rank 0.",
        kind=OpKind.CREATE,
        operands=0,
        infer=_constant_type,
        attributes={"value": AttributeSpec("bool, int or float, as the dtype's kind"), "dtype": AttributeSpec("dtype")},
        evaluate=_constant,
        cases=(
            ((), {"value": 1.5, "dtype": dtypes.f32}),
            ((), {"value": -0.0, "dtype": dtypes.bf16}),
            ((), {"value": float("nan"), "dtype": dtypes.f16}),
            ((), {"value": True, "dtype": dtypes.bool_}),
            ((), {"value": 2**64 - 1, "dtype": dtypes.u64}),
        ),
        foldable=True,
    ),
    OpDef(
        name="iota",
        doc="0, 1, 2, … along ``axis``, the same in all other dimensions. Integers wrap, floats are rounded.",
        kind=OpKind.CREATE,
        operands=0,
        infer=_iota_type,
        attributes={
            "shape": AttributeSpec("the result's shape"),
            "axis": AttributeSpec("dimension along which it counts"),
            "dtype": AttributeSpec("a number's dtype"),
        },
        evaluate=_iota,
        cases=(
            _iota_case(dtypes.i64, (5,), 0),
            _iota_case(dtypes.f32, (2, 3, 4), 1),
            _iota_case(dtypes.u8, (300,), 0),
            _iota_case(dtypes.f16, (0, 3), 1),
        ),
        foldable=True,
    ),
    _source("parameter", "The parameter ``index`` of the graph.", "index", "its position"),
    _source("state", "What the module's state ``name`` holds on entry.", "name", "name of the state"),
    _source("literal", "The module's constant ``name``.", "name", "name of the constant"),
)
