"""How a convolution's filter gradient is divided into loops: what is decided before any code is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tgc.dtypes import DType
from tgc.ir import graph
from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Node
from tgc.kernels.grid import ceil_divide
from tgc.kernels.lowering import Temporary
from tgc.kernels.sliding import Sliding, forward
from tgc.kernels.tile import TileShape, tile_shape
from tgc.ops.convolve import Windows
from tgc.target import Target

_LARGEST_PATCH = 24 * 1024
_LONGEST_BLOCK = 64
# positions that are summed before they are added to what there is
_LONGEST_SUM = 1024
# panels that are iterations enough; independent sums over blocks: more would cost memory, fewer leave threads idle
_ITERATIONS = 8
_MOST_PARTS = 8
_MOST_PARTIAL = 1 << 21


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
    def blocks(self) -> list[Dim]:
        """How many blocks of positions there are along each dimension."""
        return [ceil_divide(axis.positions, size) for axis, size in zip(self.axes, self.block, strict=True)]

    @property
    def places(self) -> Dim:
        """Blocks of all images."""
        return self.image.shape[0] * product(self.blocks)

    @property
    def partial(self) -> Temporary:
        return Temporary(self.dtype, self.panel_size * self.panels * (self.groups * self.parts))


def plan_filter_gradient(anchor: Node, target: Target) -> Plan:
    """Which tile, blocks and parts a filter gradient gets."""
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
    panels, size = plan.panels * groups, plan.partial.size
    if isinstance(panels, int) and panels >= _ITERATIONS:
        return plan
    parts = _MOST_PARTS if not isinstance(size, int) else max(1, min(_MOST_PARTS, _MOST_PARTIAL // max(size, 1)))
    if isinstance(plan.places, int):
        parts = max(1, min(parts, plan.places))
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
