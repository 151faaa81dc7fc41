"""The cells of a reduction: what is completed while its data is in cache.

A cell is one row, whose lanes are folded together at the end, or a few vectors of columns. Its passes follow each
other: a fold of what earlier folds gave, and at last the results of the whole shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tgc.ir import graph
from tgc.ir.dims import Dim, product
from tgc.kernels.access import FUTURE, Evaluator, Point
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.folds import Fold, State, flattened, regrouped
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.reduction_plan import ReductionPlan, kept_index
from tgc.kernels.tree import LEVELS, Step, Tree
from tgc.kernels.vector_loop import side_by_side, tile_loop

MOST_COPIES = 120  # vector instructions that the body of a loop may have by repetition


@dataclass(frozen=True)
class Cells:
    """``ways``: accumulators of a fold, part of the order of sums. ``vectors``: vectors of columns in a cell.

    ``scratch``: where a pass keeps values for later ones. ``levels``: how high the tree over the outermost reduced loop
    is.
    """

    evaluator: Evaluator
    plan: ReductionPlan
    folds: tuple[tuple[Fold, ...], ...]
    lanes: int
    ways: int
    vectors: int
    scratch: Mapping[graph.Value, Buffer]
    levels: int = LEVELS

    @property
    def builder(self) -> KernelBuilder:
        return self.evaluator.builder

    def at(self, kept: Sequence[Index], reduced: Sequence[Index]) -> Coordinates:
        """The logical index, given one index for each run of kept and of reduced dimensions."""
        shape = self.plan.type.shape
        found = [Index()] * len(shape)
        sources = {False: iter(kept), True: iter(reduced)}
        for run in self.plan.runs:
            index = next(sources[run.reduced])
            if run.linear:
                found[run.dimensions[-1]] = index
                continue
            for d in reversed(run.dimensions[1:]):
                index, found[d] = self.evaluator.divide(index, shape[d], self.lanes)
            found[run.dimensions[0]] = index
        return tuple(found)

    def kept_indices(self, outer: Sequence[Value], sizes: Sequence[Dim]) -> list[Index]:
        return [self.evaluator.index(v, bound=size) for v, size in zip(outer, sizes, strict=True)]

    def reduced_indices(self, flat: Value, sizes: Sequence[Dim]) -> list[Index]:
        return self.kept_indices(unflattened(self.builder, flat, sizes), sizes) if sizes else []

    def lane_index(self, position: Value, size: Dim) -> Index:
        return self.evaluator.index(position, lane=1, bound=size, step=self.lanes)

    def hoist(
        self, point: Point, values: Sequence[graph.Value], kept: Sequence[Index], reduced: Sequence[Index]
    ) -> None:
        """Moves out of the loops over ``reduced`` what does not depend on them."""
        futures = [index for index in (*kept, *reduced) if any(n < 0 for n, _ in index.terms)]
        if all(run.linear for run in self.plan.runs) or not futures:
            for v in values:
                point.hoist(v, self.at(kept, reduced))

    def advance(
        self, folds: Sequence[Fold], point: Point, at: Coordinates, place: Value, states: Sequence[State]
    ) -> list[State]:
        """One step of each fold."""
        b = self.builder
        result = []
        for fold, state in zip(folds, states, strict=True):
            value = b.splat(b.convert(point.value(fold.node.operands[0], at), fold.dtype), self.lanes)
            if point.count is not None and self.plan.lanes_are_reduced:
                real = b.compare("lt", b.lane_indices(self.lanes), point.count)
                value = b.select(real, value, b.constant(fold.neutral, fold.dtype))
            result.append(fold.step(b, state, value, place))
        return result

    def tree(self, folds: Sequence[Fold], step: Step, width: int, *, work: int = 1, wide: Step | None = None) -> Tree:
        """``work``: instructions of a step. Where its repetition would be too long, accumulators take turns instead."""
        b, lanes = self.builder, self.lanes
        vectors = self.vectors

        def start(ways: int) -> State:
            found = flattened([f.start(b, lanes * ways, ramp=self.plan.lanes_are_reduced) for f in folds])
            return found * vectors

        def join(a: State, c: State) -> State:
            left, right = regrouped(folds, a), regrouped(folds, c)
            pairs = zip([*folds] * (len(left) // len(folds)), left, right, strict=True)
            return flattened([f.join(b, x, y) for f, x, y in pairs])

        rounds = any(f.rounds for f in folds)
        rolled = self.ways * vectors * work > MOST_COPIES
        return Tree(b, start, step, join, width, self.ways, rounds, rolled, wide)

    def inside(self, around: Point, taken: Sequence[graph.Value], offset: Value | None, count: Value | None) -> Point:
        """A point in a loop, at which earlier passes have left values at ``offset`` of scratch."""
        loaded = {v: self.builder.load(self.scratch[v], offset, self.lanes) for v in taken if offset is not None}
        return around.nested(self.lanes, count, loaded)

    def save(self, point: Point, values: Sequence[graph.Value], at: Coordinates, offset: Value | None) -> None:
        for v in values:
            if offset is not None:
                self.builder.store(self.scratch[v], offset, self.builder.splat(point.value(v, at), self.lanes))

    def write(self, results: Sequence[int], points: Sequence[Point], places: Sequence[Coordinates]) -> None:
        """Computes results and stores them, everything before anything, since memory may be shared."""
        region = self.plan.region
        computed = [[p.value(region.results[i], at) for i in results] for p, at in zip(points, places, strict=True)]
        for values, point, at in zip(computed, points, places, strict=True):
            for i, value in zip(results, values, strict=True):
                type_ = region.results[i].type
                where = at if i in self.plan.full else kept_index(self.plan.type, self.plan.axes, type_.shape, at)
                point.store(self.evaluator.result(i), self.evaluator.address(type_, where, point.lanes), value)

    def write_kept(self, points: Sequence[Point], places: Sequence[Coordinates]) -> None:
        region, plan = self.plan.region, self.plan
        computed = []
        for point, at in zip(points, places, strict=True):
            for i in plan.kept:
                v = region.results[i]
                where = kept_index(plan.type, plan.axes, v.shape, at)
                computed.append((i, v, point, where, point.value(v, where)))
        for i, v, point, where, value in computed:
            point.store(self.evaluator.result(i), self.evaluator.address(v.type, where, point.lanes), value)


class Rows(Cells):
    """Cells whose elements lie side by side in memory, in as many places as other reduced dimensions say."""

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        """One row."""
        plan = self.plan
        kept = self.kept_indices(outer, plan.sizes(reduced=False))
        point = self.evaluator.point()
        at = self.at(kept, [Index()] * len(plan.sizes(reduced=True)))
        for level, folds in enumerate(self.folds):
            states = self.states(point, kept, level, folds)
            totals = [f.result(self.builder, f.across(self.builder, s)) for f, s in zip(folds, states, strict=True)]
            point = point.nested(overrides={f.node.result: t for f, t in zip(folds, totals, strict=True)})
        if plan.full:
            self._walk(point, kept)
        self.write_kept([point], [at])

    def _offset(self, position: Value, flat: Value | None) -> Value:
        b = self.builder
        last = self._split()[1]
        if flat is None:
            return position
        return b.add(b.mul(flat, b.index(ceil_divide(last, self.lanes) * self.lanes)), position)

    def _split(self) -> tuple[list[Dim], Dim]:
        *outer, last = self.plan.sizes(reduced=True) or [1]
        return outer, last

    def states(self, point: Point, kept: Sequence[Index], level: int, folds: Sequence[Fold]) -> list[State]:
        """What a row is folded to, lanes apart."""
        return self.fold(point, kept, level, folds, 0, self.plan.domain)

    def fold(
        self,
        point: Point,
        kept: Sequence[Index],
        level: int,
        folds: Sequence[Fold],
        low: Value | int,
        high: Value | Dim,
    ) -> list[State]:
        outer, last = self._split()
        operands = [f.node.operands[0] for f in folds]
        taken, saved = self.plan.taken[level], self.plan.saved[level]

        def across(around: Point, flat: Value | None, q: Sequence[Index]) -> Tree:
            self.hoist(around, operands, kept, [*q, replace(FUTURE, lane=1)])

            def step(cells: Rows, position: Value, count: Value | None, state: State) -> State:
                offset = self._offset(position, flat) if taken or saved else None
                inner = cells.inside(around, taken, offset, count)
                index = cells.lane_index(position, last)
                at = cells.at(kept, [*q, index])
                place = cells.evaluator.vector(index, cells.lanes)
                states = cells.advance(folds, inner, at, place, regrouped(folds, state))
                cells.save(inner, saved, at, offset)
                return flattened(states)

            # instruction by instruction for all accumulators: one chain after another would fill the schedulers
            even = self.ways & (self.ways - 1) == 0
            wide = partial(step, replace(self, lanes=self.lanes * self.ways)) if even else None
            work = self.plan.work[level]
            return self.tree(folds, partial(step, self), self.lanes, work=work, wide=wide)

        if not outer:
            return regrouped(folds, replace(across(point, None, []), levels=self.levels).fold(low, high))

        def row(position: Value, count: Value | None, state: State) -> State:
            tree = across(point.nested(), position, self.reduced_indices(position, outer))
            return tree.join(state, tree.fold(0, last))

        return regrouped(folds, replace(self.tree(folds, row, 1), ways=1, levels=self.levels).fold(low, high))

    def _walk(self, point: Point, kept: Sequence[Index]) -> None:
        """Writes the results of the whole shape."""
        b, plan = self.builder, self.plan
        outer, last = self._split()
        results, taken = [plan.region.results[i] for i in plan.full], plan.taken[-1]

        def across(around: Point, flat: Value | None, q: Sequence[Index]) -> None:
            self.hoist(around, results, kept, [*q, replace(FUTURE, lane=1)])

            def body(position: Value, vectors: int, count: Value | None) -> None:
                cells = replace(self, lanes=self.lanes * vectors)
                offset = self._offset(position, flat) if taken else None
                inner = cells.inside(around, taken, offset, count)
                cells.write(plan.full, [inner], [cells.at(kept, [*q, cells.lane_index(position, last)])])

            together = side_by_side(plan.work[-1], last, self.lanes)
            tile_loop(b, 0, last, self.lanes, together, body)

        if not outer:
            across(point, None, [])
            return
        with b.loop(0, b.index(product(outer)), name="q") as loop:
            across(point.nested(), loop.index, self.reduced_indices(loop.index, outer))
            loop.yield_()


class Columns(Cells):
    """Cells of neighbours in memory that belong to different results."""

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        """The columns low..high."""
        kept = self.kept_indices(outer, self.plan.sizes(reduced=False)[:-1])

        def tile(position: Value, vectors: int, count: Value | None) -> None:
            replace(self, vectors=vectors).cell(kept, position, count)

        tile_loop(self.builder, low, high, self.lanes, self.vectors, tile)

    def places(
        self, kept: Sequence[Index], position: Value, count: Value | None
    ) -> tuple[list[Point], list[list[Index]]]:
        """The points of a cell, and the index of each kept run at them."""
        last = self.plan.sizes(reduced=False)[-1]
        starts = [self.builder.add(position, t * self.lanes) for t in range(self.vectors)]
        points = [self.evaluator.point(self.lanes, count) for _ in starts]
        return points, [[*kept, self.lane_index(start, last)] for start in starts]

    def cell(self, kept: Sequence[Index], position: Value, count: Value | None) -> None:
        """Some vectors of columns, from ``position`` on."""
        b, plan = self.builder, self.plan
        points, columns = self.places(kept, position, count)
        places = [self.at(column, [Index()] * len(plan.sizes(reduced=True))) for column in columns]
        for level, folds in enumerate(self.folds):
            states = self.states(points, columns, level, folds)
            for t, point in enumerate(points):
                mine = states[t * len(folds) : (t + 1) * len(folds)]
                totals = {f.node.result: f.result(b, s) for f, s in zip(folds, mine, strict=True)}
                points[t] = point.nested(self.lanes, count, totals)
        if plan.full:
            self.walk(points, columns, 0, plan.folded)
        self.write_kept(points, places)

    def _offset(self, position: Value, t: int) -> Value:
        b = self.builder
        return b.add(b.mul(position, self.vectors * self.lanes), t * self.lanes)

    def states(
        self, points: Sequence[Point], columns: Sequence[Sequence[Index]], level: int, folds: Sequence[Fold]
    ) -> list[State]:
        """What columns are folded to."""
        return self.fold(points, columns, level, folds, 0, self.plan.domain)

    def fold(
        self,
        points: Sequence[Point],
        columns: Sequence[Sequence[Index]],
        level: int,
        folds: Sequence[Fold],
        low: Value | int,
        high: Value | Dim,
        length: int | None = None,
    ) -> list[State]:
        """The rows low..high, ``length`` of them if that is known."""
        sizes = self.plan.sizes(reduced=True)
        taken, saved = self.plan.taken[level], self.plan.saved[level]
        for point, column in zip(points, columns, strict=True):
            self.hoist(point, [f.node.operands[0] for f in folds], column, [FUTURE] * len(sizes))

        def step(position: Value, count: Value | None, state: State) -> State:
            reduced = self.reduced_indices(position, sizes)
            states = regrouped(folds, state)
            result: list[State] = []
            for t, (point, column) in enumerate(zip(points, columns, strict=True)):
                offset = self._offset(position, t) if taken or saved else None
                inner = self.inside(point, taken, offset, point.count)
                at = self.at(column, reduced)
                mine = states[t * len(folds) : (t + 1) * len(folds)]
                result += self.advance(folds, inner, at, position, mine)
                self.save(inner, saved, at, offset)
            return flattened(result)

        tree = self.tree(folds, step, 1, work=self.plan.work[level])
        return regrouped(folds, replace(tree, levels=self.levels).fold(low, high, length))

    def walk(
        self, points: Sequence[Point], columns: Sequence[Sequence[Index]], low: Value | int, high: Value | Dim
    ) -> None:
        """Writes the results of the whole shape in the rows low..high."""
        plan = self.plan
        sizes = plan.sizes(reduced=True)
        taken = plan.taken[-1]
        with self.builder.loop(low, self.builder.index(high), name="q") as loop:
            reduced = self.reduced_indices(loop.index, sizes)
            inner = [
                self.inside(p, taken, self._offset(loop.index, t) if taken else None, p.count)
                for t, p in enumerate(points)
            ]
            self.write(plan.full, inner, [self.at(column, reduced) for column in columns])
            loop.yield_()
