"""Packing the filter of a convolution into panels [group, panel, tap, input channel, lane]."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tgc.ir.dims import product
from tgc.ir.graph import Graph
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.convolution_plan import Plan
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import ZERO
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Stage
from tgc.kernels.sliding import looked_up
from tgc.kernels.squares import square_size, transposed

# input channels that one iteration packs; a multiple of every square's size
_CHANNELS = 8


def packing_stage(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """The kernel that packs: an iteration takes a tap, or some input channels, of one panel."""
    row_major = region.parameters[plan.filter].type.layout is None
    in_order = all(list(axis.order) == sorted(axis.order, reverse=plan.transposed) for axis in plan.axes)
    contiguous_lanes = plan.transposed and plan.taps == 1
    if row_major and in_order and not contiguous_lanes and not plan.depthwise and square_size(plan.shape.lanes) > 1:
        return _by_squares(plan, region, name, table)
    return _by_vectors(plan, region, name, table)


def _by_squares(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """Filters lie tap by tap: what is read along the taps (and the input channels, where those follow) is
    transposed."""
    sizes = [plan.groups, plan.panels, ceil_divide(plan.inputs, _CHANNELS)]
    b = KernelBuilder(name, count=product(sizes), noalias=True)
    evaluator = Evaluator(b, region, table)
    packed = b.buffer("t0", plan.dtype, plan.packed.size, "write")
    filter_ = evaluator.parameter(plan.filter)
    group, panel, piece = unflattened(b, b.iteration, sizes)
    taps, width = plan.taps, plan.shape.width
    # few taps waste little of small squares
    size = square_size(plan.shape.lanes) if taps == 1 else 4
    target = b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size))
    first = b.mul(panel, width)
    low = b.mul(piece, _CHANNELS)
    high = b.minimum(b.add(low, _CHANNELS), b.index(plan.inputs))
    # distances between neighbouring lanes and between input channels of the filter
    across, along = (taps, plan.outputs * taps) if plan.transposed else (plan.inputs * taps, taps)
    origin = b.add(
        b.mul(group, b.index(plan.inputs * plan.outputs * taps)),
        b.add(b.mul(first, b.index(across)), b.mul(low, b.index(along))),
    )
    columns = b.sub(b.index(plan.outputs), first)
    exact = isinstance(plan.outputs, int) and plan.outputs % size == 0

    def square(source: Value, column: Value, run: Value, left: Value, place: Callable[[Value], Value]) -> None:
        """Some lanes of what follows each other from ``source`` on; element ``run`` is row ``place(run)`` of the
        panel."""
        last = b.sub(b.sub(columns, column), 1)
        rows = []
        for j in range(size):
            # beyond the last lane that one again
            lane = b.index(j) if exact else b.minimum(last, j)
            offset = b.add(source, b.mul(b.index(across), lane))
            rows.append(b.convert(b.load(filter_, offset, size, count=left), plan.dtype))
        turned = transposed(b, rows)
        # from the last to the first, so that what lies beyond the run is overwritten
        for j in reversed(range(size)):
            row = place(b.add(run, b.minimum(b.sub(left, 1), j)))
            b.store(packed, b.add(b.add(target, b.mul(row, width)), column), turned[j])

    with b.loop(0, b.minimum(columns, width), size, name="column") as column:
        start = b.add(origin, b.mul(column.index, b.index(across)))
        if taps == 1:
            with b.loop(0, b.sub(high, low), size, name="channel") as channel:
                left = b.sub(b.sub(high, low), channel.index)
                square(b.add(start, channel.index), column.index, channel.index, left, lambda r: b.add(low, r))
        else:
            with b.loop(0, b.sub(high, low), name="channel") as channel, b.loop(0, taps, size, name="tap") as tap:

                def place(r: Value) -> Value:
                    tap_ = b.sub(b.index(taps - 1), r) if plan.transposed else r
                    return b.add(b.mul(tap_, b.index(plan.inputs)), b.add(low, channel.index))

                source = b.add(b.add(start, b.mul(channel.index, b.index(along))), tap.index)
                square(source, column.index, tap.index, b.sub(b.index(taps), tap.index), place)
    return Stage(b.finish(), 20 + _CHANNELS * taps * width // 4)


def _by_vectors(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """Vectors along the lanes, wherever those lie in the filter."""
    counts = [len(axis.order) for axis in plan.axes]
    b = KernelBuilder(name, count=plan.panels * (plan.groups * prod(counts)))
    evaluator = Evaluator(b, region, table)
    packed = b.buffer("t0", plan.dtype, plan.packed.size, "write")
    group, panel, *positions = unflattened(b, b.iteration, [plan.groups, plan.panels, *counts])
    taps = [evaluator.index(looked_up(b, p, axis.order)) for p, axis in zip(positions, plan.axes, strict=True)]
    filter_ = evaluator.parameter(plan.filter)
    type_ = region.parameters[plan.filter].type
    start = b.mul(b.iteration, b.index(plan.inputs * plan.shape.width))
    lanes = plan.shape.lanes
    with b.loop(0, plan.inputs, name="channel") as loop:
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
            value = point.load(filter_, evaluator.address(type_, (first, second, *taps), lanes))
            offset = b.add(b.add(start, b.mul(loop.index, plan.shape.width)), v * lanes)
            b.store(packed, offset, b.convert(b.splat(value, lanes), plan.dtype))
    return Stage(b.finish(), 20 + plan.inputs * (10 * plan.shape.vectors))
