"""The end of a register tile: the region's results are computed from the sums and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.kernels.access import Evaluator
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.tile import TileShape, spill

# vector operations in one block beyond which the tile is walked by a loop instead of being unrolled
_LONGEST_BLOCK = 200


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a tile: from ``first`` on, of ``size`` in all, in ``vectors`` of ``lanes``."""

    first: Value
    size: Dim
    vectors: int
    lanes: int


def finish_tile(
    evaluator: Evaluator,
    anchor: graph.Value,
    sums: Sequence[Value],
    shape: TileShape,
    *,
    at: Sequence[Index],
    row_dimension: int | None,
    row: Value,
    column_dimension: int | None,
    columns: Columns,
    scratch: Callable[[], Buffer],
) -> None:
    """Stores every result of the region for one tile, the anchor being ``sums``, row by row.

    ``at``: the index of the tile but for its row and column dimensions. ``scratch`` gives a buffer of the tile's size.
    """
    builder = evaluator.builder
    ops = sum(node.op != "parameter" for node in evaluator.region.nodes()) + len(evaluator.region.results)
    if ops * len(sums) <= _LONGEST_BLOCK:
        for r in range(shape.rows):
            for v in range(shape.vectors):
                place = _place(
                    evaluator, at, row_dimension, evaluator.index(row).shifted(r), column_dimension, columns, v
                )
                _finish_vector(evaluator, anchor, sums[r * shape.vectors + v], place, columns, v)
        return
    tile = scratch()
    spill(builder, tile, shape, sums)
    with builder.loop(0, shape.rows, name="finish") as loop:
        current = evaluator.index(builder.add(row, loop.index))
        for v in range(shape.vectors):
            offset = builder.add(builder.mul(loop.index, shape.width), v * shape.lanes)
            value = builder.load(tile, offset, shape.lanes)
            place = _place(evaluator, at, row_dimension, current, column_dimension, columns, v)
            _finish_vector(evaluator, anchor, value, place, columns, v)


def _place(
    evaluator: Evaluator,
    at: Sequence[Index],
    row_dimension: int | None,
    row: Index,
    column_dimension: int | None,
    columns: Columns,
    v: int,
) -> tuple[Index, ...]:
    place = list(at)
    if row_dimension is not None:
        place[row_dimension] = row
    if column_dimension is not None:
        place[column_dimension] = evaluator.index(columns.first, lane=1).shifted(v * columns.lanes)
    return tuple(place)


def _finish_vector(
    evaluator: Evaluator, anchor: graph.Value, value: Value, place: tuple[Index, ...], columns: Columns, v: int
) -> None:
    builder = evaluator.builder
    whole = isinstance(columns.size, int) and columns.size % (columns.vectors * columns.lanes) == 0
    count = None if whole else builder.sub(builder.index(columns.size), builder.add(columns.first, v * columns.lanes))
    rounded = builder.convert(value, anchor.dtype)
    point = evaluator.point(columns.lanes, count, {anchor: rounded})
    # every result is computed before any is stored: a result may be stored over a parameter
    computed = [point.value(result, place) for result in evaluator.region.results]
    for i, (result, found) in enumerate(zip(evaluator.region.results, computed, strict=True)):
        point.store(evaluator.result(i), evaluator.address(result.type, place, columns.lanes), found)
