"""Packing: the right operand of a product, put into panels that a register tile reads as whole vectors, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tgc.dtypes import DType
from tgc.ir.dims import Dim, product
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.tile import TileShape


def transposed(builder: KernelBuilder, rows: Sequence[Value]) -> list[Value]:
    """The transpose of a square of vectors: result i holds lane i of every row.

    log2(lanes) rounds of two-operand shuffles, each of which exchanges halves of ever smaller blocks.
    """
    values = list(rows)
    lanes = len(values)
    block = lanes // 2
    while block:
        low = tuple(i if not i & block else lanes + (i ^ block) for i in range(lanes))
        high = tuple((i | block) if not i & block else lanes + i for i in range(lanes))
        for i in range(lanes):
            if not i & block:
                a, b = values[i], values[i | block]
                values[i] = builder.shuffle(a, b, low)
                values[i | block] = builder.shuffle(a, b, high)
        block //= 2
    return values


def pack(
    evaluator: Evaluator,
    parameter: int,
    panel: Buffer,
    start: Value,
    *,
    letters: str,
    at: Mapping[str, Index],
    column: str | None,
    columns: tuple[Value, Dim],
    summed: tuple[tuple[str, Dim], ...],
    shape: TileShape,
    dtype: DType,
) -> None:
    """Writes one panel: for each summed index in order, ``shape.width`` columns, zeros beyond the last.

    The innermost summed loop is padded to a multiple of the lanes. ``letters`` name the operand's dimensions, ``at`` gives the
    outer ones, ``columns`` the first column and how many there are in all.
    """
    packer = _Packer(evaluator, parameter, panel, letters, dict(at), column, columns, shape, dtype)
    b = evaluator.builder
    if not summed:
        packer.rows(start, None, 1)
        return
    *outer, (inner, depth) = summed
    padded = ceil_divide(depth, shape.lanes) * shape.lanes
    sizes = [size for _, size in outer]
    with b.loop(0, product(sizes), name="outer") as loop:
        places = unflattened(b, loop.index, sizes) if sizes else []
        for (letter, _), place in zip(outer, places, strict=True):
            packer.at[letter] = evaluator.index(place)
        here = b.add(start, b.mul(loop.index, b.index(padded * shape.width)))
        packer.rows(here, inner, depth)


class _Packer:
    def __init__(
        self,
        evaluator: Evaluator,
        parameter: int,
        panel: Buffer,
        letters: str,
        at: dict[str, Index],
        column: str | None,
        columns: tuple[Value, Dim],
        shape: TileShape,
        dtype: DType,
    ) -> None:
        self.evaluator = evaluator
        self.builder = evaluator.builder
        self.buffer = evaluator.parameter(parameter)
        self.type = evaluator.region.parameters[parameter].type
        self.panel = panel
        self.letters = letters
        self.at = at
        self.column = column
        self.first, self.size = columns
        self.shape = shape
        self.dtype = dtype

    def rows(self, start: Value, inner: str | None, depth: Dim) -> None:
        """The panel's rows for one combination of the outer summed letters."""
        strides = dict(zip(self.letters, self.type.strides, strict=True))
        if inner is not None and inner in strides and strides[inner] == 1 and self.column is not None:
            self._turned(start, inner, depth)
            return
        b, lanes = self.builder, self.shape.lanes
        with b.loop(0, depth, name="k") as loop:
            for v in range(self.shape.vectors):
                value = self._vector(inner, loop.index, v)
                offset = b.add(b.add(start, b.mul(loop.index, self.shape.width)), v * lanes)
                b.store(self.panel, offset, b.convert(value, self.dtype))

    def _vector(self, inner: str | None, k: Value, v: int) -> Value:
        b, lanes = self.builder, self.shape.lanes
        known = dict(self.at)
        if inner is not None:
            known[inner] = self.evaluator.index(k)
        column = b.add(self.first, v * lanes)
        if self.column is None:
            first = self.evaluator.point().load(self.buffer, self._address(known, 1))
            zero = b.constant(0, first.dtype, lanes)
            return b.insert(zero, first, 0) if v == 0 else zero
        known[self.column] = self.evaluator.index(column, lane=1)
        point = self.evaluator.point(lanes, b.sub(b.index(self.size), column))
        return point.load(self.buffer, self._address(known, lanes))

    def _address(self, known: dict[str, Index], lanes: int) -> Index:
        at = tuple(known.get(c, Index()) for c in self.letters)
        return self.evaluator.address(self.type, at, lanes)

    def _turned(self, start: Value, inner: str, depth: Dim) -> None:
        """The operand is contiguous along the sum: squares of lanes x lanes are read along it and transposed."""
        b, lanes = self.builder, self.shape.lanes
        with b.loop(0, depth, lanes, name="k") as loop:
            left = b.sub(b.index(depth), loop.index)
            for v in range(self.shape.vectors):
                rows = []
                for j in range(lanes):
                    column = b.add(self.first, v * lanes + j)
                    known = {**self.at, inner: self.evaluator.index(loop.index, lane=1)}
                    known[self.column or ""] = self.evaluator.index(column)
                    inside = b.compare("lt", column, b.index(self.size))
                    count = b.select(inside, left, b.index(0))
                    point = self.evaluator.point(lanes, count)
                    loaded = point.load(self.buffer, self._address(known, lanes))
                    rows.append(b.convert(b.splat(loaded, lanes), self.dtype))
                base = b.add(b.add(start, b.mul(loop.index, self.shape.width)), v * lanes)
                for j, row in enumerate(transposed(b, rows)):
                    b.store(self.panel, b.add(base, j * self.shape.width), row)
