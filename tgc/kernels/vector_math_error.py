"""The error function and its complement."""

from __future__ import annotations

from tgc.kernels.scalar_term import Term, polynomial, where
from tgc.kernels.vector_math_exponential import exponential_in_parts, exponential_of_normal_in_parts, scale_twice

# erf x / x - 1 in x² on |x| <= 1, error 2^-29.4 and 2^-56.3 of erf x
_ERF_SINGLE = (0.12837916612625122, -0.3761262595653534, 0.11283578723669052, -0.026853347197175026,
               0.005187162198126316, -0.0007997853099368513, 7.806903886375949e-05)  # fmt: skip
_ERF_DOUBLE = (0.1283791670955126, -0.37612638903183876, 0.11283791670955885, -0.026866170644701856,
               0.005223977617610509, -0.0008548326426062306, 0.00012055307230385444, -1.4924957654367185e-05,
               1.645001925131325e-06, -1.6227990600971854e-07, 1.3807728844816258e-08, -7.996874130794007e-10,
               1.4697175590686033e-12)  # fmt: skip
# -log(erfc x) on 1 <= x <= 4 and 0.94 <= x <= 5.95, error 2^-29.8 and 2^-58.8 of erf x
_LOG_ERFC_SINGLE = (0.0003516009310260415, 1.1270482540130615, 0.6382126808166504, 0.10304807871580124,
                    -0.02181016094982624, 0.0029407443944364786, -0.000185682118171826)  # fmt: skip
_LOG_ERFC_DOUBLE = (1.0585475523338396e-07, 1.1283780580565244, 0.6366251335870803, 0.10275681500881016,
                    -0.019097058045300586, -0.00025297387846231, 0.0017384398847876507, -0.0006146931980260824,
                    2.6680716859505352e-05, 8.026731879846397e-05, -4.9351236671025757e-05, 1.8010967345113414e-05,
                    -4.737727633528997e-06, 9.38430209761791e-07, -1.400387256368263e-07, 1.534769576096163e-08,
                    -1.1689026060881765e-09, 5.532990691248784e-11, -1.226164271498389e-12)  # fmt: skip
# (1 + 2x) e^(x²) erfc x in (x - k) / (x + k) for x >= 0, k = 2 and 4, relative error 2^-29.8 and 2^-59.3; the first
# coefficient is a sum of two
_ERFCX_SINGLE = (1.2769783735275269, 9.159013991677512e-09, -0.09276381880044937, -0.16603051126003265,
                 0.16405098140239716, -0.05421804264187813, -0.008030558936297894, 0.008710294961929321,
                 0.0012523503974080086, -0.0014233870897442102, -0.0004013834986835718, 0.0001713330566417426,
                 8.050019096117467e-05)  # fmt: skip
_ERFCX_DOUBLE = (1.2329951186255526, -4.5241351174125e-17, -0.13962111684056253, 0.015379652102619684,
                 0.06809705425469435, -0.10103906603630056, 0.09373283499828425, -0.06633036581230863,
                 0.03716751553859365, -0.01619773405672909, 0.0050319699679032045, -0.000757773295810921,
                 -0.00019925664032480124, 0.00015062170770863316, -2.4399395595642288e-05, -1.1222131891952867e-05,
                 5.710103473180019e-06, 2.940481831975259e-07, -8.258565131643182e-07, 7.426812376163401e-08,
                 1.1027428488547347e-07, -1.7603835542656075e-08, -1.4078482927506246e-08, 1.725325486414342e-09,
                 1.2148821303805401e-09)  # fmt: skip


def _near(x: Term) -> Term:
    """erf x near 0."""
    return x.multiply_add(polynomial(x * x, x.pick(_ERF_SINGLE, _ERF_DOUBLE)), x)


def error_function(x: Term) -> Term:
    """erf x: an odd polynomial up to about 1, beyond it 1 - e^(-P(|x|))."""
    magnitude = x.abs()
    limited = magnitude.at_most(x.pick(4.0, 5.95))
    t, scale = exponential_of_normal_in_parts(-polynomial(limited, x.pick(_LOG_ERFC_SINGLE, _LOG_ERFC_DOUBLE)))
    far = scale.multiply_add(-t, 1.0 - scale)
    return where(magnitude < x.pick(1.0, 0.95), _near(x), far.with_sign(x))


def complementary_error_function(x: Term) -> Term:
    """1 - erf x: e^(-x²) by a polynomial in a map of the positive numbers to [-1, 1), as by Schonfelder (1978).

    Within 3.5 ulp.
    """
    a = x.abs().at_most(x.pick(11.0, 28.0))
    centre = x.pick(2.0, 4.0)
    first, *others = x.pick(_ERFCX_SINGLE, _ERFCX_DOUBLE)
    u = polynomial((a - centre) / (a + centre), others)
    p = u + first
    # the square and its error (Dekker), without fma
    square = a * a
    high = a.upper_half()
    error = (high * high - square) + (a - high) * (a + high)
    tail, k = exponential_in_parts(-square, -error)
    divisor = a + a + 1.0
    scaled = p / divisor
    # what the roundings of p and of the divisor lost, relative to them, for which 1 and 1 / divisor are close enough
    tail = scaled.multiply_add((divisor - 1.0) - (a + a), tail + (u - (p - first)))
    tail = scale_twice(scaled.multiply_add(tail, scaled), k)
    near = 1.0 - _near(x)
    return where(x.abs() < 0.75, near, where(x < 0.0, 2.0 - tail, tail))
