"""Sine, cosine and tangent: x = n·π/2 + r with |r| ≤ π/4 as a sum of two floats, then a polynomial by the quadrant.

The reduction of moderate arguments subtracts four parts of n·π/2 (Cody and Waite), of which three are exact with or
without fma. Larger ones take the bits of 2/π that matter to them in integer arithmetic (Payne and Hanek, "Radian
reduction for trigonometric functions"), which vectors without such an argument skip.
"""

from __future__ import annotations

import math
from typing import Final

from tgc.kernels.scalar_term import Term, polynomial, rarely, where

# (sin r / r - 1) / r² in r² on |r| <= π/4, error 2^-27.9 and 2^-57.9 of sin r
_SIN_SINGLE = (-0.16666655242443085, 0.008332188241183758, -0.0001951809535967186)
_SIN_DOUBLE = (-0.1666666666666663, 0.00833333333332184, -0.00019841269829358726, 2.7557313538651856e-06,
               -2.5050734419381843e-08, 1.589543541131407e-10)  # fmt: skip
# (cos r - 1 + r²/2) / r⁴ in r² on |r| <= π/4, error 2^-33.1 and 2^-64.2 of cos r
_COS_SINGLE = (0.04166664555668831, -0.00138873013202101, 2.4430670237052254e-05)
_COS_DOUBLE = (0.0416666666666666, -0.0013888888888874457, 2.4801587289652848e-05, -2.7557314393861165e-07,
               2.0875728109320055e-09, -1.1359864878684003e-11)  # fmt: skip
# (tan r / r - 1) / r² in r² on |r| <= π/8, error 2^-28.9 and 2^-58.7 of tan r
_TAN_SINGLE = (0.33333292603492737, 0.133358895778656, 0.053474292159080505, 0.02556299977004528)
_TAN_DOUBLE = (0.33333333333333504, 0.13333333333289155, 0.05396825400767782, 0.021869486814314623,
               0.008863277969715692, 0.0035914985518824137, 0.0014615510633601695, 0.0005591196957517237,
               0.00032873211790142553)  # fmt: skip

# π/2 in parts: up to the limit, n times the first three is exact, and subtracting the first two as well
_HALF_PI_SINGLE = (1.570556640625, 0.0002396702766418457, 1.5890691429376602e-08, 2.5633440682570896e-12)
_HALF_PI_DOUBLE = (1.5707963267341256, 6.077094383272197e-11, 6.12323399538461e-17, 3.5215598651832e-27)
_LIMIT_SINGLE, _LIMIT_DOUBLE = 3072.0, 1048576.0

# π/2 rounded, split into halves of its mantissa, and what the rounding left
_PRODUCT_SINGLE = (1.5707963705062866, 1.5703125, 0.0004838705062866211, -4.371138828673793e-08)
_PRODUCT_DOUBLE = (1.5707963267948966, 1.5707963109016418, 1.5893254712295857e-08, 6.123233995736766e-17)

_TWO_OVER_PI: Final = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e0"
    "06492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f4"
    "9c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d"
    "7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d",
    16,
)
_TWO_OVER_PI_BITS: Final = 1280


def _reduce_moderate(a: Term) -> tuple[Term, Term, Term]:
    """(r, its error, bits that end in n) for 0 <= a below the limit."""
    first, second, third, fourth = a.pick(_HALF_PI_SINGLE, _HALF_PI_DOUBLE)
    magic = 1.5 * 2.0**a.format.mantissa
    shifted = a.multiply_add(2.0 / math.pi, magic)
    n = shifted - magic
    exact = n.multiply_add(-second, n.multiply_add(-first, a))
    product = n * third
    high = exact - product
    low = n.multiply_add(-fourth, (exact - high) - product)
    return high, low, shifted.bits()


def _window(position: Term) -> tuple[Term, ...]:
    """Three words of the bits of 2/π after one word of zeros, from a bit position on."""
    width = position.dtype.bits
    index, shift = position >> width.bit_length() - 1, position & width - 1
    # positions lie in the first 5 words of f32, and in the first 17 of f64
    stages, words = (3, 8) if width == 32 else (5, 20)
    mask = (1 << width) - 1
    found = [position.constant((_TWO_OVER_PI >> _TWO_OVER_PI_BITS - width * k) & mask) for k in range(words)]
    for stage in reversed(range(stages)):
        step = 1 << stage
        moved = (index & step).differs(0)
        found = [
            where(moved, found[k + step], found[k]) if k + step < len(found) else found[k]
            for k in range(min(step + 3, len(found)))
        ]
    back = width - shift
    return tuple((found[k] << shift) | (found[k + 1] >> back) for k in range(3))


def _reduce_large(a: Term) -> tuple[Term, Term, Term]:
    """(r, its error, n modulo 4) for any a above the limit; infinity and NaN give NaN."""
    layout, width = a.format, a.dtype.bits
    bits = a.bits()
    significand = (bits & (1 << layout.mantissa) - 1) | (1 << layout.mantissa)
    exponent = bits >> layout.mantissa
    # a·(2/π)/4 modulo 1 in two words: what lies above the window is a multiple of four turns
    high, middle, low = _window(exponent - (layout.bias + layout.mantissa + 2 - width))
    below = significand * middle
    second = below + significand.multiply_high(low)
    carry = where(second < below, second.constant(1), second.constant(0))
    first = significand * high + significand.multiply_high(middle) + carry
    n = (first + (1 << width - 3)) >> width - 2
    # the signed fraction of a·(2/π), between -½ and ½, in four parts of half a word that floats hold exactly
    half = width // 2
    upper, lower = (first << 2) | (second >> width - 2), second << 2
    magic, magic_bits = 2.0**layout.mantissa, layout.bits_of(2.0**layout.mantissa)
    parts = [
        (upper >> half ^ (1 << half - 1), magic + 2.0 ** (half - 1)),
        (upper & (1 << half) - 1, magic),
        (lower >> half, magic),
        (lower & (1 << half) - 1, magic),
    ]
    floats = [
        ((part | magic_bits).bitcast(a.dtype) - offset) * 2.0 ** (-half * (k + 1))
        for k, (part, offset) in enumerate(parts)
    ]
    total, error = _fast_two_sum(floats[0], floats[1])
    total, second_error = _fast_two_sum(total, floats[2])
    turn, rest = _fast_two_sum(total, error + (second_error + floats[3]))
    r, r_error = _times_half_pi(turn, rest)
    return where(a < math.inf, r, math.nan), r_error, n


def _fast_two_sum(a: Term, b: Term) -> tuple[Term, Term]:
    """a + b rounded, and its error, for |a| >= |b| or a = 0."""
    total = a + b
    return total, b - (total - a)


def _times_half_pi(x: Term, rest: Term) -> tuple[Term, Term]:
    """(x + rest)·π/2 and its error, by halves of the mantissas (Dekker), as not all targets have fma."""
    value, high, low, missing = x.pick(_PRODUCT_SINGLE, _PRODUCT_DOUBLE)
    x_high = x.upper_half()
    x_low = x - x_high
    product = x * value
    error = ((x_high * high - product) + x_high * low + x_low * high) + x_low * low
    return _fast_two_sum(product, error + (x * missing + rest * value))


def _reduce(a: Term) -> tuple[Term, Term, Term]:
    large = a > a.pick(_LIMIT_SINGLE, _LIMIT_DOUBLE)
    r, error, n = rarely(large, lambda: _reduce_large(a), _reduce_moderate(a))
    return r, error, n


def _sine_and_cosine(r: Term, low: Term) -> tuple[Term, Term]:
    """Of r + low, |r| <= π/4, low below half an ulp of r."""
    square = r * r
    sine = r + (square * r).multiply_add(polynomial(square, r.pick(_SIN_SINGLE, _SIN_DOUBLE)), low)
    half = square * 0.5
    rounded = 1.0 - half
    small = (square * square).multiply_add(polynomial(square, r.pick(_COS_SINGLE, _COS_DOUBLE)), -(r * low))
    return sine, rounded + (((1.0 - rounded) - half) + small)


def _flip(x: Term, quadrant: Term, sign: Term | None = None) -> Term:
    """x negated where bit 1 of the quadrant is set, and once more where ``sign`` is negative."""
    width = x.dtype.bits
    bits = quadrant << width - 2
    if sign is not None:
        bits = bits ^ sign.bits()
    return (x.bits() ^ (bits & (1 << width - 1))).bitcast(x.dtype)


def sine(x: Term) -> Term:
    """sin x for all finite x."""
    r, low, n = _reduce(x.abs())
    sin, cos = _sine_and_cosine(r, low)
    return _flip(where((n & 1).equals(0), sin, cos), n, x)


def cosine(x: Term) -> Term:
    """cos x for all finite x."""
    r, low, n = _reduce(x.abs())
    sin, cos = _sine_and_cosine(r, low)
    return _flip(where((n & 1).equals(0), cos, sin), n + 1)


def tangent(x: Term) -> Term:
    """tan x for all finite x: 2t / (1 - t²), t = tan(r / 2), or in odd quadrants the negative reciprocal.

    Numerator and denominator are sums of two floats, and the quotient gets its remainder.
    """
    a = x.abs()
    r, low, n = _reduce(a)
    half = r * 0.5
    square = half * half
    tail = (square * half).multiply_add(polynomial(square, r.pick(_TAN_SINGLE, _TAN_DOUBLE)), low * 0.5)
    t = half + tail
    t_low = tail - (t - half)
    twice, twice_low = t + t, t_low + t_low
    t_square = t * t
    rest = 1.0 - t_square
    rest_low = ((1.0 - rest) - t_square) - t.multiply_add(twice_low, t.multiply_add(t, -t_square))
    even = (n & 1).equals(0)
    above, above_low = where(even, twice, -rest), where(even, twice_low, -rest_low)
    below, below_low = where(even, rest, twice), where(even, rest_low, twice_low)
    inverse = 1.0 / below
    q = above * inverse
    missing = q.multiply_add(-below_low, q.multiply_add(-below, above) + above_low)
    # half of a subnormal may be none
    result = where(a < a.pick(2.0**-13, 2.0**-27), a, missing.multiply_add(inverse, q))
    return result.with_sign_flipped(x)
