"""A scalar builder over NumPy arrays: what scalar bodies mean, computed instead of emitted.

Every method is exact to the bit, fma included, so that a body tested here gives the same numbers in a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tgc.dtypes import DType, bool_, from_numpy
from tgc.errors import UserError

Array: TypeAlias = NDArray[Any]

_COMPARE: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }
)
_SPLITTER = 2.0**27 + 1.0


@dataclass(frozen=True)
class NumpyScalarBuilder:
    """Implements :class:`tgc.ir.opdef.ScalarBuilder` on arrays of tgc's computational dtypes.

    ``fused`` is what ``multiply_add`` does: one rounding as on targets with hardware for it, or two as on the others.
    ``functions`` is the table that ``math`` looks names up in; an unknown name raises :class:`UserError`.

    >>> s = NumpyScalarBuilder()
    >>> float(s.fma(np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1 - 2**-11))) == 2.0**-24
    True
    """

    fused: bool = True
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def dtype(self, x: Array) -> DType:
        return from_numpy(x.dtype)

    def constant(self, value: bool | int | float, dtype: DType) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(dtype.numpy)

    def add(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.add(a, b))

    def sub(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.subtract(a, b))

    def mul(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.multiply(a, b))

    def div(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            if a.dtype.kind == "f":
                return np.asarray(np.divide(a, b))
            quotient: Array = np.asarray(np.floor_divide(a, b))
            inexact = np.not_equal(np.subtract(a, np.multiply(quotient, b)), 0)
            quotient += np.logical_and(inexact, np.less(a, 0) != np.less(b, 0)).astype(a.dtype)
            return np.where(np.equal(b, 0), np.zeros_like(quotient), quotient)

    def rem(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            remainder = np.fmod(a, b)
            return np.where(np.equal(b, 0), np.zeros_like(remainder), remainder)

    def fma(self, a: Array, b: Array, c: Array) -> Array:
        a, b, c = np.broadcast_arrays(a, b, c)
        with np.errstate(all="ignore"):
            return _fma32(a, b, c) if a.dtype == np.float32 else _fma64(a, b, c)

    def multiply_add(self, a: Array, b: Array, c: Array) -> Array:
        return self.fma(a, b, c) if self.fused else self.add(self.mul(a, b), c)

    def neg(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.negative(x))

    def abs(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.abs(x))

    def sqrt(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.sqrt(x))

    def floor(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.floor(x))

    def ceil(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.ceil(x))

    def trunc(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.trunc(x))

    def round_even(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.rint(x))

    def minimum(self, a: Array, b: Array) -> Array:
        if a.dtype.kind != "f":
            return np.asarray(np.minimum(a, b))
        zeros = np.logical_and(np.equal(a, 0), np.equal(b, 0))
        return np.where(zeros, np.where(np.signbit(a), a, b), np.minimum(a, b))

    def maximum(self, a: Array, b: Array) -> Array:
        if a.dtype.kind != "f":
            return np.asarray(np.maximum(a, b))
        zeros = np.logical_and(np.equal(a, 0), np.equal(b, 0))
        return np.where(zeros, np.where(np.signbit(a), b, a), np.maximum(a, b))

    def compare(self, predicate: str, a: Array, b: Array) -> Array:
        return np.asarray(_COMPARE[predicate](a, b))

    def select(self, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def rarely(
        self, condition: Array, compute: Callable[[], tuple[Array, ...]], otherwise: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        return tuple(np.where(condition, a, b) for a, b in zip(compute(), otherwise, strict=True))

    def bit_and(self, a: Array, b: Array) -> Array:
        return np.asarray(np.bitwise_and(a, b))

    def bit_or(self, a: Array, b: Array) -> Array:
        return np.asarray(np.bitwise_or(a, b))

    def bit_xor(self, a: Array, b: Array) -> Array:
        return np.asarray(np.bitwise_xor(a, b))

    def bit_not(self, x: Array) -> Array:
        return np.asarray(np.invert(x))

    def shift_left(self, a: Array, b: Array) -> Array:
        bits = 8 * a.dtype.itemsize
        outside = np.logical_or(np.less(b, 0), np.greater_equal(b, bits))
        return np.where(outside, np.zeros_like(a), np.left_shift(a, np.where(outside, np.zeros_like(b), b)))

    def shift_right(self, a: Array, b: Array) -> Array:
        bits = 8 * a.dtype.itemsize
        outside = np.logical_or(np.less(b, 0), np.greater_equal(b, bits))
        last = np.full_like(b, bits - 1)
        shifted = np.right_shift(a, np.where(outside, last, b))
        return shifted if a.dtype.kind == "i" else np.where(outside, np.zeros_like(shifted), shifted)

    def multiply_high(self, a: Array, b: Array) -> Array:
        half = 4 * a.dtype.itemsize
        mask, shift = a.dtype.type(2**half - 1), a.dtype.type(half)
        with np.errstate(all="ignore"):
            low_a, high_a, low_b, high_b = a & mask, a >> shift, b & mask, b >> shift
            middle = high_a * low_b + ((low_a * low_b) >> shift)
            other = low_a * high_b + (middle & mask)
            return np.asarray(high_a * high_b + (middle >> shift) + (other >> shift))

    def convert(self, x: Array, dtype: DType) -> Array:
        with np.errstate(all="ignore"):
            if x.dtype.kind == "f" and dtype.is_integer:
                signed = dtype.kind == "int"
                least, most = -(2 ** (dtype.bits - 1)) if signed else 0, 2 ** (dtype.bits - signed) - 1
                whole = np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0)
                # the nearest float of the upper limit may lie above it
                above, below = np.greater_equal(whole, float(most)), np.less_equal(whole, float(least))
                inside = np.where(np.logical_or(above, below), 0.0, whole).astype(dtype.numpy)
                upper, lower = (np.array(limit, dtype.numpy) for limit in (most, least))
                return np.where(above, upper, np.where(below, lower, inside))
            return np.asarray(np.not_equal(x, 0) if dtype is bool_ else x.astype(dtype.numpy))

    def bitcast(self, x: Array, dtype: DType) -> Array:
        return np.ascontiguousarray(x).view(dtype.numpy).reshape(x.shape)

    def math(self, name: str, *arguments: Array) -> Array:
        if name not in self.functions:
            raise UserError(f"no math function {name!r}", hint="give this builder the table of tgc.kernels.vector_math")
        return np.asarray(self.functions[name](self, *arguments))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and its error (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b rounded, and its error (Dekker, "A floating-point technique for extending the available precision")."""
    product = a * b
    scaled_a, scaled_b = _SPLITTER * a, _SPLITTER * b
    high_a, high_b = scaled_a - (scaled_a - a), scaled_b - (scaled_b - b)
    low_a, low_b = a - high_a, b - high_b
    return product, low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b in f64 rounded to odd: a later rounding to two bits less is as if it had been the only one."""
    total, error = _two_sum(a, b)
    bits = np.asarray(total).view(np.int64)
    step = np.where(np.greater(error, 0) == np.greater(total, 0), 1, -1)
    inexact = np.logical_and(np.isfinite(error), np.not_equal(error, 0))
    return np.where(np.logical_and(inexact, bits & 1 == 0), bits + step, bits).view(np.float64)


def _fma32(a: Array, b: Array, c: Array) -> Array:
    """The product of two f32 is exact in f64, and the sum rounded to odd keeps the last rounding right."""
    return _odd_sum(np.multiply(a, b, dtype=np.float64), c.astype(np.float64)).astype(np.float32)


def _fma64(a: Array, b: Array, c: Array) -> Array:
    """Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", where nothing leaves the normal range.

    Elsewhere, element by element, in rational arithmetic.
    """
    product_high, product_low = _two_product(a, b)
    sum_high, sum_low = _two_sum(c, product_low)
    high, low = _two_sum(product_high, sum_high)
    result = np.asarray(high + _odd_sum(sum_low, low))
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    result = np.where(finite, result, a * b + c)
    trivial = np.equal(a, 0) | np.equal(b, 0)
    result = np.where(trivial & finite, a * b + c, result)
    exponents = [np.frexp(x)[1] for x in (a, b, c, result)]
    unsafe = np.abs(exponents[0] + exponents[1]) > 900
    for x, exponent in zip((a, b, c, result), exponents, strict=True):
        unsafe |= (np.abs(exponent) > 900) & np.not_equal(x, 0)
    unsafe |= np.logical_not(np.isfinite(result))
    unsafe &= finite & np.logical_not(trivial)
    if unsafe.any():
        result = np.array(result)
        for index in np.argwhere(unsafe):
            i = tuple(index)
            result[i] = _rational_fma(float(a[i]), float(b[i]), float(c[i]))
    return result


def _rational_fma(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c
    try:
        return float(exact) if exact > 0 or float(exact) else -0.0
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
