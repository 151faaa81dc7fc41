"""The register tile: the one building block of every contraction and convolution.

C[rows, vectors] += A[rows] ⊗ B[vectors] over a reduction: B is read as vectors along the result's contiguous
dimension, A as scalars that are broadcast, and the sums stay in registers (batch-reduce GEMM: Georganas et al.,
arXiv 1906.06440; micro-kernel: Van Zee & van de Geijn, BLIS). With 32 registers 14 x 2 vectors are the most: 28 sums,
two vectors of B and one broadcast; with 16 registers 6 x 2. Sixteen sums keep the units as busy where fewer rows are
left over (:mod:`tgc.kernels.blocking`).
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
_LATENCY = 8
# what an unknown number of rows, or of vectors, is taken for
TYPICAL = 224


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


def tallest_tiles(target: Target, dtype: DType, columns: Dim) -> list[TileShape]:
    """For each number of vectors that ``columns`` can use, the tile with most rows that stays in registers."""
    lanes = target.lanes(dtype)
    widest = min(_MOST_VECTORS, -(-max(columns, 1) // lanes)) if isinstance(columns, int) else 2
    found = []
    for vectors in range(1, widest + 1):
        # the sums, a row of vectors and a factor in registers, with one to spare
        rows = min((target.vector_registers - vectors - 2) // vectors, _MOST_ROWS)
        if rows > 0:
            found.append(TileShape(rows, vectors, lanes))
    return found


def tile_work(rows: int, vectors: int) -> int:
    """Time for one product of each of a tile's sums: multiply-adds, or loads, or the latency of a chain; and the loop.

    CPUs load about as many vectors at a time as they multiply.
    """
    return max(rows * vectors, rows + vectors, _LATENCY) + 1


def tile_shape(target: Target, dtype: DType, rows: Dim, columns: Dim) -> TileShape:
    """The tile for a product of ``rows`` by ``columns`` that takes the least work, partial tiles included.

    An unknown number of rows gets low and wide tiles, so that few rows waste little.

    >>> from tgc import dtypes, target
    >>> tile_shape(target.AVX512, dtypes.f32, 1 << 20, 1024)
    TileShape(rows=14, vectors=2, lanes=16)
    >>> tile_shape(target.AVX512, dtypes.f32, 32, 10)
    TileShape(rows=16, vectors=1, lanes=16)
    """
    m = rows if isinstance(rows, int) else TYPICAL
    highest = max(1, m) if isinstance(rows, int) else _MOST_ROWS // 2
    best: tuple[float, float, TileShape] | None = None
    for most in tallest_tiles(target, dtype, columns):
        n = columns if isinstance(columns, int) else TYPICAL * most.lanes
        for height in range(1, min(most.rows, highest) + 1):
            work = -(-m // height) * -(-n // most.width) * tile_work(height, most.vectors)
            loads = (height + most.vectors) / (height * most.vectors)
            if best is None or (work, loads) < best[:2]:
                best = (work, loads, TileShape(height, most.vectors, most.lanes))
    return best[2] if best else TileShape(1, 1, target.lanes(dtype))


def accumulate(
    builder: KernelBuilder,
    shape: TileShape,
    size: Dim | Value,
    start: Sequence[Value],
    read_row: Callable[[int, Value], Value],
    read_vectors: Callable[[Value], Sequence[Value]],
) -> tuple[Value, ...]:
    """``start`` plus the products over ``0 <= k < size``, in increasing order of k.

    ``read_row(r, k)`` is the scalar of A in row r, ``read_vectors(k)`` the vectors of B. The sums come row by row.
    """
    with builder.loop(0, size, carried=list(start)) as loop:
        vectors = read_vectors(loop.index)
        sums = list(loop.carried)
        for row in range(shape.rows):
            factor = read_row(row, loop.index)
            for v, vector in enumerate(vectors):
                at = row * shape.vectors + v
                sums[at] = product_sum(builder, factor, vector, sums[at])
        loop.yield_(*sums)
    return tuple(loop.results)


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
