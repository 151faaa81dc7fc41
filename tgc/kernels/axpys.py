"""A few rows times a matrix that lies row by row along the columns: sums of rows of the matrix, scaled.

Such a product reads the matrix once and is bound by memory, so how it goes through memory decides. A register tile
reads a narrow panel: a piece of a new page from each row, which no prefetching foresees (9 GB/s of 23). Here a task has
whole rows, one block of the sum, and goes through them from begin to end, eight rows at a time: each sum is loaded from
the cache and stored once for eight products. Pieces of rows were slower the narrower they were (1024 columns: 21 GB/s,
512: 15; whole rows of 4096: 27), with software prefetching too, so tasks divide the sum and not the columns; a second
kernel adds their sums in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.blocking import is_streamed
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan
from tgc.kernels.epilogue import Columns, finish_row
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.tile import LONGEST_CHAIN, product_sum
from tgc.kernels.vector_loop import vector_loop
from tgc.target import Target

# rows of the matrix at a time
_TOGETHER = 8
# a sum is divided into that many blocks, for threads, unless they would be shorter than the least
_BLOCKS, _SHORTEST = 16, 64


def is_axpys(plan: Plan, target: Target) -> bool:
    """Whether the product had better be made of scaled rows."""
    if len(plan.summed) != 1 or not plan.column or plan.right.stride(plan.column) != 1:
        return False
    return is_streamed(plan.rows, plan.right_bytes, target)


def lower_axpys(plan: Plan, region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel that makes sums of blocks, and the one that adds them up."""
    axpys = _Axpys(plan, target)
    if axpys.blocks == 1:
        return Lowering((axpys.stage(region, name, table),))
    stages = (axpys.stage(region, f"{name}_parts", table), axpys.adding_stage(region, name, table))
    return Lowering(stages, {"t0": axpys.parts})


class _Axpys:
    """How the product is divided: ``width`` columns and ``depth`` products for each task."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self.plan = plan
        self.rows = plan.rows if isinstance(plan.rows, int) else 1
        self.lanes = lanes = plan.shape.lanes
        widest = target.l2_bytes // 4 // (self.rows * plan.dtype.itemsize) // lanes * lanes
        self.width = min(widest, -(-plan.columns // lanes) * lanes) if isinstance(plan.columns, int) else widest
        size = plan.sizes[plan.summed[-1]]
        self.depth = LONGEST_CHAIN
        if isinstance(size, int):
            wanted = max(_SHORTEST, -(-size // _BLOCKS))
            self.depth = min(LONGEST_CHAIN, -(-wanted // _TOGETHER) * _TOGETHER)
        self.blocks = ceil_divide(size, self.depth)
        self.around: list[Dim] = [plan.sizes[c] for c in plan.outer]
        # the sums of a block lie row by row, each of whole vectors
        self.pitch = ceil_divide(plan.columns, self.width) * self.width
        self.parts = Temporary(plan.dtype, product(self.around) * self.blocks * self.pitch * self.rows)

    def stage(self, region: Graph, name: str, table: OpTable) -> Stage:
        """An iteration makes the sums of one block."""
        plan, lanes = self.plan, self.lanes
        sizes = [*self.around, self.blocks, ceil_divide(plan.columns, self.width)]
        b = KernelBuilder(name, count=product(sizes))
        evaluator = Evaluator(b, region, table)
        *places, block, piece = unflattened(b, b.iteration, sizes)
        at = {c: evaluator.index(p) for c, p in zip(plan.outer, places, strict=True)}
        first, low = b.mul(piece, self.width), b.mul(block, self.depth)
        count = b.minimum(b.sub(b.index(plan.columns), first), self.width)
        high = b.minimum(b.add(low, self.depth), b.index(plan.inner))
        # in scratch, which nothing overlaps: factors without a register are broadcast from the left operand then
        sums = b.scratch("sums", plan.dtype, self.rows * self.width)
        with b.loop(0, self.rows * self.width, lanes, name="clear") as clear:
            b.store(sums, clear.index, b.constant(0, plan.dtype, lanes))
        rows = _Rows(plan, evaluator, at, first, count, sums, self.width)
        middle = b.add(low, b.mul(b.floor_divide(b.sub(high, low), _TOGETHER), _TOGETHER))
        with b.loop(low, middle, _TOGETHER, name="k") as loop:
            rows.add(loop.index, _TOGETHER)
        with b.loop(middle, high, name="k") as loop:
            rows.add(loop.index, 1)
        if self.blocks != 1:
            parts = b.buffer("t0", plan.dtype, self.parts.size, "write")
            outside = b.floor_divide(b.iteration, b.index(sizes[-1]))
            start = b.add(b.mul(outside, b.index(self.pitch * self.rows)), first)
        for m, place in enumerate(self._places(at)):
            with b.loop(0, count, lanes, name="finish") as loop:
                value = b.load(sums, b.add(loop.index, m * self.width), lanes)
                if self.blocks == 1:
                    self._finish(evaluator, value, place, b.add(first, loop.index))
                else:
                    b.store(parts, b.add(b.add(start, b.mul(b.index(self.pitch), m)), loop.index), value)
        return Stage(b.finish(), 20 + self.depth * self.width * self.rows // 40)

    def adding_stage(self, region: Graph, name: str, table: OpTable) -> Stage:
        """An iteration adds up the blocks of one vector of columns and makes the results."""
        plan, lanes = self.plan, self.lanes
        sizes = [*self.around, ceil_divide(plan.columns, lanes)]
        b = KernelBuilder(name, count=product(sizes))
        evaluator = Evaluator(b, region, table)
        parts = b.buffer("t0", plan.dtype, self.parts.size, "read")
        *places, vector = unflattened(b, b.iteration, sizes)
        at = {c: evaluator.index(p) for c, p in zip(plan.outer, places, strict=True)}
        column = b.mul(vector, lanes)
        outside = b.floor_divide(b.iteration, b.index(sizes[-1])) if places else b.index(0)
        size = b.index(self.pitch * self.rows)
        base = b.add(b.mul(outside, b.mul(size, b.index(self.blocks))), column)
        zeros = [b.constant(0, plan.dtype, lanes)] * self.rows
        with b.loop(0, self.blocks, carried=zeros, name="block") as loop:
            offset = b.add(base, b.mul(loop.index, size))
            found = [b.load(parts, b.add(offset, b.mul(b.index(self.pitch), m)), lanes) for m in range(self.rows)]
            loop.yield_(*(b.add(x, y) for x, y in zip(loop.carried, found, strict=True)))
        for total, place in zip(loop.results, self._places(at), strict=True):
            self._finish(evaluator, total, place, column)
        return Stage(b.finish(), 10 + 2 * self.blocks * self.rows)

    def _places(self, at: dict[str, Index]) -> Iterator[tuple[Index, ...]]:
        """The index of each row's first element."""
        plan = self.plan
        for m in range(self.rows):
            where, rest = dict(at), m
            for c in reversed(plan.row):
                size = plan.letter_sizes[c]
                extent = size if isinstance(size, int) else 1
                where[c], rest = Index(constant=rest % extent), rest // extent
            yield tuple(where.get(c, Index()) for c in plan.out)

    def _finish(self, evaluator: Evaluator, value: Value, place: tuple[Index, ...], column: Value) -> None:
        plan = self.plan
        columns = Columns(plan.out.index(plan.column), column, plan.columns, 1, self.lanes)
        finish_row(evaluator, plan.anchor.result, [value], place, columns)


class _Rows:
    """Adds scaled rows of the matrix to sums in scratch, which has rows of ``width``."""

    def __init__(
        self,
        plan: Plan,
        evaluator: Evaluator,
        at: dict[str, Index],
        first: Value,
        count: Value,
        sums: Buffer,
        width: int,
    ) -> None:
        self.plan = plan
        self.evaluator = evaluator
        self.at = at
        self.column = evaluator.index(first)
        self.count = count
        self.sums = sums
        self.width = width
        self.rows = plan.rows if isinstance(plan.rows, int) else 1

    def add(self, k: Value, together: int) -> None:
        """Rows k, k + 1, … of the matrix, in order."""
        plan, evaluator, b = self.plan, self.evaluator, self.evaluator.builder
        lanes, inner = plan.shape.lanes, plan.summed[-1]
        where = [{**self.at, inner: evaluator.index(b.add(k, r))} for r in range(together)]
        factors = [
            [plan.left.read(evaluator, {**at, plan.row: Index(constant=m)}, 1, None) for m in range(self.rows)]
            for at in where
        ]
        factors = [[b.splat(b.convert(x, plan.dtype), lanes) for x in row] for row in factors]
        read = self._reader(where)

        def body(v: Value, valid: Value | None) -> None:
            places = [b.add(v, m * self.width) for m in range(self.rows)]
            sums = [b.load(self.sums, place, lanes) for place in places]
            for r, row in enumerate(factors):
                vector = b.convert(read(r, v, valid), plan.dtype)
                sums = [product_sum(b, factor, vector, x) for factor, x in zip(row, sums, strict=True)]
            for place, value in zip(places, sums, strict=True):
                b.store(self.sums, place, value)

        vector_loop(b, 0, self.count, lanes, body)

    def _reader(self, where: Sequence[dict[str, Index]]) -> Callable[[int, Value, Value | None], Value]:
        """What reads a vector of the matrix: of the row at ``where[r]``, from a column on."""
        plan, evaluator, b = self.plan, self.evaluator, self.evaluator.builder
        right, letter, lanes = plan.right, plan.column, plan.shape.lanes
        if right.computed:

            def compute(r: int, v: Value, valid: Value | None) -> Value:
                column = self.column.plus(evaluator.index(v, lane=1))
                return b.splat(right.read(evaluator, {**where[r], letter: column}, lanes, valid), lanes)

            return compute
        matrix = right.buffer(evaluator)
        starts = [evaluator.scalar(right.offset({**at, letter: self.column})) for at in where]
        return lambda r, v, valid: b.load(matrix, b.add(starts[r], v), lanes, count=valid)
