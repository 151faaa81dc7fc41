"""How a convolution, or its input gradient, is divided into loops: what is decided before any code is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Node, Value
from tgc.kernels.grid import ceil_divide
from tgc.kernels.lowering import Temporary
from tgc.kernels.sliding import Sliding, backward, forward
from tgc.kernels.tile import TYPICAL, TileShape, tallest_tiles, tile_work
from tgc.ops import rules
from tgc.ops.convolve import Windows
from tgc.target import Target

# the part of a second-level cache that a patch may take; a panel has the rest
_PATCH_SHARE = 4
# iterations that are enough for any number of threads, and what is enough if more would be dear
_ITERATIONS, _FEW_ITERATIONS = 12, 8
# bytes after which the sets of a first-level cache come round again: a page, as it is indexed by what lies within one
_SET_PERIOD = 4096
_WAYS = 8
# elements of a filter that are read from beyond that cache in the time in which one of a patch is copied
_COPIES_PER_READ = 4
# positions along the innermost dimension that one block takes if there are more of them
_LONGEST_BLOCK = 64


@dataclass(frozen=True)
class Plan:
    """A convolution as loops. ``source`` is a value of the region, ``filter`` the number of a parameter.

    ``inputs`` channels of each of ``groups`` are summed, ``outputs`` channels of each are made. ``pattern``:
    positions of a tile along the last two dimensions (the first is 1 if there is one only); ``block``: positions of
    an iteration.
    """

    anchor: Node
    source: Value
    filter: int
    axes: tuple[Sliding, ...]
    groups: int
    inputs: Dim
    outputs: Dim
    transposed: bool
    depthwise: bool
    dtype: DType
    shape: TileShape
    pattern: tuple[int, int]
    block: tuple[int, ...]
    resident: bool
    panels_per_item: int

    @property
    def taps(self) -> int:
        return prod(len(axis.order) for axis in self.axes)

    @property
    def blocks(self) -> list[Dim]:
        """How many blocks of positions there are along each dimension."""
        return [ceil_divide(axis.positions, size) for axis, size in zip(self.axes, self.block, strict=True)]

    @property
    def places(self) -> Dim:
        """Blocks of all images."""
        return self.source.shape[0] * product(self.blocks)

    @property
    def panels(self) -> Dim:
        return ceil_divide(self.outputs, self.shape.width)

    @property
    def tap_pitch(self) -> Dim:
        """Rows of a panel from one tap to the next: its input channels.

        And one more where iterations pack, and the same channel of all taps would fall into few sets of a cache: it
        would take twice as long.
        """
        apart = self.inputs * (self.shape.width * self.dtype.itemsize)
        return self.inputs + 1 if self.resident and _clash(apart, self.taps) else self.inputs

    @property
    def position_pitch(self) -> Dim:
        """Elements of a patch from one place to the next: its channels.

        And a vector where one channel of the positions of a tile would fall into few sets of a cache: a product of
        1024 channels would take a third longer.
        """
        channels = self.shape.width if self.depthwise else self.inputs
        apart = channels * (self.axes[-1].in_step * self.dtype.itemsize)
        return channels + self.shape.lanes if _clash(apart, self.pattern[1]) else channels

    @property
    def panel_size(self) -> Dim:
        return self.tap_pitch * (self.taps * self.shape.width)

    @property
    def phases(self) -> int:
        return prod(len(axis.phases) for axis in self.axes)

    @property
    def packed(self) -> Temporary:
        return Temporary(self.dtype, self.panel_size * self.panels * self.groups)


def plan_convolution(anchor: Node, target: Target, kept: frozenset[int] = frozenset()) -> Plan:
    """Which tile, block and panels a convolution or its input gradient gets.

    ``kept``: the parameters that are the same in every call.
    """
    windows = Windows.of(anchor.attributes)
    source, filter_ = anchor.operands
    result = anchor.result
    gradient = anchor.op == "convolution_input_gradient"
    sizes = filter_.shape[2:]
    axes = []
    for i, size in enumerate(sizes):
        taps = evaluate(size, {})
        make = backward if gradient else forward
        axes.append(
            make(
                source.shape[i + 2],
                result.shape[i + 2],
                taps,
                windows.stride[i],
                windows.padding[i][0],
                windows.dilation[i],
            )
        )
    per_output, per_input = filter_.shape[0] // windows.groups, filter_.shape[1]
    inputs, outputs = (per_output, per_input) if gradient else (per_input, per_output)
    groups = windows.groups
    depthwise = groups > 1 and inputs == 1 and outputs == 1
    if depthwise:
        outputs, groups = groups, 1
    dtype = result.dtype.compute
    pattern, shape = _tile(axes, tallest_tiles(target, dtype, outputs), outputs)
    channels = shape.width if depthwise else inputs
    block = _block(axes, pattern, channels, target.l2_bytes // (_PATCH_SHARE * dtype.itemsize))
    plan = Plan(
        anchor,
        source,
        rules.integer(filter_.node.attributes, "index"),
        tuple(axes),
        groups,
        inputs,
        outputs,
        gradient,
        depthwise,
        dtype,
        shape,
        pattern,
        block,
        False,
        1,
    )
    if depthwise:
        return plan
    divided = _divided(plan, target)
    if plan.filter in kept or not _is_resident(plan, divided, target):
        return divided
    return replace(plan, resident=True, panels_per_item=_together(groups, plan.panels))


def _divided(plan: Plan, target: Target) -> Plan:
    """The plan, with panels packed before, whose iterations copy least, or read least from beyond the second-level
    cache: low blocks are enough iterations with all panels at once, but copy more rows twice, and each block goes
    through the whole filter."""

    def with_rows(rows: int) -> Plan:
        found = replace(plan, block=(*plan.block[:-2], rows, plan.block[-1])) if len(plan.axes) > 1 else plan
        return replace(found, panels_per_item=_together(found.places * plan.groups, plan.panels))

    height, most = plan.pattern[0], plan.block[-2] if len(plan.axes) > 1 else 1
    whole = with_rows(most)
    panels, packed = plan.panels, plan.packed.size
    if not (isinstance(panels, int) and isinstance(packed, int) and isinstance(whole.places, int)):
        return whole
    far = packed * plan.dtype.itemsize > target.l2_bytes // 2

    def elements(candidate: Plan) -> Dim:
        extents = [axis.extent(size) for axis, size in zip(plan.axes, candidate.block, strict=True)]
        copied = plan.inputs * plan.groups * -(-panels // candidate.panels_per_item) * prod(extents)
        return candidate.places * (copied + packed // _COPIES_PER_READ if far else copied)

    return min((with_rows(rows) for rows in range(most, 0, -height)), key=lambda p: evaluate(elements(p), {}))


def _clash(apart: Dim, lines: int) -> bool:
    """Whether so many lines, ``apart`` bytes from each other, leave a first-level cache no room for anything else."""
    return isinstance(apart, int) and apart > 0 and 2 * lines > _SET_PERIOD // gcd(_SET_PERIOD, apart) * _WAYS


def _together(others: Dim, panels: Dim) -> int:
    """How many panels an iteration takes: more share its patch, fewer leave work for other threads."""
    if not isinstance(panels, int):
        return 1
    if not isinstance(others, int):
        return max(1, min(4, panels))
    pieces = -(-_ITERATIONS // max(others, 1))
    return max(1, panels // pieces)


def _is_resident(plan: Plan, divided: Plan, target: Target) -> bool:
    """Whether iterations that pack their own panels have less to put in order than those of ``divided``: the filter
    once and the source for every group of panels, but no panels written to memory and read again.

    It takes panels that a second-level cache holds beside a patch, and as many of them as there should be iterations.
    """
    panels, packed, places = plan.panels, plan.packed.size, plan.places
    source = product(plan.source.shape)
    if not (
        isinstance(panels, int) and isinstance(packed, int) and isinstance(source, int) and isinstance(places, int)
    ):
        return False
    if plan.groups * panels < _FEW_ITERATIONS:
        return False
    # a panel that does not fit is read from further away by every tile
    if packed // (plan.groups * panels) * plan.dtype.itemsize > target.l2_bytes * (_PATCH_SHARE - 1) // _PATCH_SHARE:
        return False
    first = 2 * packed + source * -(-panels // divided.panels_per_item)
    fills = -(-panels // _together(plan.groups, panels)) if places == 1 else panels
    return packed + source * fills < first


def _tile(axes: Sequence[Sliding], tallest: Sequence[TileShape], outputs: Dim) -> tuple[tuple[int, int], TileShape]:
    """Rows and columns of positions of a tile, and the tile: what takes the least work, partial tiles included."""
    columns, rows = axes[-1].positions, axes[-2].positions if len(axes) > 1 else 1
    across_all, down_all = (d if isinstance(d, int) else TYPICAL for d in (columns, rows))
    best: tuple[float, tuple[int, int], TileShape] | None = None
    for most in tallest:
        panels = -(-outputs // most.width) if isinstance(outputs, int) else 1 / most.vectors
        for width in range(1, min(most.rows, max(across_all, 1)) + 1):
            whole = isinstance(columns, int) and width >= columns and len(axes) > 1
            for height in {1, most.rows // width if whole else 1}:
                tiles = -(-across_all // width) * -(-down_all // height)
                work = tiles * panels * tile_work(height * width, most.vectors)
                if best is None or (work, -height * width) < (best[0], -best[2].rows):
                    best = (work, (height, width), TileShape(height * width, most.vectors, most.lanes))
    if best is None:
        raise CompilerBug("no register tile for a convolution", stage="schedule")
    return best[1], best[2]


def _block(axes: Sequence[Sliding], pattern: tuple[int, int], channels: Dim, largest: int) -> tuple[int, ...]:
    """Positions of one iteration along each dimension: multiples of the pattern, whose patch has at most ``largest``
    elements."""
    height, width = pattern
    columns = axes[-1].positions
    last = width * max(1, _LONGEST_BLOCK // width)
    if isinstance(columns, int):
        pieces = -(-columns // max(last, _LONGEST_BLOCK + 1))
        last = -(-max(columns, 1) // (width * pieces)) * width if pieces else width
    if len(axes) == 1:
        return (last,)
    depth = channels if isinstance(channels, int) else 256
    line = axes[-1].extent(last) * depth * prod(axis.span for axis in axes[:-2])
    second = height
    rows = axes[-2].positions
    limit = rows if isinstance(rows, int) else 8
    while second < limit and axes[-2].extent(second + height) * line <= largest:
        second += height
    if isinstance(rows, int) and rows > second:
        pieces = -(-rows // second)
        second = -(-rows // (pieces * height)) * height
    return (*(1 for _ in axes[:-2]), second, last)
