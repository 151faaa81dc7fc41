"""Lines: a row-major tensor seen as ``outer`` x ``length`` x ``inner`` around one axis."""

from __future__ import annotations

from dataclasses import dataclass

from tgc.ir.dims import Dim, product
from tgc.ir.types import TensorType
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Value


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a tensor along an axis; neighbours on a line are ``inner`` elements apart."""

    outer: Dim
    length: Dim
    inner: Dim

    @staticmethod
    def along(type_: TensorType, axis: int) -> Lines:
        """The lines of a row-major type.

        >>> from tgc import dtypes
        >>> Lines.along(TensorType(dtypes.f32, (2, 3, 4)), 1)
        Lines(outer=2, length=3, inner=4)
        """
        return Lines(product(type_.shape[:axis]), type_.shape[axis], product(type_.shape[axis + 1 :]))

    @property
    def count(self) -> Dim:
        """How many lines there are."""
        return self.outer * self.inner

    def start(self, builder: KernelBuilder, line: Value) -> Value:
        """The offset of a line's first element; lines are numbered by outer, then inner index."""
        inner = builder.index(self.inner)
        outer, rest = builder.floor_divide(line, inner), builder.modulo(line, inner)
        return builder.add(builder.mul(outer, builder.index(self.length * self.inner)), rest)
