"""Packing: the right operand of a product, put into panels that a register tile reads as whole vectors, in order."""

from __future__ import annotations

from collections.abc import Sequence

from tgc.ir.dims import product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Stage

# rows of a panel that one iteration packs
_ROWS = 256
# squares of this size are transposed in registers: larger ones take longer to compile than they gain
_SQUARE = 8


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


def packing_stage(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """The kernel that packs: an iteration writes some rows of one panel. Columns beyond the last one are arbitrary."""
    inner = plan.summed[-1]
    pieces = ceil_divide(plan.sizes[inner], _ROWS)
    around = [plan.sizes[c] for c in plan.summed[:-1]]
    sizes = [*(plan.sizes[c] for c in plan.right_outer), plan.panels, *around, pieces]
    b = KernelBuilder(name, count=product(sizes))
    packer = _Packer(plan, b, Evaluator(b, region, table))
    *places, piece = unflattened(b, b.iteration, sizes)
    letters = [*plan.right_outer, plan.column, *plan.summed[:-1]]
    at = {c: packer.evaluator.index(p) for c, p in zip(letters, places, strict=True) if c != plan.column}
    first = b.mul(places[len(plan.right_outer)], plan.shape.width)
    low = b.mul(piece, _ROWS)
    high = b.minimum(b.add(low, _ROWS), b.index(plan.sizes[inner]))
    # panels and outer sums follow each other without a gap
    start = b.floor_divide(b.iteration, b.index(pieces)) if pieces != 1 else b.iteration
    start = b.mul(start, b.index(plan.sizes[inner] * plan.shape.width))
    if plan.right.stride(plan.column) != 1 and plan.right.stride(inner) == 1 and plan.shape.lanes >= _SQUARE:
        packer.squares(at, inner, first, start, low, high)
    else:
        packer.rows(at, inner, first, start, low, high)
    return Stage(b.finish(), 20 + _ROWS * plan.shape.width // 8)


class _Packer:
    def __init__(self, plan: Plan, builder: KernelBuilder, evaluator: Evaluator) -> None:
        self.plan = plan
        self.builder = builder
        self.evaluator = evaluator
        self.buffer = evaluator.parameter(plan.right.parameter)
        self.panels = builder.buffer("t0", plan.dtype, plan.packing.size, "write")

    def rows(self, at: dict[str, Index], inner: str, first: Value, start: Value, low: Value, high: Value) -> None:
        """Row by row, vectors along the columns."""
        b, plan = self.builder, self.plan
        lanes = plan.shape.lanes
        with b.loop(low, high, name="k") as loop:
            at[inner] = self.evaluator.index(loop.index)
            for v in range(plan.shape.vectors):
                column = b.add(first, v * lanes)
                at[plan.column] = self.evaluator.index(column, lane=1)
                point = self.evaluator.point(lanes, b.sub(b.index(plan.columns), column))
                value = b.splat(point.load(self.buffer, plan.right.offset(at)), lanes)
                offset = b.add(b.add(start, b.mul(loop.index, plan.shape.width)), v * lanes)
                b.store(self.panels, offset, b.convert(value, plan.dtype))

    def squares(self, at: dict[str, Index], inner: str, first: Value, start: Value, low: Value, high: Value) -> None:
        """The operand is contiguous along the sum: squares are read along it and transposed."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        last = b.sub(b.index(plan.columns), 1)
        at[inner] = Index(lane=1)
        with b.loop(0, plan.shape.width, _SQUARE, name="column") as column:
            starts = []
            for j in range(_SQUARE):
                at[plan.column] = evaluator.index(b.minimum(b.add(b.add(first, column.index), j), last))
                starts.append(evaluator.scalar(plan.right.offset(at)))
            target = b.add(start, column.index)

            def square(k: Value, count: Value | None) -> None:
                rows = [b.load(self.buffer, b.add(s, k), _SQUARE, count=count) for s in starts]
                turned = transposed(b, [b.convert(row, plan.dtype) for row in rows])
                base = b.add(target, b.mul(k, plan.shape.width))
                for j, row in enumerate(turned):
                    b.store(self.panels, b.add(base, j * plan.shape.width), row)

            whole = b.add(low, b.mul(b.floor_divide(b.sub(high, low), _SQUARE), _SQUARE))
            with b.loop(low, whole, _SQUARE, name="k") as loop:
                square(loop.index, None)
            # the last rows one by one: a square would write into what another thread packs
            with b.loop(whole, high, name="k") as loop:
                for j, s in enumerate(starts):
                    value = b.convert(b.load(self.buffer, b.add(s, loop.index)), plan.dtype)
                    b.store(self.panels, b.add(b.add(target, b.mul(loop.index, plan.shape.width)), j), value)
