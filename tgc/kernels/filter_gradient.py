"""The schedule of a convolution's filter gradient: register tiles whose sum runs over the positions of the result.

Output channels lie in the lanes; the rows of a tile are taps and input channels, which lie side by side in a patch of
the input. Images are divided into a fixed number of parts, each summed into panels [tap, input channel, lane] of its
own; a second kernel adds the parts in order and applies the epilogue, so that results do not depend on the threads.

The order of the sum: images of a part in order, blocks of positions, positions by row; blocks are summed by
themselves first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tgc.dtypes import DType
from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Graph, Node
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.epilogue import Columns, finish_tile
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import ZERO
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.patches import Patch
from tgc.kernels.sliding import Sliding, forward
from tgc.kernels.tile import TileShape, accumulate, product_sum, tile_shape, zeros
from tgc.ops import rules
from tgc.ops.convolve import Windows
from tgc.target import Target

_LARGEST_PATCH = 24 * 1024
_LONGEST_BLOCK = 64
# independent sums over images: more would cost memory, fewer leave threads without work
_MOST_PARTS = 8
_MOST_PARTIAL = 1 << 21


@dataclass(frozen=True)
class Plan:
    """``rows``: taps of the innermost dimension and input channels that lie side by side (channels alone if
    dilated)."""

    anchor: Node
    gradient: int
    image: int
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
    stages = (_Partial(plan, region, f"{name}_parts", table).stage(), _combining(plan, region, name, table))
    return Lowering(stages, {"t0": plan.partial})


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
        rules.integer(gradient.node.attributes, "index"),
        rules.integer(image.node.attributes, "index"),
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
    return Plan(**{**plan.__dict__, "parts": parts})


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
        self.images = region.parameters[plan.image].type.shape[0]
        extents = [axis.extent(size) for axis, size in zip(plan.axes, plan.block, strict=True)]
        lanes, width = plan.shape.lanes, plan.shape.width
        self.patch = Patch.declare(
            self.evaluator,
            "patch",
            extents,
            width if plan.depthwise else plan.inputs,
            plan.dtype,
            lanes + plan.shape.rows,
        )
        self.patch = Patch(self.patch.buffer, self.patch.extents, self.patch.channels, plan.dtype, lanes)
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
        self.errors.fill(evaluator, plan.gradient, image, wide, starts, have=have)
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
                self._tile(b.add(source, row.index), here, limits)

    def _tile(self, source: Value, target: Value, limits: list[Value]) -> None:
        b, shape = self.builder, self.plan.shape
        sums = self._over_positions(source, b.index(0), limits, zeros(b, shape, self.plan.dtype))
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
        pitch = b.index(self.errors.strides()[d])
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
            return [b.load(self.errors.buffer, b.add(at, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]

        if not plan.depthwise:
            return accumulate(b, shape, count, sums, read_row, read_vectors)
        with b.loop(0, count, carried=list(sums), name="position") as loop:
            at = b.add(source, b.mul(loop.index, step))
            values = [b.load(self.patch.buffer, b.add(at, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]
            pairs = zip(values, read_vectors(loop.index), loop.carried, strict=True)
            loop.yield_(*(product_sum(b, x, y, total) for x, y, total in pairs))
        return tuple(loop.results)


def _combining(plan: Plan, region: Graph, name: str, table: OpTable) -> Stage:
    """The kernel that adds the parts: an iteration takes one tap and input channel of a panel."""
    sizes: list[Dim] = [plan.groups, plan.panels, plan.inputs, *(len(axis.order) for axis in plan.axes)]
    b = KernelBuilder(name, count=product(sizes))
    evaluator = Evaluator(b, region, table)
    partial = b.buffer("t0", plan.dtype, plan.partial.size, "read")
    group, panel, channel, *taps = unflattened(b, b.iteration, sizes)
    shape = TileShape(1, plan.shape.vectors, plan.shape.lanes)
    outer = b.index(0)
    for tap, size in zip(taps, plan.outer_taps, strict=False):
        outer = b.add(b.mul(outer, size), tap)
    row = b.add(b.mul(taps[-1], b.index(plan.inputs)), channel) if plan.joined else channel
    row = b.add(b.mul(outer, b.index(plan.padded_rows)), row)
    start = b.add(
        b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size)), b.mul(row, shape.width)
    )
    pitch = b.index(plan.panel_size * plan.panels * plan.groups)
    sums = []
    for v in range(shape.vectors):
        at = b.add(start, v * shape.lanes)
        total = b.load(partial, at, shape.lanes)
        for _ in range(1, plan.parts):
            at = b.add(at, pitch)
            total = b.add(total, b.load(partial, at, shape.lanes))
        sums.append(total)
    place = (ZERO, evaluator.index(channel), *(evaluator.index(t) for t in taps))
    columns = Columns(
        0,
        b.mul(panel, shape.width),
        plan.outputs,
        shape.vectors,
        shape.lanes,
        evaluator.index(group).scaled(plan.outputs),
    )
    tile = b.scratch("tile", plan.dtype, shape.width)
    finish_tile(evaluator, plan.anchor.result, sums, shape, columns, lambda _: place, lambda: tile)
    return Stage(b.finish(), 20 + 10 * plan.parts * shape.vectors)
