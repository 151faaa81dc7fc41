"""Remainders of floats, exact for all quotients.

With x = X·2^i and y = Y·2^j, X and Y integers, x mod y = ((X · 2^(i-j)) mod Y)·2^j. The power of two modulo Y comes
from few squarings, whose products fma gives exactly; residues lie between -Y/2 and Y/2.
"""

from __future__ import annotations

import math

from tgc.kernels.scalar_term import Term, where


def _integral_parts(a: Term) -> tuple[Term, Term]:
    """(m, i) with a = m·2^(i - constant) for a positive finite a; m a float with the highest bit of integers set."""
    layout = a.format
    subnormal = a < layout.smallest_normal
    bits = where(subnormal, a * 2.0 ** (layout.mantissa + 1), a).bits()
    field = (bits >> layout.mantissa) + where(subnormal, bits.constant(0), layout.mantissa + 1)
    one = (layout.bias + layout.mantissa) << layout.mantissa
    return ((bits & (1 << layout.mantissa) - 1) | one).bitcast(a.dtype), field


def _centred(x: Term, modulus: Term, half: Term) -> Term:
    """x between -modulus and modulus to the residue of least size."""
    return where(x.abs() > half, x - modulus.with_sign(x), x)


def _multiply(a: Term, b: Term, modulus: Term, half: Term) -> Term:
    """a·b modulo ``modulus``, for |a| up to half and |b| up to the whole of it.

    The quotient is off by 3/4 at most, so that subtracting its product is exact.
    """
    product = a * b
    error = a.fma(b, -product)
    quotient = (product / modulus).round_even()
    return _centred(quotient.fma(-modulus, product) + error, modulus, half)


def truncated_remainder(x: Term, y: Term) -> Term:
    """fmod(x, y): x - y·trunc(x / y) exactly, with the sign of x."""
    a, b = x.abs(), y.abs()
    layout = x.format
    dividend, i = _integral_parts(a)
    modulus, j = _integral_parts(b)
    half = modulus * 0.5
    distance = where(a < b, i.constant(0), i - j)
    steps = x.pick(4, 6)
    residue = (((distance >> steps) + layout.bias) << layout.mantissa).bitcast(x.dtype)
    for step in reversed(range(steps)):
        factor = where((distance & 1 << step).differs(0), residue + residue, residue)
        residue = _multiply(residue, factor, modulus, half)
    rest = _multiply(residue, _centred(dividend - modulus, modulus, half), modulus, half)
    rest = where(rest < 0.0, rest + modulus, rest)
    result = where(a < b, x, _scaled(rest, j).with_sign(x))
    return where((a < math.inf) & (b > 0.0), result, math.nan)


def _scaled(x: Term, field: Term) -> Term:
    """x·2^(field - constant), the constant of :func:`_integral_parts`, where the result is a float exactly."""
    layout = x.format
    first = field >> 1
    offset = layout.bias + layout.mantissa + layout.mantissa + 1
    second = field - first
    low, high = offset // 2, offset - offset // 2
    left = (first + (layout.bias - low)) << layout.mantissa
    right = (second + (layout.bias - high)) << layout.mantissa
    return (x * left.bitcast(x.dtype)) * right.bitcast(x.dtype)


def floored_remainder(x: Term, y: Term) -> Term:
    """x % y as in Python: the sign of y, zero included."""
    rest = truncated_remainder(x, y)
    opposite = (rest < 0.0) ^ (y < 0.0)
    return where(rest.equals(0.0), rest.copysign(y), where(opposite, rest + y, rest))


def floored_quotient(x: Term, y: Term) -> Term:
    """x // y as in Python and NumPy, x / y for y = 0."""
    rest = truncated_remainder(x, y)
    quotient = (x - rest) / y
    opposite = rest.differs(0.0) & ((rest < 0.0) ^ (y < 0.0))
    quotient = where(opposite, quotient - 1.0, quotient)
    rounded = quotient.floor()
    rounded = where(quotient - rounded > 0.5, rounded + 1.0, rounded)
    ratio = x / y
    return where(y.equals(0.0), ratio, where(quotient.equals(0.0), quotient.copysign(ratio), rounded))
