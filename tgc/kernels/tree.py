"""The order in which a range is folded: a tree of few levels, so that errors grow as those of pairwise summation.

A range is cut into blocks; a block is folded into ``ways`` accumulators in turn, each of which takes at most
``DEPTH`` steps; the accumulators are joined in pairs. ``DEPTH`` blocks make a block of the next level, and so on. The
tree depends on the length of the range alone. (Blocked summation: N. J. Higham, "The accuracy of floating point
summation", 1993.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tgc.ir.dims import Dim
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.folds import State
from tgc.kernels.ir import Value

DEPTH = 16
LEVELS = 3
# (position, how many elements are real or None for all, state) -> state
Step = Callable[[Value, Value | None, State], State]


@dataclass(frozen=True)
class Tree:
    """``start``: the state of nothing, its values so many times as wide. ``width``: elements of a step. ``blocked``:
    whether the order matters. ``rolled``: emit a step once, not ``ways`` times, and hand the accumulators round.
    ``wide``: ``ways`` steps at once, on values of all accumulators after one another."""

    builder: KernelBuilder
    start: Callable[[int], State]
    step: Step
    join: Callable[[State, State], State]
    width: int = 1
    ways: int = 1
    blocked: bool = True
    rolled: bool = False
    wide: Step | None = None
    levels: int = LEVELS

    def fold(self, low: Value | int, high: Value | Dim, length: Dim | None = None) -> State:
        """The range low..high; ``length`` is how long it is, where that is known."""
        if isinstance(low, int) and not isinstance(high, Value):
            length = high - low
        return self._level(self.height(length), low, high, length)

    def height(self, length: Dim | None) -> int:
        """The levels above the blocks of a range of that length."""
        levels = self.levels if self.blocked else 0
        while levels and isinstance(length, int) and length <= self.span(levels - 1):
            levels -= 1
        return levels

    def span(self, level: int) -> int:
        """How many elements a level folds before its result joins others."""
        span = self.width * self.ways * DEPTH
        for _ in range(level):
            span *= DEPTH
        return span

    def _level(self, level: int, low: Value | int, high: Value | Dim, length: Dim | None) -> State:
        if level == 0:
            return self._block(low, high, length)
        span = self.span(level - 1)
        with self.builder.loop(low, self._index(high), span, carried=self.start(1), name="block") as loop:
            part = self._level(level - 1, loop.index, *self.end_of(loop.index, span, high, length))
            loop.yield_(*self.join(loop.carried, part))
        return loop.results

    def end_of(self, start: Value, span: int, high: Value | Dim, length: Dim | None) -> tuple[Value, int | None]:
        """Where a piece of ``span`` ends that begins at ``start``, and how long it is if that is known."""
        end = self.builder.add(start, span)
        if length is not None and length % span == 0:
            return end, span
        return self.builder.minimum(end, self._index(high)), None

    def _index(self, value: Value | Dim) -> Value:
        return self.builder.index(value)

    def _block(self, low: Value | int, high: Value | Dim, length: Dim | None) -> State:
        b, group = self.builder, self.width * self.ways
        if isinstance(length, int):
            whole = length // group * group
            middle: Value | int = low + whole if isinstance(low, int) else b.add(low, whole)
            states = self._groups(low, middle, whole) if whole else [self.start(1)] * self.ways
            return self._joined([self._rest(middle, length - whole, high, states[0]), *states[1:]])
        start, end = b.index(low), self._index(high)
        if group == 1:
            return self._groups(start, end, None)[0]
        middle = b.add(start, b.mul(b.floor_divide(b.sub(end, start), group), group))
        states = self._groups(start, middle, None)
        return self._joined([self._rest(middle, None, end, states[0]), *states[1:]])

    def _joined(self, states: list[State]) -> State:
        while len(states) > 1:
            pairs = [self.join(a, c) for a, c in zip(states[::2], states[1::2], strict=False)]
            states = pairs + states[2 * len(pairs) :]
        return states[0]

    def _groups(self, low: Value | int, high: Value | int, length: int | None) -> list[State]:
        """Whole groups of steps, one step of each for each accumulator."""
        b, ways, width = self.builder, self.ways, self.width
        if self.wide is not None and not self.rolled:
            return self._wide_groups(low, high, length, self.wide)
        states = [self.start(1) for _ in range(ways)]
        size = len(states[0])
        if length == width * ways:
            return [self.step(b.add(b.index(low), k * width), None, s) for k, s in enumerate(states)]
        flat = [v for s in states for v in s]
        advance = width if self.rolled else width * ways
        with b.loop(low, high, advance, carried=flat) as loop:
            states = [loop.carried[k * size : (k + 1) * size] for k in range(ways)]
            if self.rolled:
                states = [*states[1:], self.step(loop.index, None, states[0])]
            else:
                states = [self.step(b.add(loop.index, k * width), None, s) for k, s in enumerate(states)]
            loop.yield_(*[v for s in states for v in s])
        return [loop.results[k * size : (k + 1) * size] for k in range(ways)]

    def _wide_groups(self, low: Value | int, high: Value | int, length: int | None, step: Step) -> list[State]:
        b, ways = self.builder, self.ways
        state = self.start(ways)
        if length == self.width * ways:
            state = step(b.index(low), None, state)
        else:
            with b.loop(low, high, self.width * ways, carried=state) as loop:
                loop.yield_(*step(loop.index, None, loop.carried))
            state = loop.results

        def part(value: Value, k: int) -> Value:
            lanes = value.lanes // ways
            return b.shuffle(value, value, range(k * lanes, (k + 1) * lanes))

        return [tuple([part(value, k) for value in state]) for k in range(ways)]

    def _rest(self, low: Value | int, length: int | None, high: Value | Dim, state: State) -> State:
        """Fewer elements than a group has, onto one accumulator; the last step may be partial."""
        if length == 0:
            return state
        b, width = self.builder, self.width
        if length is not None and length <= width:
            return self.step(b.index(low), None if length == width else b.index(length), state)
        end = self._index(high)
        with b.loop(low, end, width, carried=state) as loop:
            count = None if width == 1 else b.sub(end, loop.index)
            loop.yield_(*self.step(loop.index, count, loop.carried))
        return loop.results
