"""Long reductions to few results: parts of a fixed length side by side, then their partial results.

The parts are blocks of the very tree that a single pass would build, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tgc.ir.dims import Dim, product
from tgc.kernels.access import Point
from tgc.kernels.cells import Cells, Columns, Rows
from tgc.kernels.folds import Fold, State, flattened, regrouped, state_dtypes
from tgc.kernels.grid import ceil_divide
from tgc.kernels.indices import Index
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Temporary
from tgc.kernels.panels import Panels, Tile
from tgc.kernels.reduction_plan import ReductionPlan
from tgc.kernels.tree import DEPTH, LEVELS, Step

# elements that a part should have, and results below which there are too few of them to share among threads
WORTHWHILE = 1 << 14
FEW = 1 << 10


@dataclass(frozen=True, slots=True)
class Parts:
    """``length``: steps of the outermost loop over reduced elements in a part. ``count``: how many parts.

    ``levels``: those of the tree above a part. ``results``: elements of each state in a part.
    """

    length: int
    count: Dim
    levels: int
    results: int

    @property
    def inner(self) -> int:
        """The levels of the tree within a part."""
        return max(0, LEVELS - 1 - self.levels)

    @staticmethod
    def of(plan: ReductionPlan, lanes: int, ways: int, panel: int) -> Parts | None:
        """None where one pass is as good. ``panel``: columns that one iteration may take."""
        kept = product(plan.sizes(reduced=False))
        one_pass = len(plan.levels) == 1 and not plan.full
        if not one_pass or any(n.op in ("argmax", "argmin") for n in plan.levels[0]) or not isinstance(kept, int):
            return None
        sizes = plan.sizes(reduced=True)
        inner: Dim = 1
        if plan.lanes_are_reduced:
            step = lanes * ways if len(sizes) == 1 else 1
            inner = sizes[-1] if len(sizes) > 1 else 1
        else:
            step = ways
        width = (inner if isinstance(inner, int) else DEPTH) * (1 if plan.lanes_are_reduced else kept)
        level = -1 if step == 1 else 0
        results = kept * (lanes if plan.lanes_are_reduced else 1)
        # a part takes some times as long to fold as its state takes to be stored
        while level < 1 and step * DEPTH ** (level + 1) * width < max(WORTHWHILE, 64 * results):
            level += 1
        length = step * DEPTH ** (level + 1)
        if results > max(FEW, panel) or isinstance(plan.domain, int) and plan.domain <= 2 * length:
            return None
        return Parts(length, ceil_divide(plan.domain, length), LEVELS - 1 - level, results)


def temporaries(parts: Parts, folds: Sequence[Fold]) -> dict[str, Temporary]:
    """One buffer for each value of the folds' states: part after part."""
    size = parts.count * parts.results
    return {f"t{k}": Temporary(dtype, size) for k, dtype in enumerate(state_dtypes(folds))}


def _stored(
    cells: Cells, parts: Parts, folds: Sequence[Fold], state: State, offset: Value, count: Value | None
) -> None:
    for k, (dtype, value) in enumerate(zip(state_dtypes(folds), state, strict=True)):
        buffer = cells.evaluator.buffer(f"t{k}", dtype, parts.count * parts.results, "write")
        cells.builder.store(buffer, offset, value, count=count)


def _loaded(cells: Cells, parts: Parts, folds: Sequence[Fold], offset: Value, count: Value | None) -> State:
    loaded = []
    for k, dtype in enumerate(state_dtypes(folds)):
        buffer = cells.evaluator.buffer(f"t{k}", dtype, parts.count * parts.results, "read")
        loaded.append(cells.builder.load(buffer, offset, cells.lanes, count=count))
    return tuple(loaded)


def _offset(cells: Cells, parts: Parts, part: Value, kept: Sequence[Index]) -> Value:
    """Where the state of a part for a result begins."""
    b, sizes = cells.builder, cells.plan.sizes(reduced=False)
    flat = Index()
    for index, size in zip(kept, sizes, strict=True):
        flat = flat.scaled(size).plus(index)
    each = cells.lanes if cells.plan.lanes_are_reduced else 1
    return b.add(b.mul(part, parts.results), b.mul(cells.evaluator.scalar(flat), each))


def _range(cells: Cells, parts: Parts, part: Value) -> tuple[Value, Value]:
    b = cells.builder
    first = b.mul(part, parts.length)
    return first, b.minimum(b.add(first, parts.length), b.index(cells.plan.domain))


def _joined(cells: Cells, parts: Parts, folds: Sequence[Fold], step: Step) -> list[State]:
    tree = replace(cells.tree(folds, step, 1), ways=1, levels=parts.levels)
    return regrouped(folds, tree.fold(0, parts.count))


@dataclass(frozen=True, kw_only=True)
class PartialRows(Rows):
    """One part of one row for each iteration; its state is left in memory."""

    parts: Parts

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        part, *rest = outer
        kept = self.kept_indices(rest, self.plan.sizes(reduced=False))
        states = self.fold(self.evaluator.point(), kept, 0, self.folds[0], *_range(self, self.parts, part))
        offset = _offset(self, self.parts, part, kept)
        _stored(self, self.parts, self.folds[0], flattened(states), offset, None)


@dataclass(frozen=True, kw_only=True)
class JoinedRows(Rows):
    """Rows whose parts have been folded."""

    parts: Parts

    def states(self, point: Point, kept: Sequence[Index], level: int, folds: Sequence[Fold]) -> list[State]:
        tree = self.tree(folds, lambda position, count, state: state, 1)

        def step(position: Value, count: Value | None, state: State) -> State:
            offset = _offset(self, self.parts, position, kept)
            return tree.join(state, _loaded(self, self.parts, folds, offset, None))

        return _joined(self, self.parts, folds, step)


@dataclass(frozen=True, kw_only=True)
class PartialColumns(Panels):
    """One part of some columns for each iteration; their states are left in memory."""

    parts: Parts

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        part, *rest = outer
        kept = self.kept_indices(rest, self.plan.sizes(reduced=False)[:-1])
        folds = self.folds[0]
        accumulators = self.accumulate(kept, (low, high), 0, _range(self, self.parts, part), ())

        def leave(tile: Tile) -> None:
            states = regrouped(folds, tile.load(accumulators))
            for t, (point, column) in enumerate(zip(tile.points, tile.columns, strict=True)):
                mine = flattened(states[t * len(folds) : (t + 1) * len(folds)])
                _stored(self, self.parts, folds, mine, _offset(self, self.parts, part, column), point.count)

        self.tiles(kept, (low, high), (), leave)


@dataclass(frozen=True, kw_only=True)
class JoinedColumns(Columns):
    """Columns whose parts have been folded."""

    parts: Parts

    def states(
        self, points: Sequence[Point], columns: Sequence[Sequence[Index]], level: int, folds: Sequence[Fold]
    ) -> list[State]:
        tree = self.tree(folds, lambda position, count, state: state, 1)

        def step(position: Value, count: Value | None, state: State) -> State:
            loaded = [
                _loaded(self, self.parts, folds, _offset(self, self.parts, position, column), point.count)
                for point, column in zip(points, columns, strict=True)
            ]
            return tree.join(state, flattened(loaded))

        return _joined(self, self.parts, folds, step)
