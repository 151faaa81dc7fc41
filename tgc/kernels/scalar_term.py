"""Scalar bodies as formulas: a :class:`Term` is a value of a scalar builder with Python's operators."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tgc.dtypes import DType, f32, i32, i64, u32, u64
from tgc.ir.opdef import Scalar, ScalarBuilder

Number: TypeAlias = "Term | bool | int | float"
T = TypeVar("T")


class Term:
    """A value that a :class:`~tgc.ir.opdef.ScalarBuilder` made; Python numbers beside it take its dtype.

    ``==`` is not overloaded (see :meth:`equals`); comparisons and ``&``, ``|``, ``~`` of them give bool terms.
    """

    __slots__ = ("builder", "dtype", "value")

    def __init__(self, builder: ScalarBuilder, value: Scalar, dtype: DType | None = None) -> None:
        self.builder = builder
        self.value = value
        self.dtype = builder.dtype(value) if dtype is None else dtype

    def lift(self, other: Number) -> Scalar:
        """The builder's value of an operand beside this term."""
        return other.value if isinstance(other, Term) else self.builder.constant(other, self.dtype)

    def constant(self, value: bool | int | float) -> Term:
        """A constant of this term's dtype."""
        return Term(self.builder, self.builder.constant(value, self.dtype), self.dtype)

    def pick(self, single: T, double: T) -> T:
        """The constants for this float's precision."""
        return single if self.dtype is f32 else double

    def __add__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.add(self.value, self.lift(other)), self.dtype)

    def __radd__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.add(self.lift(other), self.value), self.dtype)

    def __sub__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.sub(self.value, self.lift(other)), self.dtype)

    def __rsub__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.sub(self.lift(other), self.value), self.dtype)

    def __mul__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.mul(self.value, self.lift(other)), self.dtype)

    def __rmul__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.mul(self.lift(other), self.value), self.dtype)

    def __truediv__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.div(self.value, self.lift(other)), self.dtype)

    def __rtruediv__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.div(self.lift(other), self.value), self.dtype)

    def __neg__(self) -> Term:
        return Term(self.builder, self.builder.neg(self.value), self.dtype)

    def __and__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.bit_and(self.value, self.lift(other)), self.dtype)

    def __or__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.bit_or(self.value, self.lift(other)), self.dtype)

    def __xor__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.bit_xor(self.value, self.lift(other)), self.dtype)

    def __invert__(self) -> Term:
        return Term(self.builder, self.builder.bit_not(self.value), self.dtype)

    def __lshift__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.shift_left(self.value, self.lift(other)), self.dtype)

    def __rshift__(self, other: Number) -> Term:
        return Term(self.builder, self.builder.shift_right(self.value, self.lift(other)), self.dtype)

    def _compare(self, predicate: str, other: Number) -> Term:
        return Term(self.builder, self.builder.compare(predicate, self.value, self.lift(other)))

    def __lt__(self, other: Number) -> Term:
        return self._compare("lt", other)

    def __le__(self, other: Number) -> Term:
        return self._compare("le", other)

    def __gt__(self, other: Number) -> Term:
        return self._compare("gt", other)

    def __ge__(self, other: Number) -> Term:
        return self._compare("ge", other)

    def equals(self, other: Number) -> Term:
        return self._compare("eq", other)

    def differs(self, other: Number) -> Term:
        return self._compare("ne", other)

    def multiply_add(self, factor: Number, addend: Number) -> Term:
        """``self * factor + addend``, rounded once where the target has hardware for it."""
        s = self.builder
        return Term(s, s.multiply_add(self.value, self.lift(factor), self.lift(addend)), self.dtype)

    def fma(self, factor: Number, addend: Number) -> Term:
        """``self * factor + addend``, rounded once."""
        return Term(self.builder, self.builder.fma(self.value, self.lift(factor), self.lift(addend)), self.dtype)

    def abs(self) -> Term:
        return Term(self.builder, self.builder.abs(self.value), self.dtype)

    def sqrt(self) -> Term:
        return Term(self.builder, self.builder.sqrt(self.value), self.dtype)

    def floor(self) -> Term:
        return Term(self.builder, self.builder.floor(self.value), self.dtype)

    def trunc(self) -> Term:
        return Term(self.builder, self.builder.trunc(self.value), self.dtype)

    def round_even(self) -> Term:
        return Term(self.builder, self.builder.round_even(self.value), self.dtype)

    def multiply_high(self, other: Number) -> Term:
        """The upper half of an unsigned product."""
        return Term(self.builder, self.builder.multiply_high(self.value, self.lift(other)), self.dtype)

    def convert(self, dtype: DType) -> Term:
        return Term(self.builder, self.builder.convert(self.value, dtype), dtype)

    def bitcast(self, dtype: DType) -> Term:
        return Term(self.builder, self.builder.bitcast(self.value, dtype), dtype)

    @property
    def format(self) -> Format:
        """The layout of this float's bits."""
        return SINGLE if self.dtype is f32 else DOUBLE

    def bits(self) -> Term:
        """The bits of a float as an unsigned integer, whose shifts to the right every vector unit has."""
        return self.bitcast(self.format.unsigned)

    def copysign(self, sign: Term) -> Term:
        """This float with the sign of another."""
        mask = 1 << self.dtype.bits - 1
        return ((self.bits() & mask - 1) | (sign.bits() & mask)).bitcast(self.dtype)

    def with_sign(self, sign: Term) -> Term:
        """This float, not negative, with the sign of another: one operation less than :meth:`copysign`."""
        return (self.bits() | (sign.bits() & (1 << self.dtype.bits - 1))).bitcast(self.dtype)

    def with_sign_flipped(self, sign: Term) -> Term:
        """This float, negated where another is negative."""
        return (self.bits() ^ (sign.bits() & (1 << self.dtype.bits - 1))).bitcast(self.dtype)

    def upper_half(self) -> Term:
        """This float without the lower half of its mantissa: its square is exact, and what is missing as well."""
        mask = (1 << self.dtype.bits) - (1 << (self.format.mantissa + 2) // 2)
        return (self.bits() & mask).bitcast(self.dtype)

    def at_most(self, limit: Number) -> Term:
        """The smaller one; NaN stays. One instruction where IEEE's minimum takes several."""
        bound = limit if isinstance(limit, Term) else self.constant(limit)
        return where(bound < self, bound, self)

    def at_least(self, limit: Number) -> Term:
        """The larger one; NaN stays."""
        bound = limit if isinstance(limit, Term) else self.constant(limit)
        return where(bound > self, bound, self)


@dataclass(frozen=True, slots=True)
class Format:
    """Where the fields of an IEEE float lie."""

    unsigned: DType
    signed: DType
    mantissa: int  # stored bits
    bias: int

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    def bits_of(self, value: float) -> int:
        """The bits of a number rounded to this format."""
        codes = ("<f", "<I") if self is SINGLE else ("<d", "<Q")
        found: int = struct.unpack(codes[1], struct.pack(codes[0], value))[0]
        return found


SINGLE = Format(u32, i32, 23, 127)
DOUBLE = Format(u64, i64, 52, 1023)


def where(condition: Term, a: Number, b: Number) -> Term:
    """``a`` where the condition holds, else ``b``; one of them at least is a term."""
    model = a if isinstance(a, Term) else b
    if not isinstance(model, Term):
        raise TypeError("one branch at least must be a term")
    s = condition.builder
    return Term(s, s.select(condition.value, model.lift(a), model.lift(b)), model.dtype)


def rarely(condition: Term, compute: Callable[[], tuple[Term, ...]], otherwise: tuple[Term, ...]) -> tuple[Term, ...]:
    """``compute()`` where the condition holds, else ``otherwise``; where it holds in no lane, compute need not run."""
    s = condition.builder
    values = s.rarely(condition.value, lambda: tuple(t.value for t in compute()), tuple(t.value for t in otherwise))
    return tuple(Term(s, value, t.dtype) for value, t in zip(values, otherwise, strict=True))


def polynomial(x: Term, coefficients: Sequence[Number]) -> Term:
    """Horner's rule; coefficients from the constant term up, two of them at least."""
    *lower, last = coefficients
    result = x.multiply_add(last, lower.pop())
    while lower:
        result = result.multiply_add(x, lower.pop())
    return result


def squared(x: Term) -> tuple[Term, Term]:
    """x² rounded, and its error (Dekker), without fma."""
    square, high = x * x, x.upper_half()
    return square, (high * high - square) + (x - high) * (x + high)
