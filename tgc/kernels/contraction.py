"""The schedule of contractions: any einsum of two operands, as register tiles over panels.

:mod:`tgc.kernels.contraction_plan` says which letter becomes which loop, :mod:`tgc.kernels.blocking` how large the
tile, the blocks and the tasks are and what is packed or copied: what makes products fast, and what was measured, stands
there. One iteration of the kernel makes a chunk of rows for some panels of columns. It goes through the sum in blocks:
a block of the left operand is copied to scratch if that makes it faster to read, and meets the panels of the right
operand. The first block of a tile stores its sums, the last one finishes them while they are in the first level; passes
over all sums of an iteration, before and after, took 3 % of a product of 1024 squared. A few rows that meet a large
matrix are left to :mod:`tgc.kernels.axpys` and :mod:`tgc.kernels.dots`.

The order of the sum: for each combination of the outer summed letters, blocks of at most 512 of the innermost one,
each summed in increasing order by itself, blocks added in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.axpys import is_axpys, lower_axpys
from tgc.kernels.blocking import Packing
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan, plan_contraction, unmerged
from tgc.kernels.dots import dots_stage, is_dots
from tgc.kernels.epilogue import Columns, finish_row, finish_tile, require_plain_results
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.packing import Block, pack, packing_stage
from tgc.kernels.tile import TileShape, accumulate, zeros
from tgc.kernels.vector_loop import vector_loop
from tgc.target import Target


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernels of a contraction with its epilogue."""
    require_plain_results(region)
    plan = plan_contraction(region, target, table)
    if is_dots(plan, target):
        return Lowering((dots_stage(plan, region, name, table, target),))
    if is_axpys(plan, target):
        return lower_axpys(plan, region, name=name, target=target, table=table)
    product_stage = _Product(plan, region, name, table, target).stage()
    if plan.blocking.packing is not Packing.WHOLE:
        return Lowering((product_stage,))
    return Lowering((packing_stage(plan, region, f"{name}_pack", table), product_stage), {"t0": plan.packed})


class _Product:
    """The kernel that multiplies."""

    def __init__(self, plan: Plan, region: Graph, name: str, table: OpTable, target: Target) -> None:
        self.plan = plan
        self.line_bytes = target.line_bytes
        self.together = plan.blocking.panels
        self.sizes: list[Dim] = [
            *(plan.sizes[c] for c in plan.outer),
            ceil_divide(plan.panels, self.together),
            ceil_divide(plan.rows, plan.chunk),
        ]
        self.builder = b = KernelBuilder(name, count=product(self.sizes))
        self.evaluator = Evaluator(b, region, table)
        self.copied, self.packing = plan.blocking.copied, plan.blocking.packing
        lanes = plan.shape.lanes
        if not self.copied:
            self.left = plan.left.buffer(self.evaluator)
        if self.packing is Packing.WHOLE:
            self.right = self.evaluator.buffer("t0", plan.dtype, plan.packed.size, "read")
        elif self.packing is Packing.TASK:
            self.panel_block = -(-plan.depth // 8) * 8 * plan.shape.width
            self.right = b.scratch("panels", plan.dtype, self.together * self.panel_block)
        else:
            self.right = plan.right.buffer(self.evaluator)
        self.blocked = plan.blocks != 1
        self.by_rows = plan.left.reading_stride(plan.row) != 1 or plan.left.reading_stride(plan.summed[-1]) == 1
        # an odd number of cache lines: neighbouring rows fall into different sets
        depth = -(-plan.depth // lanes) * lanes
        self.pitch = depth + (lanes if depth // lanes % 2 == 0 else 2 * lanes) if self.by_rows else plan.chunk
        if self.copied:
            size = plan.chunk * self.pitch if self.by_rows else (plan.depth + 1) * self.pitch
            self.copy = b.scratch("rows", plan.dtype, size + lanes)
        if self.blocked:
            self.sums = b.scratch("sums", plan.dtype, plan.chunk * self.together * plan.shape.width)
        self._tile_buffer: Buffer | None = None
        self.at: dict[str, Index] = {}

    def stage(self) -> Stage:
        b, plan = self.builder, self.plan
        *places, group, chunk = unflattened(b, b.iteration, self.sizes)
        self.at = {c: self.evaluator.index(v) for c, v in zip(plan.outer, places, strict=True)}
        self.number = b.index(0)
        for c in plan.right_outer:
            self.number = b.add(b.mul(self.number, b.index(plan.sizes[c])), places[plan.outer.index(c)])
        self.number = b.mul(self.number, b.index(plan.panels))
        self.first = b.mul(group, self.together)
        self.last = b.minimum(b.add(self.first, self.together), b.index(plan.panels))
        self.low = b.mul(chunk, plan.chunk)
        self.height = b.minimum(b.sub(b.index(plan.rows), self.low), plan.chunk)
        if self.blocked:
            with b.loop(0, plan.blocks, name="block") as loop:
                self._block(loop.index)
        else:
            self._block(b.index(0))
        rows = plan.chunk if not isinstance(plan.rows, int) else min(plan.rows, plan.chunk)
        flops = product(plan.sizes[c] for c in plan.summed) * (2 * rows * self.together * plan.shape.width)
        return Stage(b.finish(), 50 + flops // 60)

    def _panels(self, body: Callable[[Value], None]) -> None:
        if self.together == 1:
            body(self.first)
            return
        with self.builder.loop(self.first, self.last, name="panel") as loop:
            body(loop.index)

    def _block(self, block: Value) -> None:
        """All tiles of this iteration for one block of the sum."""
        b, plan = self.builder, self.plan
        inner = plan.summed[-1]
        sizes = [*(plan.sizes[c] for c in plan.summed[:-1]), ceil_divide(plan.sizes[inner], plan.depth)]
        *places, piece = unflattened(b, block, sizes)
        outer = b.floor_divide(block, b.index(sizes[-1])) if places else b.index(0)
        at = {**self.at, **{c: self.evaluator.index(p) for c, p in zip(plan.summed[:-1], places, strict=True)}}
        low = b.mul(piece, plan.depth) if self.blocked else b.index(0)
        size = b.sub(b.index(plan.inner), low)
        size = b.minimum(size, plan.depth) if self.blocked else size
        if self.packing is Packing.TASK:
            panels = Block(at, self.first, self.last, low, b.add(low, size))
            pack(plan, self.evaluator, panels, self.right, b.index(0), b.index(self.panel_block))
        if self.copied:
            self._copy(at, low, size)
        # where this block begins in a panel
        packed = b.mul(b.add(b.mul(outer, b.index(plan.padded)), low), plan.shape.width)
        self._panels(lambda panel: self._rows(_Block(block, at, low, size, packed), panel))

    def _copy(self, at: dict[str, Index], low: Value, size: Value) -> None:
        """A block of the left operand to scratch, each row (or each column, if those are contiguous) by vectors."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        lanes, inner = plan.shape.lanes, plan.summed[-1]
        lines, length = (self.height, size) if self.by_rows else (size, self.height)
        with b.loop(0, lines, name="line") as line:
            target = b.mul(line.index, self.pitch)

            def body(v: Value, count: Value | None) -> None:
                row, k = (line.index, v) if self.by_rows else (v, line.index)
                along = Index(lane=1)
                where = {
                    **at,
                    plan.row: evaluator.index(b.add(self.low, row)).plus(Index() if self.by_rows else along),
                    inner: evaluator.index(b.add(low, k)).plus(along if self.by_rows else Index()),
                }
                value = plan.left.read(evaluator, where, lanes, count)
                b.store(self.copy, b.add(target, v), b.convert(b.splat(value, lanes), plan.dtype))

            vector_loop(b, 0, length, lanes, body)

    def _rows(self, block: _Block, panel: Value) -> None:
        """The tiles of one panel, from the chunk's first row to its last."""
        b, plan = self.builder, self.plan
        rows, end = plan.shape.rows, self.height
        if not isinstance(plan.rows, int) and rows > 2:
            # a last row or two, or a batch of one, by themselves: the same sums in the same order
            end = b.mul(b.floor_divide(b.add(end, rows - 3), rows), rows)
        with b.loop(0, end, rows, name="row") as loop:
            self._tile(block, panel, loop.index, plan.shape)
        if end is not self.height:
            single = TileShape(1, plan.shape.vectors, plan.shape.lanes)
            with b.loop(end, self.height, name="row") as loop:
                self._tile(block, panel, loop.index, single)

    def _tile(self, block: _Block, panel: Value, row: Value, shape: TileShape) -> None:
        b, plan = self.builder, self.plan
        sums = self._multiply(block, panel, row, shape)
        if not self.blocked:
            self._finish(sums, panel, row, shape)
            return
        if isinstance(plan.blocks, int):
            self._add_block(block, sums, panel, row, shape)
            return
        with b.if_(b.compare("eq", b.index(plan.blocks), 1)) as branch:
            self._finish(sums, panel, row, shape)
        with branch.otherwise():
            self._add_block(block, sums, panel, row, shape)

    def _multiply(self, block: _Block, panel: Value, row: Value, shape: TileShape) -> tuple[Value, ...]:
        """The sums of a tile over a block.

        Rows that are read where they lie come from afar, as many streams as a tile has rows: the next tile's lines are
        asked for while this one is multiplied, which made 3136 x 64 x 576 4 % faster.
        """
        b, plan, inner = self.builder, self.plan, self.plan.summed[-1]
        read_row, read_vectors = self._read_rows(block, row), self._read_vectors(block, panel)
        start = zeros(b, shape, plan.dtype)
        line = self.line_bytes // plan.dtype.itemsize
        if self.copied or plan.left.stride(inner) != 1 or plan.depth < 4 * line:
            return accumulate(b, shape, block.size, start, read_row, read_vectors)
        following = {plan.row: self.evaluator.index(b.add(self.low, b.add(row, shape.rows)))}
        ahead = self.evaluator.scalar(
            plan.left.offset({**block.at, **following, inner: self.evaluator.index(block.low)})
        )
        pitch = plan.left.stride(plan.row)
        with b.loop(0, block.size, line, carried=start, name="line") as loop:
            for r in range(shape.rows):
                b.prefetch(self.left, b.add(b.add(ahead, loop.index), pitch * r))
            size = b.minimum(b.sub(block.size, loop.index), line)
            sums = accumulate(
                b,
                shape,
                size,
                loop.carried,
                lambda r, k: read_row(r, b.add(loop.index, k)),
                lambda k: read_vectors(b.add(loop.index, k)),
            )
            loop.yield_(*sums)
        return tuple(loop.results)

    def _finish(self, sums: Sequence[Value], panel: Value, row: Value, shape: TileShape) -> None:
        """The results of a tile whose sums are in registers."""
        b, plan = self.builder, self.plan

        def place(r: int | Value) -> tuple[Index, ...]:
            return self._place(b.add(self.low, b.add(row, r)))

        complete = None
        if shape.rows > 1 and (not isinstance(plan.rows, int) or plan.rows % shape.rows):
            complete = b.compare("le", b.add(row, shape.rows), self.height)
        finish_tile(
            self.evaluator,
            plan.anchor.result,
            sums,
            shape,
            self._columns(panel),
            place,
            self._scratch,
            products=plan.inner,
            complete=complete,
            wanted=lambda r: b.compare("lt", b.add(row, r), self.height),
        )

    def _add_block(self, block: _Block, sums: Sequence[Value], panel: Value, row: Value, shape: TileShape) -> None:
        """Adds a tile to the sums of the blocks before; after the last block, makes the results."""
        b, plan = self.builder, self.plan
        lanes, width = shape.lanes, shape.width
        start = b.mul(b.add(b.mul(b.sub(panel, self.first), plan.chunk), row), width)
        with b.if_(b.compare("eq", block.number, 0)) as branch:
            for i, value in enumerate(sums):
                b.store(self.sums, b.add(start, i * lanes), value)
        with branch.otherwise():
            for i, value in enumerate(sums):
                offset = b.add(start, i * lanes)
                b.store(self.sums, offset, b.add(b.load(self.sums, offset, lanes), value))
        with b.if_(b.compare("eq", block.number, b.sub(b.index(plan.blocks), 1))):
            columns, end = self._columns(panel), b.minimum(b.add(row, shape.rows), self.height)
            with b.loop(row, end, name="finish") as loop:
                at = b.add(start, b.mul(b.sub(loop.index, row), width))
                values = [b.load(self.sums, b.add(at, v * lanes), lanes) for v in range(shape.vectors)]
                place = self._place(b.add(self.low, loop.index))
                finish_row(self.evaluator, plan.anchor.result, values, place, columns)

    def _columns(self, panel: Value) -> Columns:
        plan = self.plan
        dimension = plan.out.index(plan.column) if plan.column else None
        first = self.builder.mul(panel, plan.shape.width)
        return Columns(dimension, first, plan.columns, plan.shape.vectors, plan.shape.lanes)

    def _place(self, row: Value) -> tuple[Index, ...]:
        """The index of a row's first element."""
        plan = self.plan
        at = dict(self.at)
        if plan.row:
            parts = unflattened(self.builder, row, unmerged(plan.row, plan.letter_sizes))
            at.update((c, self.evaluator.index(p)) for c, p in zip(plan.row, parts, strict=True))
        return tuple(at.get(c, Index()) for c in plan.out)

    def _scratch(self) -> Buffer:
        shape = self.plan.shape
        if self._tile_buffer is None:
            self._tile_buffer = self.builder.scratch("tile", self.plan.dtype, shape.rows * shape.width)
        return self._tile_buffer

    # -- operands --------------------------------------------------------------------------------------------------

    def _read_rows(self, block: _Block, row: Value) -> Callable[[int, Value], Value]:
        b, plan = self.builder, self.plan
        if self.copied:
            across, along = (self.pitch, 1) if self.by_rows else (1, self.pitch)
            start = b.mul(row, across)
            return lambda r, k: b.load(self.copy, b.add(b.add(start, b.mul(k, along)), r * across))
        evaluator, inner = self.evaluator, plan.summed[-1]
        at = {
            **block.at,
            plan.row: evaluator.index(b.add(self.low, row)),
            inner: evaluator.index(block.low),
        }
        start = evaluator.scalar(plan.left.offset(at))
        stride, pitch = b.index(plan.left.stride(inner)), plan.left.stride(plan.row)
        return lambda r, k: b.load(self.left, b.add(b.add(start, b.mul(k, stride)), pitch * r))

    def _read_vectors(self, block: _Block, panel: Value) -> Callable[[Value], Sequence[Value]]:
        b, plan = self.builder, self.plan
        shape = plan.shape
        if self.packing is not Packing.NONE:
            if self.packing is Packing.TASK:
                start = b.mul(b.sub(panel, self.first), self.panel_block)
            else:
                start = b.add(b.mul(b.add(self.number, panel), b.index(plan.panel_size)), block.packed)

            def from_panel(k: Value) -> list[Value]:
                base = b.add(start, b.mul(k, shape.width))
                return [b.load(self.right, b.add(base, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]

            return from_panel
        inner = plan.summed[-1]
        column = b.mul(panel, shape.width)
        at = {**block.at, plan.column: self.evaluator.index(column), inner: self.evaluator.index(block.low)}
        start = self.evaluator.scalar(plan.right.offset(at))
        stride = b.index(plan.right.stride(inner))
        exact = isinstance(plan.columns, int) and plan.columns % shape.width == 0
        left = b.sub(b.index(plan.columns), column)
        counts = [None if exact else b.sub(left, v * shape.lanes) for v in range(shape.vectors)]

        def in_place(k: Value) -> list[Value]:
            base = b.add(start, b.mul(k, stride))
            return [
                b.load(self.right, b.add(base, v * shape.lanes), shape.lanes, count=counts[v])
                for v in range(shape.vectors)
            ]

        return in_place


@dataclass(frozen=True, slots=True)
class _Block:
    """One block of the sum: its number, indices of the outer summed letters, the first product, how many there are, and
    where they begin in a panel that was packed before."""

    number: Value
    at: Mapping[str, Index]
    low: Value
    size: Value
    packed: Value
