"""Packing: the right operand of a product, put into panels that a register tile reads as whole vectors, in order."""

from __future__ import annotations

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
from tgc.kernels.squares import square_size, transposed

# rows of a panel that one iteration packs
_ROWS = 256


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
    start = b.mul(start, b.index(plan.padded * plan.shape.width))
    across, along = plan.right.reading_stride(plan.column), plan.right.reading_stride(inner)
    if across != 1 and along == 1 and square_size(plan.shape.lanes) > 1:
        packer.squares(at, inner, first, start, low, high)
    else:
        packer.rows(at, inner, first, start, low, high)
    return Stage(b.finish(), 20 + _ROWS * plan.shape.width // 8)


class _Packer:
    def __init__(self, plan: Plan, builder: KernelBuilder, evaluator: Evaluator) -> None:
        self.plan = plan
        self.builder = builder
        self.evaluator = evaluator
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
                value = b.splat(plan.right.read(self.evaluator, at, lanes, b.sub(b.index(plan.columns), column)), lanes)
                offset = b.add(b.add(start, b.mul(loop.index, plan.shape.width)), v * lanes)
                b.store(self.panels, offset, b.convert(value, plan.dtype))

    def squares(self, at: dict[str, Index], inner: str, first: Value, start: Value, low: Value, high: Value) -> None:
        """The operand is contiguous along the sum: squares are read along it and transposed."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        size = square_size(plan.shape.lanes)
        at[inner] = Index()
        stride = b.index(plan.right.stride(plan.column))
        exact_columns = isinstance(plan.columns, int) and plan.columns % size == 0
        exact_rows = isinstance(plan.sizes[inner], int) and plan.sizes[inner] % size == 0
        # columns are read in whole squares, beyond the last one that one again
        end = plan.columns if exact_columns else ceil_divide(plan.columns, size) * size
        width = b.minimum(b.sub(b.index(end), first), plan.shape.width)
        with (
            b.loop(0, width, size, name="column") as column,
            b.loop(low, high, size, name="k") as loop,
        ):
            at[plan.column] = evaluator.index(b.add(first, column.index))
            at[inner] = evaluator.index(loop.index)
            count = None if exact_rows else b.sub(high, loop.index)
            left = b.sub(b.sub(b.index(plan.columns), b.add(first, column.index)), 1)
            steps = [b.index(j) if exact_columns else b.minimum(left, j) for j in range(size)]
            if plan.right.computed:
                at[inner] = evaluator.index(loop.index, lane=1)
                lines = [{**at, plan.column: at[plan.column].plus(evaluator.index(step))} for step in steps]
                rows = [b.splat(plan.right.read(evaluator, line, size, count), size) for line in lines]
            else:
                buffer, source = plan.right.buffer(evaluator), evaluator.scalar(plan.right.offset(at))
                rows = [b.load(buffer, b.add(source, b.mul(stride, step)), size, count=count) for step in steps]
            rows = [b.convert(row, plan.dtype) for row in rows]
            target = b.add(b.add(start, b.mul(loop.index, plan.shape.width)), column.index)
            for j, row in enumerate(transposed(b, rows)):
                b.store(self.panels, b.add(target, j * plan.shape.width), row)
