"""The schedule of convolutions with few channels in a group, depthwise ones above all, in row-major images.

The channels of a group fill no vector, and to bring those of many groups side by side an image must be turned round
and back, which costs several times the nine multiply-adds of a depthwise 3 x 3 filter. Here neighbouring columns of
the result lie in the lanes: images are read and written as they are.

An iteration copies the rows that a block of the result meets to scratch, with their border of zeros, so that no tap
tests for a border, and columns that a stride keeps apart are parted, so that every tap loads one vector, unaligned. A
tile is some rows by a vector, or a row by some vectors; what is loaded serves all rows that it meets. A 3 x 3 filter
over eight rows takes 30 loads for 72 multiply-adds, which set the pace beside the memory: 32 channels of 112 x 112
take 105 us of which 63 are multiply-adds, turned round and back 320. Rows of 7 columns, in vectors of 16, are even.
The two phases of an input gradient with stride 2 are interleaved before they are stored: scattered they took 660 us
where that takes 126.

The order of the sum: input channels, then taps by increasing place in the source, outermost dimension first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product as combinations
from math import prod

from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.convolution_plan import Plan
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.row_patch import RowPatch, even_block, line_elements, row_block, with_rows
from tgc.kernels.sliding import Phase, Sliding
from tgc.kernels.tile import product_sum
from tgc.kernels.vector_loop import tile_loop
from tgc.target import Target

# multiply-adds of one vector of sums, and of a tile, which are one stretch of code
_MOST_PRODUCTS = 128
_MOST_CODE = 256
_MOST_PHASES = 8
# sums of a tile: enough to hide the latency of multiply-adds; more would save few loads
_MOST_SUMS = 8
_LATENCY = 4
# nanoseconds that make an iteration worth a thread's while
_ITERATION = 4000


def takes(plan: Plan, region: Graph) -> bool:
    """Whether a convolution, or its input gradient, should go row by row: few channels in row-major images."""
    outputs = 1 if plan.depthwise else plan.outputs
    if not isinstance(plan.inputs, int) or not isinstance(outputs, int) or 2 * outputs > plan.shape.lanes:
        return False
    if plan.inputs * plan.taps > _MOST_PRODUCTS or plan.phases > _MOST_PHASES:
        return False
    # by the types, not by what they are computed from: what joins a kernel changes no bits
    types = [v.type for v in (plan.source, *region.results)]
    return all(t.order[-1] == t.rank - 1 and (t.layout is None or not t.layout.tiles) for t in types)


def lower(plan: Plan, region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of such a convolution, with its epilogue."""
    return Lowering((_Rows(plan, region, f"{name}_rows", target, table).stage(),))


@dataclass(frozen=True, slots=True)
class _Tap:
    """Tap ``number`` of the filter, ``place`` after the first one that any phase meets."""

    place: int
    number: int


def _taps(axis: Sliding, phase: Phase) -> list[_Tap]:
    return [_Tap(phase.first - axis.low + j * axis.tap_step, axis.order[phase.start + j]) for j in range(phase.count)]


def _tile(rows: Sliding, columns: Sliding, products: int, registers: int, lanes: int) -> tuple[int, int]:
    """Rows and vectors of a tile: what loads and multiplies least, rows that are left over included."""
    # factors stay in registers too, if there is room for them
    free = registers - 4 - (products if 2 * products <= registers else 0)
    most = max(1, min(_MOST_SUMS, free, _MOST_CODE // products))
    across = ceil_divide(columns.positions, lanes)
    down = rows.positions if isinstance(rows.positions, int) else _MOST_SUMS

    def work(height: int, vectors: int) -> int:
        loads = ((height - 1) * rows.in_step + rows.span) * len(columns.order)
        return max(height * vectors, _LATENCY) * products + loads * vectors

    best: tuple[float, int, int] | None = None
    for height in range(1, min(most, max(down, 1)) + 1):
        widest = most // height
        vectors = max(1, min(widest, across)) if isinstance(across, int) else widest
        time = (down // height * work(height, vectors) + down % height * work(1, vectors)) / vectors
        if best is None or (time, -height) < best[:2]:
            best = (time, -height, vectors)
    return (-best[1], best[2]) if best else (1, 1)


class _Rows:
    """An iteration makes a block of rows of one image, for the outputs of some groups."""

    def __init__(self, plan: Plan, region: Graph, name: str, target: Target, table: OpTable) -> None:
        self.plan = plan
        self.lanes = lanes = target.lanes(plan.dtype)
        self.inputs, outputs = evaluate(plan.inputs, {}), evaluate(plan.outputs, {})
        self.groups, self.outputs = (outputs, 1) if plan.depthwise else (plan.groups, outputs)
        self.axes = with_rows(plan.axes)
        *self.outer, self.rows, self.columns = self.axes
        products = self.inputs * plan.taps
        self.height, self.vectors = _tile(self.rows, self.columns, products, target.vector_registers, lanes)
        self.wide = row_block(self.columns, lanes)
        layers = self.inputs * prod(axis.span for axis in self.outer)
        line = line_elements(self.columns, self.wide, lanes)
        fitting = target.l1_bytes // 2 // (layers * line * plan.dtype.itemsize)
        most = (fitting - self.rows.span) // self.rows.in_step + 1
        self.high = even_block(self.rows.positions, max(most // self.height, 1) * self.height, self.height)
        lines = layers * self.rows.extent(self.high)
        elements = self.outputs * products * self.high * self.wide + 4 * lines * line
        self.nanoseconds = 100 + elements // lanes // 4
        self.together = max(1, min(self.groups, _ITERATION // self.nanoseconds))
        self.sizes: list[Dim] = [
            plan.source.shape[0],
            -(-self.groups // self.together),
            *(axis.positions for axis in self.outer),
            ceil_divide(self.rows.positions, self.high),
            ceil_divide(self.columns.positions, self.wide),
        ]
        self.builder = b = KernelBuilder(name, count=product(self.sizes))
        self.evaluator = Evaluator(b, region, table)
        self.patch = RowPatch.declare(
            self.evaluator, plan.source, self.axes, self.inputs, self.high, self.wide, plan.dtype, lanes
        )

    def stage(self) -> Stage:
        b = self.builder
        image, item, *blocks = unflattened(b, b.iteration, self.sizes)
        sizes = [*(1 for _ in self.outer), self.high, self.wide]
        starts = [b.mul(block, size) for block, size in zip(blocks, sizes, strict=True)]
        first = b.mul(item, self.together)
        last = b.minimum(b.add(first, self.together), self.groups)
        with b.loop(first, last, name="group") as group:
            self.patch.fill(image, b.mul(group.index, self.inputs), starts)
            with b.loop(0, self.outputs, name="output") as output:
                place = _Place(image, group.index, output.index, tuple(starts))
                factors = self._factors(place)
                *rows, columns = (range(len(axis.phases)) for axis in self.axes)
                # two phases side by side are brought together in registers
                for across in [tuple(columns)] if len(columns) == 2 else [(phase,) for phase in columns]:
                    for phases in combinations(*rows):
                        self._phase(place, phases, across, factors)
        return Stage(b.finish(), self.nanoseconds * self.together)

    # -- the sum ---------------------------------------------------------------------------------------------------

    def _factors(self, at: _Place) -> dict[tuple[int, ...], Value]:
        """The filter of one output, each number in every lane, by input channel and tap."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        type_ = evaluator.region.parameters[plan.filter].type
        buffer = evaluator.parameter(plan.filter)
        group, output = evaluator.index(at.group), evaluator.index(at.output)
        found = {}
        for channel, *taps in combinations(range(self.inputs), *(range(len(a.order)) for a in self.axes)):
            single = Index(constant=channel)
            if plan.transposed:
                ends = (group.scaled(self.inputs).plus(single), output)
            else:
                ends = (group.scaled(self.outputs).plus(output), single)
            numbers = [Index(constant=t) for t in taps[len(self.axes) - len(plan.axes) :]]
            offset = evaluator.scalar(evaluator.address(type_, (*ends, *numbers), 1))
            found[(channel, *taps)] = b.splat(b.convert(b.load(buffer, offset), plan.dtype), self.lanes)
        return found

    def _phase(
        self, at: _Place, phases: tuple[int, ...], across: tuple[int, ...], factors: Mapping[tuple[int, ...], Value]
    ) -> None:
        """All tiles of a block for one phase of the rows, and one or two of the columns."""
        b = self.builder
        limits: list[Value | int] = []
        sizes = [*(1 for _ in self.outer), self.high, self.wide]
        for axis, phase, start, size in zip(self.axes, (*phases, across[0]), at.starts, sizes, strict=True):
            positions = ceil_divide(axis.result - phase, axis.out_step)
            if isinstance(positions, int) and isinstance(axis.positions, int) and axis.positions <= size:
                limits.append(max(positions, 0))
            else:
                limits.append(b.maximum(b.minimum(b.sub(b.index(positions), start), size), 0))
        *outer, down, width = limits
        # an image of which an outer dimension has no position of this phase has no rows either
        for limit in outer:
            down = b.mul(b.index(down), limit)
        whole = b.mul(b.floor_divide(b.index(down), self.height), self.height)
        if isinstance(down, int):
            whole = b.index(down // self.height * self.height)
        tile = _Tile(self, at, phases, across, factors)

        def strips(low: Value | int, high: Value | int, height: int) -> None:
            with b.loop(low, high, height, name="row") as row:
                tile_loop(
                    b,
                    0,
                    width,
                    self.lanes,
                    self.vectors,
                    lambda column, vectors, count: tile.emit(row.index, height, column, vectors, count),
                )

        strips(0, whole, self.height)
        if not isinstance(down, int) or down % self.height:
            strips(whole, down, 1)


@dataclass(frozen=True, slots=True)
class _Place:
    """What the tiles of one output share: the block's first position along each axis among it."""

    image: Value
    group: Value
    output: Value
    starts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class _Tile:
    """The tiles of one phase of the rows, and one or two of the columns: their sums, and what is computed of these."""

    schedule: _Rows
    at: _Place
    phases: tuple[int, ...]
    across: tuple[int, ...]
    factors: Mapping[tuple[int, ...], Value]

    def emit(self, row: Value, height: int, column: Value, vectors: int, count: Value | None) -> None:
        """Some rows by some vectors, of which a single one may be partial."""
        schedule = self.schedule
        b, lanes = schedule.builder, schedule.lanes
        found = [self._sums(row, height, column, vectors, phase) for phase in self.across]
        for r, v in found[0]:
            position = b.add(b.add(self.at.starts[-1], column), v * lanes)
            first = b.mul(position, schedule.columns.out_step)
            if len(found) == 1:
                step = schedule.columns.out_step
                self._finish(row, r, Index(lane=step).plus(self._index(first, self.across[0])), count, found[0][r, v])
                continue
            pair = found[0][r, v], found[1][r, v]
            # the second phase may have a position less
            whole = count is None and schedule.columns.result % 2 == 0
            left = None if whole else b.sub(b.index(schedule.columns.result), first)
            for half in range(2):
                mixed = b.shuffle(*pair, [k // 2 + half * lanes // 2 + k % 2 * lanes for k in range(lanes)])
                real = left if left is None else b.sub(left, half * lanes)
                self._finish(row, r, Index(lane=1).plus(self._index(first, half * lanes)), real, mixed)

    def _index(self, value: Value, by: int) -> Index:
        return self.schedule.evaluator.index(value).shifted(by)

    def _sums(self, row: Value, height: int, column: Value, vectors: int, phase: int) -> dict[tuple[int, int], Value]:
        schedule = self.schedule
        b, lanes, plan = schedule.builder, schedule.lanes, schedule.plan
        phases = (*self.phases, phase)
        taps = [_taps(axis, axis.phases[f]) for axis, f in zip(schedule.axes, phases, strict=True)]
        down, across = taps[-2:]
        base = schedule.patch.position(row, column)
        sums = {(r, v): b.constant(0, plan.dtype, lanes) for r in range(height) for v in range(vectors)}
        step = schedule.rows.in_step
        met = {
            s: [(r, t) for r in range(height) for t in down if r * step + t.place == s]
            for s in range((height - 1) * step + schedule.rows.span)
        }
        for channel, layer in combinations(range(schedule.inputs), combinations(*taps[:-2])):
            for s, tap in combinations(met, across):
                if not met[s]:
                    continue
                offset = b.add(base, schedule.patch.offset(channel, [*(t.place for t in layer), s], tap.place))
                for v in range(vectors):
                    loaded = b.load(schedule.patch.buffer, b.add(offset, v * lanes), lanes)
                    for r, t in met[s]:
                        factor = self.factors[channel, *(o.number for o in layer), t.number, tap.number]
                        sums[r, v] = product_sum(b, loaded, factor, sums[r, v])
        return sums

    def _finish(self, row: Value, r: int, column: Index, count: Value | None, value: Value) -> None:
        """Stores every result of the region for one vector of sums."""
        schedule, at = self.schedule, self.at
        b, plan, evaluator = schedule.builder, schedule.plan, schedule.evaluator
        positions = [*at.starts[:-2], b.add(b.add(at.starts[-2], row), r)]
        places = [
            evaluator.index(p).scaled(axis.out_step).shifted(phase)
            for p, axis, phase in zip(positions, schedule.axes, self.phases, strict=False)
        ]
        places.append(column)
        spatial = places[len(schedule.axes) - len(plan.axes) :]
        channel = evaluator.index(at.group).scaled(schedule.outputs).plus(evaluator.index(at.output))
        place = (evaluator.index(at.image), channel, *spatial)
        anchor = plan.anchor.result
        point = evaluator.point(schedule.lanes, count, {anchor: b.convert(value, anchor.dtype)})
        # every result is computed before any is stored: a result may be stored over a parameter
        computed = [point.value(result, place) for result in evaluator.region.results]
        for i, (result, found) in enumerate(zip(evaluator.region.results, computed, strict=True)):
            point.store(evaluator.result(i), evaluator.address(result.type, place, schedule.lanes), found)
