"""Functions of the bits of floats."""

from __future__ import annotations

import math

from tgc.kernels.scalar_term import Term, where


def copy_sign(x: Term, y: Term) -> Term:
    """x with the sign of y, of zeros and NaN as well."""
    return x.copysign(y)


def sign_bit(x: Term) -> Term:
    """A bool: whether the sign is negative, of zeros and NaN as well."""
    return (x.bits() >> x.dtype.bits - 1).differs(0)


def next_after(x: Term, y: Term) -> Term:
    """The float next to x towards y; y where they are equal, NaN where one of them is."""
    bits = x.bits()
    away = (y > x) ^ (x < 0.0)
    moved = where(away, bits + 1, bits - 1).bitcast(x.dtype)
    smallest = x.constant(2.0 ** (1 - x.format.bias - x.format.mantissa)).with_sign(y)
    result = where(x.equals(0.0), smallest, moved)
    result = where(x.equals(y), y, result)
    return where(x.equals(x) & y.equals(y), result, math.nan)
