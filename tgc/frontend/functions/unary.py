"""Functions of each element of one tensor (Array API standard 2024.12, "Element-wise Functions").

Those that are defined for floats alone take integers and bools as f32. A result has the operand's shape.
"""

from __future__ import annotations

from tgc.dtypes import bool_
from tgc.errors import DTypeError, UnsupportedError
from tgc.frontend.functions.common import operand
from tgc.frontend.tensor import Tensor
from tgc.frontend.trace import here


def _float(x: Tensor, op: str) -> Tensor:
    return operand(x).floating().apply(op)


def _rounded(x: Tensor, op: str) -> Tensor:
    return operand(x).apply(op) if x.dtype.is_float else x


def _classified(x: Tensor, op: str, otherwise: bool) -> Tensor:
    """A test of floats, whose answer is known for other dtypes."""
    if operand(x).dtype.is_float:
        return x.apply(op)
    return x.emit(lambda builder, value: builder.full(otherwise, value.shape, bool_))


def abs(x: Tensor, /) -> Tensor:
    """|x|."""
    return operand(x).apply("abs")


def negative(x: Tensor, /) -> Tensor:
    """−x."""
    return operand(x).apply("neg")


def sign(x: Tensor, /) -> Tensor:
    """−1, 0 or 1; NaN for NaN."""
    return operand(x).apply("sign")


def square(x: Tensor, /) -> Tensor:
    """x²."""
    return operand(x).apply("square")


def acos(x: Tensor, /) -> Tensor:
    """The angle whose cosine is x."""
    return _float(x, "acos")


def acosh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic cosine."""
    return _float(x, "acosh")


def asin(x: Tensor, /) -> Tensor:
    """The angle whose sine is x."""
    return _float(x, "asin")


def asinh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic sine."""
    return _float(x, "asinh")


def atan(x: Tensor, /) -> Tensor:
    """The angle whose tangent is x."""
    return _float(x, "atan")


def atanh(x: Tensor, /) -> Tensor:
    """The inverse hyperbolic tangent."""
    return _float(x, "atanh")


def cos(x: Tensor, /) -> Tensor:
    """The cosine."""
    return _float(x, "cos")


def cosh(x: Tensor, /) -> Tensor:
    """The hyperbolic cosine."""
    return _float(x, "cosh")


def erf(x: Tensor, /) -> Tensor:
    """The error function."""
    return _float(x, "erf")


def erfc(x: Tensor, /) -> Tensor:
    """1 − erf x, without its cancellation."""
    return _float(x, "erfc")


def exp(x: Tensor, /) -> Tensor:
    """eˣ."""
    return _float(x, "exp")


def exp2(x: Tensor, /) -> Tensor:
    """2ˣ."""
    return _float(x, "exp2")


def expm1(x: Tensor, /) -> Tensor:
    """eˣ − 1, exact near 0."""
    return _float(x, "expm1")


def log(x: Tensor, /) -> Tensor:
    """The natural logarithm."""
    return _float(x, "log")


def log1p(x: Tensor, /) -> Tensor:
    """log(1 + x), exact near 0."""
    return _float(x, "log1p")


def log2(x: Tensor, /) -> Tensor:
    """The logarithm to base 2."""
    return _float(x, "log2")


def log10(x: Tensor, /) -> Tensor:
    """The logarithm to base 10."""
    return _float(x, "log10")


def reciprocal(x: Tensor, /) -> Tensor:
    """1/x."""
    return _float(x, "reciprocal")


def rsqrt(x: Tensor, /) -> Tensor:
    """1/√x."""
    return _float(x, "rsqrt")


def sigmoid(x: Tensor, /) -> Tensor:
    """1/(1 + e⁻ˣ)."""
    return _float(x, "sigmoid")


def sin(x: Tensor, /) -> Tensor:
    """The sine."""
    return _float(x, "sin")


def sinh(x: Tensor, /) -> Tensor:
    """The hyperbolic sine."""
    return _float(x, "sinh")


def sqrt(x: Tensor, /) -> Tensor:
    """The square root."""
    return _float(x, "sqrt")


def tan(x: Tensor, /) -> Tensor:
    """The tangent."""
    return _float(x, "tan")


def tanh(x: Tensor, /) -> Tensor:
    """The hyperbolic tangent."""
    return _float(x, "tanh")


def ceil(x: Tensor, /) -> Tensor:
    """The smallest integer that is not smaller. Integers stay what they are."""
    return _rounded(x, "ceil")


def floor(x: Tensor, /) -> Tensor:
    """The largest integer that is not larger. Integers stay what they are."""
    return _rounded(x, "floor")


def round(x: Tensor, /) -> Tensor:
    """The nearest integer, halves to even. Integers stay what they are."""
    return _rounded(x, "round")


def trunc(x: Tensor, /) -> Tensor:
    """The integer part. Integers stay what they are."""
    return _rounded(x, "trunc")


def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit inverted; of bools, their negation."""
    return ~operand(x)


def conj(x: Tensor, /) -> Tensor:
    """x itself: there are no complex numbers."""
    return operand(x)


def imag(x: Tensor, /) -> Tensor:
    """Raises :class:`UnsupportedError`: there are no complex numbers."""
    raise UnsupportedError(f"the imaginary part of {operand(x).type}: tgc has no complex dtypes", location=here())


def isfinite(x: Tensor, /) -> Tensor:
    """Where elements are neither infinite nor NaN."""
    return _classified(x, "is_finite", True)


def isinf(x: Tensor, /) -> Tensor:
    """Where elements are infinite."""
    return _classified(x, "is_inf", False)


def isnan(x: Tensor, /) -> Tensor:
    """Where elements are NaN."""
    return _classified(x, "is_nan", False)


def logical_not(x: Tensor, /) -> Tensor:
    """Where elements are false (0)."""
    return operand(x).apply("logical_not") if x.dtype is bool_ else x == 0


def positive(x: Tensor, /) -> Tensor:
    """x itself. Raises :class:`DTypeError` for bools."""
    if operand(x).dtype is bool_:
        raise DTypeError(f"+x of {x.type}", location=here())
    return x


def real(x: Tensor, /) -> Tensor:
    """x itself: there are no complex numbers."""
    return operand(x)


def signbit(x: Tensor, /) -> Tensor:
    """Where the sign is negative, -0.0 and -NaN included."""
    return operand(x).apply("signbit") if x.dtype.is_float else x < 0
