"""The end of a register tile whose rows, not its columns, lie side by side in memory.

The tile goes to scratch and comes back in squares that are turned in registers: a vector is then some rows of one
column, and the results are computed and stored along the memory. Storing lane by lane instead costs as much as a
hundred products of the tile's sums, and more where columns lie a power of two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tgc.ir import graph
from tgc.kernels.access import Evaluator
from tgc.kernels.epilogue import LONGEST_BLOCK, Columns, Place, finish_vector, operations
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.squares import square_size, transposed
from tgc.kernels.tile import TileShape, spill


def turned_size(shape: TileShape) -> int:
    """Elements of the scratch of :func:`finish_turned`: the tile, and what squares reach beyond it."""
    return (shape.rows + square_size(shape.lanes)) * shape.width


def finish_turned(
    evaluator: Evaluator,
    anchor: graph.Value,
    sums: Sequence[Value],
    shape: TileShape,
    columns: Columns,
    place: Callable[[Value, Value], Place],
    scratch: Buffer,
    *,
    dimension: int,
    runs: int,
    limits: tuple[Value | None, Value | None],
) -> None:
    """Stores every result of the region for one tile, the anchor being ``sums``, row by row.

    The tile's rows are ``runs`` of neighbours along ``dimension``; ``place`` gives the index of a run's element in
    column 0. ``limits``: how many runs, and how many elements of each, are to be stored, where not all are.
    ``scratch`` has :func:`turned_size` elements.
    """
    b = evaluator.builder
    size, length = square_size(shape.lanes), shape.rows // runs
    spill(b, scratch, shape, sums)
    known = isinstance(columns.size, int)
    exact = known and columns.size % size == 0
    whole = known and columns.size % shape.width == 0
    beyond = b.sub(b.index(columns.size), columns.first)
    last = shape.width if whole else b.minimum(beyond, shape.width)
    high, wide = limits
    with (
        b.loop(0, runs if high is None else b.minimum(high, runs), name="run") as run,
        b.loop(0, last, size, name="column") as column,
        b.loop(0, length if wide is None else b.minimum(wide, length), size, name="square") as square,
    ):
        row = b.add(b.mul(run.index, length), square.index)
        start = b.add(b.mul(row, shape.width), column.index)
        lines = [b.load(scratch, b.add(start, j * shape.width), size) for j in range(size)]
        count = b.sub(length if wide is None else b.minimum(wide, length), square.index)
        at = place(run.index, square.index)
        at = (*at[:dimension], at[dimension].plus(Index(lane=1)), *at[dimension + 1 :])

        def finish(lane: int | Value, value: Value) -> None:
            here = b.add(column.index, lane)
            # what is the same for a whole vector is read without a mask, and no further than there are columns
            known_column = here if exact else b.minimum(here, b.sub(beyond, 1))
            number = evaluator.index(b.add(columns.first, known_column)).plus(columns.offset)
            left = count if exact else b.select(b.compare("lt", here, beyond), count, 0)
            finish_vector(evaluator, anchor, value, (at[0], number, *at[2:]), left)

        turned = transposed(b, lines)
        if size * operations(evaluator.region) <= LONGEST_BLOCK:
            for j, value in enumerate(turned):
                finish(j, value)
        else:
            values = b.scratch("square", sums[0].dtype, size * size)
            for j, value in enumerate(turned):
                b.store(values, j * size, value)
            with b.loop(0, size, name="finish") as loop:
                finish(loop.index, b.load(values, b.mul(loop.index, size), size))
