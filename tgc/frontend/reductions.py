"""Sums, means, extremes and products of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypeAlias

from tgc.dtypes import bool_, i64
from tgc.frontend.mathematics import normal_axis
from tgc.frontend.movement import Movement
from tgc.ir.builder import Builder
from tgc.ir.graph import Attributes, Value
from tgc.ops.composite import mean, size_of

Axes: TypeAlias = "int | Sequence[int] | None"


class Reductions(Movement):
    """Reductions along ``axis``: one, several or (None) all; ``keepdims`` leaves them with size 1."""

    __slots__ = ()

    def _axes(self, axis: Axes) -> tuple[int, ...]:
        named = range(self.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        return tuple(sorted({normal_axis(a, self.ndim) for a in named}))

    def _kept(self, reduced: Self, axes: Sequence[int], keepdims: bool) -> Self:
        if not keepdims:
            return reduced
        return reduced.reshape(tuple(1 if i in axes else d for i, d in enumerate(self.shape)))

    def _reduce(self, op: str, axis: Axes, keepdims: bool) -> Self:
        axes = self._axes(axis)
        if not axes:
            return self
        return self._kept(self.apply(op, attributes={"axes": axes}), axes, keepdims)

    def sum(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """The sum; integers and bools are summed as i64.

        >>> import tgc
        >>> tgc.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(0).numpy()
        array([4., 6.], dtype=float32)
        """
        return self._widened()._reduce("sum", axis, keepdims)

    def prod(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """The product; integers and bools are multiplied as i64."""
        return self._widened()._reduce("prod", axis, keepdims)

    def _widened(self) -> Self:
        small = self.dtype is bool_ or (self.dtype.kind == "int" and self.dtype.bits < 64)
        return self.cast_to(i64) if small else self

    def max(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """The largest element; NaN wins."""
        return self._reduce("max", axis, keepdims)

    amax = max

    def min(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """The smallest element; NaN wins."""
        return self._reduce("min", axis, keepdims)

    amin = min

    def any(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """Whether any element is true (not 0)."""
        return self._truth()._reduce("any", axis, keepdims)

    def all(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """Whether all elements are true (not 0)."""
        return self._truth()._reduce("all", axis, keepdims)

    def _truth(self) -> Self:
        return self if self.dtype is bool_ else self.elementwise("ne", 0)

    def mean(self, axis: Axes = None, *, keepdims: bool = False) -> Self:
        """The mean; of integers in f32."""
        x, axes = self.floating(), self._axes(axis)
        return self._kept(x.emit(lambda builder, value: mean(builder, value, axes)), axes, keepdims)

    def var(self, axis: Axes = None, *, correction: int = 0, keepdims: bool = False) -> Self:
        """The variance: Σ(x − mean)² divided by the number of elements less ``correction``."""
        x, axes = self.floating(), self._axes(axis)
        squares = (x - x.mean(axes, keepdims=True)).square()
        if correction == 0:
            return squares.mean(axes, keepdims=keepdims)

        def divided(builder: Builder, total: Value) -> Value:
            count = size_of(builder, x.shape, axes, total.dtype)
            return builder.div(total, builder.sub(count, builder.constant(correction, total.dtype)))

        return self._kept(squares.sum(axes).emit(divided), axes, keepdims)

    def std(self, axis: Axes = None, *, correction: int = 0, keepdims: bool = False) -> Self:
        """The standard deviation: the root of :meth:`var`."""
        return self.var(axis, correction=correction, keepdims=keepdims).sqrt()

    def _place(self, op: str, axis: int | None, keepdims: bool) -> Self:
        x = self.reshape(-1) if axis is None else self
        place = normal_axis(0 if axis is None else axis, x.ndim)
        found = x.apply(op, attributes={"axis": place})
        return self._kept(found, self._axes(axis), keepdims)

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Self:
        """The index (i64) of the first largest element, along ``axis`` or of the flattened tensor."""
        return self._place("argmax", axis, keepdims)

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Self:
        """The index (i64) of the first smallest element, along ``axis`` or of the flattened tensor."""
        return self._place("argmin", axis, keepdims)

    def cumsum(self, axis: int) -> Self:
        """The sums of the elements up to each, along ``axis``."""
        attributes: Attributes = {"axis": normal_axis(axis, self.ndim)}
        return self._widened().apply("cumulative_sum", attributes=attributes)
