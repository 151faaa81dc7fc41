"""The schedule of windows (pooling) and their gradients: vectors along the innermost dimension of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product as positions
from math import prod

from tgc.dtypes import i8, i32
from tgc.errors import CompilerBug
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.ir.types import Layout, TensorType
from tgc.kernels.access import FUTURE, Evaluator, Point
from tgc.kernels.access_conditional import Guard
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.grid import Grid, ceil_divide
from tgc.kernels.indices import Index, inner
from tgc.kernels.ir import Value
from tgc.kernels.lowering import Lowering, Stage, Temporary
from tgc.kernels.pointwise import chunk_elements
from tgc.kernels.spaces import Axis, Pattern, joined, loop_indices, pattern
from tgc.kernels.vector_loop import region_lanes, vector_loop
from tgc.kernels.window_taps import (
    MOST_UNROLLED,
    Position,
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
    """The kernels of a region with one window op, with maps on its operands before and on its result after.

    Where windows overlap, the gradient of a maximum first finds the winner of each window, once.
    """
    anchors = [node for node in region.nodes() if table[node.op].kind is OpKind.WINDOW]
    if len(anchors) != 1:
        raise CompilerBug(f"a window region with {len(anchors)} windows", stage="schedule")
    (node,) = anchors
    for v in region.results:
        layout = v.type.layout
        if v.shape != node.types[0].shape or layout is not None and (layout.tiles or layout.margins):
            raise CompilerBug(f"a window writes {v.type}", stage="schedule")
    result = node.types[0].shape
    if node.op not in GRADIENTS:
        windows = Windows.of(node, node.operands[0].shape, result)
        # more is read than written
        plan = _Plan(region, node, windows, node.operands[0].type.order, result, table, target)
        return Lowering((plan.kernel(name, lambda walk: walk.forward),))
    windows = Windows.of(node, result, node.operands[-1].shape)
    positions_type: TensorType | None = None
    stages = []
    temporaries = {}
    if node.op == "window_max_gradient" and windows.overlap:
        dy = node.operands[1].type
        order = Layout(region.results[0].type.order)
        positions_type = TensorType(i8 if windows.count < 128 else i32, dy.shape, order)
        temporaries["t0"] = Temporary(positions_type.dtype, positions_type.buffer_size)
        first = _Plan(region, node, windows, order.order, dy.shape, table, target, positions_type)
        stages.append(first.kernel(f"{name}_winners", lambda walk: walk.winners))
    phased = windows.count <= MOST_UNROLLED and prod(windows.stride) <= MOST_UNROLLED
    ends = result
    if phased:
        ends = tuple([ceil_divide(d + p, s) for d, p, s in zip(result, windows.low, windows.stride, strict=True)])
    plan = _Plan(region, node, windows, region.results[0].type.order, ends, table, target, positions_type)
    stages.append(plan.kernel(name, lambda walk: walk.phases if phased else walk.anywhere))
    return Lowering(tuple(stages), temporaries)


@dataclass(frozen=True)
class _Plan:
    """One pass over ``ends``: the result, the windows, or the bases of a result's strides."""

    region: Graph
    node: Node
    windows: Windows
    order: tuple[int, ...]
    ends: tuple[Dim, ...]
    table: OpTable
    target: Target
    positions: TensorType | None = None

    def kernel(self, name: str, element: Callable[[_Walk], Callable[[Point, Coordinates], None]]) -> Stage:
        axes = self._axes()
        lanes = region_lanes(self.region, self.target) if axes else 1
        cost = _element_cost(self.node, self.windows, lanes) * self._elements()
        grid = Grid.over([axis.size for axis in axes], chunk_elements(cost))
        b = KernelBuilder(name, count=grid.count)
        walk = _Walk(Evaluator(b, self.region, self.table), self, axes, lanes)
        grid.emit(b, lambda outer, low, high: walk.run(outer, low, high, element(walk)))
        return Stage(b.finish(), grid.cost(cost))

    def _elements(self) -> int:
        """Elements that are written at each place."""
        return 1 if self.ends in (self.windows.input, self.windows.output) else prod(self.windows.stride)

    def _axes(self) -> list[Axis]:
        """The loops in the order of memory; dimensions without windows are joined."""
        number = {d: n for n, d in enumerate(self.order)}
        at = tuple([Index(((number[d], 1),)) for d in range(len(self.order))])
        results = self.region.results
        accesses = pattern([(v, at) for v in (*self.node.operands, *results)], self.table, {self.node.result})
        stores = tuple([inner(at, v.type.strides) for v in results])
        sliding = frozenset(number[d] for d in range(len(self.order)) if self.windows.slides(d))
        whole = Pattern(accesses.offsets + stores, accesses.pinned | sliding)
        return joined([self.ends[d] for d in self.order], whole)


def _element_cost(node: Node, windows: Windows, lanes: int) -> float:
    per_tap = 4 if node.op in ("window_sum", "window_sum_gradient") else 8
    return 0.25 * per_tap * windows.count / lanes + 0.1


@dataclass(frozen=True)
class _Walk:
    evaluator: Evaluator
    plan: _Plan
    axes: Sequence[Axis]
    lanes: int

    def run(
        self,
        outer: Sequence[Value],
        low: Value | int,
        high: Value | Dim,
        element: Callable[[Point, Coordinates], None],
    ) -> None:
        evaluator, node = self.evaluator, self.plan.node
        indices = [evaluator.index(v, bound=a.size) for v, a in zip(outer, self.axes[:-1], strict=True)]
        # of the op itself nothing can be moved out of the loops
        nothing = evaluator.builder.constant(0, node.types[0].dtype)
        top = evaluator.point(overrides={node.result: nothing})
        if not self.axes:
            element(top, self._at([]))
            return
        future = self._at([*indices, replace(FUTURE, lane=1)])
        for v in evaluator.region.results:
            top.hoist(v, future)

        def body(v: Value, count: Value | None) -> None:
            index = evaluator.index(v, lane=1, bound=self.axes[-1].size, step=self.lanes)
            element(top.nested(self.lanes, count), self._at([*indices, index]))

        vector_loop(evaluator.builder, low, high, self.lanes, body)

    def _at(self, indices: Sequence[Index]) -> Coordinates:
        order = self.plan.order
        found = [Index()] * len(order)
        for d, index in zip(order, loop_indices(self.axes, indices, len(order)), strict=True):
            found[d] = index
        return tuple(found)

    # -- what happens at a place ---------------------------------------------------------------------------------------

    def forward(self, point: Point, at: Coordinates) -> None:
        """One element of the result for each window."""
        node, windows = self.plan.node, self.plan.windows
        if node.op == "window_sum":
            value = window_sum(point, windows, node.operands[0], at)
        elif node.op == "window_max":
            value = window_max(point, windows, node.operands[0], at)
        elif node.op == "window_max_take":
            value = winner(point, windows, node.operands[0], at, Guard(), node.operands[1])[0]
        else:
            raise CompilerBug(f"no window {node.op}", stage="schedule")
        self._store(point, self._results(point, value, at, Guard()), at, Guard())

    def winners(self, point: Point, at: Coordinates) -> None:
        """Where the maximum of each window is."""
        type_, evaluator = self._positions_type(), self.evaluator
        found = winner(point, self.plan.windows, self.plan.node.operands[0], at, Guard())[1]
        buffer = evaluator.buffer("t0", type_.dtype, type_.buffer_size, "write")
        offset = evaluator.address(type_, at, point.lanes)
        point.store(buffer, offset, point.builder.convert(found, type_.dtype))

    def anywhere(self, point: Point, at: Coordinates) -> None:
        """One element of a gradient, wherever it lies in the windows."""
        covering = covering_anywhere(self.plan.windows, at)
        value = gathered(point, self.plan.windows, self.plan.node.operands[-1], covering, self._position({}))
        self._store(point, self._results(point, value, at, Guard()), at, Guard())

    def phases(self, point: Point, base: Coordinates) -> None:
        """Every element of a gradient in the stride that begins at ``base``."""
        plan, windows = self.plan, self.plan.windows
        position = self._position({})
        last = plan.order[-1]
        paired = windows.stride[last] == 2 and point.lanes > 1 and base[last].lane == 1
        pending: list[tuple[list[Value], Coordinates, Guard]] = []
        for phase in positions(*[range(windows.stride[d]) for d in plan.order]):
            r_of = dict(zip(plan.order, phase, strict=True))
            residues = [r_of[d] for d in range(len(base))]
            covering = covering_in_phase(windows, base, residues, plan.ends)
            value = gathered(point, windows, plan.node.operands[-1], covering, position)
            at, guard = self._element_of(point, base, residues)
            computed = self._results(point, value, at, guard)
            if not paired:
                self._store(point, computed, at, guard)
                continue
            pending.append((computed, at, guard))
            if len(pending) == 2:
                self._store_paired(point, pending, base[last], last)
                pending = []

    def _element_of(self, point: Point, base: Coordinates, residues: Sequence[int]) -> tuple[Coordinates, Guard]:
        """The element of a phase, and whether it exists."""
        windows, at, guard = self.plan.windows, [], Guard()
        for d, (index, r) in enumerate(zip(base, residues, strict=True)):
            stride, low = windows.stride[d], windows.low[d]
            place = index.scaled(stride).shifted(r - low)
            above = windows.slides(d) and self.plan.ends[d] * stride != windows.input[d] + low
            guard = within(point, place, windows.input[d], guard, below=r < low, above=above)
            at.append(place)
        return tuple(at), guard

    def _positions_type(self) -> TensorType:
        if self.plan.positions is None:
            raise CompilerBug("positions of windows have no place", stage="schedule")
        return self.plan.positions

    def _position(self, known: dict[Coordinates, Value]) -> Position | None:
        """How to find the position of a window's maximum: from the pass before, or here, once for each window."""
        plan, evaluator = self.plan, self.evaluator
        node, type_ = plan.node, plan.positions
        if node.op == "window_sum_gradient":
            return None

        def loaded(point: Point, place: Coordinates, exists: Guard) -> Value:
            if type_ is None:
                raise CompilerBug("positions of windows have no place", stage="schedule")
            buffer = evaluator.buffer("t0", type_.dtype, type_.buffer_size, "read")
            number = point.load(buffer, evaluator.address(type_, place, point.lanes), exists)
            return point.builder.splat(point.builder.convert(number, i32), point.lanes)

        def computed(point: Point, place: Coordinates, exists: Guard) -> Value:
            found = known.get(place)
            if found is None:
                found = winner(point, plan.windows, node.operands[0], place, exists)[1]
                # what is computed in the body of a loop is not known outside of it
                if plan.windows.count <= MOST_UNROLLED:
                    known[place] = found
            return found

        return computed if type_ is None else loaded

    # -- results -------------------------------------------------------------------------------------------------------

    def _results(self, point: Point, value: Value, at: Coordinates, guard: Guard) -> list[Value]:
        """The region's results, given the window op's value in the dtype that it is computed in."""
        node = self.plan.node
        rounded = point.builder.convert(value, node.types[0].dtype)
        after = point.nested(point.lanes, point.count, {node.result: rounded})
        return [after.value(v, at, guard) for v in self.evaluator.region.results]

    def _store(self, point: Point, values: Sequence[Value], at: Coordinates, guard: Guard) -> None:
        evaluator = self.evaluator
        for i, (v, value) in enumerate(zip(evaluator.region.results, values, strict=True)):
            point.store(evaluator.result(i), evaluator.address(v.type, at, point.lanes), value, guard)

    def _store_paired(
        self, point: Point, pair: Sequence[tuple[list[Value], Coordinates, Guard]], index: Index, d: int
    ) -> None:
        """Elements of two phases that alternate in memory, as two whole vectors."""
        evaluator, b, lanes = self.evaluator, point.builder, point.lanes
        (even, at, guard), (odd, _, _) = pair
        size, low = self.plan.windows.input[d], self.plan.windows.low[d]
        first = evaluator.scalar(at[d])
        end = b.sub(b.index(size), first)
        if point.count is not None:
            end = b.minimum(end, b.mul(point.count, 2))
        if guard.scalar is not None:
            end = b.select(guard.scalar, end, b.index(0))
        for i, v in enumerate(evaluator.region.results):
            offset = evaluator.scalar(evaluator.address(v.type, at, lanes))
            a, c = b.splat(even[i], lanes), b.splat(odd[i], lanes)
            for half in (0, 1):
                start = half * lanes // 2
                mask = tuple([start + k // 2 + (lanes if k % 2 else 0) for k in range(lanes)])
                mixed = b.shuffle(a, c, mask)
                count = b.sub(end, half * lanes)
                if low == 0:
                    b.store(evaluator.result(i), b.add(offset, half * lanes), mixed, count=count)
                    continue
                place = b.lane_indices(lanes)
                real = b.bit_and(b.compare("lt", place, count), b.compare("ge", b.add(place, first), -half * lanes))
                b.store(evaluator.result(i), b.add(offset, half * lanes), mixed, mask=real)
