"""The schedule of reductions: folds of rows or of columns, with maps before, between and after them.

What made rows fast (512x1024 f32, AVX-512 in halves): all passes over a row follow each other while it is in L1, and
what is dear to compute waits in scratch. Four accumulators are folded as one wide vector, instruction by instruction:
taking turns they cost moves, and one chain after another filled the schedulers. With that, and one reciprocal for a
row instead of divisions, softmax went from 218 to 160 us, layer norm from 104 to 80. Of the 17 cycles that softmax
takes for a vector, 11 go into exp, the limit of its 16 instructions. Without effect: the next row prefetched, values
that wait in the memory of the result instead of scratch, exp2 of scaled operands. A search asks only whether a value
is not less than the best (argmax 393 to 313 us, on AVX2 1047 to 320). For columns see :mod:`tgc.kernels.panels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from passes.fusion_groups import weight
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim, dim_max, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.cells import MOST_COPIES, Columns, Rows
from tgc.kernels.folds import Fold, folds_of, state_dtypes
from tgc.kernels.grid import Grid, Run, ceil_divide
from tgc.kernels.ir import Buffer
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.panels import Panels
from tgc.kernels.pointwise import chunk_elements
from tgc.kernels.reduction_parts import (
    JoinedColumns,
    JoinedRows,
    PartialColumns,
    PartialRows,
    Parts,
    temporaries,
)
from tgc.kernels.reduction_plan import ReductionPlan, plan
from tgc.kernels.tree import DEPTH
from tgc.target import Target

JOINED_VECTORS = 4  # of the columns that an iteration joins
ENOUGH = 8  # iterations, to be shared among threads


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """Kernels for a region of reductions over the same dimensions, with what is fused to them."""
    for v in region.results:
        if v.type.layout is not None and (v.type.layout.tiles or v.type.layout.margins):
            raise CompilerBug(f"a reduction writes {v.type}, which has tiles or margins", stage="schedule")
    make = _kernels(region, target, table)
    found, lanes, ways, vectors = make.plan, make.lanes, make.ways, make.vectors
    # what is done for each element of the space; the rest is done once for each result
    work = sum(weight(node) for node in region.nodes() if node.types[0].shape == found.type.shape)
    cost = element_cost(found, lanes, work)
    panel = panel_columns(found, make.folds, target, lanes * vectors, DEPTH * ways)
    parts = Parts.of(found, lanes, ways, panel)
    if parts is not None:
        return make.in_parts(name, parts, cost)
    if panel:
        grid = _panels(found.sizes(reduced=False), panel, lanes * vectors)
        return Lowering((make.stage(name, grid, cost * estimated(found.folded), partial(make.in_panels, grid.part)),))
    grid = _grid(found, chunk_elements(cost), lanes * vectors)
    each = cost * estimated(found.folded) / (estimated(found.domain) if found.lanes_are_reduced else 1)
    return Lowering((make.stage(name, grid, each, make.whole),))


def row_passes(region: Graph, evaluator: Evaluator, target: Target) -> Run:
    """All passes over a row, for a kernel that makes the rows itself."""
    return _kernels(region, target, evaluator.table).whole(evaluator)


def _kernels(region: Graph, target: Target, table: OpTable) -> _Kernels:
    found = plan(region, table)
    # lanes of 32 bits whatever the dtypes are: which others are fused must not show in the order of a sum
    lanes = max(1, target.vector_bits // 32)
    folds = tuple([tuple(folds_of(level, found.folded)) for level in found.levels])
    ways, vectors = ways_and_vectors(found, folds, target, lanes)
    return _Kernels(region, found, folds, table, lanes, ways, vectors)


@dataclass(frozen=True)
class _Kernels:
    """Makes the kernels of one region."""

    region: Graph
    plan: ReductionPlan
    folds: tuple[tuple[Fold, ...], ...]
    table: OpTable
    lanes: int
    ways: int
    vectors: int

    def stage(self, name: str, grid: Grid, cost: float, run: Callable[[Evaluator], Run]) -> Stage:
        b = KernelBuilder(name, count=grid.count)
        grid.emit(b, run(Evaluator(b, self.region, self.table)))
        return Stage(b.finish(), grid.cost(cost))

    def whole(self, evaluator: Evaluator) -> Run:
        """All passes over a cell."""
        kind = Rows if self.plan.lanes_are_reduced else Columns
        return kind(*self._fields(evaluator)).run

    def in_panels(self, panel: int, evaluator: Evaluator) -> Run:
        """All passes over a panel."""
        return Panels(*self._fields(evaluator), panel=panel).run

    def in_parts(self, name: str, parts: Parts, cost: float) -> Lowering:
        """Two kernels: the parts, and what joins them."""
        kept = self.plan.sizes(reduced=False)
        rows = self.plan.lanes_are_reduced
        each = cost * (
            parts.length if not rows else parts.length * estimated(self.plan.folded) / estimated(self.plan.domain)
        )
        first = Grid((parts.count, *kept, 1), 1, 1, 1) if rows else Grid((parts.count, *kept), 1, 1, 1)
        last = Grid((*kept, 1), 1, 1, 1) if rows else Grid.over(kept, self.lanes * JOINED_VECTORS)
        joining = 0.05 * estimated(parts.count)

        def piece(evaluator: Evaluator) -> Run:
            fields = self._fields(evaluator)
            if rows:
                return PartialRows(*fields, levels=parts.inner, parts=parts).run
            panel = -(-parts.results // self.lanes) * self.lanes
            return PartialColumns(*fields, levels=parts.inner, parts=parts, panel=panel).run

        def joined(evaluator: Evaluator) -> Run:
            # what follows the folds may be long, and there is little to do: single vectors
            kind = JoinedRows if rows else JoinedColumns
            return replace(kind(*self._fields(evaluator), parts=parts), vectors=1).run

        stages = (self.stage(f"{name}_parts", first, each, piece), self.stage(name, last, joining, joined))
        return Lowering(stages, temporaries(parts, self.folds[0]))

    def _fields(
        self, evaluator: Evaluator
    ) -> tuple[Evaluator, ReductionPlan, tuple[tuple[Fold, ...], ...], int, int, int, dict[graph.Value, Buffer]]:
        scratch = _scratch(evaluator.builder, self.plan, self.lanes * self.vectors)
        return evaluator, self.plan, self.folds, self.lanes, self.ways, self.vectors, scratch


def element_cost(plan: ReductionPlan, lanes: int, work: int) -> float:
    """Rough nanoseconds for one element of the space."""
    values = (*plan.region.parameters, *plan.region.results)
    moved = sum(v.dtype.itemsize for v in values if v.shape == plan.type.shape)
    return 0.015 * moved + 0.25 * work / lanes


def estimated(size: Dim) -> int:
    """A size, or what it is taken to be where it is not known; never 0."""
    return max(1, size) if isinstance(size, int) else 64


def ways_and_vectors(
    plan: ReductionPlan, folds: Sequence[Sequence[Fold]], target: Target, lanes: int
) -> tuple[int, int]:
    """Accumulators of a fold, which depend on the shape alone, and vectors of columns that go together.

    The wider a tile, the longer the pieces of rows that it reads: accumulators take up to half of the registers.
    """
    last = plan.runs[-1].size if plan.runs else 1
    whole = max(1, last // lanes) if isinstance(last, int) else None
    if plan.lanes_are_reduced:
        return 4 if whole is None else min(4, whole), 1
    rounds = any(fold.rounds for level in folds for fold in level)
    ways = (2 if rounds else 1) if whole is None else {1: 4, 2: 2, 3: 2}.get(whole, 1)
    vector = lanes * 4
    registers = max(sum(-(-dtype.itemsize * lanes // vector) for dtype in state_dtypes(level)) for level in folds)
    most = min(target.vector_registers // 2 // registers, MOST_COPIES // max(1, *plan.work)) // ways
    kept = sum(v.dtype.itemsize for level in plan.saved for v in level) * lanes * estimated(plan.folded)
    if kept:
        most = min(most, target.l2_bytes // 2 // kept)
    most = 1 << max(0, most.bit_length() - 1)
    return ways, most if whole is None else min(most, whole)


def panel_columns(plan: ReductionPlan, folds: Sequence[Sequence[Fold]], target: Target, tile: int, block: int) -> int:
    """How many columns go together where accumulators lie in memory, in half of L1; 0 where registers hold them all.

    A panel is for several tiles of several blocks of rows, unless passes keep values for later ones.
    """
    if plan.lanes_are_reduced or any(plan.saved):
        return 0
    last = plan.sizes(reduced=False)[-1]
    if isinstance(last, int) and last <= tile or isinstance(plan.folded, int) and plan.folded <= block:
        return 0
    column = 2 * max(sum(dtype.itemsize for dtype in state_dtypes(level)) for level in folds)
    return max(1, target.l1_bytes // 2 // column // tile) * tile


def _panels(kept: Sequence[Dim], panel: int, tile: int) -> Grid:
    """Panels of similar size; narrower ones where there would be few."""
    *outer, last = kept
    others = product(outer)
    if isinstance(last, int) and isinstance(others, int):
        pieces = max(-(-last // panel), min(-(-last // tile), -(-ENOUGH // max(1, others))))
        panel = -(-last // pieces // tile) * tile
    else:
        panel = min(panel, 4 * tile)
    return Grid(tuple(kept), 1, panel, ceil_divide(last, panel))


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
