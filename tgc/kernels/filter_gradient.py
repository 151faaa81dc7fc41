"""The schedule of a convolution's filter gradient: register tiles whose sum runs over the positions of the result.

Output channels lie in the lanes; the rows of a tile are taps and input channels, which lie side by side in a patch of
the input. Images are divided into a fixed number of parts, each summed into panels [tap, input channel, lane] of its
own; a second kernel adds the parts in order, so that results do not depend on the threads. What is computed from the
gradient (a step of the optimizer, often) is a pass of its own, along the memory of the filter.

The order of the sum: images of a part in order, blocks of positions, positions by row; blocks are summed by
themselves first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from passes.base import substitute
from tgc.dtypes import DType
from tgc.ir import graph
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Graph, Node, parameter
from tgc.ir.opdef import OpTable
from tgc.kernels import pointwise
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.operands import is_parameter, parameter_buffer
from tgc.kernels.patches import Patch
from tgc.kernels.sliding import Sliding, forward
from tgc.kernels.squares import square_size, transposed
from tgc.kernels.tile import TileShape, accumulate, product_sum, tile_shape, zeros
from tgc.ops.convolve import Windows
from tgc.target import Target

_LARGEST_PATCH = 24 * 1024
_LONGEST_BLOCK = 64
# positions that are summed before they are added to what there is
_LONGEST_SUM = 1024
# independent sums over images: more would cost memory, fewer leave threads without work
_MOST_PARTS = 8
_MOST_PARTIAL = 1 << 21
# input channels that one iteration of the second kernel adds
_CHANNELS = 8


@dataclass(frozen=True)
class Plan:
    """``rows``: taps of the innermost dimension and input channels that lie side by side (channels alone if
    dilated)."""

    anchor: Node
    gradient: graph.Value
    image: graph.Value
    axes: tuple[Sliding, ...]
    groups: int
    inputs: Dim
    outputs: Dim
    depthwise: bool
    joined: bool
    dtype: DType
    shape: TileShape
    block: tuple[int, ...]
    parts: int

    @property
    def outer_taps(self) -> tuple[int, ...]:
        """Taps of the dimensions that are not part of the rows."""
        sizes = tuple(len(axis.order) for axis in self.axes)
        return sizes[:-1] if self.joined else sizes

    @property
    def rows(self) -> Dim:
        if self.depthwise:
            return 1
        return self.inputs * len(self.axes[-1].order) if self.joined else self.inputs

    @property
    def padded_rows(self) -> Dim:
        return ceil_divide(self.rows, self.shape.rows) * self.shape.rows

    @property
    def panels(self) -> Dim:
        return ceil_divide(self.outputs, self.shape.width)

    @property
    def panel_size(self) -> Dim:
        return self.padded_rows * (prod(self.outer_taps) * self.shape.width)

    @property
    def partial(self) -> Temporary:
        return Temporary(self.dtype, self.panel_size * self.panels * (self.groups * self.parts))


def lower(region: Graph, anchor: Node, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernels of a filter gradient with its epilogue."""
    plan = _planned(anchor, target)
    parts = _Partial(plan, region, f"{name}_parts", table).stage()
    if region.results == (anchor.result,) and anchor.result.type.layout is None:
        return Lowering((parts, _combining(plan, name, "r0")), {"t0": plan.partial})
    # the epilogue goes along the filter's own memory, with the gradient as one more parameter
    number = len(region.parameters)
    gradient = parameter(number, anchor.result.type)
    results = substitute(Builder(table), region.results, {anchor.result: gradient})
    rest = Graph((*region.parameters, gradient), results)
    temporaries = {"t0": plan.partial, f"p{number}": Temporary(gradient.dtype, gradient.type.buffer_size)}
    epilogue = pointwise.lower(rest, name=f"{name}_epilogue", target=target, table=table)
    return Lowering((parts, _combining(plan, name, f"p{number}"), *epilogue.stages), temporaries)


def _planned(anchor: Node, target: Target) -> Plan:
    windows = Windows.of(anchor.attributes)
    gradient, image = anchor.operands
    result = anchor.result
    axes = tuple(
        forward(
            image.shape[i + 2],
            gradient.shape[i + 2],
            evaluate(result.shape[i + 2], {}),
            windows.stride[i],
            windows.padding[i][0],
            windows.dilation[i],
        )
        for i in range(len(windows.stride))
    )
    groups = windows.groups
    outputs, inputs = result.shape[0] // groups, result.shape[1]
    depthwise = groups > 1 and inputs == 1 and outputs == 1
    if depthwise:
        outputs, groups = groups, 1
    dtype = result.dtype.compute
    joined = axes[-1].tap_step == 1 and not depthwise
    rows = inputs * len(axes[-1].order) if joined else inputs
    shape = tile_shape(target, dtype, 1 if depthwise else rows, outputs)
    block = _block(axes, shape.width if depthwise else inputs)
    plan = Plan(
        anchor,
        gradient,
        image,
        axes,
        groups,
        inputs,
        outputs,
        depthwise,
        joined,
        dtype,
        shape,
        block,
        1,
    )
    images = image.shape[0]
    size = plan.partial.size
    parts = _MOST_PARTS if not isinstance(size, int) else max(1, min(_MOST_PARTS, _MOST_PARTIAL // max(size, 1)))
    if isinstance(images, int):
        parts = max(1, min(parts, images))
    return replace(plan, parts=parts)


def _block(axes: Sequence[Sliding], channels: Dim) -> tuple[int, ...]:
    """Positions along each dimension that are summed at a time: what fits into a first or second-level cache."""
    columns = axes[-1].positions
    last = min(columns, _LONGEST_BLOCK) if isinstance(columns, int) else _LONGEST_BLOCK
    last = max(last, 1)
    if len(axes) == 1:
        return (last,)
    depth = channels if isinstance(channels, int) else 256
    line = axes[-1].extent(last) * depth * prod(axis.span for axis in axes[:-2])
    rows = axes[-2].positions
    limit = rows if isinstance(rows, int) else 8
    second = 1
    limit = min(limit, _LONGEST_SUM // last)
    while second < limit and axes[-2].extent(second + 1) * line <= _LARGEST_PATCH:
        second += 1
    return (*(1 for _ in axes[:-2]), second, last)


class _Partial:
    """The kernel that sums: an iteration takes one part of the images for one panel of output channels."""

    def __init__(self, plan: Plan, region: Graph, name: str, table: OpTable) -> None:
        self.plan = plan
        self.sizes: list[Dim] = [plan.parts, plan.groups, plan.panels]
        self.builder = KernelBuilder(name, count=product(self.sizes), noalias=True)
        self.evaluator = Evaluator(self.builder, region, table)
        self.partial = self.builder.buffer("t0", plan.dtype, plan.partial.size, "readwrite")
        self.images = plan.image.shape[0]
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
        start = b.mul(b.iteration, b.index(plan.panel_size))
        lanes = plan.shape.lanes
        with b.loop(0, plan.panel_size, lanes, name="clear") as clear:
            b.store(self.partial, b.add(start, clear.index), b.constant(0, plan.dtype, lanes))
        images = b.index(self.images)
        low = b.floor_divide(b.mul(images, part), plan.parts)
        high = b.floor_divide(b.mul(images, b.add(part, 1)), plan.parts)
        blocks = [ceil_divide(axis.positions, size) for axis, size in zip(plan.axes, plan.block, strict=True)]
        with (
            b.loop(low, high, name="image") as image,
            b.loop(0, product(blocks), name="block") as block,
        ):
            self._block(image.index, group, panel, unflattened(b, block.index, blocks), start)
        flops = plan.inputs * (2 * prod(plan.block) * plan.shape.width * prod(len(a.order) for a in plan.axes))
        return Stage(b.finish(), 50 + flops * product(blocks) * ceil_divide(self.images, plan.parts) // 60)

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
            b.store(self.partial, at, b.add(b.load(self.partial, at, shape.lanes), value))

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


def _combining(plan: Plan, name: str, buffer: str) -> Stage:
    """The kernel that adds the parts, in order, to a row-major filter: an iteration takes some channels of a panel.

    Panels have output channels in the lanes, filters their taps: squares are transposed.
    """
    sizes: list[Dim] = [plan.groups, plan.panels, ceil_divide(plan.inputs, _CHANNELS)]
    taps, width = prod(len(axis.order) for axis in plan.axes), plan.shape.width
    elements = plan.outputs * plan.inputs * (plan.groups * taps)
    b = KernelBuilder(name, count=product(sizes), noalias=True)
    partial = b.buffer("t0", plan.dtype, plan.partial.size, "read")
    total = b.buffer(buffer, plan.anchor.result.dtype, elements, "write")
    group, panel, piece = unflattened(b, b.iteration, sizes)
    source = b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size))
    low = b.mul(piece, _CHANNELS)
    high = b.minimum(b.add(low, _CHANNELS), b.index(plan.inputs))
    length = b.mul(b.sub(high, low), taps)
    sums = b.scratch("sums", plan.dtype, (_CHANNELS * taps + plan.shape.lanes) * width)
    with b.loop(low, high, name="channel") as channel, b.loop(0, taps, name="tap") as tap:
        row = b.mul(_row_of(b, plan, channel.index, tap.index), width)
        into = b.mul(b.add(b.mul(b.sub(channel.index, low), taps), tap.index), width)
        for v in range(0, width, plan.shape.lanes):
            at = b.add(b.add(source, row), v)
            value = b.load(partial, at, plan.shape.lanes)
            for _ in range(1, plan.parts):
                at = b.add(at, b.index(plan.panel_size * plan.panels * plan.groups))
                value = b.add(value, b.load(partial, at, plan.shape.lanes))
            b.store(sums, b.add(into, v), value)
    first = b.mul(panel, width)
    columns = b.minimum(b.sub(b.index(plan.outputs), first), width)
    size = square_size(plan.shape.lanes)
    exact_columns = isinstance(plan.outputs, int) and plan.outputs % size == 0
    exact_rows = isinstance(plan.inputs, int) and plan.inputs % _CHANNELS == 0
    with b.loop(0, columns, size, name="column") as column, b.loop(0, length, size, name="row") as rows:
        start = b.add(b.mul(rows.index, width), column.index)
        square = [b.load(sums, b.add(start, j * width), size) for j in range(size)]
        output = b.add(b.add(b.mul(group, b.index(plan.outputs)), first), column.index)
        target = b.mul(b.add(b.mul(output, b.index(plan.inputs)), low), taps)
        for j, value in enumerate(transposed(b, square) if size > 1 else square):
            count = None if exact_rows else b.sub(length, rows.index)
            if not exact_columns:
                inside = b.compare("lt", b.add(column.index, j), columns)
                count = b.select(inside, b.index(size) if count is None else count, b.index(0))
            at = b.add(b.add(target, rows.index), b.index(plan.inputs * (taps * j)))
            b.store(total, at, b.convert(value, total.dtype), count=count)
    return Stage(b.finish(), 20 + _CHANNELS * taps * width * plan.parts // 8)


def _row_of(b: KernelBuilder, plan: Plan, channel: Value, tap: Value) -> Value:
    """The row of a panel that holds a tap of an input channel."""
    row = channel
    if plan.joined:
        last = len(plan.axes[-1].order)
        row = b.add(b.mul(b.modulo(tap, last), b.index(plan.inputs)), channel)
        tap = b.floor_divide(tap, last)
    return b.add(b.mul(tap, b.index(plan.padded_rows)), row)
