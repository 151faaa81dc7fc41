"""The error function and its complement."""

from __future__ import annotations

from itertools import zip_longest

from tgc.kernels.scalar_term import Term, polynomial, squared, where
from tgc.kernels.vector_math_exponential import (
    exponential_in_parts,
    nearest_integer,
    power_of_two,
    power_of_two_fraction,
    scale,
)

# erf x / x - 1 in x² on |x| <= 1 and 0.95, error 2^-29.4 and 2^-56.3 of erf x
_ERF_SINGLE = (0.12837916612625122, -0.3761262595653534, 0.11283578723669052, -0.026853347197175026,
               0.005187162198126316, -0.0007997853099368513, 7.806903886375949e-05)  # fmt: skip
_ERF_DOUBLE = (0.1283791670955126, -0.37612638903183876, 0.11283791670955885, -0.026866170644701856,
               0.005223977617610509, -0.0008548326426062306, 0.00012055307230385444, -1.4924957654367185e-05,
               1.645001925131325e-06, -1.6227990600971854e-07, 1.3807728844816258e-08, -7.996874130794007e-10,
               1.4697175590686033e-12)  # fmt: skip
# log2(erfc x) in x - the centre on 1 <= x <= 4 and 0.95 <= x <= 5.95, error 2^-28.9 and 2^-58.0 of erf x
# near the centre rounding has the least effect, and there the logarithm is nearly a float
_LOG_ERFC_CENTRE = (1.09765625, 1.08203125)
_LOG_ERFC_SINGLE = (-3.051870584487915, -4.046456336975098, -1.2331109046936035, -0.054535508155822754,
                    0.01298397034406662, -0.002432710025459528, 0.0002509648911654949)  # fmt: skip
_LOG_ERFC_DOUBLE = (-2.9889455536715297, -4.007961330330762, -1.2305334977570475, -0.055398318643776714,
                    0.013340538767426973, -0.002680770739373613, 0.0003573858273309527, 1.536086420965308e-05,
                    -2.9821615198085804e-05, 1.1508014873199319e-05, -2.7235560614176324e-06, 2.997141335321764e-07,
                    7.918605033954128e-08, -5.6128832098608994e-08, 1.7848746853657418e-08, -3.704233913772347e-09,
                    5.096095248367602e-10, -4.237200015240658e-11, 1.6122682888121512e-12)  # fmt: skip
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


def _complement_near(x: Term) -> Term:
    """1 - erf x for |x| <= 1, without the rounding of erf x."""
    p = polynomial(x * x, x.pick(_ERF_SINGLE, _ERF_DOUBLE))
    erf = x.multiply_add(p, x)
    return (1.0 - erf) - x.multiply_add(p, x - erf)


def error_function(x: Term) -> Term:
    """erf x: x + x·P(x²) up to about 1, beyond it 1 - 2^Q(|x|); one polynomial, whose coefficients are chosen."""
    magnitude = x.abs()
    inner = magnitude < x.pick(1.0, 0.95)
    argument = where(inner, x * x, magnitude.at_most(x.pick(4.0, 5.95)) - x.pick(*_LOG_ERFC_CENTRE))
    coefficients = zip_longest(
        x.pick(_ERF_SINGLE, _ERF_DOUBLE), x.pick(_LOG_ERFC_SINGLE, _LOG_ERFC_DOUBLE), fillvalue=0.0
    )
    p = polynomial(argument, [where(inner, x.constant(near), far) for near, far in coefficients])
    n, k = nearest_integer(p, x.format.bias)
    complement = power_of_two_fraction(p - n)
    far = complement.multiply_add(-power_of_two(k, x), 1.0)
    return where(inner, x.multiply_add(p, x), far.with_sign(x))


def complementary_error_function(x: Term) -> Term:
    """1 - erf x: e^(-x²) by a polynomial in a map of the positive numbers to [-1, 1), as by Schonfelder (1978).

    Each factor is a sum of two floats; that of the quotient has its remainder.
    """
    a = x.abs().at_most(x.pick(11.0, 28.0))
    centre = x.pick(2.0, 4.0)
    first, *others = x.pick(_ERFCX_SINGLE, _ERFCX_DOUBLE)
    u = polynomial((a - centre) / (a + centre), others)
    p = u + first
    divisor = a + a + 1.0
    inverse = 1.0 / divisor
    quotient = p * inverse
    missing = quotient.multiply_add(-divisor, p) + (u - (p - first))
    missing = quotient.multiply_add((divisor - 1.0) - (a + a), missing)
    square, error = squared(a)
    r, v, n, k = exponential_in_parts(-square, 0, -error, closely=True)
    factor = r + 1.0
    product = quotient * factor
    lost = quotient * (((1.0 - factor) + r) + v)
    lost = factor.multiply_add(missing * inverse, quotient.multiply_add(factor, -product) + lost)
    tail = scale(product + lost, n, k)
    return where(x.abs() < 0.75, _complement_near(x), where(x < 0.0, 2.0 - tail, tail))
