"""A few rows times a matrix that lies row by row along the sum, as the weights of dense layers do at batch 1.

Such a product reads the matrix once and is bound by memory: it is not packed. Vectors run along the sum, a few dot
products at a time, and each is added up across its lanes at the end. At most eight rows of the matrix are read at a
time, as more streams are slower, and as many sums are kept as take half of the registers: each vector of the matrix
serves all rows, each vector of a row that many rows of the matrix (8 x 4096 x 4096 takes 7.3 ms; packed, 8.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.blocking import is_streamed
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan, unmerged
from tgc.kernels.epilogue import Columns, finish_row
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Stage
from tgc.kernels.operands import Operand
from tgc.kernels.tile import LONGEST_CHAIN, product_sum
from tgc.target import Target

# rows that are not worth packing for, whatever the size of the matrix
_FEW_ROWS = 4
# rows of the matrix at a time
_MOST_COLUMNS = 8
# products that are worth an iteration
_PRODUCTS = 1 << 16


def is_dots(plan: Plan, target: Target) -> bool:
    """Whether the product had better be made of dot products."""
    depth, inner = plan.sizes[plan.summed[-1]], plan.summed[-1]
    lanes = plan.shape.lanes
    if not isinstance(plan.rows, int) or len(plan.summed) != 1:
        return False
    if plan.rows > _FEW_ROWS and not is_streamed(plan.rows, plan.right_bytes, target):
        return False
    if not plan.column and plan.rows > 1:
        return False
    whole = isinstance(depth, int) and depth % lanes == 0
    long = not isinstance(depth, int) or depth >= 2 * lanes
    along = plan.left.stride(inner) == plan.right.stride(inner) == 1
    return along and long and (whole or target.masked) and plan.right.stride(plan.column) != 1


def dots_stage(plan: Plan, region: Graph, name: str, table: OpTable, target: Target) -> Stage:
    """The kernel: an iteration makes some vectors of columns of all rows."""
    if not plan.column:
        return _single_dots(plan, region, name, table)
    lanes, depth = plan.shape.lanes, plan.sizes[plan.summed[-1]]
    rows = plan.rows if isinstance(plan.rows, int) else 1
    together = max(1, _PRODUCTS // (lanes * max(depth, 1))) if isinstance(depth, int) else 4
    sizes: list[Dim] = [*(plan.sizes[c] for c in plan.outer), ceil_divide(plan.columns, lanes * together)]
    b = KernelBuilder(name, count=product(sizes))
    evaluator = Evaluator(b, region, table)
    sums = b.scratch("sums", plan.dtype, rows * lanes)
    *places, group = unflattened(b, b.iteration, sizes)
    at = {c: evaluator.index(p) for c, p in zip(plan.outer, places, strict=True)}
    first = b.mul(group, lanes * together)
    end = b.minimum(b.add(first, lanes * together), b.index(plan.columns))
    dimension = plan.out.index(plan.column)
    count = _columns(lanes, rows, target)
    with b.loop(first, end, lanes, name="columns") as columns:
        with b.loop(0, lanes, count, name="column") as column:
            _dots(plan, evaluator, at, b.add(columns.index, column.index), column.index, sums, count)
        for m in range(rows):
            where = dict(at)
            rest = m
            for c, size in reversed(list(zip(plan.row, unmerged(plan.row, plan.letter_sizes), strict=True))):
                where[c] = Index(constant=rest % size) if isinstance(size, int) else Index()
                rest = rest // size if isinstance(size, int) else rest
            place = tuple(where.get(c, Index()) for c in plan.out)
            value = b.load(sums, m * lanes, lanes)
            finish_row(
                evaluator,
                plan.anchor.result,
                [value],
                place,
                Columns(dimension, columns.index, plan.columns, 1, lanes),
            )
    return Stage(b.finish(), 20 + depth * (rows * lanes * together) // 40)


def _columns(lanes: int, rows: int, target: Target) -> int:
    """How many columns are summed at a time: a divisor of the lanes."""
    count = min(lanes, _MOST_COLUMNS)
    while count * rows > target.vector_registers // 2 and count > 1:
        count //= 2
    return count


def _dots(
    plan: Plan, evaluator: Evaluator, at: dict[str, Index], column: Value, lane: Value, sums: Buffer, count: int
) -> None:
    """Dot products of all rows with some columns, to scratch."""
    b = evaluator.builder
    lanes, inner = plan.shape.lanes, plan.summed[-1]
    rows = plan.rows if isinstance(plan.rows, int) else 1
    last = b.sub(b.index(plan.columns), 1)
    # beyond the last column that one again
    columns = [{**at, plan.column: evaluator.index(b.minimum(b.add(column, j), last))} for j in range(count)]
    read_left = _Lines(plan.left, inner, evaluator, [{**at, plan.row: Index(constant=m)} for m in range(rows)])
    read_right = _Lines(plan.right, inner, evaluator, columns)
    depth = plan.sizes[inner]
    whole = isinstance(depth, int) and depth % lanes == 0

    def add_products(k: Value, have: Sequence[Value]) -> list[Value]:
        valid = None if whole else b.sub(b.index(depth), k)
        factors = [b.convert(read_left(m, k, lanes, valid), plan.dtype) for m in range(rows)]
        found = list(have)
        for j in range(count):
            vector = b.convert(read_right(j, k, lanes, valid), plan.dtype)
            for m, factor in enumerate(factors):
                found[m * count + j] = product_sum(b, vector, factor, found[m * count + j])
        return found

    totals = _in_blocks(b, depth, lanes, [b.constant(0, plan.dtype, lanes)] * (rows * count), add_products)
    for i, total in enumerate(totals):
        m, j = divmod(i, count)
        b.store(sums, b.add(lane, m * lanes + j), b.reduce("add", total))


def _in_blocks(
    b: KernelBuilder,
    depth: Dim,
    step: int,
    zeros: Sequence[Value],
    add_products: Callable[[Value, Sequence[Value]], Sequence[Value]],
) -> Sequence[Value]:
    """Sums over 0, step, … < depth: blocks that are no longer than a chain may be, added in order."""
    longest = LONGEST_CHAIN * step
    if isinstance(depth, int) and depth <= longest:
        with b.loop(0, depth, step, carried=zeros, name="k") as loop:
            loop.yield_(*add_products(loop.index, loop.carried))
        return loop.results
    with b.loop(0, depth, longest, carried=zeros, name="block") as block:
        end = b.minimum(b.add(block.index, longest), b.index(depth))
        with b.loop(block.index, end, step, carried=zeros, name="k") as loop:
            loop.yield_(*add_products(loop.index, loop.carried))
        block.yield_(*(b.add(x, y) for x, y in zip(block.carried, loop.results, strict=True)))
    return block.results


def _single_dots(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """The kernel where no column is: an iteration makes one dot product, several vectors of it at a time."""
    lanes, inner = plan.shape.lanes, plan.summed[-1]
    depth = plan.sizes[inner]
    sizes = [plan.sizes[c] for c in plan.outer]
    b = KernelBuilder(name, count=product(sizes))
    evaluator = Evaluator(b, region, table)
    places = unflattened(b, b.iteration, sizes) if sizes else []
    at = {c: evaluator.index(p) for c, p in zip(plan.outer, places, strict=True)}
    operands = [_Lines(operand, inner, evaluator, [at]) for operand in (plan.left, plan.right)]
    vectors = 4 if not isinstance(depth, int) or depth % lanes or depth % (4 * lanes) == 0 else 1
    whole = isinstance(depth, int) and depth % (vectors * lanes) == 0

    def add_products(k: Value, have: Sequence[Value]) -> list[Value]:
        found = []
        for v, total in enumerate(have):
            valid = None if whole else b.sub(b.index(depth), b.add(k, v * lanes))
            x, y = (b.convert(read(0, b.add(k, v * lanes), lanes, valid), plan.dtype) for read in operands)
            found.append(product_sum(b, x, y, total))
        return found

    zeros = [b.constant(0, plan.dtype, lanes)] * vectors
    total, *rest = _in_blocks(b, depth, vectors * lanes, zeros, add_products)
    for other in rest:
        total = b.add(total, other)
    place = tuple(at.get(c, Index()) for c in plan.out)
    finish_row(evaluator, plan.anchor.result, [b.reduce("add", total)], place, Columns(None, b.index(0), 1, 1, 1))
    return Stage(b.finish(), 20 + depth // 20)


class _Lines:
    """Vectors along the sum, from lines of an operand whose beginnings are known."""

    def __init__(self, operand: Operand, inner: str, evaluator: Evaluator, lines: Sequence[dict[str, Index]]) -> None:
        self.operand = operand
        self.inner = inner
        self.evaluator = evaluator
        self.lines = lines
        self.starts = [] if operand.computed else [evaluator.scalar(operand.offset(line)) for line in lines]

    def __call__(self, line: int, k: Value, lanes: int, count: Value | None) -> Value:
        b = self.evaluator.builder
        if self.operand.computed:
            at = {**self.lines[line], self.inner: self.evaluator.index(k, lane=1)}
            value = b.splat(self.operand.read(self.evaluator, at, lanes, count), lanes)
            if count is None:
                return value
            # what is computed of nothing may be anything, and would be added up
            return b.select(b.compare("lt", b.lane_indices(lanes), count), value, 0)
        return b.load(self.operand.buffer(self.evaluator), b.add(self.starts[line], k), lanes, count=count)
