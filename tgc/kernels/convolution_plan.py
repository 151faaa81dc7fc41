"""How a convolution, or its input gradient, is divided into loops: what is decided before any code is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim, evaluate
from tgc.ir.graph import Node, Value
from tgc.kernels.grid import ceil_divide
from tgc.kernels.lowering import Temporary
from tgc.kernels.sliding import Sliding, backward, forward
from tgc.kernels.tile import TYPICAL, TileShape, tallest_tiles, tile_work
from tgc.ops import rules
from tgc.ops.convolve import Windows
from tgc.target import Target

# elements of a patch: half of a second-level cache holds it and a panel
_LARGEST_PATCH = 48 * 1024
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
    panels_per_item: int

    @property
    def taps(self) -> int:
        return prod(len(axis.order) for axis in self.axes)

    @property
    def panels(self) -> Dim:
        return ceil_divide(self.outputs, self.shape.width)

    @property
    def panel_size(self) -> Dim:
        return self.inputs * (self.taps * self.shape.width)

    @property
    def phases(self) -> int:
        return prod(len(axis.phases) for axis in self.axes)

    @property
    def packed(self) -> Temporary:
        return Temporary(self.dtype, self.panel_size * self.panels * self.groups)


def plan_convolution(anchor: Node, target: Target) -> Plan:
    """Which tile, block and panels a convolution or its input gradient gets."""
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
    block = _block(axes, pattern, channels)
    panels = ceil_divide(outputs, shape.width)
    blocks = ceil_divide(axes[0].positions, block[0])
    few = isinstance(blocks, int) and isinstance(result.shape[0], int) and blocks * result.shape[0] * groups < 32
    together = 1 if few or depthwise else min(4, panels) if isinstance(panels, int) else 1
    return Plan(
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
        together,
    )


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


def _block(axes: Sequence[Sliding], pattern: tuple[int, int], channels: Dim) -> tuple[int, ...]:
    """Positions of one iteration along each dimension: multiples of the pattern, whose patch fits into the cache."""
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
    while second < limit and axes[-2].extent(second + height) * line <= _LARGEST_PATCH:
        second += height
    if isinstance(rows, int) and rows > second:
        pieces = -(-rows // second)
        second = -(-rows // (pieces * height)) * height
    return (*(1 for _ in axes[:-2]), second, last)
