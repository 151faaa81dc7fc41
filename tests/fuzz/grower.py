"""A graph while it grows: what the steps of :mod:`tests.fuzz.steps` and its neighbours add to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from tgc.dtypes import DTYPES, DType, bool_, f32
from tgc.errors import ShapeError
from tgc.ir import dims
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim
from tgc.ir.graph import Attributes, State, Value, literal, parameter, state
from tgc.ir.types import TensorType
from tgc.ops import OPS

FLOATS = ("f32", "f32", "f32", "f32", "f64", "bf16", "f16")
INTEGERS = ("i32", "i64", "u8", "i8", "i16", "u16", "u32", "u64")


@dataclass(frozen=True)
class Extent:
    """The sizes of dimensions, known and symbolic, and how many elements a value may have."""

    known: tuple[int, ...]
    symbolic: tuple[int, ...]
    most: int


SMALL = Extent((1, 2, 3, 4, 5, 7, 8, 16, 17, 24, 33), (0, 1, 2, 3, 7, 8, 13, 16, 17, 32, 33), 4000)
# for which schedules pack, split sums into parts, and have whole tiles as well as rests
LARGE = Extent((1, 2, 3, 16, 32, 33, 64, 100, 130, 257, 1000), (0, 1, 7, 32, 65, 130, 500), 150_000)


@dataclass
class Grower:
    """A graph while it grows: values so far, parameters, and the sizes it must stay small under."""

    rng: random.Random
    sizes: tuple[dict[str, int], ...]
    extent: Extent = SMALL
    builder: Builder = field(default_factory=lambda: Builder(OPS))
    pool: list[Value] = field(default_factory=list)
    parameters: list[Value] = field(default_factory=list)
    state: dict[str, State] = field(default_factory=dict)
    literals: dict[str, TensorType] = field(default_factory=dict)
    depth: int = 0
    closed: bool = False  # a region whose parameters are given

    # -- sizes ---------------------------------------------------------------------------------------------------

    def fits(self, type_: TensorType) -> bool:
        """Whether it has no negative size and not too many elements, for all sizes that are tried."""
        for sizes in self.sizes:
            shape = [dims.evaluate(d, sizes) for d in type_.shape]
            if any(d < 0 for d in shape) or prod(shape) > self.extent.most:
                return False
        return type_.rank <= 5

    def dim(self) -> Dim:
        symbols = list(self.sizes[0])
        if symbols and self.rng.random() < 0.4:
            return dims.symbol(self.rng.choice(symbols))
        return self.rng.choice(self.extent.known)

    def shape(self, rank: int | None = None) -> tuple[Dim, ...]:
        for _ in range(20):
            shape = tuple(self.dim() for _ in range(self.rng.choice((0, 1, 2, 2, 3, 3, 4)) if rank is None else rank))
            if self.fits(TensorType(f32, shape)):
                return shape
        return (2,) * (rank or 0)

    # -- values --------------------------------------------------------------------------------------------------

    def leaf(self, shape: Sequence[Dim], dtype: DType) -> Value:
        """A new value of that type that depends on nothing before it, except in a region, where all is given."""
        shape, rng = tuple(shape), self.rng
        if not self.fits(TensorType(dtype, shape)):
            raise ShapeError("too large")
        kind = rng.random()
        if self.closed or kind < 0.15:
            if shape and dtype is not bool_ and rng.random() < 0.4:
                return self.add("iota", attributes={"shape": shape, "axis": rng.randrange(len(shape)), "dtype": dtype})
            value = rng.choice((0, 1, 2, 3)) if not dtype.is_float else rng.choice((0.5, -1.0, 0.0, 1.5, -0.0, 3.0))
            return self.keep(self.builder.full(value, shape, dtype))
        if kind < 0.2 and all(isinstance(d, int) for d in shape):
            name = f"c{len(self.literals)}"
            self.literals[name] = TensorType(dtype, shape)
            return self.keep(literal(name, self.literals[name]))
        if kind < 0.3:
            name = f"s{len(self.state)}"
            self.state[name] = State(TensorType(dtype, shape))
            return self.keep(state(name, TensorType(dtype, shape)))
        self.parameters.append(parameter(len(self.parameters), TensorType(dtype, shape)))
        return self.keep(self.parameters[-1])

    def keep(self, value: Value) -> Value:
        if value not in self.pool:
            self.pool.append(value)
        return value

    def add(self, op: str, *operands: Value, attributes: Attributes | None = None) -> Value:
        """A node of the op; ShapeError where its result is too large or impossible."""
        results = self.builder.results(op, *operands, attributes=attributes or {})
        for value in results:
            self.check(value)
            self.keep(value)
        return results[0]

    def check(self, value: Value) -> None:
        if not self.fits(value.type):
            raise ShapeError(f"{value.type} is too large")

    def pick(self, *, kinds: str = "", rank: int = 0) -> Value:
        """A value so far, of those dtypes' kinds and at least that rank; late ones are likelier."""
        known = [v for v in self.pool if (not kinds or v.dtype.kind in kinds.split()) and len(v.shape) >= rank]
        if not known or self.rng.random() < 0.08:
            names = [d.name for d in DTYPES.values() if not kinds or d.kind in kinds.split()]
            likely = [n for n in (*FLOATS, *INTEGERS[:3], "bool") if n in names]
            shape = self.shape(max(rank, self.rng.choice((1, 2, 2, 3, 4))))
            return self.leaf(shape, DTYPES[self.rng.choice(likely or names)])
        at = int(len(known) * max(self.rng.random(), self.rng.random()))
        return known[at]

    def operand(self, shape: Sequence[Dim], dtype: DType) -> Value:
        """A value of exactly that type: a known one, one cast or broadcast, or a new one."""
        shape, rng = tuple(shape), self.rng
        exact = [v for v in self.pool if v.shape == shape and v.dtype is dtype]
        if exact and rng.random() < 0.75:
            return rng.choice(exact)
        same = [v for v in self.pool if v.shape == shape]
        if same and rng.random() < 0.4:
            return self.keep(self.builder.cast(rng.choice(same), dtype))
        if shape and rng.random() < 0.5:
            axes = sorted(rng.sample(range(len(shape)), rng.randrange(len(shape))))
            small = tuple(1 if rng.random() < 0.2 else shape[a] for a in axes)
            known = [v for v in self.pool if v.shape == small and v.dtype is dtype]
            base = rng.choice(known) if known else self.leaf(small, dtype)
            return self.keep(self.builder.broadcast(base, shape, axes))
        return self.leaf(shape, dtype)

    def into(self, x: Value, low: float, high: float) -> Value:
        """The value squeezed into an interval, mostly; sometimes as it is."""
        if self.rng.random() < 0.2 or not x.dtype.is_float:
            return x
        b = self.builder
        squeezed = b.op("sin", x) if self.rng.random() < 0.5 else b.op("tanh", x)
        middle, radius = (low + high) / 2, (high - low) / 2
        return self.keep(b.add(b.mul(squeezed, b.constant(radius, x.dtype)), b.constant(middle, x.dtype)))

    def index(self, shape: Sequence[Dim], below: Dim) -> Value:
        """Integers, most of them indices of a dimension of that size."""
        x = self.operand(shape, DTYPES[self.rng.choice(("i64", "i64", "i32", "u8"))])
        if isinstance(below, int) and self.rng.random() < 0.5:
            x = self.builder.op("remainder", x, self.builder.full_like(x, max(below, 1)))
        return self.keep(x)

    def need_elements(self, *sizes: Dim) -> None:
        """Raises :class:`ShapeError` where one of the sizes can be 0: some ops pick or divide, and nothing is there."""
        if any(dims.evaluate(d, known) == 0 for known in self.sizes for d in sizes):
            raise ShapeError("nothing there")


Step = Callable[[Grower], None]
