"""What a window does at one place: the folds of forward windows, and the winners that gradients look for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as positions
from math import prod

from tgc.dtypes import DType, i32
from tgc.errors import CompilerBug
from tgc.ir import graph
from tgc.ir.dims import Dim
from tgc.ir.graph import Node
from tgc.kernels.access import Point
from tgc.kernels.access_conditional import Guard, both
from tgc.kernels.access_movement import Coordinates
from tgc.kernels.grid import unflattened
from tgc.kernels.indices import Index
from tgc.kernels.ir import Value
from tgc.ops import rules
from tgc.ops.sliding import pairs

# (point, position in the window, its number, state) -> state
TapStep = Callable[[Point, Sequence[Index], Value, list[Value]], list[Value]]
# windows of more positions are walked by a loop
MOST_UNROLLED = 16


@dataclass(frozen=True)
class Windows:
    """The attributes of a window op, and the shapes on both sides."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    input: tuple[Dim, ...]
    output: tuple[Dim, ...]

    @staticmethod
    def of(node: Node, input: tuple[Dim, ...], output: tuple[Dim, ...]) -> Windows:
        window, stride, dilation = (rules.integers(node.attributes, n) for n in ("window", "stride", "dilation"))
        padding = pairs(node.attributes, "padding")
        low, high = tuple([a for a, _ in padding]), tuple([b for _, b in padding])
        return Windows(window, stride, low, high, dilation, input, output)

    @property
    def taps(self) -> list[tuple[int, ...]]:
        return list(positions(*map(range, self.window)))

    @property
    def count(self) -> int:
        return prod(self.window)

    def slides(self, d: int) -> bool:
        """Whether a dimension has windows at all."""
        return (self.window[d], self.stride[d], self.low[d], self.high[d]) != (1, 1, 0, 0)

    @property
    def padded(self) -> bool:
        """Whether a window may meet padding."""
        return any(self.low) or any(self.high)

    @property
    def overlap(self) -> bool:
        """Whether an element may lie in several windows."""
        return any(s < d * (w - 1) + 1 for w, s, d in zip(self.window, self.stride, self.dilation, strict=True))

    def met(self, at: Coordinates, tap: Sequence[Index]) -> Coordinates:
        """What position ``tap`` of the window ``at`` meets."""
        found = []
        for d, (index, k) in enumerate(zip(at, tap, strict=True)):
            found.append(index.scaled(self.stride[d]).plus(k.scaled(self.dilation[d])).shifted(-self.low[d]))
        return tuple(found)

    def inside(self, point: Point, place: Coordinates, guard: Guard) -> Guard:
        """``guard``, and that a met place is no padding."""
        for d, index in enumerate(place):
            guard = within(point, index, self.input[d], guard, below=self.low[d] > 0, above=self.high[d] > 0)
        return guard


def within(point: Point, index: Index, size: Dim, guard: Guard, *, below: bool, above: bool) -> Guard:
    """``guard``, and ``0 <= index < size`` as far as the two ends are open."""
    b = point.builder
    if not below and not above:
        return guard
    number = point.number(index)
    if below:
        guard = both(b, guard, b.compare("ge", number, 0))
    if above:
        guard = both(b, guard, b.compare("lt", number, b.index(size)))
    return guard


def read(point: Point, v: graph.Value, at: Coordinates, guard: Guard) -> Value:
    """A value in the dtype that it is computed in, in every lane."""
    return point.builder.splat(point.builder.convert(point.value(v, at, guard), v.dtype.compute), point.lanes)


def holds(point: Point, guard: Guard) -> Value | None:
    """Both conditions of a guard, in every lane; None if there are none."""
    b = point.builder
    found: Value | None = None
    for condition in guard:
        if condition is not None:
            whole = b.splat(condition, point.lanes)
            found = whole if found is None else b.bit_and(found, whole)
    return found


def chosen(point: Point, guard: Guard, value: Value, otherwise: Value) -> Value:
    """``value`` where a guard holds, else ``otherwise``."""
    condition = holds(point, guard)
    return value if condition is None else point.builder.select(condition, value, otherwise)


def lowest(dtype: DType) -> float | int:
    """What no number of a dtype is less than."""
    if dtype.is_float:
        return float("-inf")
    return 0 if dtype.kind == "uint" else -(1 << dtype.bits - 1)


def over_taps(point: Point, windows: Windows, start: Sequence[Value], step: TapStep) -> list[Value]:
    """Hands a state through all positions of a window, in their order."""
    b = point.builder
    state = list(start)
    if windows.count <= MOST_UNROLLED:
        for k, position in enumerate(windows.taps):
            state = step(point, [Index(constant=t) for t in position], b.constant(k, i32), state)
        return state
    with b.loop(0, windows.count, carried=state, name="tap") as loop:
        inner = point.nested(point.lanes, point.count)
        tap = [inner.opaque(v) for v in unflattened(b, loop.index, windows.window)]
        loop.yield_(*step(inner, tap, b.convert(loop.index, i32), list(loop.carried)))
    return list(loop.results)


def window_sum(point: Point, windows: Windows, x: graph.Value, at: Coordinates) -> Value:
    """The sum of a window, padding being 0."""
    b, dtype = point.builder, x.dtype.compute
    nothing = b.constant(0, dtype, point.lanes)

    def step(point: Point, tap: Sequence[Index], number: Value, state: list[Value]) -> list[Value]:
        place = windows.met(at, tap)
        guard = windows.inside(point, place, Guard())
        return [b.add(state[0], chosen(point, guard, read(point, x, place, guard), nothing))]

    return over_taps(point, windows, [nothing], step)[0]


def winner(
    point: Point, windows: Windows, x: graph.Value, at: Coordinates, guard: Guard, taken: graph.Value | None = None
) -> tuple[Value, Value]:
    """The first maximum of a window, NaN before all, and its position: -1 if there is padding alone.

    Of ``taken``, if given, the element at the maximum instead of the maximum; 0 for padding alone. Where ``guard`` does
    not hold, both are arbitrary.
    """
    b, dtype, lanes = point.builder, x.dtype.compute, point.lanes
    state = [b.constant(lowest(dtype), dtype, lanes), b.constant(-1, i32, lanes)]
    if taken is not None:
        state.append(b.constant(0, taken.dtype.compute, lanes))

    def step(point: Point, tap: Sequence[Index], number: Value, state: list[Value]) -> list[Value]:
        best, position = state[:2]
        place = windows.met(at, tap)
        inside = windows.inside(point, place, Guard())
        real = guard
        for condition in inside:
            real = both(b, real, condition)
        here = read(point, x, place, real)
        found = [here, b.splat(number, lanes)]
        if taken is not None:
            found.append(read(point, taken, place, real))
        if not windows.padded and number.constant == 0:
            return found
        if dtype.is_float:
            # larger or NaN, unless NaN has won already
            wins = b.bit_and(b.bit_not(b.compare("le", here, best)), b.compare("eq", best, best))
        else:
            wins = b.compare("gt", here, best)
        if windows.padded:
            # the first that is no padding wins over nothing, even if it is the least value
            wins = b.bit_or(wins, b.compare("lt", position, 0))
            condition = holds(point, inside)
            wins = wins if condition is None else b.bit_and(wins, condition)
        return [b.select(wins, new, old) for new, old in zip(found, state, strict=True)]

    result = over_taps(point, windows, state, step)
    return (result[0] if taken is None else result[2]), result[1]


def window_max(point: Point, windows: Windows, x: graph.Value, at: Coordinates) -> Value:
    """The first maximum of a window; NaN wins, padding takes no part."""
    b, dtype = point.builder, x.dtype.compute
    nothing = b.constant(lowest(dtype), dtype, point.lanes)

    def step(point: Point, tap: Sequence[Index], number: Value, state: list[Value]) -> list[Value]:
        place = windows.met(at, tap)
        guard = windows.inside(point, place, Guard())
        here = read(point, x, place, guard)
        if not windows.padded and number.constant == 0:
            return [here]
        wins = b.compare("gt", here, state[0])
        if dtype.is_float:
            wins = b.bit_or(wins, b.compare("ne", here, here))
        condition = holds(point, guard)
        if condition is not None:
            wins = b.bit_and(wins, condition)
        return [b.select(wins, here, state[0])]

    return over_taps(point, windows, [nothing], step)[0]


# position in the window -> the window at which it meets the element, and whether that exists; None if none can
Covering = Callable[[Point, Sequence[Index]], "tuple[Coordinates, Guard] | None"]
# where the maximum of a window is
Position = Callable[[Point, Coordinates, Guard], Value]


def gathered(point: Point, windows: Windows, dy: graph.Value, covering: Covering, position: Position | None) -> Value:
    """An element of a gradient: the sum, over the windows that cover it, of what they hand to it.

    The positions in the window are looked at in their order. ``position``: where a window's maximum is, which gets all
    of it; without, each element gets it.
    """
    b = point.builder
    nothing = b.constant(0, dy.dtype.compute, point.lanes)

    def step(point: Point, tap: Sequence[Index], number: Value, state: list[Value]) -> list[Value]:
        covered = covering(point, tap)
        if covered is None:
            return state
        place, exists = covered
        value = read(point, dy, place, exists)
        if position is not None:
            wins = b.compare("eq", position(point, place, exists), b.splat(number, point.lanes))
            exists = both(b, exists, wins)
        return [b.add(state[0], chosen(point, exists, value, nothing))]

    return over_taps(point, windows, [nothing], step)[0]


def covering_anywhere(windows: Windows, at: Coordinates) -> Covering:
    """Of any element: by division."""

    def covering(point: Point, tap: Sequence[Index]) -> tuple[Coordinates, Guard]:
        b, place, guard = point.builder, [], Guard()
        for d, (index, k) in enumerate(zip(at, tap, strict=True)):
            if not windows.slides(d):
                place.append(index)
                continue
            first = index.plus(k.scaled(-windows.dilation[d])).shifted(windows.low[d])
            quotient, rest = point.divide(first, windows.stride[d])
            if windows.stride[d] != 1:
                guard = both(b, guard, b.compare("eq", point.number(rest), 0))
            guard = within(point, quotient, windows.output[d], guard, below=True, above=True)
            place.append(quotient)
        return tuple(place), guard

    return covering


def covering_in_phase(windows: Windows, base: Coordinates, phase: Sequence[int], ends: Sequence[Dim]) -> Covering:
    """Of the element ``base · stride + phase − low``, for ``0 <= base < ends``: which windows is known beforehand."""

    def covering(point: Point, tap: Sequence[Index]) -> tuple[Coordinates, Guard] | None:
        place, guard = [], Guard()
        for d, (index, k, r) in enumerate(zip(base, tap, phase, strict=True)):
            if not isinstance(k.constant, int):
                raise CompilerBug("a phase of positions that are not known", stage="schedule")
            shift, rest = divmod(k.constant * windows.dilation[d] - r, windows.stride[d])
            if rest:
                return None
            last = ends[d] - shift
            above = not (last == windows.output[d] or rules.provably_less(last, windows.output[d] + 1))
            shifted = index.shifted(-shift)
            guard = within(point, shifted, windows.output[d], guard, below=shift > 0, above=above)
            place.append(shifted)
        return tuple(place), guard

    return covering
