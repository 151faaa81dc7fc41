"""The end of a register tile: the region's results are computed from the sums and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph
from tgc.kernels.access import Evaluator
from tgc.kernels.indices import ZERO, Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.tile import TileShape, spill

Place: TypeAlias = "tuple[Index, ...]"

# vector operations in one block beyond which the tile is walked by a loop instead of being unrolled
LONGEST_BLOCK = 200
_MANY_PRODUCTS = 192


def require_plain_results(region: Graph) -> None:
    """Raises :class:`CompilerBug` where a result has tiles or margins: tiles of sums write elements, not borders."""
    for result in region.results:
        layout = result.type.layout
        if layout is not None and (layout.tiles or layout.margins):
            raise CompilerBug(f"a register tile cannot write {result.type}", stage="schedule")


def operations(region: Graph) -> int:
    """Vector operations that an epilogue takes, roughly."""
    return sum(node.op != "parameter" for node in region.nodes()) + len(region.results)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a tile: from ``first`` on, of ``size`` in all, in ``vectors`` of ``lanes``.

    They lie along ``dimension`` of the results, after ``offset``; None if nothing does.
    """

    dimension: int | None
    first: Value
    size: Dim
    vectors: int
    lanes: int
    offset: Index = ZERO


def fetch(evaluator: Evaluator, anchor: graph.Value, at: Place) -> None:
    """Asks for the memory at an index of every result, and of every parameter of the same shape."""
    b, region = evaluator.builder, evaluator.region
    for i, result in enumerate(region.results):
        address = evaluator.scalar(evaluator.address(result.type, at, 1))
        b.prefetch(evaluator.result(i), address, write=True)
    for i, parameter in enumerate(region.parameters):
        if parameter.shape == anchor.shape:
            b.prefetch(evaluator.parameter(i), evaluator.scalar(evaluator.address(parameter.type, at, 1)))


def finish_tile(
    evaluator: Evaluator,
    anchor: graph.Value,
    sums: Sequence[Value],
    shape: TileShape,
    columns: Columns,
    place: Callable[[int | Value], Place],
    scratch: Callable[[], Buffer],
    *,
    products: Dim,
    complete: Value | None = None,
    wanted: Callable[[Value], Value] | None = None,
) -> None:
    """Stores every result of the region for one tile, the anchor being ``sums``, row by row.

    ``place`` gives the index of a row's first element, ``scratch`` a buffer of the tile's size. Where ``complete`` is
    given and does not hold, only the rows for which ``wanted`` holds are stored. Sums of many ``products`` are finished
    in a loop: that takes little of their time, and is quicker to compile.
    """
    builder = evaluator.builder
    if isinstance(products, int) and products >= _MANY_PRODUCTS:
        _finish_in_loop(evaluator, anchor, sums, shape, columns, place, scratch, None if complete is None else wanted)
        return
    if complete is not None and wanted is not None:
        with builder.if_(complete) as branch:
            _finish_rows(evaluator, anchor, sums, shape, columns, place, scratch)
        with branch.otherwise():
            _finish_in_loop(evaluator, anchor, sums, shape, columns, place, scratch, wanted)
        return
    _finish_rows(evaluator, anchor, sums, shape, columns, place, scratch)


def _finish_rows(
    evaluator: Evaluator,
    anchor: graph.Value,
    sums: Sequence[Value],
    shape: TileShape,
    columns: Columns,
    place: Callable[[int | Value], Place],
    scratch: Callable[[], Buffer],
) -> None:
    """All rows: one after the other as long as that is not too much code."""
    if operations(evaluator.region) * len(sums) > LONGEST_BLOCK:
        _finish_in_loop(evaluator, anchor, sums, shape, columns, place, scratch, None)
        return
    for r in range(shape.rows):
        values = sums[r * shape.vectors : (r + 1) * shape.vectors]
        finish_row(evaluator, anchor, values, place(r), columns)


def _finish_in_loop(
    evaluator: Evaluator,
    anchor: graph.Value,
    sums: Sequence[Value],
    shape: TileShape,
    columns: Columns,
    place: Callable[[int | Value], Place],
    scratch: Callable[[], Buffer],
    wanted: Callable[[Value], Value] | None,
) -> None:
    builder = evaluator.builder
    tile = scratch()
    spill(builder, tile, shape, sums)

    def finish(row: Value) -> None:
        start = builder.mul(row, shape.width)
        values = [builder.load(tile, builder.add(start, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]
        finish_row(evaluator, anchor, values, place(row), columns)

    with builder.loop(0, shape.rows, name="finish") as loop:
        if wanted is None:
            finish(loop.index)
        else:
            with builder.if_(wanted(loop.index)):
                finish(loop.index)


def finish_row(evaluator: Evaluator, anchor: graph.Value, values: Sequence[Value], at: Place, columns: Columns) -> None:
    """Stores every result of the region for one row of a tile."""
    for v, value in enumerate(values):
        _finish_vector(evaluator, anchor, value, at, columns, v)


def _finish_vector(
    evaluator: Evaluator, anchor: graph.Value, value: Value, at: Place, columns: Columns, v: int
) -> None:
    builder = evaluator.builder
    place = at
    if columns.dimension is not None:
        column = evaluator.index(columns.first, lane=1).shifted(v * columns.lanes).plus(columns.offset)
        place = (*at[: columns.dimension], column, *at[columns.dimension + 1 :])
    whole = isinstance(columns.size, int) and columns.size % (columns.vectors * columns.lanes) == 0
    count = None if whole else builder.sub(builder.index(columns.size), builder.add(columns.first, v * columns.lanes))
    finish_vector(evaluator, anchor, value, place, count)


def finish_vector(evaluator: Evaluator, anchor: graph.Value, value: Value, at: Place, count: Value | None) -> None:
    """Stores every result of the region for one vector of sums, of which ``count`` are real."""
    rounded = evaluator.builder.convert(value, anchor.dtype)
    point = evaluator.point(value.lanes, count, {anchor: rounded})
    # every result is computed before any is stored: a result may be stored over a parameter
    computed = [point.value(result, at) for result in evaluator.region.results]
    for i, (result, found) in enumerate(zip(evaluator.region.results, computed, strict=True)):
        point.store(evaluator.result(i), evaluator.address(result.type, at, value.lanes), found)
