"""Tensor types: dtype × shape × layout.

A layout says where a logical element lies in memory; logical shapes never depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from tgc.dtypes import DType
from tgc.ir.dims import Dim, product


@dataclass(frozen=True, slots=True)
class Layout:
    """Order of the dimensions in memory (outermost first), tiles and margins.

    ``order``: a permutation of the dimensions, the last one varying fastest. ``tiles``: pairs (dimension, size); each
    splits its dimension into ``ceil(d / size)`` blocks at the dimension's own place and ``size`` elements inside, the
    inner parts innermost, in the order given. ``margins``: per dimension (before, after), a border of zeros that is
    part of the buffer and not of the value; empty for none.

    >>> Layout((0, 2, 3, 1)).strides((8, 32, 14, 14))
    (6272, 1, 448, 32)
    """

    order: tuple[int, ...]
    tiles: tuple[tuple[int, int], ...] = ()
    margins: tuple[tuple[int, int], ...] = ()

    def padded(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """The shape with its margins."""
        if not self.margins:
            return tuple(shape)
        return tuple(d + before + after for d, (before, after) in zip(shape, self.margins, strict=True))

    def _blocks(self, shape: Sequence[Dim]) -> list[Dim]:
        sizes = list(self.padded(shape))
        for dimension, size in self.tiles:
            sizes[dimension] = (sizes[dimension] + (size - 1)) // size
        return sizes

    def strides(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """Elements between neighbours of each dimension; for a tiled dimension, between its blocks."""
        sizes = self._blocks(shape)
        step: Dim = prod(size for _, size in self.tiles)
        strides: list[Dim] = [0] * len(sizes)
        for dimension in reversed(self.order):
            strides[dimension] = step
            step = step * sizes[dimension]
        return tuple(strides)

    def tile_strides(self) -> tuple[int, ...]:
        """Elements between neighbours inside each tile, in the order of ``tiles``."""
        return tuple(prod(size for _, size in self.tiles[i + 1 :]) for i in range(len(self.tiles)))

    def size(self, shape: Sequence[Dim]) -> Dim:
        """Elements of the buffer, margins and the rest of the last tiles included."""
        return product(self._blocks(shape)) * prod(size for _, size in self.tiles)

    def origin(self, shape: Sequence[Dim]) -> Dim:
        """Offset in elements of the logical element (0, …, 0)."""
        if not self.margins:
            return 0
        offset: Dim = 0
        tiled = {dimension for dimension, _ in self.tiles}
        for dimension, (stride, (before, _)) in enumerate(zip(self.strides(shape), self.margins, strict=True)):
            if before and dimension not in tiled:
                offset = offset + stride * before
        return offset

    @property
    def is_row_major(self) -> bool:
        return not self.tiles and not any(any(m) for m in self.margins) and self.order == tuple(range(len(self.order)))

    def __str__(self) -> str:
        parts = [",".join(map(str, self.order))]
        if self.tiles:
            parts.append("tiles " + ",".join(f"{d}:{s}" for d, s in self.tiles))
        if self.margins:
            parts.append("margins " + ",".join(f"{a}:{b}" for a, b in self.margins))
        return "{" + "; ".join(parts) + "}"


class TensorType:
    """The type of a value: ``dtype``, logical ``shape`` (ints or symbolic dimensions) and ``layout``.

    ``layout`` is None for row-major. Immutable; equality is structural and cheap.

    >>> from tgc import dtypes
    >>> print(TensorType(dtypes.f32, (2, 3)))
    f32[2, 3]
    """

    __slots__ = ("_hash", "dtype", "layout", "shape")

    dtype: DType
    shape: tuple[Dim, ...]
    layout: Layout | None

    def __init__(self, dtype: DType, shape: Iterable[Dim], layout: Layout | None = None) -> None:
        shape = tuple(shape)
        if layout is not None and layout.is_row_major:
            layout = None
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "_hash", hash((dtype.name, shape, layout)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"TensorType is immutable: cannot set {name}")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TensorType):
            return NotImplemented
        return (
            self._hash == other._hash  # type: ignore[attr-defined]
            and self.dtype is other.dtype
            and self.shape == other.shape
            and self.layout == other.layout
        )

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __reduce__(self) -> tuple[object, tuple[DType, tuple[Dim, ...], Layout | None]]:
        return (TensorType, (self.dtype, self.shape, self.layout))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Logical number of elements."""
        return product(self.shape)

    @property
    def buffer_size(self) -> Dim:
        """Elements of the buffer that holds the value, whatever its layout."""
        return self.size if self.layout is None else self.layout.size(self.shape)

    @property
    def strides(self) -> tuple[Dim, ...]:
        """Elements between neighbours of each dimension (between blocks, for a tiled one)."""
        return (self.layout or Layout(tuple(range(len(self.shape))))).strides(self.shape)

    @property
    def order(self) -> tuple[int, ...]:
        """Dimensions from outermost to innermost in memory."""
        return tuple(range(len(self.shape))) if self.layout is None else self.layout.order

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.layout)

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        """Same dtype, another shape, row-major."""
        return TensorType(self.dtype, shape)

    def with_layout(self, layout: Layout | None) -> TensorType:
        return TensorType(self.dtype, self.shape, layout)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]{self.layout or ''}"

    def __repr__(self) -> str:
        return f"TensorType({self})"
