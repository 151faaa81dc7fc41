"""Patches of row-major images: lines that lie in the lanes, with their border of zeros.

Every tap of a window is a load of one vector from a line, at a constant distance: no tap tests for a border, and the
columns that a stride keeps apart are parted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tgc.dtypes import DType, bool_
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.kernels.access import Evaluator
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.sliding import Sliding, forward
from tgc.kernels.vector_loop import vector_loop

# columns that one block takes if there are more of them
_LONGEST_ROW = 1024
# vectors that are copied one after the other without a loop
_MOST_COPIES = 8


def with_rows(axes: Sequence[Sliding]) -> tuple[Sliding, ...]:
    """Two spatial dimensions at least: a line is an image of one row."""
    return (*axes,) if len(axes) > 1 else (forward(1, 1, 1, 1, 0, 1), *axes)


def even_block(positions: Dim, most: int, unit: int) -> int:
    """Positions of one block, a multiple of ``unit``: ``most``, or as many as make blocks of similar size."""
    if not isinstance(positions, int):
        return most
    pieces = max(1, -(-positions // most))
    return max(1, -(-positions // (pieces * unit))) * unit


def row_block(columns: Sliding, lanes: int) -> int:
    """Columns of a block, in whole vectors."""
    return even_block(columns.positions, _LONGEST_ROW, lanes)


def _lead(columns: Sliding, lanes: int) -> int:
    """Elements before a line, so that its first column that lies in the image begins a vector."""
    return columns.low // columns.in_step % lanes


def line_elements(columns: Sliding, wide: int, lanes: int) -> int:
    """Elements of a line for ``wide`` positions: whole vectors for the columns of each residue of the stride."""
    reach = -(-columns.extent(wide) // columns.in_step)
    return -(-(_lead(columns, lanes) + reach) // lanes) * lanes * columns.in_step


@dataclass(frozen=True, slots=True)
class _Span:
    """Positions ``low`` to ``high`` of a line of the patch lie in the image, position 0 being its ``column``."""

    column: Value
    low: Value | int
    high: Value | int


@dataclass(frozen=True)
class RowPatch:
    """Lines in ``buffer``: one for each input channel and each row of ``extents``; ``reach`` positions of each residue
    are defined, from ``lead`` on, and residues are ``pitch`` elements apart.
    """

    evaluator: Evaluator
    source: graph.Value
    axes: tuple[Sliding, ...]
    extents: tuple[int, ...]
    buffer: Buffer
    lanes: int
    lead: int
    reach: int
    single: bool

    @staticmethod
    def declare(
        evaluator: Evaluator,
        source: graph.Value,
        axes: Sequence[Sliding],
        inputs: int,
        high: int,
        wide: int,
        dtype: DType,
        lanes: int,
    ) -> RowPatch:
        """A patch in scratch for ``high`` rows by ``wide`` columns of positions, and one of each dimension before."""
        *outer, rows, columns = axes
        extents = (inputs, *(axis.span for axis in outer), rows.extent(high))
        size = prod(extents) * line_elements(columns, wide, lanes) + 2 * lanes
        reach = -(-columns.extent(wide) // columns.in_step)
        single = isinstance(columns.positions, int) and columns.positions <= wide
        buffer = evaluator.builder.scratch("patch", dtype, size)
        return RowPatch(evaluator, source, tuple(axes), extents, buffer, lanes, _lead(columns, lanes), reach, single)

    @property
    def columns(self) -> Sliding:
        return self.axes[-1]

    @property
    def pitch(self) -> int:
        return -(-(self.lead + self.reach) // self.lanes) * self.lanes

    @property
    def line(self) -> int:
        return self.pitch * self.columns.in_step

    def position(self, row: Value, column: Value) -> Value:
        """Where the window of a position of the block begins, in the first line of its row."""
        b = self.evaluator.builder
        return b.add(b.mul(row, self.axes[-2].in_step * self.line), b.add(column, self.lead))

    def offset(self, channel: int, rows: Sequence[int], column: int) -> int:
        """How far from there another line is, and another column of it."""
        number = channel
        for row, extent in zip(rows, self.extents[1:], strict=True):
            number = number * extent + row
        shift, residue = divmod(column, self.columns.in_step)
        return number * self.line + residue * self.pitch + shift

    def fill(self, image: Value, channel: Value, starts: Sequence[Value]) -> None:
        """Copies what the positions of a block from ``starts`` on meet in an image, from a channel on."""
        b = self.evaluator.builder
        step, width = self.columns.in_step, self.source.shape[-1]
        origins = [b.add(b.mul(s, a.in_step), a.low) for s, a in zip(starts, self.axes, strict=True)]
        # the columns of each residue that lie inside of the image
        spans: list[_Span] = []
        for residue in range(step):
            if isinstance(width, int) and self.single:
                column = self.columns.low + residue
                low = min(max(-(column // step), 0), self.reach)
                spans.append(_Span(b.index(column), low, max(min(-((column - width) // step), self.reach), low)))
            else:
                place = b.add(origins[-1], residue)
                least = b.floor_divide(b.sub(step - 1, place), step)
                most = b.floor_divide(b.add(b.sub(b.index(width), place), step - 1), step)
                first = b.minimum(b.maximum(least, 0), self.reach)
                spans.append(_Span(place, first, b.maximum(b.minimum(most, self.reach), first)))
        self._lines(image, channel, origins, spans, [])

    def _lines(
        self, image: Value, channel: Value, origins: Sequence[Value], spans: Sequence[_Span], at: list[Value]
    ) -> None:
        """A loop for each coordinate of a line: its input channel, then its rows."""
        b = self.evaluator.builder
        if len(at) < len(self.extents):
            with b.loop(0, self.extents[len(at)], name="line") as loop:
                self._lines(image, channel, origins, spans, [*at, loop.index])
            return
        number = at[0]
        for index, extent in zip(at[1:], self.extents[1:], strict=True):
            number = b.add(b.mul(number, extent), index)
        places = [b.add(o, p) for o, p in zip(origins, at[1:], strict=False)]
        inside = b.constant(True, bool_)
        for place, axis in zip(places, self.axes, strict=False):
            inside = b.bit_and(inside, b.compare("ge", place, 0))
            inside = b.bit_and(inside, b.compare("lt", place, b.index(axis.source)))
        # a line has no coordinate for its only row
        places = places[len(self.axes) + 2 - self.source.type.rank :]
        start = b.add(b.mul(number, self.line), self.lead)
        with b.if_(inside) as branch:
            for residue, span in enumerate(spans):
                self._copy((image, b.add(channel, at[0]), *places), b.add(start, residue * self.pitch), span)
        with branch.otherwise():
            for residue in range(len(spans)):
                self._zero(b.add(start, residue * self.pitch), 0, self.reach)

    def _copy(self, at: Sequence[Value], start: Value, span: _Span) -> None:
        """One residue of a line, with its border."""
        b, evaluator = self.evaluator.builder, self.evaluator
        step, low, high = self.columns.in_step, span.low, span.high
        rows = tuple([evaluator.index(place) for place in at])

        def copy(q: Value, count: Value | None) -> None:
            column = evaluator.index(b.add(b.mul(q, step), span.column), lane=step)
            found = evaluator.point(self.lanes, count).value(self.source, (*rows, column))
            b.store(self.buffer, b.add(start, q), b.convert(b.splat(found, self.lanes), self.buffer.dtype))

        self._zero(start, 0, low)
        known = (high - low) // self.lanes if isinstance(low, int) and isinstance(high, int) else 2
        vector_loop(b, low, high, self.lanes, copy, unroll=max(1, min(known, _MOST_COPIES)))
        self._zero(start, high, self.reach)

    def _zero(self, start: Value, low: Value | int, high: Value | int) -> None:
        """Zeros from one column to another, and up to a vector beyond: what follows is written later."""
        b = self.evaluator.builder
        with b.loop(low, high, self.lanes, name="zero") as loop:
            b.store(self.buffer, b.add(start, loop.index), b.constant(0, self.buffer.dtype, self.lanes))
