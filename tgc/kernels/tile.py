"""The register tile: the one building block of every contraction and convolution.

C[rows, vectors] += A[rows] ⊗ B[vectors] over a reduction: B is read as vectors along the result's contiguous
dimension, A as scalars that are broadcast, and the sums stay in registers (batch-reduce GEMM: Georganas et al.,
arXiv 1906.06440; micro-kernel: Van Zee & van de Geijn, BLIS). With 32 registers 14 x 2 vectors are right: 28 sums, two
vectors of B and one broadcast; with 16 registers 6 x 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgc.dtypes import DType
from tgc.ir.dims import Dim
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Buffer, Value
from tgc.target import Target

# how many products one chain of additions has at most: the bound on the error of a contraction rests on it
LONGEST_CHAIN = 512
_MOST_ROWS = 16
_MOST_VECTORS = 8
# multiply-adds that must be under way at a time
_LATENCY = 4
# what an unknown number of rows, or of vectors, is taken for
_TYPICAL = 240


@dataclass(frozen=True, slots=True)
class TileShape:
    """``rows`` by ``vectors`` of ``lanes`` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Columns of the tile."""
        return self.vectors * self.lanes


def tile_shape(target: Target, dtype: DType, rows: Dim, columns: Dim) -> TileShape:
    """The tile for a product of ``rows`` by ``columns`` that takes the least work, partial tiles included.

    An unknown number of rows gets low and wide tiles, so that few rows waste little.

    >>> from tgc import dtypes, target
    >>> tile_shape(target.AVX512, dtypes.f32, 1 << 20, 1024)
    TileShape(rows=14, vectors=2, lanes=16)
    >>> tile_shape(target.AVX512, dtypes.f32, 32, 10)
    TileShape(rows=16, vectors=1, lanes=16)
    """
    lanes = target.lanes(dtype)
    m = rows if isinstance(rows, int) else _TYPICAL
    n = columns if isinstance(columns, int) else _TYPICAL * lanes
    widest = max(1, min(_MOST_VECTORS if isinstance(columns, int) else 2, -(-n // lanes)))
    highest = max(1, min(_MOST_ROWS, m if isinstance(rows, int) else _MOST_ROWS // 2))
    best = (float("inf"), 0.0, 1, 1)
    for vectors in range(1, widest + 1):
        for height in range(1, highest + 1):
            # the sums, a row of vectors and a factor in registers, with one to spare
            if height * vectors + vectors + 2 > target.vector_registers:
                break
            loads = height / 2 + vectors
            work = -(-m // height) * -(-n // (vectors * lanes)) * (max(height * vectors, loads, _LATENCY) + 1)
            best = min(best, (work, loads / (height * vectors), height, vectors))
    return TileShape(best[2], best[3], lanes)


def accumulate(
    builder: KernelBuilder,
    shape: TileShape,
    size: Dim | Value,
    start: Sequence[Value],
    read_row: Callable[[int, Value], Value],
    read_vectors: Callable[[Value], Sequence[Value]],
    *,
    first: Dim | Value = 0,
) -> tuple[Value, ...]:
    """``start`` plus the products over ``first <= k < size``, in increasing order of k.

    ``read_row(r, k)`` is the scalar of A in row r, ``read_vectors(k)`` the vectors of B. The sums come row by row.
    """
    with builder.loop(first, size, carried=list(start)) as loop:
        loop.yield_(*add_products(builder, shape, loop.index, loop.carried, read_row, read_vectors))
    return tuple(loop.results)


def add_products(
    builder: KernelBuilder,
    shape: TileShape,
    k: Value,
    sums: Sequence[Value],
    read_row: Callable[[int, Value], Value],
    read_vectors: Callable[[Value], Sequence[Value]],
) -> list[Value]:
    """The sums with the products of one ``k`` added."""
    vectors = read_vectors(k)
    found = list(sums)
    for row in range(shape.rows):
        factor = read_row(row, k)
        for v, vector in enumerate(vectors):
            at = row * shape.vectors + v
            found[at] = product_sum(builder, factor, vector, found[at])
    return found


def product_sum(builder: KernelBuilder, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once where the hardware can."""
    if c.dtype.is_float:
        return builder.multiply_add(a, b, c)
    return builder.add(builder.mul(a, b), c)


def zeros(builder: KernelBuilder, shape: TileShape, dtype: DType) -> list[Value]:
    """Sums to begin with."""
    return [builder.constant(0, dtype, shape.lanes)] * (shape.rows * shape.vectors)


def spill(builder: KernelBuilder, scratch: Buffer, shape: TileShape, sums: Sequence[Value]) -> None:
    """Puts a tile into scratch, row by row."""
    for i, value in enumerate(sums):
        builder.store(scratch, i * shape.lanes, value)
