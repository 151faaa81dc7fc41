"""The schedule of maps and movement: one pass over the memory of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from types import MappingProxyType

from passes.fusion_groups import weight
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.ir.types import Layout, TensorType
from tgc.kernels.access import FUTURE, Evaluator, Point
from tgc.kernels.access_conditional import Guard, both, chosen
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import Grid, ceil_divide
from tgc.kernels.indices import Index, inner
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.spaces import Axis, Pattern, Walk, joined, loop_indices, memory_walk, pattern
from tgc.kernels.squares import transposed
from tgc.kernels.transposition import Transposition
from tgc.kernels.vector_loop import region_lanes, side_by_side, vector_loop
from tgc.ops import rules
from tgc.target import Target

CHUNK_NANOSECONDS = 6000.0
MOST_PIECES = 6
MOST_COPIES = 120  # instructions that cutting the vector axis may add
NOTHING: Mapping[int, tuple[Buffer, Value]] = MappingProxyType({})


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """Kernels for a region without an anchor: one, or one for each layout with margins or tiles among the results."""
    stages = []
    for k, group in enumerate(_grouped(region)):
        stages.append(_lower_group(region, group, name if k == 0 else f"{name}_{k}", target, table))
    return Lowering(tuple(stages))


def _grouped(region: Graph) -> list[list[int]]:
    """Results that one walk can write: the elements of a margin or a rest are written by a walk of their own layout."""
    plain: list[int] = []
    special: dict[object, list[int]] = {}
    for i, v in enumerate(region.results):
        layout = v.type.layout
        if layout is not None and (layout.tiles or layout.margins):
            special.setdefault((layout, v.shape), []).append(i)
        else:
            plain.append(i)
    groups = list(special.values())
    if not groups:
        return [plain]
    groups[0] += [i for i in plain if region.results[i].shape == region.results[groups[0][0]].shape]
    rest = [i for i in plain if i not in groups[0]]
    return [*groups, rest] if rest else groups


def element_cost(region: Graph, target: Target) -> float:
    """Rough nanoseconds for one element of a pointwise pass."""
    shape = region.results[0].shape
    moved = sum(v.dtype.itemsize for v in (*region.parameters, *region.results) if v.shape == shape)
    instructions = sum(weight(node) for node in region.nodes() if node.types[0].shape == shape)
    return 0.01 + 0.015 * moved + 0.25 * instructions / region_lanes(region, target)


def chunk_elements(cost: float) -> int:
    """How many elements of that cost make an iteration that is worth a thread's while, as a power of two."""
    return int(2 ** min(15, max(10, round(log2(CHUNK_NANOSECONDS / max(cost, 1e-3))))))


def _lower_group(region: Graph, group: Sequence[int], name: str, target: Target, table: OpTable) -> Stage:
    results = [region.results[i] for i in group]
    main = _main_type(region, results)
    walk = memory_walk(main)
    accesses = pattern([(v, walk.at) for v in results], table)
    numbers = [Index(((n, 1),)) for n in range(len(walk.sizes))]
    stores = tuple([store_offset(v.type, main, walk, numbers) for v in results])
    pinned = accesses.pinned | {n for d in walk.open for n, _ in walk.at[d].terms}
    axes = joined(walk.sizes, Pattern(accesses.offsets + stores, frozenset(pinned)))
    cost = element_cost(region, target)
    lanes = region_lanes(region, target, accesses.uniform(axes[-1].loops)) if axes else 1
    written = list(zip(group, results, stores, strict=True))
    turned = None if walk.open else Transposition.of(axes, accesses, lanes, written)
    if turned is None:
        grid = Grid.over([axis.size for axis in axes], chunk_elements(cost))
    else:
        sizes = [axis.size for axis in axes]
        sizes[turned.axis] = ceil_divide(sizes[turned.axis], turned.side)
        cost *= turned.side
        grid = Grid.over(sizes, chunk_elements(cost))
    b = KernelBuilder(name, count=grid.count)
    evaluator = Evaluator(b, region, table)
    for i in range(len(region.parameters)):
        evaluator.parameter(i)
    for i in group:
        evaluator.result(i)
    work = sum(weight(node) for node in region.nodes())
    light = target.masked and work <= 6
    cuts = _cuts(axes, accesses)
    # the body is repeated in each piece
    cuts = cuts if work * len(cuts) <= MOST_COPIES else ()
    if turned is None and not walk.open and _straight(region, axes, accesses):
        lanes *= side_by_side(work, axes[-1].size, lanes)
    walk_pass = _Pass(evaluator, walk, main, axes, group, lanes, 4 if light else 1, cuts)
    if turned is None:
        grid.emit(b, walk_pass.run)
    else:
        grid.emit(b, _Turned(walk_pass, turned, straight=work * turned.side <= MOST_COPIES).run)
    return Stage(b.finish(), grid.cost(cost))


def _straight(region: Graph, axes: Sequence[Axis], accesses: Pattern) -> bool:
    """Whether everything lies side by side along the vector axis, or is the same all along it."""
    if not axes or accesses.pinned or accesses.cuts:
        return False
    if any(v.type.layout is not None and v.type.layout.tiles for v in (*region.parameters, *region.results)):
        return False
    return all(dict(offset.terms).get(axes[-1].loops[-1], 0) in (0, 1) for offset in accesses.offsets)


def _main_type(region: Graph, results: Sequence[graph.Value]) -> TensorType:
    """In whose memory to walk: what has margins or tiles, else the order in which the most bytes lie."""
    first = results[0].type
    if first.layout is not None and (first.layout.tiles or first.layout.margins):
        return first
    weights: dict[tuple[int, ...], int] = {first.order: 0}
    for v in (*results, *region.parameters):
        if v.shape == first.shape:
            weights[v.type.order] = weights.get(v.type.order, 0) + v.dtype.itemsize
    return first.with_layout(Layout(max(weights, key=weights.__getitem__)))


def _cuts(axes: Sequence[Axis], accesses: Pattern) -> tuple[int, ...]:
    """Where the vector axis is cut, so that in each piece it is known which operand of a concatenation is read."""
    if not axes or len(axes[-1].loops) != 1 or not isinstance(axes[-1].size, int):
        return ()
    (loop,), size = axes[-1].loops, axes[-1].size
    cuts = sorted({place for number, place in accesses.cuts if number == loop and 0 < place < size})
    return tuple(cuts) if len(cuts) < MOST_PIECES else ()


def store_offset(type_: TensorType, main: TensorType, walk: Walk, loops: Sequence[Index]) -> Index:
    """Where the walk over the memory of ``main`` finds its place in a buffer of ``type_``."""
    if type_.layout == main.layout:
        return inner(loops, walk.strides)
    return inner(walk.placed(loops), type_.strides)


@dataclass(frozen=True)
class _Pass:
    """What happens in the innermost axis: load, compute everything, and only then store, since memory may be shared."""

    evaluator: Evaluator
    walk: Walk
    main: TensorType
    axes: Sequence[Axis]
    group: Sequence[int]
    lanes: int
    unroll: int
    cuts: tuple[int, ...] = ()

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        evaluator = self.evaluator
        indices = [evaluator.index(v, bound=a.size) for v, a in zip(outer, self.axes[:-1], strict=True)]
        top = evaluator.point()
        if not self.axes:
            self.element(top, [])
            return
        future = self.loops([*indices, replace(FUTURE, lane=1)])
        # outside of the value nothing may be read before that is known
        for i in () if self.walk.open else self.group:
            top.hoist(evaluator.region.results[i], self.walk.placed(future))

        b, size, cuts = evaluator.builder, self.axes[-1].size, self.cuts
        for start, end in zip((0, *cuts), (*cuts, size), strict=True):
            # a piece begins anywhere, so that only without cuts positions are multiples of the vector
            within = (start, end - 1) if cuts and isinstance(end, int) else None

            def body(v: Value, count: Value | None, within: tuple[int, int] | None = within) -> None:
                step = 1 if within else self.lanes
                index = evaluator.index(v, lane=1, bound=size, step=step, within=within)
                self.element(top.nested(self.lanes, count), [*indices, index])

            if within and not (isinstance(low, int) and isinstance(high, int)):
                first, last = b.maximum(b.index(low), start), b.minimum(b.index(high), b.index(end))
                vector_loop(b, first, last, self.lanes, body, unroll=self.unroll)
            elif within:
                vector_loop(b, start, end, self.lanes, body, unroll=self.unroll)
            else:
                vector_loop(b, low, high, self.lanes, body, unroll=self.unroll)

    def loops(self, indices: Sequence[Index]) -> list[Index]:
        return loop_indices(self.axes, indices, len(self.walk.sizes))

    def element(
        self, point: Point, indices: Sequence[Index], aside: Mapping[int, tuple[Buffer, Value]] = NOTHING
    ) -> None:
        """The results at one place. Those that are put ``aside`` go to a buffer and an offset of it instead."""
        evaluator, b = self.evaluator, self.evaluator.builder
        loops = self.loops(indices)
        at = self.walk.placed(loops)
        results = evaluator.region.results
        inside = Guard()
        for d in self.walk.open:
            number = point.number(at[d])
            inside = both(b, inside, b.compare("ge", number, 0))
            inside = both(b, inside, b.compare("lt", number, b.index(results[self.group[0]].shape[d])))
        values = [point.value(results[i], at, inside) for i in self.group]
        for i, value in zip(self.group, values, strict=True):
            type_ = results[i].type
            if i in aside:
                buffer, place = aside[i]
                b.store(buffer, place, b.splat(value, point.lanes))
                continue
            offset = store_offset(type_, self.main, self.walk, loops)
            if type_.layout == self.main.layout:
                for condition in inside:
                    if condition is not None:
                        value = chosen(b, condition, value, b.constant(0, type_.dtype))
                point.store(evaluator.result(i), offset, value)
            else:
                point.store(evaluator.result(i), offset, value, inside)


@dataclass(frozen=True)
class _Turned:
    """A pass in square tiles, for what is contiguous along another axis than the one that vectors go along.

    What comes after a tile in the source is prefetched, since the hardware keeps up with few streams at a time: that,
    and rows that never leave the registers, take a third off a transpose of images (280 us to 195).

    ``straight``: whether the rows of a tile follow each other as code, as far as it has them all.
    """

    base: _Pass
    turned: Transposition
    straight: bool

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        base, side, axis = self.base, self.turned.side, self.turned.axis
        evaluator, b, axes = base.evaluator, base.evaluator.builder, base.axes
        first = b.mul(outer[axis], side)
        rows = b.minimum(b.sub(b.index(axes[axis].size), first), side)
        indices = [evaluator.index(v, bound=a.size) for v, a in zip(outer, axes[:-1], strict=True)]
        whole = isinstance(axes[axis].size, int) and axes[axis].size % side == 0
        straight = self.straight and not self.turned.results
        leaves = () if straight and whole else self.turned.leaves
        scratch = [b.scratch(f"tile{k}", v.dtype, side * side) for k, (v, _) in enumerate(leaves)]
        types = {i: evaluator.region.results[i].type for i in self.turned.results}
        aside = {i: b.scratch(f"turned{i}", type_.dtype, side * side) for i, type_ in types.items()}
        top = evaluator.point()
        ahead = [*indices, replace(FUTURE, lane=1)]
        ahead[axis] = FUTURE.scaled(axes[-1].size)
        future = base.loops(ahead)
        for i in base.group:
            top.hoist(evaluator.region.results[i], base.walk.placed(future))

        def body(v: Value, count: Value | None) -> None:
            columns = []
            for leaf, offset in self.turned.leaves:
                self._prefetch(indices, first, v, leaf, offset)
                columns.append(transposed(b, self._rows(indices, first, rows, v, count, leaf, offset)))

            def row(r: Value | int, found: Sequence[Value], tiles: Mapping[int, tuple[Buffer, Value]]) -> None:
                place = [*indices, evaluator.index(v, lane=1, bound=axes[-1].size, step=side)]
                place[axis] = evaluator.index(b.add(first, r), bound=axes[axis].size)
                loops = base.loops(place)
                loaded = {
                    (_buffer(evaluator, leaf), _substituted(offset, loops)): value
                    for (leaf, offset), value in zip(self.turned.leaves, found, strict=True)
                }
                base.element(top.nested(side, count).given(loaded), place, tiles)

            def looped() -> None:
                for tile, column in zip(scratch, columns, strict=True):
                    for r in range(side):
                        b.store(tile, r * side, column[r])
                with b.loop(0, rows, name="r") as loop:
                    start = b.mul(loop.index, side)
                    found = [b.load(tile, start, side) for tile in scratch]
                    row(loop.index, found, {i: (tile, start) for i, tile in aside.items()})
                    loop.yield_()

            def unrolled() -> None:
                for r in range(side):
                    row(r, [column[r] for column in columns], NOTHING)

            if not straight:
                looped()
            elif whole:
                unrolled()
            else:
                with b.if_(b.compare("ge", rows, side)) as branch:
                    unrolled()
                with branch.otherwise():
                    looped()
            for i, tile in aside.items():
                self._store(indices, first, rows, v, count, i, tile)

        vector_loop(b, low, high, side, body)

    def _prefetch(self, indices: Sequence[Index], first: Value, v: Value, leaf: graph.Value, offset: Index) -> None:
        """What follows the tile in the leaf's memory: no prefetcher of the hardware keeps up with so many lines."""
        base, side, axis = self.base, self.turned.side, self.turned.axis
        evaluator, b = base.evaluator, base.evaluator.builder
        for j in range(side):
            place = [*indices, evaluator.index(b.add(v, j))]
            place[axis] = evaluator.index(b.add(first, side))
            b.prefetch(_buffer(evaluator, leaf), evaluator.scalar(_substituted(offset, base.loops(place))))

    def _rows(
        self,
        indices: Sequence[Index],
        first: Value,
        rows: Value,
        v: Value,
        count: Value | None,
        leaf: graph.Value,
        offset: Index,
    ) -> list[Value]:
        """The rows of a tile as the leaf has them in memory; beyond the last one, that one again."""
        base, side, axis = self.base, self.turned.side, self.turned.axis
        evaluator, b, axes = base.evaluator, base.evaluator.builder, base.axes
        whole = axes[axis].size % side == 0
        point = evaluator.point(side, None if whole else rows)
        result = []
        for j in range(side):
            position = b.add(v, j) if count is None else b.add(v, b.minimum(b.sub(count, 1), j))
            place = [*indices, evaluator.index(position)]
            place[axis] = evaluator.index(first, lane=1)
            result.append(point.load(_buffer(evaluator, leaf), _substituted(offset, base.loops(place))))
        return result

    def _store(
        self,
        indices: Sequence[Index],
        first: Value,
        rows: Value,
        v: Value,
        count: Value | None,
        i: int,
        tile: Buffer,
    ) -> None:
        """A result's tile, in rows as the result has them in memory."""
        base, side, axis = self.base, self.turned.side, self.turned.axis
        evaluator, b, axes = base.evaluator, base.evaluator.builder, base.axes
        whole = axes[axis].size % side == 0
        type_ = evaluator.region.results[i].type
        columns = transposed(b, [b.load(tile, r * side, side) for r in range(side)])
        for j, column in enumerate(columns):
            place = [*indices, evaluator.index(b.add(v, j))]
            place[axis] = evaluator.index(first, lane=1)
            wanted = None if whole else rows
            if count is not None:
                wanted = b.select(b.compare("gt", count, j), b.index(side) if whole else rows, b.index(0))
            offset = store_offset(type_, base.main, base.walk, base.loops(place))
            evaluator.point(side, wanted).store(evaluator.result(i), offset, column)


def _buffer(evaluator: Evaluator, leaf: graph.Value) -> Buffer:
    return evaluator.parameter(rules.integer(leaf.node.attributes, "index"))


def _substituted(offset: Index, loops: Sequence[Index]) -> Index:
    return inner([loops[n] for n, _ in offset.terms], [c for _, c in offset.terms], offset.constant)
