"""Exponentials and hyperbolic functions: x = n·ln 2 + r with |r| ≤ ½ ln 2, a minimax polynomial in r, and 2^n by bits.

Method after Cody and Waite, "Software Manual for the Elementary Functions"; all coefficients are of our own Remez fits.
No integer conversion is needed: adding 1.5·2^p rounds to the nearest integer, and leaves it in the low bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from tgc.kernels.scalar_term import Term, polynomial, where

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
# (tanh x / x - 1) / x² in x² on |x| <= 0.6, error 2^-28.4 and 2^-57.8 of tanh x
_TANH_SINGLE = (-0.33333298563957214, 0.13331936299800873, -0.05378471687436104, 0.02079862728714943,
                -0.005897971801459789)  # fmt: skip
_TANH_DOUBLE = (-0.33333333333333126, 0.13333333333299766, -0.05396825394933418, 0.021869488003320506,
                -0.008863226786350828, 0.0035920374455304586, -0.0014552156836802616, 0.0005871894120390123,
                -0.00023039878623524045, 7.931615392740271e-05, -1.7179791679190956e-05)  # fmt: skip
# (sinh x / x - 1) / x² in x² on |x| <= 1, error 2^-31.6 and 2^-63.0 of sinh x
_SINH_SINGLE = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)
_SINH_DOUBLE = (0.16666666666666666, 0.008333333333333573, 0.0001984126984106116, 2.7557319310091925e-06,
                2.5052089411849283e-08, 1.6061339405310896e-10, 7.503238664951801e-13,
                6.4764204279428105e-15)  # fmt: skip

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the products of the first with any exponent are exact
_LN2_SINGLE = (0.693145751953125, 1.428606765330187e-06)
_LN2_DOUBLE = (0.6931471805598903, 5.497923018708371e-14)


def split_exponent(x: Term, exponent: int, *, base: int = 0) -> tuple[Term, Term]:
    """(r, k) with x = n·ln 2 + r, or x = n + r for ``base`` 2; k holds the bits of n + exponent below others.

    Right while |n| is far below 2 to the number of mantissa bits; NaN gives NaN as r.
    """
    magic = 1.5 * 2.0**x.format.mantissa + exponent
    shifted = x + magic if base == 2 else x.multiply_add(_LOG2_E, magic)
    n = shifted - magic
    if base == 2:
        return x - n, shifted.bits()
    high, low = x.pick(_LN2_SINGLE, _LN2_DOUBLE)
    return n.multiply_add(-low, n.multiply_add(-high, x)), shifted.bits()


def scale_twice(p: Term, k: Term) -> Term:
    """p·2^n, for k of ``exponent`` twice the bias: in two steps, as 2^n itself may be no normal number.

    Right for |n| up to twice the bias; only the last step rounds.
    """
    mantissa = p.format.mantissa
    half = k >> 1
    first, second = half << mantissa, (k - half) << mantissa
    return (p * first.bitcast(p.dtype)) * second.bitcast(p.dtype)


def power_of_two(k: Term, like: Term) -> Term:
    """2^n for k of ``exponent`` the bias, 2^n being normal."""
    return (k << like.format.mantissa).bitcast(like.dtype)


def exponential_not_positive(x: Term) -> Term:
    """e^x for x <= 0."""
    r, k = split_exponent(x.at_least(x.pick(-104.0, -746.0)), 2 * x.format.bias)
    return scale_twice(polynomial(r, x.pick(_EXP_SINGLE, _EXP_DOUBLE)), k)


def _exponential_minus_one_reduced(r: Term) -> Term:
    """e^r - 1 for |r| <= ln 2 / 2, with an error relative to e^r."""
    return (r * r).multiply_add(polynomial(r, r.pick(_EXP_SINGLE, _EXP_DOUBLE)[2:]), r)


def exponential_in_parts(x: Term, rest: Term | None = None) -> tuple[Term, Term]:
    """(t, k) with e^(x + rest) = 2^n (1 + t) for x <= 0 and a rest far below 1; t keeps what 1 + t would round away."""
    r, k = split_exponent(x.at_least(x.pick(-104.0, -746.0)), 2 * x.format.bias)
    return _exponential_minus_one_reduced(r if rest is None else r + rest), k


def exponential_of_normal_in_parts(x: Term) -> tuple[Term, Term]:
    """(t, 2^n) with e^x = 2^n (1 + t), for x between -87 and 87 (f32) or -708 and 708 (f64)."""
    r, k = split_exponent(x, x.format.bias)
    return _exponential_minus_one_reduced(r), power_of_two(k, x)


def exponential(x: Term) -> Term:
    """e^x, to 1 ulp."""
    return exponential_not_positive(x.at_most(x.pick(89.0, 710.0)))


def power_of_two_fraction(r: Term) -> Term:
    """2^r for |r| <= 1/2."""
    return polynomial(r, r.pick(_EXP2_SINGLE, _EXP2_DOUBLE))


def exponential_base_2(x: Term) -> Term:
    """2^x, to 1 ulp."""
    limited = x.at_most(x.pick(129.0, 1025.0)).at_least(x.pick(-151.0, -1076.0))
    r, k = split_exponent(limited, 2 * x.format.bias, base=2)
    return scale_twice(power_of_two_fraction(r), k)


def exponential_minus_one(x: Term) -> Term:
    """e^x - 1: 2^n (e^r - 1) + (2^n - 1), all halved so that 2^n does not overflow before its product does."""
    limited = x.at_most(x.pick(89.0, 710.0)).at_least(x.pick(-20.0, -40.0))
    r, k = split_exponent(limited, x.format.bias - 1)
    half = power_of_two(k, x)
    q = (r * r).multiply_add(polynomial(r, x.pick(_EXPM1_SINGLE, _EXPM1_DOUBLE)), r)
    result = q.multiply_add(half, half - 0.5) * 2.0
    # below, e^x - 1 rounds to x; halving would lose bits of subnormals, and the sign of zero
    return where(x.abs() < x.pick(2.0**-25, 2.0**-54), x, result)


def sigmoid(x: Term) -> Term:
    """1 / (1 + e^-x), by the exponential of a number that is not positive."""
    tail, k = exponential_in_parts(-x.abs())
    p = tail + 1.0
    e = scale_twice(p, k)
    denominator = e + 1.0
    # what the roundings of both sums lost, to first order
    lost = (tail - (p - 1.0)) - (e - (denominator - 1.0))
    below = e.multiply_add(lost, e) / denominator
    return where(x < 0.0, below, 1.0 - below)


def hyperbolic_tangent(x: Term) -> Term:
    """tanh x = 1 - 2 / (e^2|x| + 1), and an odd polynomial near 0."""
    magnitude = x.abs()
    limited = magnitude.at_most(x.pick(10.0, 20.0))
    t, scale = exponential_of_normal_in_parts(limited + limited)
    far = 1.0 - 2.0 / scale.multiply_add(t, scale + 1.0)
    near = _odd(magnitude, x.pick(_TANH_SINGLE, _TANH_DOUBLE))
    return where(magnitude < 0.6, near, far).with_sign(x)


def _odd(x: Term, coefficients: Sequence[float]) -> Term:
    """x + x³·P(x²)."""
    square = x * x
    return (square * x).multiply_add(polynomial(square, coefficients), x)


def half_exponential(x: Term) -> Term:
    """e^x / 2 for x >= 0, finite beyond the x where e^x overflows."""
    r, k = split_exponent(x.at_most(x.pick(90.0, 711.0)), 2 * x.format.bias - 1)
    return scale_twice(polynomial(r, x.pick(_EXP_SINGLE, _EXP_DOUBLE)), k)


def hyperbolic_sine(x: Term) -> Term:
    """sinh x = e^|x| / 2 - 1 / (2 e^|x|), and an odd polynomial on [-1, 1]."""
    magnitude = x.abs()
    half = half_exponential(magnitude)
    far = half - 0.25 / half
    near = _odd(magnitude, x.pick(_SINH_SINGLE, _SINH_DOUBLE))
    return where(magnitude < 1.0, near, far).with_sign(x)


def hyperbolic_cosine(x: Term) -> Term:
    """cosh x = e^|x| / 2 + 1 / (2 e^|x|)."""
    half = half_exponential(x.abs())
    return half + 0.25 / half
