"""Functions of the elements of two tensors (Array API standard 2024.12, "Element-wise Functions").

Shapes broadcast and dtypes promote; either operand may be a number, which takes the dtype of the other within its
kind. Raises :class:`tgc.errors.ShapeError` where shapes do not broadcast and :class:`tgc.errors.DTypeError` where
dtypes do not promote.
"""

from __future__ import annotations

from typing import Any

from tgc.dtypes import bool_, f32
from tgc.frontend.arithmetic import common_dtype
from tgc.frontend.functions.common import mapped, truth
from tgc.frontend.tensor import Tensor


def _float(op: str, x1: Any, x2: Any) -> Tensor:
    """A map of floats; integers are taken as f32."""
    dtype = common_dtype([x1, x2])
    return mapped(op, x1, x2, dtype=dtype if dtype.is_float else f32)


def add(x1: Any, x2: Any, /) -> Tensor:
    """x1 + x2."""
    return mapped("add", x1, x2)


def subtract(x1: Any, x2: Any, /) -> Tensor:
    """x1 − x2."""
    return mapped("sub", x1, x2)


def multiply(x1: Any, x2: Any, /) -> Tensor:
    """x1·x2."""
    return mapped("mul", x1, x2)


def maximum(x1: Any, x2: Any, /) -> Tensor:
    """The larger one; NaN wins."""
    return mapped("maximum", x1, x2)


def minimum(x1: Any, x2: Any, /) -> Tensor:
    """The smaller one; NaN wins."""
    return mapped("minimum", x1, x2)


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """x1/x2 rounded down; 0 for integers divided by 0."""
    return mapped("floor_divide", x1, x2)


def remainder(x1: Any, x2: Any, /) -> Tensor:
    """x1 − x2·⌊x1/x2⌋, with the sign of x2; 0 for integers divided by 0."""
    return mapped("remainder", x1, x2)


def bitwise_and(x1: Any, x2: Any, /) -> Tensor:
    """Bits that both have."""
    return mapped("bitwise_and", x1, x2)


def bitwise_or(x1: Any, x2: Any, /) -> Tensor:
    """Bits that one has."""
    return mapped("bitwise_or", x1, x2)


def bitwise_xor(x1: Any, x2: Any, /) -> Tensor:
    """Bits that just one has."""
    return mapped("bitwise_xor", x1, x2)


def bitwise_left_shift(x1: Any, x2: Any, /) -> Tensor:
    """x1·2^x2, without the bits that do not fit."""
    return mapped("shift_left", x1, x2)


def bitwise_right_shift(x1: Any, x2: Any, /) -> Tensor:
    """⌊x1/2^x2⌋."""
    return mapped("shift_right", x1, x2)


def equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 = x2."""
    return mapped("eq", x1, x2)


def not_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 ≠ x2."""
    return mapped("ne", x1, x2)


def less(x1: Any, x2: Any, /) -> Tensor:
    """x1 < x2."""
    return mapped("lt", x1, x2)


def less_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 ≤ x2."""
    return mapped("le", x1, x2)


def greater(x1: Any, x2: Any, /) -> Tensor:
    """x1 > x2."""
    return mapped("gt", x1, x2)


def greater_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 ≥ x2."""
    return mapped("ge", x1, x2)


def atan2(x1: Any, x2: Any, /) -> Tensor:
    """The angle of the point (x2, x1), between −π and π. Integers are taken as f32."""
    return _float("atan2", x1, x2)


def copysign(x1: Any, x2: Any, /) -> Tensor:
    """|x1| with the sign of x2. Integers are taken as f32."""
    return _float("copysign", x1, x2)


def divide(x1: Any, x2: Any, /) -> Tensor:
    """x1/x2. Integers are taken as f32."""
    return _float("div", x1, x2)


def hypot(x1: Any, x2: Any, /) -> Tensor:
    """√(x1² + x2²), without overflow in between. Integers are taken as f32."""
    return _float("hypot", x1, x2)


def logaddexp(x1: Any, x2: Any, /) -> Tensor:
    """log(e^x1 + e^x2), without overflow in between. Integers are taken as f32."""
    return _float("logaddexp", x1, x2)


def nextafter(x1: Any, x2: Any, /) -> Tensor:
    """The float next to x1 in the direction of x2. Integers are taken as f32."""
    return _float("nextafter", x1, x2)


def logical_and(x1: Any, x2: Any, /) -> Tensor:
    """Whether both are true (not 0)."""
    return mapped("bitwise_and", truth(x1), truth(x2), dtype=bool_)


def logical_or(x1: Any, x2: Any, /) -> Tensor:
    """Whether one is true (not 0)."""
    return mapped("bitwise_or", truth(x1), truth(x2), dtype=bool_)


def logical_xor(x1: Any, x2: Any, /) -> Tensor:
    """Whether just one is true (not 0)."""
    return mapped("bitwise_xor", truth(x1), truth(x2), dtype=bool_)


def pow(x1: Any, x2: Any, /) -> Tensor:
    """x1 to the power of x2. Negative powers of integers are 0 where they are no integers."""
    return x1**x2 if isinstance(x1, Tensor) else mapped("pow", x1, x2)
