"""The schedule of a convolution's filter gradient: register tiles whose sum runs over the positions of the result.

Output channels lie in the lanes; the rows of a tile are taps and input channels, which lie side by side in a patch of
the input. Where there are panels of output channels enough, an iteration sums one of them, [tap, input channel, lane],
in scratch that stays in a second-level cache, and turns it round into the filter: a filter is as large as it is, so to
write it once, not three times, took 512 channels over 7 x 7 from 49 to 71 % of the peak. Otherwise blocks of positions
are divided into a fixed number of parts, each summed into panels of its own, and a second kernel adds the parts in
order, so that results do not depend on the threads. What is computed from the gradient (a step of the optimizer, often)
is a pass of its own, along the memory of the filter.

The order of the sum: blocks of a part in order, by image, positions by row; blocks are summed by themselves first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from passes.base import substitute
from tgc.dtypes import i64
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph, Node, parameter
from tgc.ir.opdef import OpTable
from tgc.kernels import filter_gradient_rows, pointwise
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.filter_gradient_plan import Plan, plan_filter_gradient
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.operands import is_parameter, parameter_buffer
from tgc.kernels.patches import Patch
from tgc.kernels.squares import square_size, transposed
from tgc.kernels.tile import accumulate, product_sum, zeros
from tgc.ops import rules
from tgc.target import Target

# input channels that one iteration of the second kernel adds
_CHANNELS = 8
# elements of a filter that are fetched before they are written: a result arrives as an operand does
_AHEAD = 128


def lower(region: Graph, anchor: Node, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernels of a filter gradient with its epilogue."""
    plan = plan_filter_gradient(anchor, target)
    groups = rules.integer(anchor.attributes, "groups")

    def summing(result: str) -> Lowering:
        if filter_gradient_rows.takes(anchor, plan.axes, groups, target):
            return filter_gradient_rows.lower(
                region, anchor, plan.axes, groups, buffer=result, name=f"{name}_rows", target=target, table=table
            )
        if plan.parts == 1:
            return Lowering((_Sum(plan, region, name, table, result).stage(),))
        parts = _Sum(plan, region, f"{name}_parts", table).stage()
        return Lowering((parts, _combining(plan, name, result)), {"t0": plan.partial})

    if region.results == (anchor.result,) and anchor.result.type.layout is None:
        return summing("r0")
    # the epilogue goes along the filter's own memory, with the gradient as one more parameter
    number = len(region.parameters)
    gradient = parameter(number, anchor.result.type)
    results = substitute(Builder(table), region.results, {anchor.result: gradient})
    rest = Graph((*region.parameters, gradient), results)
    sums = summing(f"p{number}")
    temporaries = {**sums.temporaries, f"p{number}": Temporary(gradient.dtype, gradient.type.buffer_size)}
    epilogue = pointwise.lower(rest, name=f"{name}_epilogue", target=target, table=table)
    return Lowering((*sums.stages, *epilogue.stages), temporaries)


class _Sum:
    """The kernel that sums: an iteration takes one part of the blocks for one panel of output channels.

    If there is one part only, it writes the panel to ``result``; else to its place among the partial ones.
    """

    def __init__(self, plan: Plan, region: Graph, name: str, table: OpTable, result: str | None = None) -> None:
        self.plan = plan
        self.sizes: list[Dim] = [plan.parts, plan.groups, plan.panels]
        self.builder = KernelBuilder(name, count=product(self.sizes), noalias=True)
        self.evaluator = Evaluator(self.builder, region, table)
        self.total: Buffer | None = None
        if result is None:
            self.partial = self.builder.buffer("t0", plan.dtype, plan.partial.size, "readwrite")
        else:
            self.partial = self.builder.scratch("panel", plan.dtype, plan.panel_size)
            self.total = _result(self.builder, plan, result)
        extents = [axis.extent(size) for axis, size in zip(plan.axes, plan.block, strict=True)]
        lanes, width = plan.shape.lanes, plan.shape.width
        channels = width if plan.depthwise else plan.inputs
        # the last tile's rows reach beyond the last element
        self.patch = Patch.declare(self.evaluator, "patch", extents, channels, plan.dtype, lanes, plan.shape.rows)
        self.errors_type = type_ = plan.gradient.type
        exact = isinstance(plan.outputs, int) and plan.outputs % width == 0
        tiled = type_.layout is not None and bool(type_.layout.tiles)
        # vectors of the result's gradient are read where they lie if that is what they are
        self.errors: Patch | None = None
        in_place = is_parameter(plan.gradient) and type_.strides[1] == 1 and type_.dtype is plan.dtype
        if not in_place or tiled or not exact:
            self.errors = Patch.declare(self.evaluator, "errors", plan.block, width, plan.dtype, lanes)

    def stage(self) -> Stage:
        b, plan = self.builder, self.plan
        part, group, panel = unflattened(b, b.iteration, self.sizes)
        start = b.mul(b.iteration, b.index(plan.panel_size)) if self.total is None else b.index(0)
        lanes = plan.shape.lanes
        if plan.places == 1:
            zero = b.index(0)
            self._block(zero, group, panel, [zero] * len(plan.axes), start)
        else:
            with b.loop(0, plan.panel_size, lanes, name="clear") as clear:
                b.store(self.partial, b.add(start, clear.index), b.constant(0, plan.dtype, lanes))
            places = b.index(plan.places)
            low = b.floor_divide(b.mul(places, part), plan.parts)
            high = b.floor_divide(b.mul(places, b.add(part, 1)), plan.parts)
            with b.loop(low, high, name="block") as block:
                image, *blocks = unflattened(b, block.index, [plan.image.shape[0], *plan.blocks])
                self._block(image, group, panel, blocks, start)
        if self.total is not None:
            _turned(b, plan, self.partial, self.total, group, panel, b.index(0), b.index(plan.inputs))
        flops = plan.inputs * (2 * prod(plan.block) * plan.shape.width * prod(len(a.order) for a in plan.axes))
        return Stage(b.finish(), 50 + flops * ceil_divide(plan.places, plan.parts) // 60)

    def _block(self, image: Value, group: Value, panel: Value, blocks: list[Value], start: Value) -> None:
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        starts = [b.mul(block, size) for block, size in zip(blocks, plan.block, strict=True)]
        origins = [b.add(b.mul(s, axis.in_step), axis.low) for s, axis in zip(starts, plan.axes, strict=True)]
        column = b.mul(panel, plan.shape.width)
        exact = isinstance(plan.outputs, int) and plan.outputs % plan.shape.width == 0
        have = None if exact else b.minimum(b.sub(b.index(plan.outputs), column), plan.shape.width)
        wide = evaluator.index(group).scaled(plan.outputs).plus(evaluator.index(column))
        narrow = evaluator.index(group).scaled(plan.inputs)
        self.patch.fill(
            evaluator,
            plan.image,
            image,
            wide if plan.depthwise else narrow,
            origins,
            have=have if plan.depthwise else None,
        )
        if self.errors is not None:
            self.errors.fill(evaluator, plan.gradient, image, wide, starts, have=have)
            errors = b.index(0)
        else:
            at = (evaluator.index(image), wide, *(evaluator.index(start) for start in starts))
            errors = evaluator.scalar(evaluator.address(self.errors_type, at, 1))
        limits = [
            b.minimum(b.sub(b.index(axis.positions), s), size)
            for axis, s, size in zip(plan.axes, starts, plan.block, strict=True)
        ]
        taps = plan.outer_taps
        with b.loop(0, prod(taps), name="tap") as tap:
            source = b.index(0)
            places = unflattened(b, tap.index, taps) if taps else []
            for place, axis, stride in zip(places, plan.axes, self.patch.strides(), strict=False):
                source = b.add(source, b.mul(b.mul(place, axis.tap_step), b.index(stride)))
            target = b.add(start, b.mul(tap.index, b.index(plan.padded_rows * plan.shape.width)))
            with b.loop(0, plan.rows, plan.shape.rows, name="row") as row:
                here = b.add(target, b.mul(row.index, plan.shape.width))
                self._tile(b.add(source, row.index), errors, here, limits)

    def _tile(self, source: Value, errors: Value, target: Value, limits: list[Value]) -> None:
        b, shape = self.builder, self.plan.shape
        sums = self._over_positions(source, errors, limits, zeros(b, shape, self.plan.dtype))
        for i, value in enumerate(sums):
            at = b.add(target, i * shape.lanes)
            before = () if self.plan.places == 1 else (b.load(self.partial, at, shape.lanes),)
            b.store(self.partial, at, b.add(*before, value) if before else value)

    def _over_positions(
        self, source: Value, errors: Value, limits: list[Value], sums: Sequence[Value]
    ) -> tuple[Value, ...]:
        """The sums over a block's positions, given the places of its first one in both patches."""
        b, plan = self.builder, self.plan
        shape = plan.shape
        d = len(plan.axes) - len(limits)
        step = b.index(self.patch.strides()[d] * plan.axes[d].in_step)
        pitch = b.index(self.errors.strides()[d] if self.errors is not None else self.errors_type.strides[d + 2])
        buffer = self.errors.buffer if self.errors is not None else parameter_buffer(self.evaluator, plan.gradient)
        count, *rest = limits
        if rest:
            with b.loop(0, count, carried=list(sums), name=f"position{d}") as loop:
                there = b.add(source, b.mul(loop.index, step))
                loop.yield_(*self._over_positions(there, b.add(errors, b.mul(loop.index, pitch)), rest, loop.carried))
            return tuple(loop.results)

        def read_row(r: int, k: Value) -> Value:
            return b.load(self.patch.buffer, b.add(b.add(source, b.mul(k, step)), r))

        def read_vectors(k: Value) -> list[Value]:
            at = b.add(errors, b.mul(k, pitch))
            return [b.load(buffer, b.add(at, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]

        if not plan.depthwise:
            return accumulate(b, shape, count, sums, read_row, read_vectors)
        with b.loop(0, count, carried=list(sums), name="position") as loop:
            at = b.add(source, b.mul(loop.index, step))
            values = [b.load(self.patch.buffer, b.add(at, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]
            pairs = zip(values, read_vectors(loop.index), loop.carried, strict=True)
            loop.yield_(*(product_sum(b, x, y, total) for x, y, total in pairs))
        return tuple(loop.results)


def _combining(plan: Plan, name: str, result: str) -> Stage:
    """The kernel that adds the parts, in order, to a row-major filter: an iteration takes some channels of a panel."""
    sizes: list[Dim] = [plan.groups, plan.panels, ceil_divide(plan.inputs, _CHANNELS)]
    b = KernelBuilder(name, count=product(sizes), noalias=True)
    partial = b.buffer("t0", plan.dtype, plan.partial.size, "read")
    total = _result(b, plan, result)
    group, panel, piece = unflattened(b, b.iteration, sizes)
    low = b.mul(piece, _CHANNELS)
    high = b.minimum(b.add(low, _CHANNELS), b.index(plan.inputs))
    _turned(b, plan, partial, total, group, panel, low, high)
    taps = prod(len(axis.order) for axis in plan.axes)
    return Stage(b.finish(), 20 + _CHANNELS * taps * plan.shape.width * plan.parts // 8)


def _result(b: KernelBuilder, plan: Plan, name: str) -> Buffer:
    """The row-major filter's gradient."""
    taps = prod(len(axis.order) for axis in plan.axes)
    return b.buffer(name, plan.anchor.result.dtype, plan.outputs * plan.inputs * (plan.groups * taps), "write")


def _turned(
    b: KernelBuilder, plan: Plan, partial: Buffer, total: Buffer, group: Value, panel: Value, low: Value, high: Value
) -> None:
    """Writes the input channels from ``low`` to ``high`` of one panel: its parts, added.

    Panels have output channels in the lanes, filters their taps: squares are transposed. Some lanes are written from
    one end to the other before the next, since as many streams as a square has are as many as a cache follows.
    """
    taps, width = prod(len(axis.order) for axis in plan.axes), plan.shape.width
    source = b.index(0)
    if partial.access != "scratch":
        source = b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size))
    first = b.mul(panel, width)
    columns = b.minimum(b.sub(b.index(plan.outputs), first), width)
    size = square_size(plan.shape.lanes)
    exact_columns = isinstance(plan.outputs, int) and plan.outputs % size == 0
    exact_rows = isinstance(plan.inputs, int) and plan.inputs % _CHANNELS == 0
    # where the elements of some channels lie in a panel, in the order of the filter
    places = b.scratch("places", i64, _CHANNELS * taps)
    with b.loop(0, _CHANNELS, name="channel") as channel, b.loop(0, taps, name="tap") as tap:
        at = b.add(b.mul(channel.index, taps), tap.index)
        b.store(places, at, b.mul(_row_of(b, plan, channel.index, tap.index), width))
    with (
        b.loop(0, columns, size, name="column") as column,
        b.loop(low, high, _CHANNELS, name="piece") as piece,
        b.loop(0, b.mul(b.minimum(b.sub(high, piece.index), _CHANNELS), taps), size, name="row") as rows,
    ):
        start = b.add(b.add(source, b.mul(piece.index, width)), column.index)
        left = b.sub(b.mul(b.sub(high, piece.index), taps), rows.index)

        def added(j: int) -> Value:
            # beyond the last element that one again
            step = b.index(j) if exact_rows else b.minimum(b.sub(left, 1), j)
            at = b.add(start, b.load(places, b.add(rows.index, step)))
            value = b.load(partial, at, size)
            for _ in range(1, plan.parts):
                at = b.add(at, b.index(plan.panel_size * plan.panels * plan.groups))
                value = b.add(value, b.load(partial, at, size))
            return value

        square = [added(j) for j in range(size)]
        output = b.add(b.add(b.mul(group, b.index(plan.outputs)), first), column.index)
        target = b.mul(b.add(b.mul(output, b.index(plan.inputs)), piece.index), taps)
        for j, value in enumerate(transposed(b, square) if size > 1 else square):
            count = None if exact_rows else left
            if not exact_columns:
                inside = b.compare("lt", b.add(column.index, j), columns)
                count = b.select(inside, b.index(size) if count is None else count, b.index(0))
            at = b.add(b.add(target, rows.index), b.index(plan.inputs * (taps * j)))
            b.prefetch(total, b.add(at, _AHEAD), write=True)
            b.store(total, at, b.convert(value, total.dtype), count=count)


def _row_of(b: KernelBuilder, plan: Plan, channel: Value, tap: Value) -> Value:
    """The row of a panel that holds a tap of an input channel."""
    row = channel
    if plan.joined:
        last = len(plan.axes[-1].order)
        row = b.add(b.mul(b.modulo(tap, last), b.index(plan.inputs)), channel)
        tap = b.floor_divide(tap, last)
    return b.add(b.mul(tap, b.index(plan.padded_rows)), row)
