"""Wide cells of a reduction: columns whose rows are walked in the order of memory, with accumulators in L1.

What made it fast (2048x2048 f32, sum over the first dimension, 795 to 248 us): cells in registers alone read 256 bytes
of each row, a new page each time, which no prefetcher follows. Wider tiles (half of the registers, 1 KiB of a row) give
315 us. Panels make the pieces longer still: a tile stays in registers for one block of ``DEPTH`` rows, is added to
accumulators of the whole panel in scratch, and the next tile takes the same rows. Blocks of rows are what the tree of
:mod:`tgc.kernels.tree` begins with, so that only the order of the loops differs, not the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tgc.ir.dims import Dim
from tgc.kernels.access import Point
from tgc.kernels.cells import Columns
from tgc.kernels.folds import State, flattened, regrouped, state_dtypes
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.tree import DEPTH
from tgc.kernels.vector_loop import tile_loop

Span = tuple["Value | int", "Value | Dim"]


@dataclass(frozen=True)
class Tile:
    """A few vectors of a panel's columns: points and indices to compute at, and their place in accumulators."""

    cells: Panels
    points: list[Point]
    columns: list[list[Index]]
    place: Value

    def load(self, accumulators: Sequence[Buffer]) -> State:
        """The states of the tile, vector after vector."""
        b, lanes = self.cells.builder, self.cells.lanes
        starts = [b.add(self.place, t * lanes) for t in range(self.cells.vectors)]
        return tuple([b.load(buffer, start, lanes) for start in starts for buffer in accumulators])

    def store(self, accumulators: Sequence[Buffer], state: State) -> None:
        """Puts the states of the tile into accumulators."""
        b, lanes = self.cells.builder, self.cells.lanes
        for k, value in enumerate(state):
            t, n = divmod(k, len(accumulators))
            b.store(accumulators[n], b.add(self.place, t * lanes), value)


@dataclass(frozen=True, kw_only=True)
class Panels(Columns):
    """Cells of up to ``panel`` columns, a multiple of the lanes; their passes keep accumulators in scratch."""

    panel: int

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        """The columns low..high."""
        b, plan, kept = self.builder, self.plan, self.kept_indices(outer, self.plan.sizes(reduced=False)[:-1])
        columns = (low, high)
        totals: list[list[Buffer]] = []
        for level in range(len(self.folds)):
            totals.append(self.accumulate(kept, columns, level, (0, plan.domain), totals))
        if plan.full:
            with b.loop(0, b.index(plan.folded), DEPTH, name="block") as loop:
                end = b.minimum(b.add(loop.index, DEPTH), b.index(plan.folded))
                self.tiles(
                    kept, columns, totals, lambda tile: tile.cells.walk(tile.points, tile.columns, loop.index, end)
                )
                loop.yield_()
        nowhere = [Index()] * len(plan.sizes(reduced=True))
        self.tiles(
            kept,
            columns,
            totals,
            lambda tile: self.write_kept(tile.points, [self.at(column, nowhere) for column in tile.columns]),
        )

    def tiles(
        self,
        kept: Sequence[Index],
        columns: Span,
        totals: Sequence[Sequence[Buffer]],
        body: Callable[[Tile], None],
    ) -> None:
        """Runs ``body`` for tiles of some columns, whose points know the ``totals`` of earlier passes."""
        b, (low, high) = self.builder, columns

        def each(position: Value, vectors: int, count: Value | None) -> None:
            cells = replace(self, vectors=vectors)
            points, indices = cells.places(kept, position, count)
            tile = Tile(cells, points, indices, b.sub(position, b.index(low)))
            for folds, accumulators in zip(self.folds, totals, strict=False):
                states = regrouped(folds, tile.load(accumulators))
                for t, point in enumerate(points):
                    mine = zip(folds, states[t * len(folds) : (t + 1) * len(folds)], strict=True)
                    points[t] = point.nested(self.lanes, count, {f.node.result: f.result(b, s) for f, s in mine})
            body(tile)

        tile_loop(b, low, high, self.lanes, self.vectors, each)

    def accumulate(
        self, kept: Sequence[Index], columns: Span, level: int, rows: Span, totals: Sequence[Sequence[Buffer]]
    ) -> list[Buffer]:
        """Folds rows of a panel in one pass; returns the accumulators that hold its states afterwards."""
        b, folds, single = self.builder, self.folds[level], replace(self, vectors=1)
        width = b.sub(b.index(columns[1]), b.index(columns[0]))
        tree = replace(self.tree(folds, lambda position, count, state: state, 1), levels=self.levels)
        length = rows[1] - rows[0] if isinstance(rows[0], int) and not isinstance(rows[1], Value) else None
        accumulators = [
            [b.scratch(f"sum{level}_{h}_{k}", dtype, self.panel) for k, dtype in enumerate(state_dtypes(folds))]
            for h in range(max(1, tree.height(length)))
        ]

        def clear(h: int) -> None:
            with b.loop(0, width, self.lanes, name="c") as loop:
                start = flattened([f.start(b, self.lanes, ramp=False) for f in folds])
                Tile(single, [], [], loop.index).store(accumulators[h], start)
                loop.yield_()

        def merge(h: int) -> None:
            with b.loop(0, width, self.lanes, name="c") as loop:
                tile = Tile(single, [], [], loop.index)
                part = tile.load(accumulators[h - 1])
                tile.store(accumulators[h], tree.join(tile.load(accumulators[h]), part))
                loop.yield_()

        def descend(h: int, low: Value | int, high: Value | Dim, length: Dim | None) -> None:
            clear(h)
            span = tree.span(h)
            with b.loop(low, b.index(high), span, name="block") as loop:
                end, whole = tree.end_of(loop.index, span, high, length)

                def block(tile: Tile) -> None:
                    cells = replace(tile.cells, levels=0)
                    states = cells.fold(tile.points, tile.columns, level, folds, loop.index, end, whole)
                    tile.store(accumulators[0], tree.join(tile.load(accumulators[0]), flattened(states)))

                if h == 0:
                    self.tiles(kept, columns, totals, block)
                else:
                    descend(h - 1, loop.index, end, whole)
                    merge(h)
                loop.yield_()

        descend(len(accumulators) - 1, *rows, length)
        return accumulators[-1]
