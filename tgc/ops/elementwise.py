"""Maps of one machine operation or a few: arithmetic, rounding, comparison, selection, bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc.dtypes import bool_, f32, f64, i32, i64, u32, u64
from tgc.ir.graph import Array, Attributes, Value
from tgc.ir.opdef import GraphBuilder, OpDef, Scalar, ScalarBuilder
from tgc.ops.maps import ANYWHERE, Partial, map_op, scaled, squared, where

_POSITIVE = (1e-3, 1e3)


# -- helpers of scalar bodies ------------------------------------------------------------------------------------


def zero(s: ScalarBuilder, x: Scalar) -> Scalar:
    """0 in the dtype of ``x``."""
    return s.constant(0, s.dtype(x))


def one(s: ScalarBuilder, x: Scalar) -> Scalar:
    """1 in the dtype of ``x``."""
    return s.constant(1, s.dtype(x))


def bits_of(s: ScalarBuilder, x: Scalar) -> Scalar:
    """The bits of a float as a signed integer of its width."""
    return s.bitcast(x, i32 if s.dtype(x) is f32 else i64)


def _magnitude(s: ScalarBuilder, x: Scalar) -> Scalar:
    return x if s.dtype(x).kind == "uint" else s.abs(x)


def _sign(s: ScalarBuilder, x: Scalar) -> Scalar:
    nought, unit = zero(s, x), one(s, x)
    positive = s.select(s.compare("gt", x, nought), unit, nought)
    if s.dtype(x).kind == "uint":
        return positive
    signed = s.select(s.compare("lt", x, nought), s.neg(unit), positive)
    # the sign of nan is nan
    return s.select(s.compare("ne", x, x), x, signed) if s.dtype(x).is_float else signed


def _infinite(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.compare("eq", s.abs(x), s.constant(float("inf"), s.dtype(x)))


def _finite(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.compare("lt", s.abs(x), s.constant(float("inf"), s.dtype(x)))


def _signbit(s: ScalarBuilder, x: Scalar) -> Scalar:
    bits = bits_of(s, x)
    return s.compare("lt", bits, zero(s, bits))


def _copysign(s: ScalarBuilder, a: Scalar, b: Scalar) -> Scalar:
    unsigned = u32 if s.dtype(a) is f32 else u64
    sign = s.constant(1 << (unsigned.bits - 1), unsigned)
    high = s.bit_and(s.bitcast(b, unsigned), sign)
    return s.bitcast(s.bit_or(s.bitcast(s.abs(a), unsigned), high), s.dtype(a))


def _nextafter(s: ScalarBuilder, a: Scalar, b: Scalar) -> Scalar:
    bits, dtype = bits_of(s, a), s.dtype(a)
    unit = one(s, bits)
    # away from zero is one bit pattern up, whatever the sign
    grows = s.compare("eq", s.compare("lt", a, b), s.compare("gt", a, zero(s, a)))
    step = s.bitcast(s.select(grows, s.add(bits, unit), s.sub(bits, unit)), dtype)
    tiny = _copysign(s, s.bitcast(unit, dtype), b)
    moved = s.select(s.compare("eq", a, zero(s, a)), tiny, step)
    unordered = s.bit_or(s.compare("ne", a, a), s.compare("ne", b, b))
    return s.select(s.compare("eq", a, b), b, s.select(unordered, s.add(a, b), moved))


def _flooring(s: ScalarBuilder, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """Quotient and remainder of the division that rounds down, of signed integers."""
    nought = zero(s, a)
    quotient, rest = s.div(a, b), s.rem(a, b)
    opposite = s.compare("lt", s.bit_xor(rest, b), nought)
    down = s.bit_and(s.bit_and(s.compare("ne", rest, nought), opposite), s.compare("ne", b, nought))
    return s.select(down, s.sub(quotient, one(s, a)), quotient), s.select(down, s.add(rest, b), rest)


def _floor_divide_scalar(s: ScalarBuilder, a: Scalar, b: Scalar) -> Scalar:
    if s.dtype(a).is_float:
        return s.math("floor_divide", a, b)
    return s.div(a, b) if s.dtype(a).kind == "uint" else _flooring(s, a, b)[0]


def _remainder_scalar(s: ScalarBuilder, a: Scalar, b: Scalar) -> Scalar:
    if s.dtype(a).is_float:
        return s.math("remainder", a, b)
    return s.rem(a, b) if s.dtype(a).kind == "uint" else _flooring(s, a, b)[1]


# -- meanings that NumPy does not have as they are ---------------------------------------------------------------


def maximum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 maximum: nan propagates, -0 < +0."""
    y = np.maximum(a, b)
    return np.where((a == 0) & (b == 0), a + b, y) if y.dtype.kind == "f" else y


def minimum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 minimum: nan propagates, -0 < +0."""
    y = np.minimum(a, b)
    return np.where((a == 0) & (b == 0), -(-a - b), y) if y.dtype.kind == "f" else y


def _remainder_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    """da + |a / b| · db, but |b| more where that may reach a multiple of b."""
    a, b = map(rules.as_floats, operands)
    y = np.abs(rules.as_floats(results[0]))
    quotient = np.abs(np.where(b == 0, 0.0, a / b))
    reach = np.where(errors[1] > 0, quotient * errors[1], 0.0) + errors[0]
    wraps = (reach > 0) & ~((y - reach >= 0) & (y + reach < np.abs(b)))
    return (reach + np.where(wraps, np.abs(b), 0.0),)


# -- partial derivatives -----------------------------------------------------------------------------------------


def _itself(b: GraphBuilder, t: Value, *values: Value) -> Value:
    return t


def _negated(b: GraphBuilder, t: Value, *values: Value) -> Value:
    return b.neg(t)


def _of_extreme(predicate: str, *, first: bool) -> Partial:
    """Of maximum and minimum: half each where the operands are equal."""

    def partial(b: GraphBuilder, t: Value, x: Value, y: Value, result: Value) -> Value:
        mine, other = (x, y) if first else (y, x)
        return where(b, predicate, mine, other, t, where(b, "eq", mine, other, scaled(b, t, 0.5), 0.0))

    return partial


def _of_copysign(b: GraphBuilder, t: Value, x: Value, y: Value, result: Value) -> Value:
    return b.select(b.op("eq", b.op("signbit", x), b.op("signbit", y)), t, b.neg(t))


def _of_clamp(b: GraphBuilder, t: Value, x: Value, low: Value, high: Value, result: Value) -> Value:
    return where(b, "ge", x, low, where(b, "le", x, high, t, 0.0), 0.0)


# -- the ops -----------------------------------------------------------------------------------------------------

_ARITHMETIC: tuple[OpDef, ...] = (
    map_op("neg", "-x", np.negative, lambda s, x: s.neg(x), _negated, takes=rules.NUMERIC, exact=True),
    map_op(
        *("abs", "|x|; the smallest signed integer stays itself. Gradient 0 at 0.", np.abs, _magnitude),
        lambda b, t, x, y: b.mul(t, b.op("sign", x)),
        takes=rules.NUMERIC,
        exact=True,
    ),
    map_op("sign", "-1, 0 or 1; nan of nan.", np.sign, _sign, takes=rules.NUMERIC, exact=True),
    map_op("floor", "The integer below.", np.floor, lambda s, x: s.floor(x), exact=True),
    map_op("ceil", "The integer above.", np.ceil, lambda s, x: s.ceil(x), exact=True),
    map_op("trunc", "The integer towards zero.", np.trunc, lambda s, x: s.trunc(x), exact=True),
    map_op("round", "The nearest integer, the even one of two.", np.rint, lambda s, x: s.round_even(x), exact=True),
    map_op(
        *("sqrt", "√x; nan below zero.", np.sqrt, lambda s, x: s.sqrt(x)),
        lambda b, t, x, y: b.div(scaled(b, t, 0.5), y),
        domain=_POSITIVE,
        exact=True,
    ),
    map_op(
        *("reciprocal", "1 / x", lambda x: 1.0 / x, lambda s, x: s.div(one(s, x), x)),
        lambda b, t, x, y: b.neg(b.mul(t, squared(b, y))),
        domain=_POSITIVE,
        exact=True,
    ),
    map_op(
        *("square", "x²", lambda x: x * x, lambda s, x: s.mul(x, x)),
        lambda b, t, x, y: b.mul(t, b.add(x, x)),
        takes=rules.NUMERIC,
        exact=True,
    ),
    map_op(
        *("relu", "max(x, 0). Gradient 0 at 0.", lambda x: maximum(x, np.zeros_like(x))),
        lambda s, x: s.maximum(x, zero(s, x)),
        # of the result, which the next layer needs as well, so that x need not be kept
        lambda b, t, x, y: where(b, "gt", y, 0.0, t, 0.0),
        exact=True,
    ),
    map_op(
        *("add", "a + b", lambda a, b: a + b, lambda s, a, b: s.add(a, b), _itself, _itself),
        takes=rules.NUMERIC,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("sub", "a - b", lambda a, b: a - b, lambda s, a, b: s.sub(a, b), _itself, _negated),
        takes=rules.NUMERIC,
        operands=2,
        exact=True,
    ),
    map_op(
        *("mul", "a · b", lambda a, b: a * b, lambda s, a, b: s.mul(a, b)),
        lambda b, t, x, y, z: b.mul(t, y),
        lambda b, t, x, y, z: b.mul(t, x),
        takes=rules.NUMERIC,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("div", "a / b", np.divide, lambda s, a, b: s.div(a, b)),
        lambda b, t, x, y, z: b.div(t, y),
        lambda b, t, x, y, z: b.neg(b.div(b.mul(t, z), y)),
        operands=2,
        domain=(ANYWHERE, _POSITIVE),
        exact=True,
    ),
    map_op(
        *("floor_divide", "⌊a / b⌋ of the exact quotient; integers: 0 where b is 0."),
        np.floor_divide,
        _floor_divide_scalar,
        takes=rules.NUMERIC,
        operands=2,
        domain=(ANYWHERE, (0.5, 100.0)),
        exact=True,
    ),
    map_op(
        *("remainder", "a - ⌊a / b⌋ · b, which has the sign of b; integers: 0 where b is 0."),
        np.remainder,
        _remainder_scalar,
        _itself,
        lambda b, t, x, y, z: b.neg(b.mul(t, b.op("floor_divide", x, y))),
        error=_remainder_error,
        takes=rules.NUMERIC,
        operands=2,
        domain=(ANYWHERE, (0.5, 100.0)),
        exact=True,
    ),
    map_op(
        *("maximum", "The larger; nan if one is. Gradient: half each where equal.", maximum),
        *(lambda s, a, b: s.maximum(a, b), _of_extreme("gt", first=True), _of_extreme("gt", first=False)),
        takes=rules.NUMERIC,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("minimum", "The smaller; nan if one is. Gradient: half each where equal.", minimum),
        *(lambda s, a, b: s.minimum(a, b), _of_extreme("lt", first=True), _of_extreme("lt", first=False)),
        takes=rules.NUMERIC,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("copysign", "|a| with the sign of b.", np.copysign, _copysign, _of_copysign, None),
        operands=2,
        exact=True,
    ),
    map_op(
        *("nextafter", "The float next to a, towards b.", np.nextafter, _nextafter),
        only=(f32, f64),
        operands=2,
        exact=True,
        extra=rules.AS_TYPED,
    ),
    map_op(
        *("clamp", "min(max(x, low), high)", lambda x, low, high: minimum(maximum(x, low), high)),
        lambda s, x, low, high: s.minimum(s.maximum(x, low), high),
        _of_clamp,
        lambda b, t, x, low, high, y: where(b, "lt", x, low, where(b, "le", low, high, t, 0.0), 0.0),
        lambda b, t, x, low, high, y: where(b, "gt", b.op("maximum", x, low), high, t, 0.0),
        takes=rules.NUMERIC,
        operands=3,
        domain=(ANYWHERE, (-50.0, 0.0), (0.0, 50.0)),
        exact=True,
    ),
)


def _touching(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    """Equality is uncertain where the intervals of the operands meet."""
    reach = rules.as_floats(errors[0]) + rules.as_floats(errors[1])
    a, b = map(rules.as_floats, operands)
    return (np.where((reach > 0) & ~(np.abs(a - b) > reach), 1.0, 0.0),)


def _comparison(name: str, sign: str, meaning: np.ufunc, kinds: frozenset[str]) -> OpDef:
    return map_op(
        name,
        f"Whether a {sign} b; nan is unordered.",
        meaning,
        lambda s, a, b: s.compare(name, a, b),
        takes=kinds,
        gives=bool_,
        operands=2,
        exact=True,
        commutative=name in ("eq", "ne"),
        error=_touching if name in ("eq", "ne") else None,
    )


_COMPARISON: tuple[OpDef, ...] = (
    _comparison("eq", "=", np.equal, rules.ANY),
    _comparison("ne", "≠", np.not_equal, rules.ANY),
    _comparison("lt", "<", np.less, rules.NUMERIC),
    _comparison("le", "≤", np.less_equal, rules.NUMERIC),
    _comparison("gt", ">", np.greater, rules.NUMERIC),
    _comparison("ge", "≥", np.greater_equal, rules.NUMERIC),
    map_op("is_nan", "Whether x is nan.", np.isnan, lambda s, x: s.compare("ne", x, x), gives=bool_, exact=True),
    map_op("is_inf", "Whether x is infinite.", np.isinf, _infinite, gives=bool_, exact=True),
    map_op("is_finite", "Whether x is neither infinite nor nan.", np.isfinite, _finite, gives=bool_, exact=True),
    map_op("signbit", "Whether the sign bit is set, as of -0.", np.signbit, _signbit, gives=bool_, exact=True),
)

_BITS: tuple[OpDef, ...] = (
    map_op("logical_not", "¬x", np.logical_not, lambda s, x: s.bit_not(x), takes=rules.BOOL, exact=True),
    map_op("bitwise_not", "Every bit flipped.", np.invert, lambda s, x: s.bit_not(x), takes=rules.BITS, exact=True),
    map_op(
        *("bitwise_and", "Bits set in both.", np.bitwise_and, lambda s, a, b: s.bit_and(a, b)),
        takes=rules.BITS,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("bitwise_or", "Bits set in one or both.", np.bitwise_or, lambda s, a, b: s.bit_or(a, b)),
        takes=rules.BITS,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("bitwise_xor", "Bits set in one of the two.", np.bitwise_xor, lambda s, a, b: s.bit_xor(a, b)),
        takes=rules.BITS,
        operands=2,
        exact=True,
        commutative=True,
    ),
    map_op(
        *("shift_left", "a · 2^b; 0 where b is negative or beyond the width.", np.left_shift),
        lambda s, a, b: s.shift_left(a, b),
        takes=rules.INTEGER,
        operands=2,
        domain=(ANYWHERE, (-2.0, 70.0)),
        exact=True,
    ),
    map_op(
        *("shift_right", "⌊a / 2^b⌋; 0 or -1, the sign, where b is negative or beyond the width.", np.right_shift),
        lambda s, a, b: s.shift_right(a, b),
        takes=rules.INTEGER,
        operands=2,
        domain=(ANYWHERE, (-2.0, 70.0)),
        exact=True,
    ),
)

OPS_ELEMENTWISE: tuple[OpDef, ...] = (*_ARITHMETIC, *_COMPARISON, *_BITS)
