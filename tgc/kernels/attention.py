"""The schedule of attention: two products with folds of rows between them, the rows in scratch.

A task has some rows of scores for one head. It makes them by register tiles over packed keys, completes them where they
lie, and multiplies them with the values, which are read where they lie: scores and probabilities never leave the cache.
As three kernels, 12 heads of 512 x 512 wrote and read 12.6 MB twice; without that both products run at 95 % of the
peak (3.7 ms each instead of 4.1 and 4.3; a ninth of the time is the passes between them). Keys are packed once for all
tasks, which takes half a percent. Fetching panels ahead changed nothing. How many rows a task has does not matter as
long as keys and values of a head stay in cache (14 to 182 rows: within 2 %); beyond that, more rows read them less
often. Tiles of scores that a causal mask hides are not summed up.

The order of every sum is that of the kernels which the three parts would be on their own
(:mod:`tgc.kernels.contraction`, :mod:`tgc.kernels.reduction`), and so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tgc.ir.dims import Dim, dim_min, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.ir.types import TensorType
from tgc.kernels.access import Evaluator
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.attention_plan import AttentionPlan, plan_attention
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan
from tgc.kernels.epilogue import Columns, finish_row, finish_tile, require_plain_results
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.packing import packing_stage
from tgc.kernels.reduction import row_passes
from tgc.kernels.tile import TileShape, accumulate, zeros
from tgc.kernels.vector_loop import vector_loop
from tgc.target import Target


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernels that pack keys (and values, if need be), and the one that does the rest."""
    require_plain_results(region)
    plan = plan_attention(region, target, table)
    temporaries: dict[str, Temporary] = {}
    stages: list[Stage] = []
    panels: list[str | None] = []
    for part, graph in ((plan.first, plan.scores), (plan.second, plan.output)):
        panels.append(f"t{len(stages)}" if _is_packed(part, target) else None)
        if panels[-1] is not None:
            temporaries[panels[-1]] = part.packed
            stages.append(packing_stage(part, graph, f"{name}_pack{len(stages)}", table, temporary=panels[-1]))
    return Lowering((*stages, _stage(plan, name, target, table, panels)), temporaries)


def _is_packed(plan: Plan, target: Target) -> bool:
    """Whether the right operand cannot be read as vectors where it lies."""
    whole = isinstance(plan.columns, int) and plan.columns % plan.shape.width == 0
    plain = not plan.right.computed and plan.right.dtype is plan.dtype and plan.right.stride(plan.column) == 1
    return not plain or not (whole or target.masked and isinstance(plan.columns, int))


class _Part(Evaluator):
    """One of the three regions, to which a buffer of a few rows is the whole of the scores.

    ``start``: where these rows would begin. ``buffers``: those that the parts share.
    """

    def __init__(
        self,
        builder: KernelBuilder,
        region: Graph,
        table: OpTable,
        buffers: dict[str, Buffer],
        window: tuple[TensorType, Buffer, Value],
    ) -> None:
        super().__init__(builder, region, table)
        self._buffers = buffers
        self._type, self._rows, start = window
        self._start = self.index(start).scaled(-1)

    def parameter(self, i: int) -> Buffer:
        return self._rows if self.region.parameters[i].type == self._type else super().parameter(i)

    def result(self, i: int) -> Buffer:
        return self._rows if self.region.results[i].type == self._type else super().result(i)

    def address(self, type_: TensorType, at: Coordinates, lanes: int) -> Index:
        offset = super().address(type_, at, lanes)
        return offset.plus(self._start) if type_ == self._type else offset


def _stage(plan: AttentionPlan, name: str, target: Target, table: OpTable, panels: Sequence[str | None]) -> Stage:
    """The kernel. An iteration makes a chunk of rows for one index of the outer dimensions."""
    sizes: list[Dim] = [*plan.outer, ceil_divide(plan.count, plan.chunk)]
    b = KernelBuilder(name, count=product(sizes))
    *outer, piece = unflattened(b, b.iteration, sizes)
    low = b.mul(piece, plan.chunk)
    height = b.minimum(b.sub(b.index(plan.count), low), plan.chunk)
    rows = _Rows(tuple(outer), low, height, plan.chunk)
    # the first row's number among all rows
    first = b.add(b.mul(b.floor_divide(b.iteration, b.index(sizes[-1])), b.index(plan.count)), low)
    most = max(rows.in_whole_tiles(p.shape) for p in (plan.first, plan.second))
    scores = b.scratch("scores", plan.window.dtype, plan.pitch * most)
    window = (plan.window, scores, b.mul(first, b.index(plan.pitch)))
    buffers: dict[str, Buffer] = {}
    making, completing, using = (_Part(b, g, table, buffers, window) for g in (plan.scores, plan.rows, plan.output))
    keys = _Product(plan.first, making, rows, plan.first.out, panels[0], "queries", causal=plan.causal)
    keys.emit(*keys.copied())
    passes = row_passes(plan.rows, completing, target)
    with b.loop(0, height, name="row") as row:
        passes((b.add(first, row.index),), 0, plan.window.shape[-1])
    values = _Product(plan.second, using, rows, plan.second.left.letters, panels[1], "values")
    values.emit(scores, plan.pitch)
    products = sum((product(p.sizes[c] for c in (*p.summed, p.column)) for p in (plan.first, plan.second)), 0)
    return Stage(b.finish(), 50 + dim_min(plan.count, plan.chunk) * (products // 50 + plan.window.shape[-1] // 4))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a task: at indices ``outer``, from ``low`` on, ``height`` of at most ``chunk``."""

    outer: tuple[Value, ...]
    low: Value
    height: Value
    chunk: int

    def in_whole_tiles(self, shape: TileShape) -> int:
        """At most so many rows take part in tiles."""
        return -(-self.chunk // shape.rows) * shape.rows


class _Product:
    """One of the two products for the rows of a task, the left operand in scratch.

    ``letters``: those of the scores. ``panels``: where the right operand is packed; None if it is read where it lies.
    ``causal``: nothing of what lies above the diagonal is used.
    """

    def __init__(
        self,
        plan: Plan,
        evaluator: Evaluator,
        rows: _Rows,
        letters: str,
        panels: str | None,
        name: str,
        *,
        causal: bool = False,
    ) -> None:
        self.plan = plan
        self.evaluator = evaluator
        self.builder = b = evaluator.builder
        self.rows = rows
        self.low, self.height = rows.low, rows.height
        self.most = rows.in_whole_tiles(plan.shape)
        self.name = name
        self.causal = causal
        outer = zip(letters[:-2], rows.outer, strict=True)
        self.at = {c: evaluator.index(v) for c, v in outer if c in plan.sizes}
        self.inner = plan.summed[-1]
        self.packed = None if panels is None else evaluator.buffer(panels, plan.dtype, plan.packed.size, "read")
        self.blocked = plan.blocks != 1
        self._tile: Buffer | None = None
        if self.blocked:
            self.sums = b.scratch(f"sums_of_{name}", plan.dtype, self.most * plan.shape.width)
        number = b.index(0)
        for c in plan.right_outer:
            number = b.add(b.mul(number, b.index(plan.sizes[c])), evaluator.scalar(self.at[c]))
        self.number = b.mul(number, b.index(plan.panels))

    def copied(self) -> tuple[Buffer, Dim]:
        """The task's rows of the left operand in scratch, and how far apart they are."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        lanes, size = plan.shape.lanes, plan.sizes[self.inner]
        pitch = ceil_divide(size, lanes) * lanes + lanes
        copy = b.scratch(self.name, plan.dtype, pitch * self.most)
        with b.loop(0, self.height, name="copied") as row:
            start = b.mul(row.index, b.index(pitch))
            at = {**self.at, plan.row: evaluator.index(b.add(self.low, row.index))}

            def body(v: Value, count: Value | None) -> None:
                value = plan.left.read(evaluator, {**at, self.inner: evaluator.index(v, lane=1)}, lanes, count)
                b.store(copy, b.add(start, v), b.convert(b.splat(value, lanes), plan.dtype))

            vector_loop(b, 0, size, lanes, body)
        return copy, pitch

    def emit(self, left: Buffer, pitch: Dim) -> None:
        """All results of the task's rows; the left operand's lie ``pitch`` apart."""
        b, plan = self.builder, self.plan
        with b.loop(0, b.index(plan.panels), name="panel") as panel:
            if not self.blocked:
                self._tiles(left, pitch, panel.index, None)
                return
            with b.loop(0, b.index(plan.blocks), name="block") as block:
                self._tiles(left, pitch, panel.index, block.index)
            columns = self._columns(panel.index)
            with b.loop(0, self.height, name="finish") as row:
                start, lanes = b.mul(row.index, plan.shape.width), plan.shape.lanes
                values = [b.load(self.sums, b.add(start, v * lanes), lanes) for v in range(plan.shape.vectors)]
                finish_row(self.evaluator, plan.anchor.result, values, self._place(row.index), columns)

    def _tiles(self, left: Buffer, pitch: Dim, panel: Value, block: Value | None) -> None:
        """The tiles of one panel, for a block of the sum or all of it, from the task's first row to its last."""
        b, plan = self.builder, self.plan
        low = b.index(0) if block is None else b.mul(block, plan.depth)
        size = b.sub(b.index(plan.inner), low)
        size = size if block is None else b.minimum(size, plan.depth)

        def tile(row: Value, shape: TileShape) -> None:
            start = b.add(b.mul(row, b.index(pitch)), low)
            sums = accumulate(
                b,
                shape,
                b.select(self._is_hidden(panel, row, shape), 0, size) if self.causal else size,
                zeros(b, shape, plan.dtype),
                lambda r, k: b.load(left, b.add(b.add(start, k), b.index(pitch * r))),
                self._read_vectors(panel, low),
            )
            if block is None:
                self._finish(sums, panel, row, shape)
            else:
                self._add(sums, block, row, shape)

        rows, end = plan.shape.rows, self.height
        if not isinstance(plan.rows, int) and rows > 2:
            # a last row or two, or a batch of one, by themselves: the same sums in the same order
            end = b.mul(b.floor_divide(b.add(end, rows - 3), rows), rows)
        with b.loop(0, end, rows, name="row") as loop:
            tile(loop.index, plan.shape)
        if end is not self.height:
            with b.loop(end, self.height, name="row") as loop:
                tile(loop.index, TileShape(1, plan.shape.vectors, plan.shape.lanes))

    def _is_hidden(self, panel: Value, row: Value, shape: TileShape) -> Value:
        """Whether all columns of a tile lie behind its last row."""
        b = self.builder
        return b.compare("gt", b.mul(panel, shape.width), b.add(b.add(self.low, row), shape.rows - 1))

    def _add(self, sums: Sequence[Value], block: Value, row: Value, shape: TileShape) -> None:
        """Adds a block to those before it."""
        b, lanes = self.builder, shape.lanes
        start = b.mul(row, shape.width)
        with b.if_(b.compare("eq", block, 0)) as branch:
            for i, value in enumerate(sums):
                b.store(self.sums, b.add(start, i * lanes), value)
        with branch.otherwise():
            for i, value in enumerate(sums):
                offset = b.add(start, i * lanes)
                b.store(self.sums, offset, b.add(b.load(self.sums, offset, lanes), value))

    def _finish(self, sums: Sequence[Value], panel: Value, row: Value, shape: TileShape) -> None:
        """The results of a tile whose sums are in registers."""
        b, plan = self.builder, self.plan
        complete = None
        whole = isinstance(plan.rows, int) and plan.rows % shape.rows == 0 and self.most == self.rows.chunk
        if shape.rows > 1 and not whole:
            complete = b.compare("le", b.add(row, shape.rows), self.height)
        finish_tile(
            self.evaluator,
            plan.anchor.result,
            sums,
            shape,
            self._columns(panel),
            lambda r: self._place(b.add(row, r)),
            self._scratch,
            products=plan.inner,
            complete=complete,
            wanted=lambda r: b.compare("lt", b.add(row, r), self.height),
        )

    def _scratch(self) -> Buffer:
        shape = self.plan.shape
        if self._tile is None:
            self._tile = self.builder.scratch(f"tile_of_{self.name}", self.plan.dtype, shape.rows * shape.width)
        return self._tile

    def _columns(self, panel: Value) -> Columns:
        plan = self.plan
        dimension = plan.out.index(plan.column) if plan.column else None
        first = self.builder.mul(panel, plan.shape.width)
        return Columns(dimension, first, plan.columns, plan.shape.vectors, plan.shape.lanes)

    def _place(self, row: Value) -> tuple[Index, ...]:
        """The index of a row's first element."""
        at = {**self.at, self.plan.row: self.evaluator.index(self.builder.add(self.low, row))}
        return tuple(at.get(c, Index()) for c in self.plan.out)

    def _read_vectors(self, panel: Value, low: Value) -> Callable[[Value], Sequence[Value]]:
        """The vectors of a panel, from product ``low`` on."""
        b, plan, packed = self.builder, self.plan, self.packed
        lanes, vectors, width = plan.shape.lanes, range(plan.shape.vectors), plan.shape.width
        if packed is not None:
            start = b.mul(b.add(self.number, panel), b.index(plan.panel_size))
            start = b.add(start, b.mul(low, width))

            def from_panel(k: Value) -> list[Value]:
                base = b.add(start, b.mul(k, width))
                return [b.load(packed, b.add(base, v * lanes), lanes) for v in vectors]

            return from_panel
        column = b.mul(panel, width)
        at = {**self.at, plan.column: self.evaluator.index(column), self.inner: self.evaluator.index(low)}
        start = self.evaluator.scalar(plan.right.offset(at))
        stride, buffer = b.index(plan.right.stride(self.inner)), plan.right.buffer(self.evaluator)
        exact = isinstance(plan.columns, int) and plan.columns % width == 0
        left = b.sub(b.index(plan.columns), column)
        counts = [None if exact else b.sub(left, v * lanes) for v in vectors]

        def in_place(k: Value) -> list[Value]:
            base = b.add(start, b.mul(k, stride))
            return [b.load(buffer, b.add(base, v * lanes), lanes, count=counts[v]) for v in vectors]

        return in_place
