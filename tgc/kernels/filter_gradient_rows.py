"""The schedule of filter gradients of convolutions with few channels in a group, in row-major images.

Neighbouring columns lie in the lanes, as in :mod:`tgc.kernels.convolution_rows`: a vector of the result's gradient
meets a vector of the image at each tap, and every tap of a filter has a sum of its own in a register. Four rows share
what is loaded of the image. An iteration makes the filter of one output from all images, so that no thread adds to
what another has. (32 channels of 112 x 112: 108 us; turned round, with one sum at a time, 372.)

The order of the sum: images in order, blocks of positions, which are summed by themselves first: in each lane row by
row, vector by vector; the lanes at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations
from math import prod

from tgc.ir.dims import Dim, evaluate, product
from tgc.ir.graph import Graph, Node
from tgc.ir.opdef import OpTable
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.row_patch import RowPatch, even_block, row_block, with_rows
from tgc.kernels.sliding import Sliding
from tgc.kernels.tile import LONGEST_CHAIN, product_sum
from tgc.target import Target

# rows of the result's gradient that share what is loaded of the image
_HEIGHT = 4
# what one iteration may take to be compiled: multiply-adds of a tile
_MOST_CODE = 256


def takes(anchor: Node, axes: Sequence[Sliding], groups: int, target: Target) -> bool:
    """Whether a filter gradient should go row by row: a sum for each tap of an output stays in a register."""
    inputs, outputs = anchor.result.shape[1], anchor.result.shape[0]
    if not isinstance(inputs, int) or not isinstance(outputs, int):
        return False
    lanes = target.lanes(anchor.result.dtype)
    sums = inputs * prod(len(axis.order) for axis in axes)
    fits = sums + _HEIGHT + 2 <= target.vector_registers and 2 * (outputs // groups) <= lanes
    # by the types, not by what they are computed from: what joins a kernel changes no bits
    types = [v.type for v in anchor.operands]
    return fits and all(t.order[-1] == t.rank - 1 and (t.layout is None or not t.layout.tiles) for t in types)


def lower(
    region: Graph,
    anchor: Node,
    axes: Sequence[Sliding],
    groups: int,
    *,
    buffer: str,
    name: str,
    target: Target,
    table: OpTable,
) -> Lowering:
    """The kernel that writes a row-major filter gradient to ``buffer``."""
    return Lowering((_Rows(region, anchor, axes, groups, buffer, name, target, table).stage(),))


class _Rows:
    def __init__(
        self,
        region: Graph,
        anchor: Node,
        axes: Sequence[Sliding],
        groups: int,
        buffer: str,
        name: str,
        target: Target,
        table: OpTable,
    ) -> None:
        self.gradient, self.image = anchor.operands
        result = anchor.result
        self.rank = len(axes)
        self.axes = with_rows(axes)
        *self.outer, self.rows, self.columns = self.axes
        self.inputs = evaluate(result.shape[1], {})
        self.outputs = evaluate(result.shape[0], {})
        self.per_group = self.outputs // groups
        self.dtype = dtype = result.dtype.compute
        self.lanes = lanes = target.lanes(dtype)
        self.taps = list(combinations(range(self.inputs), *(range(len(axis.order)) for axis in self.axes)))
        self.wide = row_block(self.columns, lanes)
        # additions of a block to one lane, and a patch that stays in a first-level cache
        line = self.inputs * prod(a.span for a in self.outer) * self.columns.extent(self.wide) * dtype.itemsize
        most = min(LONGEST_CHAIN * lanes // self.wide, target.l1_bytes // 2 // (line * self.rows.in_step))
        self.high = even_block(self.rows.positions, max(most // _HEIGHT, 1) * _HEIGHT, _HEIGHT)
        self.builder = b = KernelBuilder(name, count=self.outputs)
        self.evaluator = Evaluator(b, region, table)
        self.patch = RowPatch.declare(
            self.evaluator, self.image, self.axes, self.inputs, self.high, self.wide, dtype, lanes
        )
        self.out = self.evaluator.buffer(buffer, result.dtype, product(result.shape), "write")

    def stage(self) -> Stage:
        b = self.builder
        sizes = [*(1 for _ in self.outer), self.high, self.wide]
        blocks = [ceil_divide(axis.positions, size) for axis, size in zip(self.axes, sizes, strict=True)]
        channel = b.mul(b.floor_divide(b.iteration, self.per_group), self.inputs)
        images = self.image.shape[0]
        with b.loop(0, images, carried=self._zeros(), name="image") as image:
            with b.loop(0, product(blocks), carried=image.carried, name="block") as block:
                places = unflattened(b, block.index, blocks)
                starts = [b.mul(place, size) for place, size in zip(places, sizes, strict=True)]
                self.patch.fill(image.index, channel, starts)
                sums = self._block(image.index, starts)
                block.yield_(*(b.add(total, x) for total, x in zip(block.carried, sums, strict=True)))
            image.yield_(*block.results)
        first = b.mul(b.iteration, len(self.taps))
        for number, total in enumerate(image.results):
            b.store(self.out, b.add(first, number), b.convert(b.reduce("add", total), self.out.dtype))
        positions: Dim = product([images, *(axis.positions for axis in self.axes)])
        return Stage(b.finish(), 100 + positions * len(self.taps) // (4 * self.lanes))

    def _zeros(self) -> list[Value]:
        return [self.builder.constant(0, self.dtype, self.lanes)] * len(self.taps)

    def _block(self, image: Value, starts: Sequence[Value]) -> tuple[Value, ...]:
        """The sums of one block: strips of some rows, then single ones."""
        b = self.builder
        limits = [
            b.minimum(b.sub(b.index(axis.positions), start), size)
            for axis, start, size in zip(self.axes[-2:], starts[-2:], (self.high, self.wide), strict=True)
        ]
        whole = b.mul(b.floor_divide(limits[0], _HEIGHT), _HEIGHT)
        sums: tuple[Value, ...] = tuple(self._zeros())
        for low, high, height in ((b.index(0), whole, _HEIGHT), (whole, limits[0], 1)):
            with b.loop(low, high, height, carried=sums, name="row") as row:
                row.yield_(*self._strip(image, starts, row.index, height, limits[1], row.carried))
            sums = row.results
        return sums

    def _strip(
        self, image: Value, starts: Sequence[Value], row: Value, height: int, size: Value, sums: Sequence[Value]
    ) -> tuple[Value, ...]:
        """Whole vectors of some rows, then what is left."""
        b, lanes = self.builder, self.lanes
        whole = b.mul(b.floor_divide(size, lanes), lanes)
        with b.loop(0, whole, lanes, carried=list(sums), name="column") as column:
            column.yield_(*self._tile(image, starts, row, height, column.index, None, column.carried))
        with b.loop(whole, size, lanes, carried=list(column.results), name="column") as rest:
            left = b.sub(size, rest.index)
            rest.yield_(*self._tile(image, starts, row, height, rest.index, left, rest.carried))
        return rest.results

    def _tile(
        self,
        image: Value,
        starts: Sequence[Value],
        row: Value,
        height: int,
        column: Value,
        count: Value | None,
        carried: Sequence[Value],
    ) -> list[Value]:
        b, lanes = self.builder, self.lanes
        inside = None if count is None else b.compare("lt", b.lane_indices(lanes), count)

        def real(value: Value) -> Value:
            """Nothing in the lanes beyond the last column: the image may be infinite there."""
            return value if inside is None else b.select(inside, value, b.constant(0, self.dtype, lanes))

        errors = [real(self._error(image, starts, b.add(row, r), column, count)) for r in range(height)]
        base = self.patch.position(row, column)
        sums = dict(zip(self.taps, carried, strict=True))
        step, counts = self.rows.in_step, [range(len(axis.order)) for axis in self.axes]
        met = {
            s: [(r, t) for r in range(height) for t in counts[-2] if r * step + t * self.rows.tap_step == s]
            for s in range((height - 1) * step + self.rows.span)
        }
        for channel, layer in combinations(range(self.inputs), combinations(*counts[:-2])):
            places = [t * axis.tap_step for t, axis in zip(layer, self.outer, strict=True)]
            for s, tap in combinations(met, counts[-1]):
                if not met[s]:
                    continue
                offset = self.patch.offset(channel, [*places, s], tap * self.columns.tap_step)
                value = real(b.load(self.patch.buffer, b.add(base, offset), lanes))
                for r, t in met[s]:
                    key = (channel, *layer, t, tap)
                    sums[key] = product_sum(b, errors[r], value, sums[key])
        return [sums[key] for key in self.taps]

    def _error(self, image: Value, starts: Sequence[Value], row: Value, column: Value, count: Value | None) -> Value:
        """A vector of the result's gradient."""
        b, evaluator = self.builder, self.evaluator
        rows = [*starts[:-2], b.add(starts[-2], row)][len(self.axes) - self.rank :]
        place = (
            evaluator.index(image),
            evaluator.index(b.iteration),
            *(evaluator.index(p) for p in rows),
            evaluator.index(b.add(starts[-1], column), lane=1),
        )
        found = evaluator.point(self.lanes, count).value(self.gradient, place)
        return b.convert(b.splat(found, self.lanes), self.dtype)
