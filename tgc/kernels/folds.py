"""What a reduction does with elements: its start, its step, and how partial results are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tgc.dtypes import DType, bool_, f32, i32, i64, u32, u64
from tgc.ir.graph import Node
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Value

State = tuple[Value, ...]

# how two elements are combined, in terms of the builder's reductions across lanes
_COMBINE: Final[Mapping[str, str]] = MappingProxyType(
    {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum", "any": "bit_or", "all": "bit_and"}
)
_SEARCHES: Final = frozenset({"argmax", "argmin"})


@dataclass(frozen=True)
class Fold:
    """A reduce node as arithmetic on vectors. Its state is one value, or two for a search: the best, and its place.

    bf16 and f16 are folded in f32. ``places``: the dtype of positions. The extremes of floats are folded as integers,
    in three values: of the bits the largest as signed ones, the least and the largest as unsigned ones. Each step is
    one instruction, where IEEE's maximum with its NaN and its two zeros takes several; the bits of positive floats
    are in their order, those of negative ones in the opposite order, and NaN lies beyond the infinities of both.
    """

    node: Node
    places: DType = i64

    @property
    def dtype(self) -> DType:
        return self.node.operands[0].dtype.compute

    @property
    def is_search(self) -> bool:
        return self.node.op in _SEARCHES

    @property
    def is_extreme(self) -> bool:
        """Whether the extreme of floats is wanted."""
        return self.node.op in ("max", "min") and self.dtype.is_float

    @property
    def state_dtypes(self) -> tuple[DType, ...]:
        """The dtypes of a state's values."""
        if self.is_extreme:
            return (i32, u32, u32) if self.dtype is f32 else (i64, u64, u64)
        return (self.dtype, self.places) if self.is_search else (self.dtype,)

    @property
    def rounds(self) -> bool:
        """Whether the order of folding shows in the result."""
        return self.node.op in ("sum", "prod") and self.dtype.is_float

    @property
    def neutral(self) -> bool | int | float:
        """What changes no result."""
        op, dtype = self.node.op, self.dtype
        if op in ("sum", "prod"):
            number = 0 if op == "sum" else 1
            return float(number) if dtype.is_float else number
        if dtype is bool_:
            return op == "all"
        low = op in ("max", "argmax")
        if dtype.is_float:
            return float("-inf") if low else float("inf")
        if dtype.kind == "uint":
            return 0 if low else 2**dtype.bits - 1
        half = 1 << (dtype.bits - 1)
        return -half if low else half - 1

    def start(self, b: KernelBuilder, lanes: int, *, ramp: bool) -> State:
        """The state of nothing. ``ramp``: lanes are places, so that of equal elements the first lane's is the first."""
        if self.is_extreme:
            return _ordered(b, b.constant(self.neutral, self.dtype, lanes))
        best = b.constant(self.neutral, self.dtype, lanes)
        if not self.is_search:
            return (best,)
        place = b.lane_indices(lanes, self.places) if ramp else b.constant(0, self.places, lanes)
        return best, place

    def step(self, b: KernelBuilder, state: State, value: Value, place: Value) -> State:
        """One more element in each lane, at ``place`` (i64 or :attr:`places`), which is later than those before."""
        if self.is_extreme:
            return self.join(b, state, _ordered(b, value))
        if not self.is_search:
            return (self._combined(b, state[0], value),)
        best, where = state
        largest = self.node.op == "argmax"
        if self.dtype.is_float:
            # what is not comparable wins, against all but its like
            wins = b.bit_not(b.compare("le" if largest else "ge", value, best))
            wins = b.bit_and(wins, b.compare("eq", best, best))
        else:
            wins = b.compare("gt" if largest else "lt", value, best)
        here = b.splat(b.convert(place, self.places), best.lanes)
        return b.select(wins, value, best), b.select(wins, here, where)

    def join(self, b: KernelBuilder, a: State, c: State) -> State:
        """Two partial results as one."""
        if self.is_extreme:
            return b.maximum(a[0], c[0]), b.minimum(a[1], c[1]), b.maximum(a[2], c[2])
        if not self.is_search:
            return (self._combined(b, a[0], c[0]),)
        (best, where), (other, place) = a, c
        wins = b.compare("gt" if self.node.op == "argmax" else "lt", other, best)
        ties = b.compare("eq", other, best)
        if self.dtype.is_float:
            nan, known = b.compare("ne", other, other), b.compare("ne", best, best)
            wins = b.bit_and(b.bit_or(wins, nan), b.bit_not(known))
            ties = b.bit_or(ties, b.bit_and(nan, known))
        wins = b.bit_or(wins, b.bit_and(ties, b.compare("lt", place, where)))
        return b.select(wins, other, best), b.select(wins, place, where)

    def _combined(self, b: KernelBuilder, a: Value, c: Value) -> Value:
        method = {
            "add": b.add,
            "mul": b.mul,
            "maximum": b.maximum,
            "minimum": b.minimum,
            "bit_or": b.bit_or,
            "bit_and": b.bit_and,
        }[_COMBINE[self.node.op]]
        return method(a, c)

    def across(self, b: KernelBuilder, state: State) -> State:
        """All lanes as one: upper half onto lower half."""
        if self.is_extreme:
            return b.reduce("maximum", state[0]), b.reduce("minimum", state[1]), b.reduce("maximum", state[2])
        if not self.is_search:
            return (b.reduce(_COMBINE[self.node.op], state[0]),)
        lanes = state[0].lanes
        while lanes > 1:
            lanes //= 2
            low, high = tuple(range(lanes)), tuple(range(lanes, 2 * lanes))
            lower = tuple([b.shuffle(x, x, low) for x in state])
            state = self.join(b, lower, tuple([b.shuffle(x, x, high) for x in state]))
        return state

    def result(self, b: KernelBuilder, state: State) -> Value:
        """The node's value, in its dtype."""
        if self.is_extreme:
            return b.convert(self._extreme(b, state), self.node.types[0].dtype)
        return b.convert(state[-1], self.node.types[0].dtype)

    def _extreme(self, b: KernelBuilder, state: State) -> Value:
        signed, least, most = state
        infinity = (1 << 8) - 1 << 23 if self.dtype is f32 else (1 << 11) - 1 << 52
        sign = 1 << (self.dtype.bits - 1)
        if self.node.op == "max":
            bits = b.select(b.compare("ge", signed, 0), b.bitcast(signed, least.dtype), least)
            bits = b.select(b.compare("gt", most, infinity | sign), most, bits)
        else:
            bits = b.select(b.compare("ge", most, sign), most, least)
            bits = b.select(b.compare("gt", signed, infinity), b.bitcast(signed, least.dtype), bits)
        return b.bitcast(bits, self.dtype)


def _ordered(b: KernelBuilder, value: Value) -> State:
    """A float's bits as the state of a fold of extremes that has seen nothing else."""
    signed, unsigned = (i32, u32) if value.dtype is f32 else (i64, u64)
    bits = b.bitcast(value, unsigned)
    return b.bitcast(value, signed), bits, bits


def flattened(states: Sequence[State]) -> State:
    """All values of several states, one after another."""
    return tuple([value for state in states for value in state])


def regrouped(folds: Sequence[Fold], values: Sequence[Value]) -> list[State]:
    """The inverse of :func:`flattened`, for any number of rounds through ``folds``."""
    states = []
    position = 0
    while position < len(values):
        for fold in folds:
            width = len(fold.state_dtypes)
            states.append(tuple(values[position : position + width]))
            position += width
    return states


def state_dtypes(folds: Sequence[Fold]) -> list[DType]:
    """The dtypes of the values of all states."""
    return [dtype for fold in folds for dtype in fold.state_dtypes]


def folds_of(nodes: Sequence[Node], searched: object) -> list[Fold]:
    """``searched``: the size of what is searched, which decides how wide places are."""
    small = isinstance(searched, int) and searched < 2**31
    return [Fold(node, i32 if small else i64) for node in nodes]
