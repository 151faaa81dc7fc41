"""Packing the filter of a convolution into panels [group, panel, tap, input channel, lane].

Filters lie tap by tap, and input channel by input channel: what follows each other there is read along and turned in
registers, in blocks of whole cache lines on either side, so that both are gone through once, in a few streams.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tgc.dtypes import i64, u64
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.convolution_plan import Plan
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import ZERO
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Stage
from tgc.kernels.sliding import looked_up
from tgc.kernels.squares import square_size, transposed

# elements of a run, and channels, that are fetched ahead: packing goes at the pace at which the filter arrives
_RUN_AHEAD, _CHANNELS_AHEAD = 128, 2
# input channels that one iteration packs
_CHANNELS = 32


def packing_stage(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """The kernel that packs: an iteration takes some input channels of one panel."""
    sizes = [plan.groups, plan.panels, ceil_divide(plan.inputs, _CHANNELS)]
    b = KernelBuilder(name, count=product(sizes), noalias=True)
    packed = b.buffer("t0", plan.dtype, plan.packed.size, "write")
    packer = FilterPacker(plan, Evaluator(b, region, table), packed, _CHANNELS)
    group, panel, piece = unflattened(b, b.iteration, sizes)
    target = b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size))
    low = b.mul(piece, _CHANNELS)
    packer.pack(group, panel, low, b.minimum(b.add(low, _CHANNELS), b.index(plan.inputs)), target)
    return Stage(b.finish(), 20 + _CHANNELS * plan.taps * plan.shape.width // 8)


class FilterPacker:
    """Emits code that packs a filter into ``packed``, at most ``channels`` input channels of a panel at a time."""

    def __init__(self, plan: Plan, evaluator: Evaluator, packed: Buffer, channels: Dim) -> None:
        self.plan = plan
        self.evaluator = evaluator
        self.builder = evaluator.builder
        self.packed = packed
        self.filter = evaluator.parameter(plan.filter)
        self.type = evaluator.region.parameters[plan.filter].type
        self.size = square_size(plan.shape.lanes)
        # elements of the shortest run: squares that would reach beyond its end are moved back if it has them
        self.shortest: Dim = plan.taps
        if not plan.transposed:
            rest = plan.inputs % channels if isinstance(channels, int) else plan.inputs
            self.shortest = (channels if rest == 0 else rest) * plan.taps

    def pack(self, group: Value, panel: Value, low: Value, high: Value, target: Value) -> None:
        """Input channels ``low`` to ``high`` of one panel, which begins at ``target``."""
        plan = self.plan
        row_major = self.type.layout is None
        in_order = all(list(axis.order) == sorted(axis.order, reverse=plan.transposed) for axis in plan.axes)
        contiguous_lanes = plan.transposed and plan.taps == 1
        if row_major and in_order and not contiguous_lanes and not plan.depthwise and self.size > 1:
            self._by_squares(group, panel, low, high, target)
        else:
            self._by_vectors(group, panel, low, high, target)

    def _by_squares(self, group: Value, panel: Value, low: Value, high: Value, target: Value) -> None:
        b, plan = self.builder, self.plan
        taps = plan.taps
        first = b.mul(panel, plan.shape.width)
        # distances between neighbouring lanes and between input channels of the filter
        across, along = (taps, plan.outputs * taps) if plan.transposed else (plan.inputs * taps, taps)
        origin = b.add(
            b.mul(group, b.index(plan.inputs * plan.outputs * taps)),
            b.add(b.mul(first, b.index(across)), b.mul(low, b.index(along))),
        )
        if not plan.transposed:
            start = b.mul(low, taps)

            def row(r: Value) -> Value:
                if taps == 1:
                    return b.add(low, r)
                number = b.add(start, r)
                # fewer instructions without a sign
                channel = b.convert(b.floor_divide(b.convert(number, u64), taps), i64)
                tap = b.sub(number, b.mul(channel, taps))
                return self._row(tap, channel)

            ahead = b.index(_RUN_AHEAD)
            self._run(first, origin, b.index(across), b.mul(b.sub(high, low), taps), target, row, ahead)
            return
        with b.loop(low, high, name="channel") as loop:
            source = b.add(origin, b.mul(b.sub(loop.index, low), b.index(along)))

            def mirrored(r: Value) -> Value:
                return self._row(b.sub(b.index(taps - 1), r), loop.index)

            ahead = b.index(along * _CHANNELS_AHEAD)
            self._run(first, source, b.index(across), b.index(taps), target, mirrored, ahead)

    def _row(self, tap: Value, channel: Value) -> Value:
        """The row of a panel that holds an input channel of a tap."""
        b, plan = self.builder, self.plan
        return b.add(b.mul(tap, b.index(plan.tap_pitch)), channel)

    def _run(
        self,
        first: Value,
        source: Value,
        across: Value,
        length: Value,
        target: Value,
        row: Callable[[Value], Value],
        ahead: Value,
    ) -> None:
        """``length`` elements from ``source`` on, of every lane of a panel; element r becomes row ``row(r)`` of it."""
        b, plan, size, lanes = self.builder, self.plan, self.size, self.plan.shape.lanes
        columns = b.minimum(b.sub(b.index(plan.outputs), first), plan.shape.width)
        exact = isinstance(plan.outputs, int) and plan.outputs % size == 0
        movable = isinstance(self.shortest, int) and self.shortest >= size
        whole = isinstance(self.shortest, int) and self.shortest % size == 0 and _CHANNELS % size == 0

        def square(column: Value, r: Value) -> None:
            if movable and not whole:
                r = b.minimum(r, b.sub(length, size))
            left = None if movable else b.sub(length, r)
            values = []
            for j in range(size):
                # beyond the last lane that one again
                lane = b.add(column, j)
                lane = lane if exact else b.minimum(lane, b.sub(columns, 1))
                offset = b.add(b.add(source, b.mul(across, lane)), r)
                b.prefetch(self.filter, b.add(offset, ahead))
                values.append(b.convert(b.load(self.filter, offset, size, count=left), plan.dtype))
            turned = transposed(b, values)
            # from the last to the first, so that what lies beyond the run is overwritten
            for j in reversed(range(size)):
                at = b.add(r, j if left is None else b.minimum(b.sub(left, 1), j))
                b.store(self.packed, b.add(b.add(target, b.mul(row(at), plan.shape.width)), column), turned[j])

        with (
            b.loop(0, columns, lanes, name="vector") as vector,
            b.loop(0, length, lanes, name="line") as line,
            b.loop(vector.index, b.minimum(b.add(vector.index, lanes), columns), size, name="column") as column,
            b.loop(line.index, b.minimum(b.add(line.index, lanes), length), size, name="element") as element,
        ):
            square(column.index, element.index)

    def _by_vectors(self, group: Value, panel: Value, low: Value, high: Value, target: Value) -> None:
        """Vectors along the lanes, wherever those lie in the filter."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        counts = [len(axis.order) for axis in plan.axes]
        lanes = plan.shape.lanes
        with b.loop(0, prod(counts), name="tap") as tap, b.loop(low, high, name="channel") as loop:
            places = unflattened(b, tap.index, counts)
            taps = [evaluator.index(looked_up(b, p, axis.order)) for p, axis in zip(places, plan.axes, strict=True)]
            start = b.add(target, b.mul(self._row(tap.index, loop.index), plan.shape.width))
            for v in range(plan.shape.vectors):
                column = b.add(b.mul(panel, plan.shape.width), v * lanes)
                wide = evaluator.index(column, lane=1)
                single = evaluator.index(loop.index)
                if plan.transposed:
                    first, second = evaluator.index(group).scaled(plan.inputs).plus(single), wide
                else:
                    first, second = evaluator.index(group).scaled(plan.outputs).plus(wide), single
                if plan.depthwise:
                    first, second = wide, ZERO
                point = evaluator.point(lanes, b.sub(b.index(plan.outputs), column))
                value = point.load(self.filter, evaluator.address(self.type, (first, second, *taps), lanes))
                b.store(self.packed, b.add(start, v * lanes), b.convert(b.splat(value, lanes), plan.dtype))
