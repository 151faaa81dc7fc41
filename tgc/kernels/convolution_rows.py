"""The schedule of convolutions with few channels in a group, depthwise ones above all, in row-major images.

The channels of a group fill no vector, and to bring those of many groups side by side an image must be turned round
and back, which costs several times the nine multiply-adds of a depthwise 3 x 3 filter. Here neighbouring columns of
the result lie in the lanes: images are read and written as they are.

An iteration copies the rows that a block of the result meets to scratch, with their border of zeros, so that no tap
tests for a border, and columns that a stride keeps apart are parted, so that every tap loads one vector, unaligned. A
tile is some rows by a vector, or a row by some vectors; what is loaded serves all rows that it meets. A 3 x 3 filter
over eight rows takes 30 loads for 72 multiply-adds, which set the pace beside the memory: 32 channels of 112 x 112
take 105 us of which 63 are multiply-adds, turned round and back 320. Rows of 7 columns, in vectors of 16, are even.

The order of the sum: input channels, then taps by increasing place in the source, outermost dimension first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from math import prod

from tgc.dtypes import bool_
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
from tgc.kernels.sliding import Phase, Sliding, forward
from tgc.kernels.tile import product_sum
from tgc.kernels.vector_loop import tile_loop, vector_loop
from tgc.target import Target

# multiply-adds of one vector of sums, and of a tile, which are one stretch of code
_MOST_PRODUCTS = 128
_MOST_CODE = 256
_MOST_PHASES = 8
# sums of a tile: enough to hide the latency of multiply-adds; more would save few loads
_MOST_SUMS = 8
_LATENCY = 4
# columns that one block takes if there are more of them
_LONGEST_ROW = 1024
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
    return Lowering((_Rows(plan, region, name, target, table).stage(),))


@dataclass(frozen=True, slots=True)
class _Tap:
    """Tap ``number`` of the filter, ``place`` after the first one that any phase meets."""

    place: int
    number: int


def _taps(axis: Sliding, phase: Phase) -> list[_Tap]:
    return [_Tap(phase.first - axis.low + j * axis.tap_step, axis.order[phase.start + j]) for j in range(phase.count)]


def _block(positions: Dim, most: int, unit: int) -> int:
    """Positions of one block, a multiple of ``unit``: ``most``, or as many as make blocks of similar size."""
    if not isinstance(positions, int):
        return most
    pieces = max(1, -(-positions // most))
    return max(1, -(-positions // (pieces * unit))) * unit


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


@dataclass(frozen=True, slots=True)
class _Span:
    """Positions ``low`` to ``high`` of a line of the patch lie in the image, position 0 being its ``column``."""

    column: Value
    low: Value | int
    high: Value | int


class _Rows:
    """An iteration makes a block of rows of one image, for the outputs of some groups."""

    def __init__(self, plan: Plan, region: Graph, name: str, target: Target, table: OpTable) -> None:
        self.plan = plan
        self.lanes = lanes = target.lanes(plan.dtype)
        self.inputs, outputs = evaluate(plan.inputs, {}), evaluate(plan.outputs, {})
        self.groups, self.outputs = (outputs, 1) if plan.depthwise else (plan.groups, outputs)
        # a line is an image of one row
        self.axes = plan.axes if len(plan.axes) > 1 else (forward(1, 1, 1, 1, 0, 1), *plan.axes)
        *self.outer, self.rows, self.columns = self.axes
        products = self.inputs * plan.taps
        self.height, self.vectors = _tile(self.rows, self.columns, products, target.vector_registers, lanes)
        self.wide = _block(self.columns.positions, _LONGEST_ROW, lanes)
        # a row of the patch: the columns of each residue of the stride, the first real one where a vector begins
        self.lead = self.columns.low // self.columns.in_step % lanes
        self.reach = -(-self.columns.extent(self.wide) // self.columns.in_step)
        self.pitch = -(-(self.lead + self.reach) // lanes) * lanes
        self.line = self.pitch * self.columns.in_step
        layers = self.inputs * prod(axis.span for axis in self.outer)
        fitting = target.l1_bytes // 2 // (layers * self.line * plan.dtype.itemsize)
        most = (fitting - self.rows.span) // self.rows.in_step + 1
        self.high = _block(self.rows.positions, max(most // self.height, 1) * self.height, self.height)
        extents = [*(axis.span for axis in self.outer), self.rows.extent(self.high)]
        self.extents = (self.inputs, *extents)
        elements = self.outputs * products * self.high * self.wide + 4 * prod(self.extents) * self.line
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
        self.patch = b.scratch("patch", plan.dtype, prod(self.extents) * self.line + 2 * lanes)

    def stage(self) -> Stage:
        b = self.builder
        image, item, *blocks = unflattened(b, b.iteration, self.sizes)
        sizes = [*(1 for _ in self.outer), self.high, self.wide]
        starts = [b.mul(block, size) for block, size in zip(blocks, sizes, strict=True)]
        first = b.mul(item, self.together)
        last = b.minimum(b.add(first, self.together), self.groups)
        with b.loop(first, last, name="group") as group:
            self._fill(image, group.index, starts)
            with b.loop(0, self.outputs, name="output") as output:
                place = _Place(image, group.index, output.index, tuple(starts))
                factors = self._factors(place)
                for phases in combinations(*(range(len(axis.phases)) for axis in self.axes)):
                    self._phase(place, phases, factors)
        return Stage(b.finish(), self.nanoseconds * self.together)

    # -- the patch -------------------------------------------------------------------------------------------------

    def _fill(self, image: Value, group: Value, starts: Sequence[Value]) -> None:
        """Copies what the block meets: a line for each row of each channel, its columns by their residue."""
        b = self.builder
        step, width = self.columns.in_step, self.plan.source.shape[-1]
        origins = [b.add(b.mul(s, a.in_step), a.low) for s, a in zip(starts, self.axes, strict=True)]
        # the columns of each residue that lie inside of the image
        spans: list[_Span] = []
        for residue in range(step):
            if isinstance(width, int) and self.sizes[-1] == 1:
                column = self.columns.low + residue
                low = min(max(-(column // step), 0), self.reach)
                spans.append(_Span(b.index(column), low, max(min(-((column - width) // step), self.reach), low)))
            else:
                place = b.add(origins[-1], residue)
                least = b.floor_divide(b.sub(step - 1, place), step)
                most = b.floor_divide(b.add(b.sub(b.index(width), place), step - 1), step)
                first = b.minimum(b.maximum(least, 0), self.reach)
                spans.append(_Span(place, first, b.maximum(b.minimum(most, self.reach), first)))
        self._lines(image, b.mul(group, self.inputs), origins, spans, [])

    def _lines(
        self, image: Value, channel: Value, origins: Sequence[Value], spans: Sequence[_Span], at: list[Value]
    ) -> None:
        """A loop for each coordinate of a line: its input channel, then its rows."""
        b = self.builder
        if len(at) < len(self.extents):
            with b.loop(0, self.extents[len(at)], name="line") as loop:
                self._lines(image, channel, origins, spans, [*at, loop.index])
            return
        number = at[0]
        for index, extent in zip(at[1:], self.extents[1:], strict=True):
            number = b.add(b.mul(number, extent), index)
        places = [b.add(o, p) for o, p in zip(origins, at[1:], strict=False)]
        inside = b.constant(True, bool_)
        for place, axis in zip(places, self.axes, strict=False):
            inside = b.bit_and(inside, b.compare("ge", place, 0))
            inside = b.bit_and(inside, b.compare("lt", place, b.index(axis.source)))
        # a line has no coordinate for its only row
        places = places[len(self.axes) - len(self.plan.axes) :]
        start = b.add(b.mul(number, self.line), self.lead)
        with b.if_(inside) as branch:
            for residue, span in enumerate(spans):
                self._copy((image, b.add(channel, at[0]), *places), b.add(start, residue * self.pitch), span)
        with branch.otherwise():
            for residue in range(len(spans)):
                self._zero(b.add(start, residue * self.pitch), 0, self.reach)

    def _copy(self, at: Sequence[Value], start: Value, span: _Span) -> None:
        """One residue of a line, with its border."""
        b, evaluator, plan = self.builder, self.evaluator, self.plan
        step, low, high = self.columns.in_step, span.low, span.high
        rows = tuple([evaluator.index(place) for place in at])

        def copy(q: Value, count: Value | None) -> None:
            column = evaluator.index(b.add(b.mul(q, step), span.column), lane=step)
            found = evaluator.point(self.lanes, count).value(plan.source, (*rows, column))
            b.store(self.patch, b.add(start, q), b.convert(b.splat(found, self.lanes), plan.dtype))

        self._zero(start, 0, low)
        known = (high - low) // self.lanes if isinstance(low, int) and isinstance(high, int) else 2
        vector_loop(b, low, high, self.lanes, copy, unroll=max(1, min(known, _MOST_SUMS)))
        self._zero(start, high, self.reach)

    def _zero(self, start: Value, low: Value | int, high: Value | int) -> None:
        """Zeros from one column to another, and up to a vector beyond: what follows is written later."""
        b = self.builder
        with b.loop(low, high, self.lanes, name="zero") as loop:
            b.store(self.patch, b.add(start, loop.index), b.constant(0, self.plan.dtype, self.lanes))

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

    def _phase(self, at: _Place, phases: tuple[int, ...], factors: dict[tuple[int, ...], Value]) -> None:
        """All tiles of a block for one phase."""
        b = self.builder
        limits: list[Value | int] = []
        sizes = [*(1 for _ in self.outer), self.high, self.wide]
        for axis, phase, start, size in zip(self.axes, phases, at.starts, sizes, strict=True):
            positions = ceil_divide(axis.result - phase, axis.out_step)
            if isinstance(positions, int) and isinstance(axis.positions, int) and axis.positions <= size:
                limits.append(max(positions, 0))
            else:
                limits.append(b.maximum(b.minimum(b.sub(b.index(positions), start), size), 0))
        *outer, down, across = limits
        # an image of which an outer dimension has no position of this phase has no rows either
        for limit in outer:
            down = b.mul(b.index(down), limit)
        whole = b.mul(b.floor_divide(b.index(down), self.height), self.height)
        if isinstance(down, int):
            whole = b.index(down // self.height * self.height)
        tile = _Tile(self, at, phases, factors)

        def strips(low: Value | int, high: Value | int, height: int) -> None:
            with b.loop(low, high, height, name="row") as row:
                tile_loop(
                    b,
                    0,
                    across,
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
    """The tiles of one phase: their sums, and what the region computes of these."""

    schedule: _Rows
    at: _Place
    phases: tuple[int, ...]
    factors: Mapping[tuple[int, ...], Value]

    def emit(self, row: Value, height: int, column: Value, vectors: int, count: Value | None) -> None:
        """Some rows by some vectors, of which a single one may be partial."""
        sums = self._sums(row, height, column, vectors)
        for (r, v), value in sums.items():
            self._finish(row, r, column, v, count, value)

    def _sums(self, row: Value, height: int, column: Value, vectors: int) -> dict[tuple[int, int], Value]:
        schedule = self.schedule
        b, lanes, plan = schedule.builder, schedule.lanes, schedule.plan
        taps = [_taps(axis, axis.phases[phase]) for axis, phase in zip(schedule.axes, self.phases, strict=True)]
        down, across = taps[-2:]
        base = b.add(b.mul(row, schedule.rows.in_step * schedule.line), b.add(column, schedule.lead))
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
                line = channel
                for place, extent in zip((*(t.place for t in layer), s), schedule.extents[1:], strict=True):
                    line = line * extent + place
                shift, residue = divmod(tap.place, schedule.columns.in_step)
                offset = b.add(base, line * schedule.line + residue * schedule.pitch + shift)
                for v in range(vectors):
                    loaded = b.load(schedule.patch, b.add(offset, v * lanes), lanes)
                    for r, t in met[s]:
                        factor = self.factors[channel, *(o.number for o in layer), t.number, tap.number]
                        sums[r, v] = product_sum(b, loaded, factor, sums[r, v])
        return sums

    def _finish(self, row: Value, r: int, column: Value, v: int, count: Value | None, value: Value) -> None:
        """Stores every result of the region for one vector of sums."""
        schedule, at = self.schedule, self.at
        b, plan, evaluator = schedule.builder, schedule.plan, schedule.evaluator
        positions = [
            *at.starts[:-2],
            b.add(b.add(at.starts[-2], row), r),
            b.add(b.add(at.starts[-1], column), v * schedule.lanes),
        ]
        places = [
            evaluator.index(p).scaled(axis.out_step).shifted(phase)
            for p, axis, phase in zip(positions, schedule.axes, self.phases, strict=True)
        ]
        places[-1] = places[-1].plus(Index(lane=schedule.columns.out_step))
        spatial = places[len(schedule.axes) - len(plan.axes) :]
        channel = evaluator.index(at.group).scaled(schedule.outputs).plus(evaluator.index(at.output))
        place = (evaluator.index(at.image), channel, *spatial)
        anchor = plan.anchor.result
        point = evaluator.point(schedule.lanes, count, {anchor: b.convert(value, anchor.dtype)})
        # every result is computed before any is stored: a result may be stored over a parameter
        computed = [point.value(result, place) for result in evaluator.region.results]
        for i, (result, found) in enumerate(zip(evaluator.region.results, computed, strict=True)):
            point.store(evaluator.result(i), evaluator.address(result.type, place, schedule.lanes), found)
