"""The schedule of reductions: folds of rows or of columns, with maps before, between and after them."""

from __future__ import annotations

from passes.fusion_groups import weight
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim, dim_max, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.cells import Columns, Rows
from tgc.kernels.folds import folds_of
from tgc.kernels.grid import Grid, ceil_divide
from tgc.kernels.ir import Buffer
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.pointwise import chunk_elements
from tgc.kernels.reduction_plan import ReductionPlan, plan
from tgc.target import Target

MOST_COPIES = 100  # vector instructions that a loop's body may have by unrolling
MOST_VECTORS = 4


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """Kernels for a region of reductions over the same dimensions, with what is fused to them."""
    found = plan(region, table)
    for v in region.results:
        if v.type.layout is not None and (v.type.layout.tiles or v.type.layout.margins):
            raise CompilerBug(f"a reduction writes {v.type}, which has tiles or margins", stage="schedule")
    # lanes of 32 bits whatever the dtypes are: which others are fused must not show in the order of a sum
    lanes = max(1, target.vector_bits // 32)
    work = sum(weight(node) for node in region.nodes())
    cost = element_cost(found, lanes, work)
    ways, vectors = ways_and_vectors(found, lanes, work)
    grid = _grid(found, chunk_elements(cost), lanes * vectors)
    b = KernelBuilder(name, count=grid.count)
    evaluator = Evaluator(b, region, table)
    for i in range(len(region.parameters)):
        evaluator.parameter(i)
    for i in range(len(region.results)):
        evaluator.result(i)
    folds = tuple([tuple(folds_of(level, found.folded)) for level in found.levels])
    kind = Rows if found.lanes_are_reduced else Columns
    rolled = ways * vectors * work > MOST_COPIES
    cells = kind(evaluator, found, folds, lanes, ways, vectors, rolled, _scratch(b, found, lanes * vectors))
    grid.emit(b, cells.run)
    each = cost * estimated(found.folded) / (max(estimated(found.domain), 1) if found.lanes_are_reduced else 1)
    return Lowering((Stage(b.finish(), grid.cost(each)),))


def element_cost(plan: ReductionPlan, lanes: int, work: int) -> float:
    """Rough nanoseconds for one element of the space."""
    values = (*plan.region.parameters, *plan.region.results)
    moved = sum(v.dtype.itemsize for v in values if v.shape == plan.type.shape)
    return 0.015 * moved + 0.25 * work / lanes


def estimated(size: Dim) -> int:
    """A size, or what it is taken to be where it is not known."""
    return size if isinstance(size, int) else 64


def ways_and_vectors(plan: ReductionPlan, lanes: int, work: int) -> tuple[int, int]:
    """Accumulators of a fold, which depend on the shape alone, and vectors of columns that go together."""
    last = plan.runs[-1].size if plan.runs else 1
    whole = max(1, last // lanes) if isinstance(last, int) else None
    if plan.lanes_are_reduced:
        return 4 if whole is None else min(4, whole), 1
    ways = 2 if whole is None else {1: 4, 2: 2, 3: 2}.get(whole, 1)
    most = max(1, min(MOST_VECTORS, MOST_COPIES // (ways * max(work, 1))))
    return ways, most if whole is None else min(most, whole)


def _grid(plan: ReductionPlan, chunk: int, tile: int) -> Grid:
    kept = plan.sizes(reduced=False)
    if plan.lanes_are_reduced:
        rows: Dim = dim_max(1, chunk // dim_max(plan.folded, 1))
        most = product(kept)
        if isinstance(rows, int) and isinstance(most, int):
            rows = max(1, min(rows, most))
        return Grid((*kept, plan.domain), rows, chunk, 1)
    part = tile
    while part * 2 * estimated(plan.folded) <= chunk:
        part *= 2
    return Grid.over(kept, part)


def _scratch(b: KernelBuilder, plan: ReductionPlan, tile: int) -> dict[graph.Value, Buffer]:
    size: Dim = plan.folded * tile
    if plan.lanes_are_reduced:
        *outer, last = plan.sizes(reduced=True) or [1]
        size = product(outer) * (ceil_divide(last, tile) * tile)
    saved = [v for level in plan.saved for v in level]
    return {v: b.scratch(f"kept{k}", v.dtype, size) for k, v in enumerate(saved)}
