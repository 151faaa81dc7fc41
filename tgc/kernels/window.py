"""The schedule of windows (pooling) and their gradients: vectors along the innermost dimension of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product as positions
from math import prod

from tgc.errors import CompilerBug
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.access import FUTURE, Evaluator, Point
from tgc.kernels.access_conditional import Guard
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import Grid, ceil_divide
from tgc.kernels.indices import Index, inner
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.pointwise import chunk_elements
from tgc.kernels.spaces import Axis, Pattern, joined, loop_indices, pattern
from tgc.kernels.vector_loop import region_lanes, vector_loop
from tgc.kernels.window_taps import (
    MOST_UNROLLED,
    Windows,
    covering_anywhere,
    covering_in_phase,
    gathered,
    window_max,
    window_sum,
    winner,
    within,
)
from tgc.target import Target

GRADIENTS = frozenset({"window_max_gradient", "window_sum_gradient"})


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of a region with one window op, with maps on its operands before and on its result after."""
    anchors = [node for node in region.nodes() if table[node.op].kind is OpKind.WINDOW]
    if len(anchors) != 1:
        raise CompilerBug(f"a window region with {len(anchors)} windows", stage="schedule")
    (node,) = anchors
    for v in region.results:
        if (
            v.shape != node.types[0].shape
            or v.type.layout is not None
            and (v.type.layout.tiles or v.type.layout.margins)
        ):
            raise CompilerBug(f"a window writes {v.type}", stage="schedule")
    gradient = node.op in GRADIENTS
    result, dy = node.types[0].shape, node.operands[-1].shape
    windows = Windows.of(node, result, dy) if gradient else Windows.of(node, node.operands[0].shape, result)
    phased = gradient and windows.count <= MOST_UNROLLED and prod(windows.stride) <= MOST_UNROLLED
    ends = list(result)
    if phased:
        ends = [ceil_divide(d + p, s) for d, p, s in zip(result, windows.low, windows.stride, strict=True)]
    order = region.results[0].type.order
    axes = _axes(region, node, windows, order, ends, table)
    lanes = region_lanes(region, target) if axes else 1
    cost = _element_cost(node, windows, lanes) * (prod(windows.stride) if phased else 1)
    grid = Grid.over([axis.size for axis in axes], chunk_elements(cost))
    b = KernelBuilder(name, count=grid.count)
    evaluator = Evaluator(b, region, table)
    for i in range(len(region.parameters)):
        evaluator.parameter(i)
    for i in range(len(region.results)):
        evaluator.result(i)
    walk = _Walk(evaluator, node, windows, order, axes, ends, lanes, phased)
    grid.emit(b, walk.run)
    return Lowering((Stage(b.finish(), grid.cost(cost)),))


def _element_cost(node: Node, windows: Windows, lanes: int) -> float:
    per_tap = 4 if node.op in ("window_sum", "window_sum_gradient") else 8
    return 0.25 * per_tap * windows.count / lanes + 0.1


def _axes(
    region: Graph, node: Node, windows: Windows, order: Sequence[int], ends: Sequence[Dim], table: OpTable
) -> list[Axis]:
    """The loops over the result, or its bases, in the order of memory; dimensions without windows are joined."""
    number = {d: n for n, d in enumerate(order)}
    at = tuple([Index(((number[d], 1),)) for d in range(len(order))])
    values = [(v, at) for v in (*node.operands, *region.results)]
    accesses = pattern(values, table, frozenset({node.result}))
    stores = tuple([inner(at, v.type.strides) for v in region.results])
    sliding = frozenset(number[d] for d in range(len(order)) if windows.slides(d))
    return joined([ends[d] for d in order], Pattern(accesses.offsets + stores, accesses.pinned | sliding))


@dataclass(frozen=True)
class _Walk:
    """``phased``: the loops run over bases of ``stride`` elements each, which are written together."""

    evaluator: Evaluator
    node: Node
    windows: Windows
    order: Sequence[int]
    axes: Sequence[Axis]
    ends: Sequence[Dim]
    lanes: int
    phased: bool

    def run(self, outer: Sequence[Value], low: Value | int, high: Value | Dim) -> None:
        evaluator = self.evaluator
        indices = [evaluator.index(v, bound=a.size) for v, a in zip(outer, self.axes[:-1], strict=True)]
        # of the op itself nothing can be moved out of the loops
        nothing = evaluator.builder.constant(0, self.node.types[0].dtype)
        top = evaluator.point(overrides={self.node.result: nothing})
        if not self.axes:
            self._element(top, self._at([]))
            return
        future = self._at([*indices, replace(FUTURE, lane=1)])
        for v in evaluator.region.results:
            top.hoist(v, future)

        def body(v: Value, count: Value | None) -> None:
            index = evaluator.index(v, lane=1, bound=self.axes[-1].size, step=self.lanes)
            self._element(top.nested(self.lanes, count), self._at([*indices, index]))

        vector_loop(evaluator.builder, low, high, self.lanes, body)

    def _at(self, indices: Sequence[Index]) -> Coordinates:
        loops = loop_indices(self.axes, indices, len(self.order))
        found = [Index()] * len(self.order)
        for d, index in zip(self.order, loops, strict=True):
            found[d] = index
        return tuple(found)

    def _element(self, point: Point, at: Coordinates) -> None:
        node, windows = self.node, self.windows
        if self.phased:
            self._phases(point, at)
            return
        if node.op in GRADIENTS:
            value = gathered(point, windows, node, covering_anywhere(windows, at), {})
        elif node.op == "window_sum":
            value = window_sum(point, windows, node.operands[0], at)
        elif node.op == "window_max":
            value = window_max(point, windows, node.operands[0], at)
        elif node.op == "window_max_take":
            value = winner(point, windows, node.operands[0], at, Guard(), node.operands[1])[0]
        else:
            raise CompilerBug(f"no window {node.op}", stage="schedule")
        computed, results = self._results(point, value, at), self.evaluator.region.results
        for i, (v, result) in enumerate(zip(results, computed, strict=True)):
            point.store(self.evaluator.result(i), self.evaluator.address(v.type, at, point.lanes), result)

    def _results(self, point: Point, value: Value, at: Coordinates, guard: Guard | None = None) -> list[Value]:
        """The region's results, given the window op's value in the dtype that it is computed in."""
        rounded = point.builder.convert(value, self.node.types[0].dtype)
        after = point.nested(point.lanes, point.count, {self.node.result: rounded})
        return [after.value(v, at, guard or Guard()) for v in self.evaluator.region.results]

    def _phases(self, point: Point, base: Coordinates) -> None:
        """Every element of the result that begins at ``base``: winners are found once for all of them."""
        windows, winners = self.windows, dict[Coordinates, Value]()
        for phase in positions(*map(range, windows.stride)):
            covering = covering_in_phase(windows, base, phase, self.ends)
            value = gathered(point, windows, self.node, covering, winners)
            at, guard = [], Guard()
            for d, (index, r) in enumerate(zip(base, phase, strict=True)):
                stride, low = windows.stride[d], windows.low[d]
                place = index.scaled(stride).shifted(r - low)
                above = self.ends[d] * stride != windows.input[d] + low and windows.slides(d)
                guard = within(point, place, windows.input[d], guard, below=r < low, above=above)
                at.append(place)
            where = tuple(at)
            computed, results = self._results(point, value, where, guard), self.evaluator.region.results
            for i, (v, result) in enumerate(zip(results, computed, strict=True)):
                point.store(self.evaluator.result(i), self.evaluator.address(v.type, where, point.lanes), result, guard)
