"""Patches: the part of an image that a block of windows covers, copied to a thread's scratch with its border of zeros.

A patch is channels-last and contiguous whatever the layout of the image is, so that register tiles read it at constant
distances and never test for a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgc.dtypes import DType, bool_
from tgc.ir import graph
from tgc.ir.dims import Dim, product
from tgc.ir.types import TensorType
from tgc.kernels.access import Evaluator, Point
from tgc.kernels.grid import unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.operands import accesses, is_parameter, main_strides, parameter_buffer
from tgc.kernels.squares import square_size, transposed
from tgc.kernels.vector_loop import vector_loop


@dataclass(frozen=True)
class Patch:
    """``extents`` elements of each spatial dimension by ``channels``, in ``buffer``, of ``dtype``; ``pitch`` elements
    from one place to the next."""

    buffer: Buffer
    extents: tuple[int, ...]
    channels: Dim
    pitch: Dim
    dtype: DType
    lanes: int

    @staticmethod
    def declare(
        evaluator: Evaluator,
        name: str,
        extents: Sequence[int],
        channels: Dim,
        dtype: DType,
        lanes: int,
        beyond: int = 0,
        *,
        pitch: Dim | None = None,
    ) -> Patch:
        """A patch in scratch, with room for whole squares to be stored, and ``beyond`` more to be read, at its end."""
        pitch = channels if pitch is None else pitch
        size = (product(extents) + square_size(lanes)) * pitch + lanes + beyond
        return Patch(evaluator.builder.scratch(name, dtype, size), tuple(extents), channels, pitch, dtype, lanes)

    def strides(self) -> list[Dim]:
        """Elements between neighbours of each spatial dimension."""
        return [product(self.extents[d + 1 :]) * self.pitch for d in range(len(self.extents))]

    def fill(
        self,
        evaluator: Evaluator,
        source: graph.Value,
        image: Value,
        channel: Index,
        origins: Sequence[Value],
        *,
        have: Dim | Value | None = None,
    ) -> None:
        """Copies from image ``image`` of ``source``, from channel ``channel`` on, what lies at ``origins`` and on.

        ``have``: how many of the channels are there, if not all of them; the others are arbitrary.
        """
        _Filling(self, evaluator, source, image, channel, origins, have).run()


class _Filling:
    def __init__(
        self,
        patch: Patch,
        evaluator: Evaluator,
        source: graph.Value,
        image: Value,
        channel: Index,
        origins: Sequence[Value],
        have: Dim | Value | None,
    ) -> None:
        self.patch = patch
        self.evaluator = evaluator
        self.builder = evaluator.builder
        self.source = source
        self.type: TensorType = source.type
        self.image = evaluator.index(image)
        self.channel = channel
        self.origins = list(origins)
        self.have = have

    def run(self) -> None:
        b, patch = self.builder, self.patch
        rows = patch.extents[:-1]
        columns = patch.extents[-1]
        size = b.index(self.type.shape[-1])
        origin = self.origins[-1]
        # the columns that lie inside of the image
        low = b.minimum(b.maximum(b.sub(b.index(0), origin), 0), columns)
        high = b.maximum(b.minimum(b.sub(size, origin), columns), low)
        with b.loop(0, product(rows), name="row") as loop:
            locals_ = unflattened(b, loop.index, rows) if rows else []
            places = [b.add(o, p) for o, p in zip(self.origins, locals_, strict=False)]
            base = b.mul(loop.index, b.index(columns * patch.pitch))
            inside = b.constant(True, bool_)
            for place, extent in zip(places, self.type.shape[2:-1], strict=True):
                inside = b.bit_and(inside, b.compare("ge", place, 0))
                inside = b.bit_and(inside, b.compare("lt", place, b.index(extent)))
            first = b.select(inside, low, b.index(columns))
            last = b.select(inside, high, b.index(columns))
            self._zero(base, b.index(0), first)
            self._copy(base, [self.evaluator.index(p) for p in places], first, last)
            self._zero(base, last, b.index(columns))

    def _zero(self, base: Value, low: Value, high: Value) -> None:
        """Zeros from one column to another, and up to a vector beyond: what follows is written later."""
        b, patch = self.builder, self.patch
        pitch = b.index(patch.pitch)
        end = b.add(base, b.mul(high, pitch))
        with b.loop(b.add(base, b.mul(low, pitch)), end, patch.lanes, name="zero") as loop:
            b.store(patch.buffer, loop.index, b.constant(0, patch.dtype, patch.lanes))

    def _copy(self, base: Value, rows: list[Index], low: Value, high: Value) -> None:
        source, layout = self.source, self.type.layout
        if is_parameter(source):
            strides = self.type.strides
            straight = layout is None or not layout.tiles
        else:
            strides = main_strides(accesses(source, self.evaluator.table), self.type.rank)
            straight = False
        dense = (
            straight
            and self.have is None
            and strides[1] == 1
            and strides[-1] == self.patch.channels == self.patch.pitch
        )
        if dense:
            self._run(base, rows, low, high)
        elif strides[1] == 1:
            self._pixels(base, rows, low, high)
        elif strides[-1] == 1 and square_size(self.patch.lanes) > 1:
            self._squares(base, rows, low, high)
        else:
            self._planes(base, rows, low, high)

    def _at(self, rows: list[Index], column: Index, channel: Index) -> tuple[Index, ...]:
        column = column.plus(self.evaluator.index(self.origins[-1]))
        return (self.image, self.channel.plus(channel), *rows, column)

    def _load(self, point: Point, at: tuple[Index, ...]) -> Value:
        b, patch = self.builder, self.patch
        return b.convert(b.splat(point.value(self.source, at), point.lanes), patch.dtype)

    def _run(self, base: Value, rows: list[Index], low: Value, high: Value) -> None:
        """All columns at once: they follow each other in the image as they do in the patch."""
        b, patch, evaluator = self.builder, self.patch, self.evaluator
        pitch = b.index(patch.pitch)
        buffer = parameter_buffer(evaluator, self.source)
        start = self._at(rows, evaluator.index(low), Index())
        source = evaluator.scalar(evaluator.address(self.type, start, 1))
        target = b.add(base, b.mul(low, pitch))

        def body(v: Value, count: Value | None) -> None:
            value = b.load(buffer, b.add(source, v), patch.lanes, count=count)
            b.store(patch.buffer, b.add(target, v), b.convert(value, patch.dtype))

        vector_loop(b, 0, b.mul(b.sub(high, low), pitch), patch.lanes, body)

    def _pixels(self, base: Value, rows: list[Index], low: Value, high: Value) -> None:
        """Column by column, vectors along the channels; what lies beyond them is overwritten by the next column."""
        b, patch, evaluator = self.builder, self.patch, self.evaluator
        with b.loop(low, high, name="column") as loop:
            target = b.add(base, b.mul(loop.index, b.index(patch.pitch)))

            def body(v: Value, count: Value | None) -> None:
                point = evaluator.point(patch.lanes, count)
                at = self._at(rows, evaluator.index(loop.index), evaluator.index(v, lane=1))
                b.store(patch.buffer, b.add(target, v), self._load(point, at))

            vector_loop(b, 0, patch.channels if self.have is None else self.have, patch.lanes, body)

    def _squares(self, base: Value, rows: list[Index], low: Value, high: Value) -> None:
        """Some channels of some columns at a time, read along the columns and turned in registers.

        Squares are stored whole. What they hold beyond the last column, and beyond the last channel, is overwritten:
        by the border and the next row, and by the squares of lower channels, which therefore come later.
        """
        b, patch, evaluator = self.builder, self.patch, self.evaluator
        size = square_size(patch.lanes)
        channels = b.index(patch.channels if self.have is None else self.have)
        exact = self.have is None and isinstance(patch.channels, int) and patch.channels % size == 0
        blocks = b.floor_divide(b.add(channels, size - 1), size)
        with b.loop(0, blocks, name="channels") as loop:
            first = b.mul(b.sub(b.sub(blocks, loop.index), 1), size)
            last = b.sub(b.sub(channels, first), 1)
            lines = [b.add(first, j if exact else b.minimum(last, j)) for j in range(size)]

            def body(v: Value, count: Value | None) -> None:
                point = evaluator.point(size, count)
                column = evaluator.index(v, lane=1)
                square = [b.splat(self._load(point, self._at(rows, column, evaluator.index(c))), size) for c in lines]
                target = b.add(b.add(base, b.mul(v, b.index(patch.pitch))), first)
                for j, value in enumerate(transposed(b, square)):
                    b.store(patch.buffer, b.add(target, b.index(patch.pitch * j)), value)

            vector_loop(b, low, high, size, body)

    def _planes(self, base: Value, rows: list[Index], low: Value, high: Value) -> None:
        """Channel by channel, vectors along the columns."""
        b, patch, evaluator = self.builder, self.patch, self.evaluator
        with b.loop(0, patch.channels if self.have is None else self.have, name="channel") as loop:

            def body(v: Value, count: Value | None) -> None:
                point = evaluator.point(patch.lanes, count)
                at = self._at(rows, evaluator.index(v, lane=1), evaluator.index(loop.index))
                offset = b.add(b.add(base, b.mul(v, b.index(patch.pitch))), loop.index)
                place = evaluator.index(offset).plus(Index(lane=patch.pitch))
                point.store(patch.buffer, place, self._load(point, at))

            vector_loop(b, low, high, patch.lanes, body)
