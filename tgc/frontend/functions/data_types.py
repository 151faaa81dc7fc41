"""Functions of data types (Array API standard 2024.12, "Data Type Functions")."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from tgc.dtypes import DType, bf16, bool_, promote
from tgc.errors import DTypeError, UserError
from tgc.frontend.arithmetic import SCALARS, scalar_dtype
from tgc.frontend.functions.common import default_dtype, operand
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here


def astype(x: Tensor, dtype: DType, /, *, copy: bool = True) -> Tensor:
    """The tensor in another dtype: floats round to nearest even; to integers they truncate and saturate."""
    return operand(x).astype(dtype)


def _dtype(x: Any) -> DType:
    if isinstance(x, DType):
        return x
    if isinstance(x, Tensor):
        return x.dtype
    raise DTypeError(f"{x!r} is neither a dtype nor a tensor", location=here())


def can_cast(from_: DType | Tensor, to: DType, /) -> bool:
    """Whether promotion leads from one dtype to the other.

    >>> import tgc
    >>> tgc.can_cast(tgc.i8, tgc.i32), tgc.can_cast(tgc.f64, tgc.f32)
    (True, False)
    """
    try:
        return promote(_dtype(from_), _dtype(to)) is to
    except DTypeError:
        return False


def result_type(*arrays_and_dtypes: Tensor | DType | bool | int | float) -> DType:
    """What tensors, dtypes and numbers promote to; numbers take the dtype of the others within its kind.

    >>> import tgc
    >>> tgc.result_type(tgc.i8, tgc.u8), tgc.result_type(tgc.f32, 1), tgc.result_type(tgc.i8, 1.5)
    (tgc.i16, tgc.f32, tgc.f32)
    """
    numbers = [x for x in arrays_and_dtypes if isinstance(x, SCALARS)]
    dtypes = [_dtype(x) for x in arrays_and_dtypes if not isinstance(x, SCALARS)]
    if not dtypes and not numbers:
        raise UserError("result_type of nothing", location=here())
    start = functools.reduce(promote, dtypes) if dtypes else functools.reduce(promote, map(default_dtype, numbers))
    return functools.reduce(lambda known, number: scalar_dtype(number, known), numbers, start)


_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bool": ("bool",),
        "signed integer": ("int",),
        "unsigned integer": ("uint",),
        "integral": ("int", "uint"),
        "real floating": ("float",),
        "complex floating": (),
        "numeric": ("int", "uint", "float"),
    }
)


def isdtype(dtype: DType, kind: DType | str | tuple[DType | str, ...]) -> bool:
    """Whether ``dtype`` is ``kind`` (a dtype, or the standard's name of a kind), or one of several.

    >>> import tgc
    >>> tgc.isdtype(tgc.u8, "integral"), tgc.isdtype(tgc.f32, (tgc.f64, "bool"))
    (True, False)
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in _KINDS:
        raise UserError(f"there is no kind {kind!r} of dtypes", hint=", ".join(_KINDS), location=here())
    return dtype.kind in _KINDS[kind]


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a float dtype: ``eps`` is the distance from 1 to the next float, ``bits`` the width."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntegerInfo:
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: DType | Tensor, /) -> FloatInfo:
    """The limits of a float dtype. Raises :class:`DTypeError` for others.

    >>> import tgc
    >>> tgc.finfo(tgc.f32).eps == 2.0**-23
    True
    """
    dtype = _dtype(type)
    if not dtype.is_float:
        raise DTypeError(f"finfo of {dtype}, which is no float dtype", location=here())
    info: Any = (ml_dtypes.finfo if dtype is bf16 else np.finfo)(dtype.numpy)
    return FloatInfo(dtype.bits, float(info.eps), float(info.max), float(info.min), float(info.smallest_normal), dtype)


def iinfo(type: DType | Tensor, /) -> IntegerInfo:
    """The limits of an integer dtype. Raises :class:`DTypeError` for others."""
    dtype = _dtype(type)
    if dtype is bool_ or not dtype.is_integer:
        raise DTypeError(f"iinfo of {dtype}, which is no integer dtype", location=here())
    info = np.iinfo(dtype.numpy.name)
    return IntegerInfo(dtype.bits, int(info.max), int(info.min), dtype)
