"""Logarithms and inverse hyperbolic functions: x = 2^e·(1 + f) with √½ ≤ 1 + f < √2, and log(1 + f) = f + c(f).

In f32 c is a minimax polynomial, in f64 it is in terms of s = f / (2 + f), as in FreeBSD's msun: the polynomial in f
would have 20 terms. Adding f last keeps the error below one ulp.
"""

from __future__ import annotations

import math

from tgc.kernels.scalar_term import Term, polynomial, rarely, squared, where
from tgc.kernels.vector_math_exponential import exponential

# (log(1 + f) - f + f²/2) / f³ on [√½ - 1, √2 - 1], error 2^-27.3 of log(1 + f)
_LOG_SINGLE = (0.3333333134651184, -0.250008225440979, 0.20001259446144104, -0.1662331223487854, 0.14201173186302185,
               -0.1316029578447342, 0.12764447927474976, -0.07636160403490067)  # fmt: skip
# (2 artanh(s) / s - 2) / s² in s² on |s| <= 0.1716, error 2^-58.5
_LOG_DOUBLE = (0.6666666666666734, 0.3999999999941663, 0.2857142874203134, 0.222221986047054, 0.18183562869535944,
               0.15314084391243277, 0.14795637561692915)  # fmt: skip

# in two parts each: of log 2 and log10 2 the products of the first with any exponent are exact
_LN2_DOUBLE = (0.6931471805598903, 5.497923018708371e-14)
_LOG10_2_SINGLE = (0.301025390625, 4.605039066518657e-06)
_LOG10_2_DOUBLE = (0.30102999566383914, 1.42050232272661e-13)
_LOG2_E_SINGLE = (1.4426950216293335, 1.925963033500011e-08)
_LOG2_E_DOUBLE = (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E_SINGLE = (0.4342944920063019, -1.0103049952192578e-08)
_LOG10_E_DOUBLE = (0.4342944819032518, 1.098319650216765e-17)


def split_mantissa(x: Term) -> tuple[Term, Term]:
    """(e, 1 + f) with x = 2^e·(1 + f) for a positive normal x; e is a float."""
    layout = x.format
    # shifts the ends of binades to √½ times powers of two
    root = layout.bits_of(math.sqrt(0.5))
    shifted = x.bits() + ((layout.bias << layout.mantissa) - root)
    mantissa = ((shifted & (1 << layout.mantissa) - 1) + root).bitcast(x.dtype)
    biased = (shifted >> layout.mantissa) | layout.bits_of(2.0**layout.mantissa)
    return biased.bitcast(x.dtype) - (2.0**layout.mantissa + layout.bias), mantissa


def split_positive(x: Term) -> tuple[Term, Term]:
    """:func:`split_mantissa` of any x: e is an infinity beside 1 for zero and infinity, NaN for NaN and below zero.

    Vectors of positive normal numbers skip the rest.
    """
    layout = x.format
    least, precision = layout.bits_of(layout.smallest_normal), layout.mantissa + 1

    def special() -> tuple[Term, Term]:
        e, mantissa = split_mantissa(x * 2.0**precision)
        finite = (x > 0.0) & (x < math.inf)
        e = where(finite, e - float(precision), where(x.equals(0.0), -math.inf, where(x > 0.0, x, math.nan)))
        return e, where(finite, mantissa, 1.0)

    unusual = (x.bits() - least) >= layout.bits_of(math.inf) - least
    e, mantissa = rarely(unusual, special, split_mantissa(x))
    return e, mantissa


def correction(f: Term, base: float, rest: Term | None = None) -> Term:
    """(log(1 + f) - f)·base + rest."""
    square = f * f
    if f.dtype.bits == 32:
        p = polynomial(f, [c * base for c in (-0.5, *_LOG_SINGLE)])
        return square * p if rest is None else square.multiply_add(p, rest)
    s = f / (f + 2.0)
    half, s_square = square * (0.5 * base), s * s
    tail = s_square.multiply_add(polynomial(s_square, [c * base for c in _LOG_DOUBLE]), half)
    return s.multiply_add(tail, -half if rest is None else rest - half)


def logarithm(x: Term) -> Term:
    """log x."""
    e, mantissa = split_positive(x)
    return _natural(e, mantissa - 1.0)


def _natural(e: Term, f: Term, rest: Term | None = None) -> Term:
    """e·ln 2 + log(1 + f + rest), for a rest below an ulp of f."""
    small = None if rest is None else f.multiply_add(-rest, rest)
    if f.dtype.bits == 32:
        # ln 2 rounded is off by 2^-28, which its product with e does not add to
        return e.multiply_add(math.log(2.0), f + correction(f, 1.0, small))
    high, low = _LN2_DOUBLE
    return e.multiply_add(high, f + correction(f, 1.0, e * low if small is None else e.multiply_add(low, small)))


def logarithm_base_2(x: Term) -> Term:
    """log2 x; exact for powers of two."""
    e, mantissa = split_positive(x)
    f = mantissa - 1.0
    high, low = x.pick(_LOG2_E_SINGLE, _LOG2_E_DOUBLE)
    # what the rounding of f² loses counts most here, where no exponent is added to the root of 2
    lost = f.multiply_add(f, -(f * f)) * (-0.5 * high)
    return e + f.multiply_add(high, correction(f, high, f.multiply_add(low, lost)))


def logarithm_base_10(x: Term) -> Term:
    """log10 x."""
    e, mantissa = split_positive(x)
    f = mantissa - 1.0
    high, low = x.pick(_LOG10_E_SINGLE, _LOG10_E_DOUBLE)
    high_2, low_2 = x.pick(_LOG10_2_SINGLE, _LOG10_2_DOUBLE)
    small = correction(f, high, e.multiply_add(low_2, f * low))
    return e.multiply_add(high_2, f.multiply_add(high, small))


def _log1p(x: Term, rest: Term | None = None) -> Term:
    """log(1 + x + rest) for finite x > -1, and for x >= 0 whatever it is."""
    layout = x.format
    u = x + 1.0
    # what the rounding of 1 + x lost, exactly
    lost = where(x < 1.0, x - (u - 1.0), 1.0 - (u - x))
    if rest is not None:
        lost = lost + rest
    e, mantissa = split_mantissa(u)
    small = x < 2.0 ** (layout.mantissa + 2)
    # 2^-e; (e + 2^p) holds e in its low bits
    inverse = (x.constant(1.5 * 2.0**layout.mantissa + layout.bias) - e).bits() << layout.mantissa
    scaled = where(small, lost * inverse.bitcast(x.dtype), 0.0)
    f = mantissa - 1.0
    total = f + scaled
    return _natural(e, total, scaled - (total - f))


def logarithm_one_plus(x: Term) -> Term:
    """log(1 + x); x itself near 0, which keeps the sign of zero."""
    result = where(x < math.inf, _log1p(x), x)
    result = where(x > -1.0, result, where(x.equals(-1.0), x.constant(-math.inf), math.nan))
    return where(x.abs() < x.pick(2.0**-25, 2.0**-54), x, result)


def logaddexp(a: Term, b: Term) -> Term:
    """log(e^a + e^b) = max(a, b) + log(1 + e^-|a - b|); its error is relative to the larger of both terms."""
    # equal infinities have no difference
    distance = where(a.equals(b), 0.0, (a - b).abs())
    larger = where(a > b, a, where(a.equals(a), b, a))
    return larger + _log1p(exponential(-distance))


def _root(square: Term, lost: Term) -> tuple[Term, Term]:
    """√(square + lost) as a sum of two floats, for a square that is not negative and ``lost`` below an ulp of it."""
    root = square.sqrt()
    again, error = squared(root)
    missing = ((square - again) - error) + lost
    return root, missing / (root + root).at_least(root.format.smallest_normal)


def inverse_hyperbolic_sine(x: Term) -> Term:
    """asinh |x| = log(1 + |x| + (√(x² + 1) - 1)), and log(2|x|) for large x."""
    a = x.abs()
    large = a > x.pick(2.0**28, 2.0**56)
    square, error = squared(a)
    total = square + 1.0
    root, rest = _root(total, where(a < 1.0, square - (total - 1.0), 1.0 - (total - square)) + error)
    excess = root - 1.0
    argument = a + excess
    lost = (excess - (argument - a)) + rest
    result = _log1p(where(large, a, argument), where(large, 0.0, lost)) + where(large, x.constant(math.log(2.0)), 0.0)
    return where(a < math.inf, where(a < x.pick(2.0**-12, 2.0**-27), a, result), a).with_sign(x)


def inverse_hyperbolic_cosine(x: Term) -> Term:
    """acosh x = log(1 + t + √(t (x + 1))) with t = x - 1, and log(2x) for large x."""
    large = x > x.pick(2.0**28, 2.0**56)
    t, s = x - 1.0, x + 1.0
    square = t * s
    root, rest = _root(square, t.multiply_add(s, -square) + t * (1.0 - (s - x)))
    argument = root + t
    lost = (t - (argument - root)) + rest
    result = _log1p(where(large, x, argument), where(large, 0.0, lost)) + where(large, x.constant(math.log(2.0)), 0.0)
    return where(x < math.inf, where(x < 1.0, math.nan, result), x)


def inverse_hyperbolic_tangent(x: Term) -> Term:
    """atanh |x| = ½ log(1 + 2|x| + 2x² / (1 - |x|))."""
    a = x.abs()
    twice, divisor = a + a, 1.0 - a
    product, inverse = twice * a, 1.0 / divisor
    quotient = product * inverse
    missing = quotient.multiply_add(-divisor, product) + twice.multiply_add(a, -product)
    missing = quotient.multiply_add(a - (1.0 - divisor), missing)
    argument = twice + quotient
    lost = where(a > 0.5, twice - (argument - quotient), quotient - (argument - twice))
    result = where(argument < math.inf, _log1p(argument, missing.multiply_add(inverse, lost)) * 0.5, argument)
    result = where(a > 1.0, math.nan, result)
    return where(a < x.pick(2.0**-12, 2.0**-27), a, result).with_sign(x)
