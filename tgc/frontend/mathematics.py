"""Elementwise functions of tensors, and the composites along one axis."""

from __future__ import annotations

from typing import Any, Self

from tgc.dtypes import DTYPES, DType, f32
from tgc.errors import DTypeError, ShapeError
from tgc.frontend.arithmetic import Arithmetic
from tgc.frontend.trace import here
from tgc.ir.graph import EMPTY, Attributes


def normal_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front. Raises :class:`ShapeError` if there is none of that number.

    >>> normal_axis(-1, 3)
    2
    """
    if not -rank <= axis < rank:
        hint = f"axes go from {-rank} to {rank - 1}" if rank else "a scalar has no axes"
        raise ShapeError(f"there is no axis {axis} in a tensor of rank {rank}", hint=hint, location=here())
    return axis % rank


class Mathematics(Arithmetic):
    """Functions of each element. Those that are defined for floats alone take integers as f32."""

    __slots__ = ()

    def floating(self) -> Self:
        """The tensor itself if it has floats, else as f32."""
        return self if self.dtype.is_float else self.cast_to(f32)

    def _map(self, op: str, attributes: Attributes = EMPTY) -> Self:
        return self.floating().apply(op, attributes=attributes)

    def astype(self, dtype: DType) -> Self:
        """The tensor in another dtype: floats round to nearest even; to integers they truncate and saturate.

        >>> import tgc
        >>> tgc.tensor([1.5, -2.5]).astype(tgc.i32).numpy()
        array([ 1, -2], dtype=int32)
        """
        if not isinstance(dtype, DType):
            raise DTypeError(
                f"{dtype!r} is no dtype",
                hint="they are " + ", ".join(f"tgc.{name}" for name in DTYPES),
                location=here(),
            )
        return self.cast_to(dtype)

    def relu(self) -> Self:
        """max(x, 0)."""
        return self.apply("relu")

    def exp(self) -> Self:
        """eˣ."""
        return self._map("exp")

    def exp2(self) -> Self:
        """2ˣ."""
        return self._map("exp2")

    def expm1(self) -> Self:
        """eˣ − 1, exact near 0."""
        return self._map("expm1")

    def log(self) -> Self:
        """The natural logarithm."""
        return self._map("log")

    def log2(self) -> Self:
        """The logarithm to base 2."""
        return self._map("log2")

    def log10(self) -> Self:
        """The logarithm to base 10."""
        return self._map("log10")

    def log1p(self) -> Self:
        """log(1 + x), exact near 0."""
        return self._map("log1p")

    def sqrt(self) -> Self:
        """The square root."""
        return self._map("sqrt")

    def rsqrt(self) -> Self:
        """1/√x."""
        return self._map("rsqrt")

    def reciprocal(self) -> Self:
        """1/x."""
        return self._map("reciprocal")

    def square(self) -> Self:
        """x²."""
        return self.apply("square")

    def abs(self) -> Self:
        """|x|."""
        return self.apply("abs")

    def sign(self) -> Self:
        """−1, 0 or 1."""
        return self.apply("sign")

    def sin(self) -> Self:
        """The sine."""
        return self._map("sin")

    def cos(self) -> Self:
        """The cosine."""
        return self._map("cos")

    def tan(self) -> Self:
        """The tangent."""
        return self._map("tan")

    def tanh(self) -> Self:
        """The hyperbolic tangent."""
        return self._map("tanh")

    def sigmoid(self) -> Self:
        """1/(1 + e⁻ˣ)."""
        return self._map("sigmoid")

    def erf(self) -> Self:
        """The error function."""
        return self._map("erf")

    def floor(self) -> Self:
        """The largest integer that is not larger."""
        return self.apply("floor")

    def ceil(self) -> Self:
        """The smallest integer that is not smaller."""
        return self.apply("ceil")

    def round(self) -> Self:
        """The nearest integer, halves to even."""
        return self.apply("round")

    def trunc(self) -> Self:
        """The integer part."""
        return self.apply("trunc")

    def isnan(self) -> Self:
        """Where elements are NaN."""
        return self._map("is_nan")

    def isinf(self) -> Self:
        """Where elements are infinite."""
        return self._map("is_inf")

    def isfinite(self) -> Self:
        """Where elements are neither infinite nor NaN."""
        return self._map("is_finite")

    def gelu(self, *, approximate: str = "none") -> Self:
        """x·Φ(x) (Hendrycks & Gimpel, arXiv 1606.08415); ``approximate="tanh"`` for their approximation."""
        return self._map("gelu", {"approximate": approximate})

    def silu(self) -> Self:
        """x·σ(x)."""
        return self._map("silu")

    def softplus(self) -> Self:
        """log(1 + eˣ)."""
        return self._map("softplus")

    def softmax(self, axis: int) -> Self:
        """eˣ divided by its sum along ``axis``."""
        return self._map("softmax", {"axis": normal_axis(axis, self.ndim)})

    def log_softmax(self, axis: int) -> Self:
        """The logarithm of :meth:`softmax`."""
        return self._map("log_softmax", {"axis": normal_axis(axis, self.ndim)})

    def maximum(self, other: Any) -> Self:
        """The larger of two elements; NaN wins."""
        return self.elementwise("maximum", other)

    def minimum(self, other: Any) -> Self:
        """The smaller of two elements; NaN wins."""
        return self.elementwise("minimum", other)

    def pow(self, exponent: Any) -> Self:
        """The power, as ``x ** exponent``."""
        return self.__pow__(exponent)

    def clip(self, low: Any = None, high: Any = None) -> Self:
        """Elements below ``low`` become ``low``, those above ``high`` become ``high``. They keep their dtype.

        >>> import tgc
        >>> tgc.tensor([-2.0, 0.5, 2.0]).clip(-1, 1).numpy()
        array([-1. ,  0.5,  1. ], dtype=float32)
        """
        if low is not None and high is not None:
            return self.elementwise("clamp", low, high, dtype=self.dtype)
        if low is not None:
            return self.elementwise("maximum", low, dtype=self.dtype)
        return self if high is None else self.elementwise("minimum", high, dtype=self.dtype)

    clamp = clip
