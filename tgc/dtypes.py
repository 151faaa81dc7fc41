"""Data types: bool, signed and unsigned integers, and IEEE floats with bfloat16.

Promotion follows the Array API standard within a kind; an integer with a float gives the float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import ml_dtypes
import numpy as np

from tgc.errors import DTypeError

Kind = Literal["bool", "int", "uint", "float"]


@dataclass(frozen=True, slots=True)
class DType:
    """A data type. ``bits`` is its width in memory (a bool takes 8).

    >>> f32.itemsize, f32.numpy
    (4, dtype('float32'))
    """

    name: str
    kind: Kind
    bits: int
    numpy: np.dtype[np.generic]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def compute(self) -> DType:
        """The type that arithmetic is done in before one rounding: f32 for bf16 and f16, else the type itself."""
        return f32 if self.kind == "float" and self.bits == 16 else self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"tgc.{self.name}"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (named, (self.name,))


bool_ = DType("bool", "bool", 8, np.dtype(np.bool_))
i8 = DType("i8", "int", 8, np.dtype(np.int8))
i16 = DType("i16", "int", 16, np.dtype(np.int16))
i32 = DType("i32", "int", 32, np.dtype(np.int32))
i64 = DType("i64", "int", 64, np.dtype(np.int64))
u8 = DType("u8", "uint", 8, np.dtype(np.uint8))
u16 = DType("u16", "uint", 16, np.dtype(np.uint16))
u32 = DType("u32", "uint", 32, np.dtype(np.uint32))
u64 = DType("u64", "uint", 64, np.dtype(np.uint64))
bf16 = DType("bf16", "float", 16, np.dtype(ml_dtypes.bfloat16))
f16 = DType("f16", "float", 16, np.dtype(np.float16))
f32 = DType("f32", "float", 32, np.dtype(np.float32))
f64 = DType("f64", "float", 64, np.dtype(np.float64))

DTYPES: Mapping[str, DType] = MappingProxyType(
    {d.name: d for d in (bool_, i8, i16, i32, i64, u8, u16, u32, u64, bf16, f16, f32, f64)}
)
_FROM_NUMPY = MappingProxyType({d.numpy: d for d in DTYPES.values()})


def named(name: str) -> DType:
    """The dtype of that name; :class:`DTypeError` if there is none."""
    try:
        return DTYPES[name]
    except KeyError:
        raise DTypeError(f"there is no dtype {name!r}", hint="the dtypes are " + ", ".join(DTYPES)) from None


def from_numpy(dtype: np.dtype[np.generic]) -> DType:
    """The dtype of a NumPy dtype in native byte order; :class:`DTypeError` if tgc has none."""
    found = _FROM_NUMPY.get(dtype)
    if found is None and not dtype.isnative:
        raise DTypeError(
            f"NumPy dtype {dtype.str} has another byte order than this machine",
            hint='convert it: array.astype(array.dtype.newbyteorder("="))',
        )
    if found is None:
        raise DTypeError(f"NumPy dtype {dtype} has no tgc dtype", hint="the dtypes are " + ", ".join(DTYPES))
    return found


def promote(a: DType, b: DType) -> DType:
    """The dtype that both convert to (Array API standard, "Type Promotion Rules").

    Beyond the standard: an integer (or bool) with a float gives the float, bf16 with f16 gives f32.
    Raises :class:`DTypeError` for u64 with a signed integer, as the standard leaves it undefined.

    >>> promote(i8, u8), promote(i64, f16), promote(bf16, f16)
    (tgc.i16, tgc.f16, tgc.f32)
    """
    if a == b:
        return a
    if a.kind == b.kind == "float":
        if a.bits == b.bits:
            return f32
        return a if a.bits > b.bits else b
    if a.is_float or b.is_float:
        return a if a.is_float else b
    if a.kind == "bool" or b.kind == "bool":
        return b if a.kind == "bool" else a
    if a.kind == b.kind:
        return a if a.bits > b.bits else b
    signed, unsigned = (a, b) if a.kind == "int" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    if unsigned.bits == 64:
        raise DTypeError("u64 and a signed integer have no common integer dtype", hint="cast one of them with .astype")
    return DTYPES[f"i{unsigned.bits * 2}"]
