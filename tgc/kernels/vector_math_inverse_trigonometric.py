"""Arc sine, cosine and tangent: odd polynomials near 0, and the identities that lead there."""

from __future__ import annotations

import math

from tgc.kernels.scalar_term import Term, polynomial, where

# (asin x / x - 1) / x² in x² on |x| <= 1/2, error 2^-27.6 and 2^-55.9 of asin x
_ASIN_SINGLE = (0.16666752099990845, 0.074953094124794, 0.04546915367245674, 0.02418474294245243,
                0.04215838760137558)  # fmt: skip
_ASIN_DOUBLE = (0.16666666666665408, 0.0750000000033715, 0.04464285682820501, 0.030381959142433988,
                0.02237175791213464, 0.01735970693749289, 0.013885213249799076, 0.012169361825354488,
                0.006527308377549876, 0.01953013587366092, -0.016227258197980488, 0.031914377086618706)  # fmt: skip
# (atan x / x - 1) / x² in x² on |x| <= tan(π/8), error 2^-30.4 and 2^-59.4 of atan x
_ATAN_SINGLE = (-0.33333316445350647, 0.19998526573181152, -0.14244344830513, 0.10598728805780411,
                -0.060887400060892105)  # fmt: skip
_ATAN_DOUBLE = (-0.3333333333333319, 0.19999999999952187, -0.14285714280054643, 0.11111110776337545,
                -0.09090897552279964, 0.07692056549235135, -0.06663062242639818, 0.05847583981787344,
                -0.050379234464734766, 0.038029319703882895, -0.01786845023018596)  # fmt: skip

# π/2 rounded, and what the rounding left
_HALF_PI_SINGLE, _HALF_PI_DOUBLE = (1.5707963705062866, -4.371138828673793e-08), (math.pi / 2, 6.123233995736766e-17)


def _arc_sine_reduced(a: Term) -> tuple[Term, Term, Term]:
    """(whether a > 1/2, s, its rest) with asin a = s + rest for a <= 1/2, else π/2 - 2 (s + rest), by √((1 - a) / 2).

    The root is rounded to half its bits, so that what is missing comes from its exact square.
    """
    outer = a > 0.5
    square = where(outer, (1.0 - a) * 0.5, a * a)
    root = where(outer, square.sqrt(), a)
    short = root.upper_half()
    missing = where(outer, (square - short * short) / (root + short).at_least(a.format.smallest_normal), 0.0)
    rest = (root * square).multiply_add(polynomial(square, a.pick(_ASIN_SINGLE, _ASIN_DOUBLE)), missing)
    return outer, where(outer, short, a), rest


def arc_sine(x: Term) -> Term:
    """asin x; NaN beyond 1."""
    outer, s, rest = _arc_sine_reduced(x.abs())
    high, low = x.pick(_HALF_PI_SINGLE, _HALF_PI_DOUBLE)
    twice = s + s
    total = high - twice
    far = total + (((high - total) - twice) - (rest + rest - low))
    return where(outer, far, s + rest).copysign(x)


def arc_cosine(x: Term) -> Term:
    """acos x: 2s for x > 1/2, π - 2s for x < -1/2, and π/2 ∓ s between."""
    outer, s, rest = _arc_sine_reduced(x.abs())
    high, low = x.pick(_HALF_PI_SINGLE, _HALF_PI_DOUBLE)
    negative = x < 0.0
    total = s + (rest - where(negative, where(outer, x.constant(low), -low), where(outer, x.constant(0.0), low)))
    twice = total + total
    inner = high - where(negative, -total, total)
    return where(outer, where(negative, 2.0 * high - twice, twice), inner)


def _thirds(y: Term, x: Term) -> tuple[Term, Term, Term, Term]:
    """(whether y / x is below tan(π/8), whether above tan(3π/8), a numerator, a denominator), for y, x >= 0.

    The angles are those of 0, π/2 or π/4 and what the quotient is the tangent of.
    """
    small, large = y <= x * math.tan(math.pi / 8), y > x * math.tan(3 * math.pi / 8)
    return small, large, where(small, y, where(large, -x, y - x)), where(small, x, where(large, y, y + x))


def _arc(small: Term, large: Term, t: Term, lost: Term | None = None) -> Term:
    """The angle of t + lost and the third it lies in."""
    high, low = t.pick(_HALF_PI_SINGLE, _HALF_PI_DOUBLE)
    base_high, base_low = (where(small, 0.0, where(large, t.constant(p), 0.5 * p)) for p in (high, low))
    square = t * t
    rest = base_low if lost is None else base_low + lost
    tail = (t * square).multiply_add(polynomial(square, t.pick(_ATAN_SINGLE, _ATAN_DOUBLE)), rest)
    return base_high + (t + tail)


def arc_tangent(x: Term) -> Term:
    """atan x, with the remainder of the quotient, and what the rounding of numerator and denominator lost."""
    a = x.abs().at_most(2.0 ** (2 * x.format.mantissa))
    small, large, above, below = _thirds(a, x.constant(1.0))
    inverse = 1.0 / below
    t = above * inverse
    sums = t.multiply_add((below - 1.0) - a, a - (above + 1.0))
    missing = t.multiply_add(-below, above) + where(small | large, 0.0, sums)
    return _arc(small, large, t, missing * inverse).copysign(x)


def arc_tangent_2(y: Term, x: Term) -> Term:
    """The angle of the point (x, y), from -π to π; signs of zero and infinities as in C99."""
    a, b = y.abs(), x.abs()
    # so that a + b does not overflow; a subnormal that loses bits here is lost beside the other one anyway
    huge = where(a > b, a, b) > 2.0 ** (x.format.bias - 7)
    a, b = where(huge, a * 0.125, a), where(huge, b * 0.125, b)
    same = a.equals(b)
    small, large, above, below = _thirds(where(same, where(a > 0.0, x.constant(1.0), 0.0), a), where(same, 1.0, b))
    angle = _arc(small, large, above / below)
    high, low = x.pick(_HALF_PI_SINGLE, _HALF_PI_DOUBLE)
    behind = (x.bits() >> x.dtype.bits - 1).differs(0)
    return where(behind, 2.0 * high - (angle - 2.0 * low), angle).copysign(y)
