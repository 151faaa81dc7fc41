"""Powers and roots."""

from __future__ import annotations

import math

from tgc.kernels.scalar_term import Term, polynomial, where
from tgc.kernels.vector_math_exponential import nearest_integer, power_of_two_fraction, scale
from tgc.kernels.vector_math_logarithmic import split_positive

# ((artanh(s) / s - 1) / s² - 1/3) / s² in s² on |s| <= 0.1716, error 2^-36.8 and 2^-66.3 of artanh(s) / s
_ARTANH_SINGLE = (0.20000076293945312, 0.14273543655872345, 0.1170988455414772)
_ARTANH_DOUBLE = (0.20000000000001136, 0.14285714285045623, 0.11111111260736456, 0.0909089211317855,
                  0.07693382017986716, 0.06628328413454469, 0.06598931985946908)  # fmt: skip
# in two parts: 1/3 and 2 / ln 2
_THIRD_SINGLE, _THIRD_DOUBLE = (0.3333333432674408, -9.934107758624577e-09), (1.0 / 3.0, 1.850371707708594e-17)
_TWO_LOG2_E_SINGLE = (2.885390043258667, 3.851926067000022e-08)
_TWO_LOG2_E_DOUBLE = (2.8853900817779268, 4.0710547481862066e-17)
# ∛x on [√½, √2], relative error 2^-13.7 and 2^-22.4
_CBRT_SINGLE = (0.49250251054763794, 0.7397101521492004, -0.2903434634208679, 0.05820081755518913)
_CBRT_DOUBLE = (0.39835317423578304, 1.1970535235269295, -1.1869445180883944, 0.9709160696599334,
                -0.5146801274144341, 0.15566698427777526, -0.020365232400874893)  # fmt: skip


def _product(a: Term, b: Term | float) -> tuple[Term, Term]:
    """a · b rounded, and its error."""
    product = a * b
    return product, a.fma(b, -product)


def _logarithm_base_2(x: Term) -> tuple[Term, Term]:
    """log2 of a positive finite x as a sum of two floats: 2 artanh((m - 1) / (m + 1)) / ln 2 + e in double words."""
    third, third_low = x.pick(_THIRD_SINGLE, _THIRD_DOUBLE)
    scale, scale_low = x.pick(_TWO_LOG2_E_SINGLE, _TWO_LOG2_E_DOUBLE)
    e, m = split_positive(x)
    difference, total = m - 1.0, m + 1.0
    total_low = (1.0 - total) + m
    inverse = 1.0 / total
    s = difference * inverse
    s_low = inverse * (s.fma(-total, difference) - s * total_low)
    z, z_low = _product(s, s)
    z_low = (s + s).multiply_add(s_low, z_low)
    # artanh(s) / s = 1 + z (1/3 + z Q(z)), each sum and product with its error
    tail = z * polynomial(z, x.pick(_ARTANH_SINGLE, _ARTANH_DOUBLE))
    u = tail + third
    u_low = (third - u + tail) + third_low
    v, v_low = _product(z, u)
    v_low = v_low + (z * u_low + z_low * u)
    w = v + 1.0
    w_low = (1.0 - w + v) + v_low
    p, p_low = _product(s, w)
    p_low = p_low + (s * w_low + s_low * w)
    high, low = _product(p, scale)
    low = low + (p * scale_low + p_low * scale)
    result = e + high
    return result, (e - result + high) + low


def power(x: Term, y: Term) -> Term:
    """x^y, as pow of C99: 2^(y log2 x) with the logarithm and the product in double words."""
    a = x.abs()
    high, low = _logarithm_base_2(a)
    product = y * high
    inside = product.abs() < x.format.bias + x.format.mantissa + 10.0
    rest = where(inside, y.fma(high, -product) + y * low, 0.0)
    n, k = nearest_integer(product, 0)
    magnitude = scale(power_of_two_fraction((product - n) + rest), n, k)
    return _power_special(x, y, a, magnitude)


def _power_special(x: Term, y: Term, a: Term, magnitude: Term) -> Term:
    """The sign of x^y, and the cases where it is 1 or undefined whatever the logarithm."""
    half = y * 0.5
    whole = y.trunc().equals(y)
    odd = whole & half.trunc().differs(half)
    signed = where(odd, magnitude.copysign(x), magnitude)
    result = where((x < 0.0) & (a < math.inf) & ~whole, math.nan, signed)
    infinite = y.abs().equals(math.inf)
    return where(y.equals(0.0) | x.equals(1.0) | (a.equals(1.0) & infinite), 1.0, result)


def hypotenuse(x: Term, y: Term) -> Term:
    """√(x² + y²) without overflow or underflow of the squares; infinity beside anything, NaN included, is infinity."""
    a, b = x.abs(), y.abs()
    large, small = where(a > b, a, b), where(a > b, b, a)
    step = x.pick(2.0**90, 2.0**700)
    big, tiny = large > x.pick(2.0**60, 2.0**500), large < x.pick(2.0**-60, 2.0**-500)
    scale = where(big, 1.0 / step, where(tiny, x.constant(step), 1.0))
    back = where(big, step, where(tiny, x.constant(1.0 / step), 1.0))
    large, small = large * scale, small * scale
    result = large.multiply_add(large, small * small).sqrt() * back
    return where(a.equals(math.inf) | b.equals(math.inf), math.inf, result)


def cube_root(x: Term) -> Term:
    """∛x: a polynomial, rounded to half the bits so that its square is exact, and one step of Halley's method."""
    a = x.abs()
    e, m = split_positive(a)
    third = ((e + 0.5) * (1.0 / 3.0)).floor()
    remainder = e - third * 3.0
    two, one = remainder.equals(2.0), remainder.equals(1.0)
    factor = where(two, 2.0 ** (2 / 3), where(one, x.constant(2.0 ** (1 / 3)), 1.0))
    radicand = where(two, m * 4.0, where(one, m + m, m))
    estimate = polynomial(m, x.pick(_CBRT_SINGLE, _CBRT_DOUBLE)) * factor
    t = estimate.upper_half()
    ratio = radicand / (t * t)
    root = t.multiply_add((ratio - t) / (t + t + ratio), t)
    layout = x.format
    scale = (third + (1.5 * 2.0**layout.mantissa + layout.bias)).bits() << layout.mantissa
    result = root * scale.bitcast(x.dtype)
    return where(a.equals(0.0) | ~(a < math.inf), x, result.with_sign(x))


def reciprocal_square_root(x: Term) -> Term:
    """1 / √x, whose two roundings reach 1.5 ulp, and a step of Newton's method with 1 - x·y² in double words."""
    y = 1.0 / x.sqrt()
    product = x * y
    missing = x.multiply_add(y, -product).multiply_add(-y, product.multiply_add(-y, 1.0))
    # NaN for zero and infinity
    return where(missing.equals(missing), (y * 0.5).multiply_add(missing, y), y)
