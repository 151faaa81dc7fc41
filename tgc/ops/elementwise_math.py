"""Maps that are mathematical functions: powers, exponentials, logarithms, circular and hyperbolic functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

import tgc.ops.rules as rules
from tgc.ir.graph import Array, Attributes, Value
from tgc.ir.opdef import GraphBuilder, OpDef, Scalar, ScalarBuilder
from tgc.ops.elementwise import one, zero
from tgc.ops.maps import Interval, Partial, complement, map_op, scaled, shifted, squared, where

_POSITIVE: Interval = (1e-3, 1e3)
_UNIT: Interval = (-0.99, 0.99)
_ANGLE: Interval = (-10.0, 10.0)
# vector_math promises one ulp where hardware has fma, and one more elsewhere
_ULP = 2.0
_LN2, _LN10 = math.log(2.0), math.log(10.0)

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _logaddexp_error(
    operands: Sequence[Array], errors: Sequence[Array], attributes: Attributes, results: Sequence[Array]
) -> tuple[Array, ...]:
    """Operands' errors are averaged; the sum of the larger operand and a term of at most log 2 may cancel."""
    a, b = (np.abs(rules.as_floats(x)) for x in operands)
    terms = np.where(np.isfinite(a) & np.isfinite(b), np.maximum(a, b) + _LN2, 0.0)
    return (np.maximum(errors[0], errors[1]) + 4.0 * rules.roundoff(operands[0]) * terms,)


def _power_of_integers(a: Array, b: Array) -> Array:
    """a**b modulo 2**width by repeated squaring; 1 / a**-b, truncated, for negative b."""
    negative = b < 0
    exponent = np.where(negative, np.negative(b), b).astype(f"u{b.dtype.itemsize}")
    result, factor = np.ones_like(a), a
    for _ in range(8 * a.dtype.itemsize):
        result = np.where(exponent & exponent.dtype.type(1), result * factor, result)
        factor, exponent = factor * factor, exponent >> exponent.dtype.type(1)
    inverse = np.where(np.isin(result, np.array([1, -1]).astype(a.dtype)) & (a != 0), result, 0).astype(a.dtype)
    return np.where(negative, inverse, result)


def _power(a: Array, b: Array) -> Array:
    return np.power(a, b) if a.dtype.kind == "f" else _power_of_integers(a, b)


def _power_scalar(s: ScalarBuilder, a: Scalar, b: Scalar) -> Scalar:
    dtype = s.dtype(a)
    if dtype.is_float:
        return s.math("pow", a, b)
    nought, unit = zero(s, a), one(s, a)
    signed = dtype.kind == "int"
    exponent = s.abs(b) if signed else b
    result, factor = unit, a
    for bit in range(dtype.bits):
        mask = s.constant(-(1 << bit) if signed and bit == dtype.bits - 1 else 1 << bit, dtype)
        result = s.select(s.compare("ne", s.bit_and(exponent, mask), nought), s.mul(result, factor), result)
        factor = s.mul(factor, factor)
    return s.select(s.compare("lt", b, nought), s.div(unit, result), result) if signed else result


def _of_base(b: GraphBuilder, t: Value, x: Value, y: Value, z: Value) -> Value:
    """t·y·x^(y-1), and 0 for y = 0 whatever x."""
    return where(b, "eq", y, 0.0, b.full_like(t, 0.0), _power_rule(b, t, x, y))


def _power_rule(b: GraphBuilder, t: Value, x: Value, y: Value) -> Value:
    return b.mul(t, b.mul(y, b.op("pow", x, shifted(b, y, -1.0))))


def _of_exponent(b: GraphBuilder, t: Value, x: Value, y: Value, z: Value) -> Value:
    """t·z·log(x), and 0 for x = 0."""
    log = b.op("log", where(b, "gt", x, 0.0, x, 1.0))
    return b.mul(t, b.mul(z, log))


def _over(denominator: Partial) -> Partial:
    """The partial derivative ``t / denominator(x)``."""
    return lambda b, t, x, y: b.div(t, denominator(b, x))


def _times(factor: str, *, negative: bool = False) -> Partial:
    """The partial derivative ``± t · factor(x)``."""

    def partial(b: GraphBuilder, t: Value, x: Value, y: Value) -> Value:
        product = b.mul(t, b.op(factor, x))
        return b.neg(product) if negative else product

    return partial


def _below_one(b: GraphBuilder, x: Value) -> Value:
    """1 - x², without its cancellation near 1."""
    return b.mul(complement(b, x), shifted(b, x, 1.0))


def _of_asin(b: GraphBuilder, t: Value, x: Value, y: Value) -> Value:
    return b.mul(t, b.op("rsqrt", _below_one(b, x)))


def _of_acosh(b: GraphBuilder, t: Value, x: Value, y: Value) -> Value:
    return b.mul(t, b.op("rsqrt", b.mul(shifted(b, x, -1.0), shifted(b, x, 1.0))))


def _gaussian(factor: float) -> Partial:
    """The partial derivative ``t · factor · exp(-x²)``."""
    return lambda b, t, x, y: b.mul(t, scaled(b, b.op("exp", b.neg(squared(b, x))), factor))


def _function(
    name: str, doc: str, meaning: Callable[..., Array], *partials: Partial, domain: Interval = _ANGLE
) -> OpDef:
    """A map that is a function of vector_math under its own name."""
    return map_op(name, doc, meaning, lambda s, x: s.math(name, x), *partials, domain=domain, ulp=_ULP)


OPS_ELEMENTWISE_MATH: tuple[OpDef, ...] = (
    _function(
        *("rsqrt", "1 / √x", lambda x: 1.0 / np.sqrt(x), lambda b, t, x, y: scaled(b, b.div(b.mul(t, y), x), -0.5)),
        domain=_POSITIVE,
    ),
    _function("exp", "e^x", np.exp, lambda b, t, x, y: b.mul(t, y)),
    _function("exp2", "2^x", np.exp2, lambda b, t, x, y: b.mul(t, scaled(b, y, _LN2))),
    _function("expm1", "e^x - 1, accurate near 0", np.expm1, lambda b, t, x, y: b.mul(t, shifted(b, y, 1.0))),
    _function("log", "Natural logarithm.", np.log, _over(lambda b, x: x), domain=_POSITIVE),
    _function("log2", "log₂ x", np.log2, _over(lambda b, x: scaled(b, x, _LN2)), domain=_POSITIVE),
    _function("log10", "log₁₀ x", np.log10, _over(lambda b, x: scaled(b, x, _LN10)), domain=_POSITIVE),
    _function(
        "log1p", "log(1 + x), accurate near 0", np.log1p, _over(lambda b, x: shifted(b, x, 1.0)), domain=(-0.9, 10.0)
    ),
    _function("sin", "Sine of x in radians.", np.sin, _times("cos")),
    _function("cos", "Cosine of x in radians.", np.cos, _times("sin", negative=True)),
    _function(
        "tan",
        "Tangent of x in radians.",
        np.tan,
        lambda b, t, x, y: b.mul(t, shifted(b, squared(b, y), 1.0)),
        domain=(-1.5, 1.5),
    ),
    _function("asin", "Inverse sine.", np.arcsin, _of_asin, domain=_UNIT),
    _function("acos", "Inverse cosine.", np.arccos, lambda b, t, x, y: b.neg(_of_asin(b, t, x, y)), domain=_UNIT),
    _function("atan", "Inverse tangent.", np.arctan, _over(lambda b, x: shifted(b, squared(b, x), 1.0))),
    _function("sinh", "Hyperbolic sine.", np.sinh, _times("cosh")),
    _function("cosh", "Hyperbolic cosine.", np.cosh, _times("sinh")),
    _function("tanh", "Hyperbolic tangent.", np.tanh, lambda b, t, x, y: b.mul(t, _below_one(b, y))),
    _function(
        "asinh",
        "Inverse hyperbolic sine.",
        np.arcsinh,
        lambda b, t, x, y: b.mul(t, b.op("rsqrt", shifted(b, squared(b, x), 1.0))),
    ),
    _function("acosh", "Inverse hyperbolic cosine.", np.arccosh, _of_acosh, domain=(1.01, 1e3)),
    _function("atanh", "Inverse hyperbolic tangent.", np.arctanh, _over(_below_one), domain=_UNIT),
    _function("erf", "2/√π · ∫₀ˣ e^(-t²) dt", _erf, _gaussian(2.0 / math.sqrt(math.pi)), domain=(-4.0, 4.0)),
    _function(
        *("erfc", "1 - erf(x), accurate for large x", _erfc, _gaussian(-2.0 / math.sqrt(math.pi))),
        domain=(-4.0, 4.0),
    ),
    _function("sigmoid", "1 / (1 + e^-x)", _sigmoid, lambda b, t, x, y: b.mul(t, b.mul(y, complement(b, y)))),
    map_op(
        *("pow", "a^b. Floats: C's pow. Integers wrap; for b < 0, 1 / a^-b truncated.", _power, _power_scalar),
        *(_of_base, _of_exponent),
        takes=rules.NUMERIC,
        operands=2,
        domain=((0.1, 8.0), (-4.0, 4.0)),
        ulp=_ULP,
    ),
    map_op(
        *("atan2", "Angle of the point (x, y), for operands y, x: in [-π, π].", np.arctan2),
        lambda s, y, x: s.math("atan2", y, x),
        lambda b, t, y, x, z: b.div(b.mul(t, x), b.add(squared(b, x), squared(b, y))),
        lambda b, t, y, x, z: b.neg(b.div(b.mul(t, y), b.add(squared(b, x), squared(b, y)))),
        operands=2,
        ulp=_ULP + 1.0,
    ),
    map_op(
        *("hypot", "√(a² + b²) without overflow; infinite if one is.", np.hypot),
        lambda s, a, b: s.math("hypot", a, b),
        lambda b, t, x, y, z: b.div(b.mul(t, x), z),
        lambda b, t, x, y, z: b.div(b.mul(t, y), z),
        operands=2,
        ulp=_ULP,
        commutative=True,
    ),
    map_op(
        *("logaddexp", "log(e^a + e^b) without overflow.", np.logaddexp),
        lambda s, a, b: s.math("logaddexp", a, b),
        lambda b, t, x, y, z: b.mul(t, b.op("sigmoid", b.sub(x, y))),
        lambda b, t, x, y, z: b.mul(t, b.op("sigmoid", b.sub(y, x))),
        operands=2,
        domain=_ANGLE,
        ulp=1.0,
        error=_logaddexp_error,
        commutative=True,
    ),
)
