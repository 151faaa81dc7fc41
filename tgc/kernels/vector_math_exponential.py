"""Exponentials and hyperbolic functions: x = n·ln 2 + r with |r| ≤ ½ ln 2, a minimax polynomial in r, and 2^n by bits.

Method after Cody and Waite, "Software Manual for the Elementary Functions"; all coefficients are of our own Remez fits.
No integer conversion is needed: adding 1.5·2^p rounds to the nearest integer, and leaves it in the low bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tgc.kernels.scalar_term import Term, polynomial, rarely, where

# e^r on |r| <= ln 2 / 2, relative error 2^-28.2 and 2^-57.9
_EXP_SINGLE = (1.0, 1.0, 0.4999999403953552, 0.16666516661643982, 0.041668105870485306, 0.008369198068976402,
               0.0013838650193065405)  # fmt: skip
_EXP_DOUBLE = (1.0, 1.0, 0.5000000000000011, 0.16666666666666435, 0.0416666666665258, 0.008333333333475993,
               0.0013888888944846157, 0.00019841269554310423, 2.480149178959609e-05, 2.7557537515933402e-06,
               2.7630724984037986e-07, 2.5017220505163216e-08)  # fmt: skip
# 2^r on |r| <= 1/2, relative error 2^-28.3 and 2^-57.7
_EXP2_SINGLE = (1.0, 0.6931471824645996, 0.24022647738456726, 0.055503588169813156, 0.009618482552468777,
                0.0013391367392614484, 0.00015337755030486733)  # fmt: skip
_EXP2_DOUBLE = (1.0, 0.6931471805599453, 0.24022650695910108, 0.05550410866482193, 0.009618129107602047,
                0.001333355814650108, 0.00015403530448287312, 1.5252733669080525e-05, 1.3215439241803222e-06,
                1.0178148411197535e-07, 7.073162062538559e-09, 4.440260870663838e-10)  # fmt: skip
# (e^r - 1 - r) / r² on |r| <= ln 2 / 2, error 2^-31.0 and 2^-61.6 of e^r - 1
_EXPM1_SINGLE = (0.5, 0.1666666567325592, 0.04166646674275398, 0.008333642967045307, 0.001393504673615098,
                 0.00019664545834530145)  # fmt: skip
_EXPM1_DOUBLE = (0.5, 0.16666666666666677, 0.041666666666666644, 0.008333333333321279, 0.0013888888888894007,
                 0.0001984126988725581, 2.4801587315636973e-05, 2.7557242896850075e-06, 2.7557272787734054e-07,
                 2.510954291196004e-08, 2.091775406061584e-09)  # fmt: skip
# (tanh x / x - 1) / x² in x² on |x| <= 1, error 2^-27.7 and 2^-59.8 of tanh x
_TANH_SINGLE = (-0.33333295583724976, 0.13332346081733704, -0.05387984588742256, 0.021486671641469002,
                -0.007945992052555084, 0.002301195403560996, -0.0003583814832381904)  # fmt: skip
_TANH_DOUBLE = (-0.333333333333333, 0.13333333333329114, -0.053968253966488675, 0.0218694884986789,
                -0.008863235053995116, 0.0035921240726142284, -0.0014558114487710648, 0.0005899316647449315,
                -0.00023883317560896466, 9.622741107861849e-05, -3.806294592797334e-05, 1.427876686984938e-05,
                -4.757209176725603e-06, 1.2709728317753456e-06, -2.3292716585042123e-07,
                2.1296122794459935e-08)  # fmt: skip
# (sinh x / x - 1) / x² in x² on |x| <= 1, error 2^-31.6 and 2^-63.0 of sinh x
_SINH_SINGLE = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)
_SINH_DOUBLE = (0.16666666666666666, 0.008333333333333573, 0.0001984126984106116, 2.7557319310091925e-06,
                2.5052089411849283e-08, 1.6061339405310896e-10, 7.503238664951801e-13,
                6.4764204279428105e-15)  # fmt: skip

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the products of the first with any exponent are exact
_LN2_SINGLE = (0.693145751953125, 1.428606765330187e-06)
_LN2_DOUBLE = (0.6931471805598903, 5.497923018708371e-14)


def nearest_integer(x: Term, exponent: int, factor: float = 1.0) -> tuple[Term, Term]:
    """(n, k): x · factor rounded, and bits that end in those of n + exponent.

    k is right while |n| is far below 2 to the number of mantissa bits; n is near x · factor whatever it is.
    """
    magic = 1.5 * 2.0**x.format.mantissa + exponent
    shifted = x + magic if factor == 1.0 else x.multiply_add(factor, magic)
    return shifted - magic, shifted.bits()


def power_of_two(k: Term, like: Term) -> Term:
    """2^n for k of ``exponent`` the bias, 2^n being normal."""
    return (k << like.format.mantissa).bitcast(like.dtype)


def scale(p: Term, n: Term, k: Term) -> Term:
    """p·2^n for p between 2^-7 and 2 and k of ``exponent`` 0, rounded once.

    Vectors in which every result is a normal number skip the way in two steps, and the limits beyond it.
    """
    layout = p.format

    def stepwise() -> tuple[Term]:
        twice = k + 2 * layout.bias
        half = twice >> 1
        result = p * power_of_two(half, p) * power_of_two(twice - half, p)
        result = where(n < -layout.bias - layout.mantissa - 2.0, 0.0, result)
        return (where(n > layout.bias + 1.0, math.inf, result),)

    usual = (p.bits() + (k << layout.mantissa)).bitcast(p.dtype)
    (result,) = rarely(~(n.abs() <= layout.bias - 9.0), stepwise, (usual,))
    return result


def exponential_in_parts(
    x: Term, exponent: int, rest: Term | None = None, *, closely: bool = False
) -> tuple[Term, Term, Term, Term]:
    """(r, v, n, k) with e^(x + rest) = 2^n (1 + r + v), |v| < 0.08, and n, k as of :func:`nearest_integer`.

    r is exact, so that adding it first to something larger, and what that rounds away to v, loses nothing.
    The polynomial of v is off by 2^-28 and 2^-58 of 1, or ``closely`` by 2^-31 and 2^-61, with the error of its square.
    """
    n, k = nearest_integer(x, exponent, _LOG2_E)
    high, low = x.pick(_LN2_SINGLE, _LN2_DOUBLE)
    r = n.multiply_add(-high, x)
    small = n * -low if rest is None else n.multiply_add(-low, rest)
    t = r + small
    square = t * t
    if not closely:
        return r, square.multiply_add(polynomial(t, x.pick(_EXP_SINGLE, _EXP_DOUBLE)[2:]), small), n, k
    small = t.multiply_add(t, -square).multiply_add(0.5, small)
    return r, square.multiply_add(polynomial(t, x.pick(_EXPM1_SINGLE, _EXPM1_DOUBLE)), small), n, k


def exponential(x: Term) -> Term:
    """e^x."""
    n, k = nearest_integer(x, 0, _LOG2_E)
    high, low = x.pick(_LN2_SINGLE, _LN2_DOUBLE)
    r = n.multiply_add(-low, n.multiply_add(-high, x))
    return scale(polynomial(r, x.pick(_EXP_SINGLE, _EXP_DOUBLE)), n, k)


def power_of_two_fraction(r: Term) -> Term:
    """2^r for |r| <= 1/2."""
    return polynomial(r, r.pick(_EXP2_SINGLE, _EXP2_DOUBLE))


def exponential_base_2(x: Term) -> Term:
    """2^x."""
    n, k = nearest_integer(x, 0)
    return scale(power_of_two_fraction(x - n), n, k)


def exponential_minus_one(x: Term) -> Term:
    """e^x - 1: 2^n (r + v) + (2^n - 1), all halved so that 2^n does not overflow before its product does."""
    limited = x.at_most(x.pick(89.0, 710.0)).at_least(x.pick(-20.0, -40.0))
    r, v, _, k = exponential_in_parts(limited, x.format.bias - 1, closely=True)
    half = power_of_two(k, x)
    whole = half - 0.5
    total = half.multiply_add(r, whole)
    # what the roundings of both lost
    lost = half.multiply_add(r, whole - total) + ((half - whole) - 0.5)
    result = (total + half.multiply_add(v, lost)) * 2.0
    # below, e^x - 1 rounds to x; halving would lose bits of subnormals, and the sign of zero
    return where(x.abs() < x.pick(2.0**-25, 2.0**-54), x, result)


def sigmoid(x: Term) -> Term:
    """1 / (1 + e^-x) = 2^n / (2^n + 1 + r + v) for e^-x = 2^-n (1 + r + v), with the quotient's remainder."""
    layout = x.format
    limited = x.at_most(x.pick(18.0, 38.0)).at_least(x.pick(-104.0, -746.0))
    # 2^n is a float only with a larger exponent, which the last step takes back
    offset = layout.bias // 2
    r, v, _, k = exponential_in_parts(-limited, 0)
    raised = power_of_two((layout.bias + offset) - k, x)
    power = raised * 2.0**-offset
    one = power + 1.0
    rest = one - power
    total = one + (r + v)
    lost = (((one - total) + r) + v) + ((power - (one - rest)) + (1.0 - rest))
    inverse = 1.0 / total
    missing = inverse.multiply_add(-lost, inverse.multiply_add(-total, 1.0))
    return inverse.multiply_add(missing, inverse) * raised * 2.0**-offset


def hyperbolic_tangent(x: Term) -> Term:
    """tanh x = 1 - 2 / (e^2|x| + 1), and an odd polynomial on [-1, 1]."""
    magnitude = x.abs()
    limited = magnitude.at_most(x.pick(10.0, 20.0))
    r, v, _, k = exponential_in_parts(limited + limited, x.format.bias)
    power = power_of_two(k, x)
    far = 1.0 - 2.0 / power.multiply_add(r + v, power + 1.0)
    near = _odd(magnitude, x.pick(_TANH_SINGLE, _TANH_DOUBLE))
    return where(magnitude < 1.0, near, far).with_sign(x)


def _odd(x: Term, coefficients: Sequence[float]) -> Term:
    """x + x³·P(x²)."""
    square = x * x
    return (square * x).multiply_add(polynomial(square, coefficients), x)


def _quarter_exponential(x: Term) -> tuple[Term, Term]:
    """e^x / 4 for x >= 0 as a sum of two, finite beyond the x where e^x / 2 overflows."""
    r, v, _, k = exponential_in_parts(x.at_most(x.pick(89.5, 710.5)), x.format.bias - 2)
    power = power_of_two(k, x)
    total = power.multiply_add(r, power)
    return total, power.multiply_add(v, power.multiply_add(r, power - total))


def hyperbolic_sine(x: Term) -> Term:
    """sinh x = e^|x| / 2 - 1 / (2 e^|x|), and an odd polynomial on [-1, 1]."""
    magnitude = x.abs()
    quarter, rest = _quarter_exponential(magnitude)
    far = (quarter + (rest - 0.0625 / (quarter + rest))) * 2.0
    near = _odd(magnitude, x.pick(_SINH_SINGLE, _SINH_DOUBLE))
    return where(magnitude < 1.0, near, far).with_sign(x)


def hyperbolic_cosine(x: Term) -> Term:
    """cosh x = e^|x| / 2 + 1 / (2 e^|x|)."""
    quarter, rest = _quarter_exponential(x.abs())
    return (quarter + (rest + 0.0625 / (quarter + rest))) * 2.0
