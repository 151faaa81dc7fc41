"""The schedule of convolutions and of their input gradients: register tiles over patches of the source.

Output channels lie in the lanes, neighbouring positions of the result are the rows of a tile, and the sum runs over
the taps and input channels. The source is not unfolded: one iteration copies the patch that its block of positions
covers to scratch, with its border of zeros, and the tiles read it in place. The filter is packed by a first stage
into panels [group, panel, tap, input channel, lane]. Where groups have a single channel (depthwise) there is nothing
to broadcast: channels lie in the lanes of the source too. Few channels of row-major images are left to
:mod:`tgc.kernels.convolution_rows`.

The loop of a tile runs at 98 to 100 % of the machine's peak (AVX-512; 81 % with the 6 x 2 tiles of AVX2). What is left
to lose is moving data, and what made each case fast is to do less of that:

- What lies along another dimension than the one it is wanted along is turned in registers, square by square: patches of
  row-major images (3x3 over 64 channels of 56 x 56: 85 to 94 % of the peak), filters, and results, which
  :mod:`tgc.kernels.epilogue_turned` stores along the memory (a 1-D convolution: 63 to 89 %).
- Blocks are as low as it takes to have iterations enough with all panels at once, so that a patch is made once, not for
  every few panels (1x1, 64 to 256 channels: 79 to 90 %); :mod:`tgc.kernels.convolution_plan` estimates it.
- A filter larger than the image is not packed through memory: each iteration packs its panel into scratch, which stays
  in the second-level cache, and goes through all positions (3x3 over 512 channels of 7 x 7: 54 to 78 %). A filter that
  is the same in every call is packed once.
- The positions of a tile are kept out of each other's sets of the first-level cache (1x1 from 1024 channels: 71 to
  97 %), and the memory of its results is asked for before the sums begin (1x1 with a residual: 66 to 80 %).

The order of the sum: taps by increasing place in the source, outermost dimension first, input channels innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from tgc.ir.dims import Dim, product
from tgc.ir.graph import Graph
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels import convolution_rows, filter_gradient
from tgc.kernels.access import Evaluator
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.convolution_packing import FilterPacker, packing_stage
from tgc.kernels.convolution_plan import Plan, plan_convolution
from tgc.kernels.epilogue import Columns, fetch, finish_tile, require_plain_results
from tgc.kernels.epilogue_turned import finish_turned, turned_size
from tgc.kernels.grid import ceil_divide, unflattened
from tgc.kernels.indices import ZERO, Index
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.patches import Patch
from tgc.kernels.sliding import looked_up
from tgc.kernels.squares import square_size
from tgc.kernels.tile import accumulate, product_sum, zeros
from tgc.target import Target


def lower(region: Graph, *, name: str, target: Target, table: OpTable, kept: frozenset[int] = frozenset()) -> Lowering:
    """The kernels of a convolution, or of one of its gradients, with its epilogue.

    ``kept``: the parameters that are the same in every call; a filter among them is packed once, so by a stage.
    """
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.CONVOLUTION)
    if anchor.op == "convolution_filter_gradient":
        return filter_gradient.lower(region, anchor, name=name, target=target, table=table)
    require_plain_results(region)
    plan = plan_convolution(anchor, target, kept)
    if convolution_rows.takes(plan, region):
        return convolution_rows.lower(plan, region, name=name, target=target, table=table)
    stage = _Product(plan, region, name, table).stage()
    if plan.resident:
        return Lowering((stage,))
    return Lowering((packing_stage(plan, region, f"{name}_pack", table), stage), {"t0": plan.packed})


class _Product:
    """The kernel that multiplies: an iteration makes a block of positions of one image for some panels of channels."""

    def __init__(self, plan: Plan, region: Graph, name: str, table: OpTable) -> None:
        self.plan = plan
        self.places: list[Dim] = [plan.source.shape[0], *plan.blocks]
        items = ceil_divide(plan.panels, plan.panels_per_item)
        self.sizes = [plan.groups, items] if plan.resident else [plan.groups, *self.places, items]
        self.builder = KernelBuilder(name, count=product(self.sizes))
        self.evaluator = Evaluator(self.builder, region, table)
        if plan.resident:
            self.packed = self.builder.scratch("panel", plan.dtype, plan.panel_size)
        else:
            self.packed = self.builder.buffer("t0", plan.dtype, plan.packed.size, "read")
        extents = [axis.extent(size) for axis, size in zip(plan.axes, plan.block, strict=True)]
        channels = plan.shape.width if plan.depthwise else plan.inputs
        self.patch = Patch.declare(
            self.evaluator, "patch", extents, channels, plan.dtype, plan.shape.lanes, pitch=plan.position_pitch
        )
        self._tile_buffer: Buffer | None = None
        # neighbouring positions, not channels, lie side by side in the result
        strides = region.results[0].type.strides
        along = strides[-1] == plan.axes[-1].out_step == 1 != strides[1]
        self.turned = along and square_size(plan.shape.lanes) > 1

    def stage(self) -> Stage:
        b, plan = self.builder, self.plan
        if plan.resident:
            group, item = unflattened(b, b.iteration, self.sizes)
            self._resident(group, item)
            places = plan.places
        else:
            group, image, *blocks, item = unflattened(b, b.iteration, self.sizes)
            place = self._filled(group, image, blocks, b.mul(item, plan.panels_per_item))
            self._panels(item, lambda panel: self._panel(group, panel, place))
            places = 1
        positions = prod(plan.block) * plan.panels_per_item * plan.shape.width
        flops = plan.inputs * places * (2 * positions * plan.taps)
        return Stage(b.finish(), 50 + flops // 60)

    def _panels(self, item: Value, body: Callable[[Value], None]) -> None:
        """The panels of an iteration."""
        b, plan = self.builder, self.plan
        if plan.panels_per_item == 1:
            body(item)
            return
        first = b.mul(item, plan.panels_per_item)
        with b.loop(first, b.minimum(b.add(first, plan.panels_per_item), b.index(plan.panels)), name="panel") as loop:
            body(loop.index)

    def _resident(self, group: Value, item: Value) -> None:
        """All positions for some panels, each packed here."""
        b, plan = self.builder, self.plan
        packer = FilterPacker(plan, self.evaluator, self.packed, plan.inputs)

        def pack(panel: Value) -> None:
            packer.pack(group, panel, b.index(0), b.index(plan.inputs), b.index(0))

        if plan.places == 1:
            # a single patch serves all panels
            place = self._filled(group, b.index(0), [b.index(0)] * len(plan.axes), b.index(0))

            def only(panel: Value) -> None:
                pack(panel)
                self._panel(group, panel, place)

            self._panels(item, only)
            return

        def every(panel: Value) -> None:
            pack(panel)
            with b.loop(0, plan.places, name="place") as loop:
                image, *blocks = unflattened(b, loop.index, self.places)
                self._panel(group, panel, self._filled(group, image, blocks, panel))

        self._panels(item, every)

    def _filled(self, group: Value, image: Value, blocks: list[Value], panel: Value) -> _Place:
        """Fills the patch for a block of positions."""
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        starts = [b.mul(block, size) for block, size in zip(blocks, plan.block, strict=True)]
        origins = [b.add(b.mul(s, axis.in_step), axis.low) for s, axis in zip(starts, plan.axes, strict=True)]
        have = None
        channel = evaluator.index(group).scaled(plan.inputs)
        if plan.depthwise:
            column = b.mul(panel, plan.shape.width)
            channel = evaluator.index(column)
            if not isinstance(plan.outputs, int) or plan.outputs % plan.shape.width:
                have = b.minimum(b.sub(b.index(plan.outputs), column), plan.shape.width)
        self.patch.fill(evaluator, plan.source, image, channel, origins, have=have)
        return _Place(image, tuple(starts))

    def _panel(self, group: Value, panel: Value, place: _Place) -> None:
        b, plan = self.builder, self.plan
        column = b.mul(panel, plan.shape.width)
        packed = b.index(0)
        if not plan.resident:
            packed = b.mul(b.add(b.mul(group, b.index(plan.panels)), panel), b.index(plan.panel_size))
        at = _Panel(group, place.image, place.starts, column, packed)
        if plan.phases == 1:
            self._phase(at, [b.index(0)] * len(plan.axes))
            return
        with b.loop(0, plan.phases, name="phase") as loop:
            self._phase(at, unflattened(b, loop.index, [len(axis.phases) for axis in plan.axes]))

    def _phase(self, at: _Panel, phases: list[Value]) -> None:
        """All tiles of a block for one phase."""
        b, plan = self.builder, self.plan
        limits = []
        for axis, phase, start, size in zip(plan.axes, phases, at.starts, plan.block, strict=True):
            end = b.floor_divide(b.add(b.sub(b.index(axis.result), phase), axis.out_step - 1), axis.out_step)
            limits.append(b.minimum(b.sub(end, start), size))
        steps = [*(1 for _ in plan.axes[:-2]), *plan.pattern][-len(plan.axes) :]
        self._tiles(at, phases, limits, steps, [])

    def _tiles(
        self, at: _Panel, phases: list[Value], limits: list[Value], steps: list[int], places: list[Value]
    ) -> None:
        if len(places) == len(limits):
            self._tile(at, phases, limits, places)
            return
        d = len(places)
        with self.builder.loop(0, limits[d], steps[d], name=f"position{d}") as loop:
            self._tiles(at, phases, limits, steps, [*places, loop.index])

    def _tile(self, at: _Panel, phases: list[Value], limits: list[Value], places: list[Value]) -> None:
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        height, width = plan.pattern
        positions = [
            evaluator.index(b.add(start, p)).scaled(axis.out_step).plus(evaluator.index(phase))
            for start, p, axis, phase in zip(at.starts, places, plan.axes, phases, strict=True)
        ]
        # how many rows of positions, and how many positions of each, there are; None: as many as the pattern has
        left = [
            None if isinstance(axis.result, int) and axis.result % (axis.out_step * tile) == 0 else b.sub(limit, p)
            for axis, tile, limit, p in zip(
                plan.axes[-2:], plan.pattern[-len(positions) :], limits[-2:], places[-2:], strict=True
            )
        ]
        high, wide = (left[0] if len(left) > 1 else None), left[-1]

        def place(i: int | Value, j: int | Value) -> tuple[Index, ...]:
            spatial = list(positions)
            spatial[-1] = _moved(evaluator, spatial[-1], j, plan.axes[-1].out_step)
            if len(spatial) > 1:
                spatial[-2] = _moved(evaluator, spatial[-2], i, plan.axes[-2].out_step)
            return (evaluator.index(at.image), ZERO, *spatial)

        def row_and_column(r: int | Value) -> tuple[int | Value, int | Value]:
            if isinstance(r, int):
                return r // width, r % width
            return (0, r) if height == 1 else (b.floor_divide(r, width), b.modulo(r, width))

        def wanted(r: Value) -> Value:
            inside = [
                b.compare("lt", k, n) for k, n in zip(row_and_column(r), (high, wide), strict=True) if n is not None
            ]
            return inside[0] if len(inside) == 1 else b.bit_and(*inside)

        columns = Columns(
            1,
            at.column,
            plan.outputs,
            plan.shape.vectors,
            plan.shape.lanes,
            evaluator.index(at.group).scaled(plan.outputs),
        )
        if not self.turned:
            self._fetch(columns, lambda r: place(*row_and_column(r)))
        sums = self._sums(at, phases, places)
        if self.turned:
            dimension = len(positions) + 1
            scratch = self._scratch()
            finish_turned(
                evaluator,
                plan.anchor.result,
                sums,
                plan.shape,
                columns,
                place,
                scratch,
                dimension=dimension,
                runs=height,
                limits=(high, wide),
            )
            return
        whole = [b.compare("ge", n, size) for n, size in zip((high, wide), plan.pattern, strict=True) if n is not None]
        finish_tile(
            evaluator,
            plan.anchor.result,
            sums,
            plan.shape,
            columns,
            lambda r: place(*row_and_column(r)),
            self._scratch,
            products=plan.inputs * (plan.taps // plan.phases),
            complete=(whole[0] if len(whole) == 1 else b.bit_and(*whole)) if whole else None,
            wanted=wanted,
        )

    def _fetch(self, columns: Columns, place: Callable[[int | Value], tuple[Index, ...]]) -> None:
        """Asks for the memory of a tile's results before the sums begin, which leave it the time to arrive.

        It makes 1x1 convolutions of few channels, with a residual in the epilogue, a fifth faster.
        """
        b, plan, evaluator = self.builder, self.plan, self.evaluator
        with b.loop(0, plan.shape.rows, name="fetch") as loop:
            for v in range(plan.shape.vectors):
                column = evaluator.index(b.add(columns.first, v * plan.shape.lanes)).plus(columns.offset)
                image, _, *spatial = place(loop.index)
                fetch(evaluator, plan.anchor.result, (image, column, *spatial))

    def _scratch(self) -> Buffer:
        if self._tile_buffer is None:
            shape = self.plan.shape
            self._tile_buffer = self.builder.scratch("tile", self.plan.dtype, turned_size(shape))
        return self._tile_buffer

    # -- the sum -------------------------------------------------------------------------------------------------

    def _sums(self, at: _Panel, phases: list[Value], places: list[Value]) -> tuple[Value, ...]:
        """The sums of one tile over all taps of a phase and all input channels."""
        b, plan = self.builder, self.plan
        strides = self.patch.strides()
        base = b.index(0)
        ranges = []
        for axis, phase, p, stride in zip(plan.axes, phases, places, strides, strict=True):
            first = looked_up(b, phase, [f.first - axis.low for f in axis.phases])
            base = b.add(base, b.mul(b.add(b.mul(p, axis.in_step), first), b.index(stride)))
            start = looked_up(b, phase, [f.start for f in axis.phases])
            ranges.append((start, looked_up(b, phase, [f.count for f in axis.phases])))
        return self._over_taps(ranges, base, at.packed, zeros(b, plan.shape, plan.dtype))

    def _over_taps(
        self, ranges: list[tuple[Value, Value]], source: Value, packed: Value, sums: Sequence[Value]
    ) -> tuple[Value, ...]:
        b, plan = self.builder, self.plan
        d = len(plan.axes) - len(ranges)
        axis = plan.axes[d]
        step = b.index(self.patch.strides()[d] * axis.tap_step)
        inner = plan.tap_pitch * (prod(len(other.order) for other in plan.axes[d + 1 :]) * plan.shape.width)
        (start, count), *rest = ranges
        packed = b.add(packed, b.mul(start, b.index(inner)))
        # taps that follow each other in the patch are one sum with their channels
        if (
            not rest
            and not plan.depthwise
            and axis.tap_step == 1
            and plan.tap_pitch == plan.position_pitch == plan.inputs
        ):
            return self._over_channels(source, packed, b.mul(count, b.index(plan.inputs)), sums)
        with b.loop(0, count, carried=list(sums), name=f"tap{d}") as loop:
            here = b.add(source, b.mul(loop.index, step))
            there = b.add(packed, b.mul(loop.index, b.index(inner)))
            if rest:
                found = self._over_taps(rest, here, there, loop.carried)
            else:
                found = self._over_channels(here, there, b.index(plan.inputs), loop.carried)
            loop.yield_(*found)
        return tuple(loop.results)

    def _over_channels(self, source: Value, packed: Value, size: Value, sums: Sequence[Value]) -> tuple[Value, ...]:
        read_row, read_vectors = self._readers(source, packed)
        if self.plan.depthwise:
            return tuple(self._channelwise(source, packed, sums))
        return accumulate(self.builder, self.plan.shape, size, sums, read_row, read_vectors)

    def _readers(
        self, source: Value, packed: Value
    ) -> tuple[Callable[[int, Value], Value], Callable[[Value], Sequence[Value]]]:
        b, plan = self.builder, self.plan
        shape = plan.shape

        def read_row(r: int, k: Value) -> Value:
            return b.load(self.patch.buffer, self._row(b.add(source, k), r))

        def read_vectors(k: Value) -> Sequence[Value]:
            start = b.add(packed, b.mul(k, shape.width))
            return [b.load(self.packed, b.add(start, v * shape.lanes), shape.lanes) for v in range(shape.vectors)]

        return read_row, read_vectors

    def _row(self, base: Value, r: int) -> Value:
        """Where row ``r`` of a tile lies in the patch, ``base`` being the place of row 0."""
        plan, b = self.plan, self.builder
        strides = self.patch.strides()
        width = plan.pattern[1]
        offset = strides[-1] * (r % width * plan.axes[-1].in_step)
        if len(strides) > 1:
            offset = offset + strides[-2] * (r // width * plan.axes[-2].in_step)
        return b.add(base, offset)

    def _channelwise(self, source: Value, packed: Value, sums: Sequence[Value]) -> list[Value]:
        """One tap of a depthwise tile: both operands are vectors."""
        b, shape = self.builder, self.plan.shape
        found = list(sums)
        for v in range(shape.vectors):
            weight = b.load(self.packed, b.add(packed, v * shape.lanes), shape.lanes)
            for r in range(shape.rows):
                value = b.load(self.patch.buffer, b.add(self._row(source, r), v * shape.lanes), shape.lanes)
                at = r * shape.vectors + v
                found[at] = product_sum(b, value, weight, found[at])
        return found


def _moved(evaluator: Evaluator, index: Index, by: int | Value, step: int) -> Index:
    return index.shifted(by * step) if isinstance(by, int) else index.plus(evaluator.index(by).scaled(step))


@dataclass(frozen=True, slots=True)
class _Place:
    """A block of positions: its image, and where it begins along each dimension."""

    image: Value
    starts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class _Panel:
    """What the tiles of one panel share: where its columns begin, and where it lies among the packed ones."""

    group: Value
    image: Value
    starts: tuple[Value, ...]
    column: Value
    packed: Value
