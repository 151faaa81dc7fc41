"""Packing: the right operand of a product, put into panels that a register tile reads as whole vectors, in order.

Rows of the operand are read through all panels of a task, some pages long, before the next row is: panel by panel each
row would be a piece of another page, which took nearly twice as long. An operand that is contiguous along the sum is
read along it, in squares that are transposed in registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.contraction_plan import Plan
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Stage
from tgc.kernels.squares import square_size, transposed

# elements that one iteration of the kernel packs, and bytes of a row that are read at a time
_ELEMENTS = 1 << 15
_RUN = 4096


def is_transposed(plan: Plan) -> bool:
    """Whether the operand is contiguous along the sum and not along the columns."""
    across, along = plan.right.reading_stride(plan.column), plan.right.reading_stride(plan.summed[-1])
    return across != 1 and along == 1 and square_size(plan.shape.lanes) > 1


def packing_stage(plan: Plan, region: Graph, name: str, table: OpTable, *, temporary: str = "t0") -> Stage:
    """The kernel that packs the whole operand: an iteration writes some rows of some panels of ``temporary``.

    Columns beyond the last one are arbitrary.
    """
    inner, width = plan.summed[-1], plan.shape.width
    together = 1 if is_transposed(plan) else _RUN // (width * plan.dtype.itemsize)
    together = max(1, min(together, plan.panels) if isinstance(plan.panels, int) else together)
    rows = max(8, _ELEMENTS // (together * width) // 8 * 8)
    pieces = ceil_divide(plan.sizes[inner], rows)
    around = [plan.sizes[c] for c in plan.summed[:-1]]
    sizes: list[Dim] = [*(plan.sizes[c] for c in plan.right_outer), ceil_divide(plan.panels, together), *around, pieces]
    b = KernelBuilder(name, count=product(sizes))
    evaluator = Evaluator(b, region, table)
    panels = b.buffer(temporary, plan.dtype, plan.packed.size, "write")
    *places, piece = unflattened(b, b.iteration, sizes)
    outside = len(plan.right_outer)
    letters = [*plan.right_outer, *plan.summed[:-1]]
    at = dict(zip(letters, map(evaluator.index, [*places[:outside], *places[outside + 1 :]]), strict=True))
    first = b.mul(places[outside], together)
    last = b.minimum(b.add(first, together), b.index(plan.panels))
    low = b.mul(piece, rows)
    high = b.minimum(b.add(low, rows), b.index(plan.sizes[inner]))
    panel, turn = b.index(0), b.index(0)
    for place, size in zip(places[:outside], sizes[:outside], strict=True):
        panel = b.add(b.mul(panel, b.index(size)), place)
    for place, size in zip(places[outside + 1 :], around, strict=True):
        turn = b.add(b.mul(turn, b.index(size)), place)
    start = b.mul(b.add(b.mul(panel, b.index(plan.panels)), first), b.index(plan.panel_size))
    start = b.add(start, b.mul(b.add(b.mul(turn, b.index(plan.padded)), low), width))
    pack(plan, evaluator, Block(at, first, last, low, high), panels, start, b.index(plan.panel_size))
    return Stage(b.finish(), 20 + rows * together * width // 8)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``low`` up to ``high`` of the panels ``first`` up to ``last``, at indices of the other letters."""

    at: Mapping[str, Index]
    first: Value
    last: Value
    low: Value
    high: Value


def pack(plan: Plan, evaluator: Evaluator, block: Block, panels: Buffer, start: Value, pitch: Value) -> None:
    """Writes a block of the operand: the first row of its first panel to ``start``, other panels ``pitch`` apart."""
    (_squares if is_transposed(plan) else _rows)(plan, evaluator, block, panels, start, pitch)


def _rows(plan: Plan, evaluator: Evaluator, block: Block, panels: Buffer, start: Value, pitch: Value) -> None:
    """Row by row through all panels, vectors along the columns."""
    b, lanes, width = evaluator.builder, plan.shape.lanes, plan.shape.width
    with b.loop(block.low, block.high, name="k") as k, b.loop(block.first, block.last, name="panel") as panel:
        first = b.mul(panel.index, width)
        target = b.add(start, b.mul(b.sub(panel.index, block.first), pitch))
        target = b.add(target, b.mul(b.sub(k.index, block.low), width))
        for v in range(plan.shape.vectors):
            column = b.add(first, v * lanes)
            at = {**block.at, plan.summed[-1]: evaluator.index(k.index), plan.column: evaluator.index(column, lane=1)}
            value = plan.right.read(evaluator, at, lanes, b.sub(b.index(plan.columns), column))
            b.store(panels, b.add(target, v * lanes), b.convert(b.splat(value, lanes), plan.dtype))


def _squares(plan: Plan, evaluator: Evaluator, block: Block, panels: Buffer, start: Value, pitch: Value) -> None:
    """The operand is contiguous along the sum: squares are read along it and transposed."""
    b, inner, width, size = evaluator.builder, plan.summed[-1], plan.shape.width, square_size(plan.shape.lanes)
    exact_columns = isinstance(plan.columns, int) and plan.columns % size == 0
    exact_rows = isinstance(plan.sizes[inner], int) and plan.sizes[inner] % size == 0
    # columns are read in whole squares, beyond the last one that one again
    end = b.index(plan.columns if exact_columns else ceil_divide(plan.columns, size) * size)
    with b.loop(block.first, block.last, name="panel") as panel:
        first = b.mul(panel.index, width)
        base = b.add(start, b.mul(b.sub(panel.index, block.first), pitch))
        with (
            b.loop(0, b.minimum(b.sub(end, first), width), size, name="column") as column,
            b.loop(block.low, block.high, size, name="k") as k,
        ):
            at = {**block.at, inner: evaluator.index(k.index)}
            at[plan.column] = evaluator.index(b.add(first, column.index))
            count = None if exact_rows else b.sub(block.high, k.index)
            left = b.sub(b.sub(b.index(plan.columns), b.add(first, column.index)), 1)
            steps = [b.index(j) if exact_columns else b.minimum(left, j) for j in range(size)]
            if plan.right.computed:
                at[inner] = evaluator.index(k.index, lane=1)
                lines = [{**at, plan.column: at[plan.column].plus(evaluator.index(step))} for step in steps]
                rows = [b.splat(plan.right.read(evaluator, line, size, count), size) for line in lines]
            else:
                buffer, source = plan.right.buffer(evaluator), evaluator.scalar(plan.right.offset(at))
                stride = b.index(plan.right.stride(plan.column))
                rows = [b.load(buffer, b.add(source, b.mul(stride, step)), size, count=count) for step in steps]
            target = b.add(b.add(base, b.mul(b.sub(k.index, block.low), width)), column.index)
            for j, row in enumerate(transposed(b, [b.convert(row, plan.dtype) for row in rows])):
                b.store(panels, b.add(target, j * width), row)
