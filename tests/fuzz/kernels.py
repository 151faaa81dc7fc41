"""Random kernels, with the sizes to call them with: nested loops, tails, masks, branches, vectors, scratch.

Iterations write to slices of their own, everything is written before it is read, and no access leaves its buffer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tests.fuzz.kernel_interpreter import Array
from tgc.dtypes import DTYPES, DType, bool_, f32, f64, i32, i64
from tgc.ir.dims import Dim, evaluate, symbol
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Buffer, Kernel, Value
from tgc.kernels.vector_loop import vector_loop

_SLICE = 72  # elements of a buffer that belong to one iteration: no multiple of most vectors
_LANES = (1, 1, 2, 4, 8, 8, 16, 16, 32)
_STORED = ("f32", "f32", "f64", "bf16", "f16", "i32", "i64", "u8", "i8", "u16", "i16", "u32", "u64", "bool")
_MATH = ("exp", "tanh", "sin", "log1p", "erf")
_DEEPEST = 3


@dataclass(frozen=True)
class KernelSample:
    """A kernel and the sizes of its symbols in each call."""

    seed: int
    kernel: Kernel
    sizes: tuple[dict[str, int], ...]

    def arrays(self, sizes: dict[str, int]) -> list[Array]:
        rng = np.random.default_rng([self.seed, *sizes.values()])
        return [_numbers(rng, b.dtype, evaluate(b.size, sizes)) for b in self.kernel.buffers]


def _numbers(rng: np.random.Generator, dtype: DType, size: int) -> Array:
    if dtype is bool_:
        return rng.integers(0, 2, size).astype(np.bool_)
    if dtype.is_integer:
        whole = rng.integers(0, 2**64, size, np.uint64).astype(dtype.numpy)
        return np.where(rng.random(size) < 0.5, whole, rng.integers(0, 9, size).astype(dtype.numpy))
    values = rng.normal(size=size) * 2.0 ** rng.integers(-8, 9, size)
    strange = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 7e4, 1.0], size)
    with np.errstate(over="ignore"):
        return np.where(rng.random(size) < 0.1, strange, values).astype(dtype.numpy)


def kernel_sample(seed: int, *, length: int = 24) -> KernelSample:
    """The kernel of that seed, of about ``length`` steps."""
    rng = random.Random(seed)
    count: Dim = symbol("n") if rng.random() < 0.4 else rng.randint(1, 3)
    symbols = ("m", "n")
    sizes = ({"m": 5, "n": 3}, {"m": rng.choice((0, 1, 7, 33)), "n": rng.choice((0, 1, 2))})
    grower = _Grower(rng, KernelBuilder("fuzzed", count=count, noalias=rng.random() < 0.5), count)
    grower.begin()
    for _ in range(length):
        grower.step()
    grower.end()
    kernel = grower.b.finish()
    return KernelSample(seed, kernel, tuple({s: d[s] for s in symbols if s in kernel.symbols} for d in sizes))


@dataclass
class _Grower:
    rng: random.Random
    b: KernelBuilder
    count: Dim
    pool: list[Value] = field(default_factory=list)  # what is visible here
    sources: list[Buffer] = field(default_factory=list)
    owned: list[Buffer] = field(default_factory=list)  # a slice of which is this iteration's
    scratch: list[Buffer] = field(default_factory=list)
    depth: int = 0

    def begin(self) -> None:
        rng, b = self.rng, self.b
        for n in range(rng.randint(1, 3)):
            size: Dim = rng.choice((_SLICE, 100, symbol("m") + _SLICE))
            self.sources.append(b.buffer(f"x{n}", self._stored(), size, "read"))
        for n in range(rng.randint(1, 3)):
            access = rng.choice(("write", "readwrite"))
            self.owned.append(b.buffer(f"y{n}", self._stored(), self.count * _SLICE, access))
        for n in range(rng.choice((0, 1, 2))):
            buffer = b.scratch(f"s{n}", self._stored(), _SLICE)
            self.scratch.append(buffer)
            lanes = rng.choice((1, 4, 8))
            with b.loop(0, _SLICE, lanes) as loop:
                b.store(buffer, loop.index, self.like(buffer.dtype, lanes))
                loop.yield_()
        self.pool += [b.iteration, b.index(symbol("m")), b.constant(2, i64)]
        for buffer in self.sources:
            self.pool.append(self.read(buffer))

    def end(self) -> None:
        for buffer in self.owned:
            for value in self.rng.sample(self.pool, min(len(self.pool), 3)):
                lanes = min(value.lanes, 32)
                self.write(buffer, value if value.lanes == lanes else self.like(buffer.dtype, lanes))

    def step(self) -> None:
        acts = _SIMPLE if self.depth >= _DEEPEST else _SIMPLE | _NESTED
        (act,) = self.rng.choices(list(acts), list(acts.values()))
        made = act(self)
        if made is not None:
            self.pool.append(made)

    # -- values ----------------------------------------------------------------------------------------------------

    def _stored(self) -> DType:
        return DTYPES[self.rng.choice(_STORED)]

    def pick(self, fits: Callable[[Value], bool]) -> Value:
        """A visible value, late ones sooner; one that is loaded if none fits."""
        found = [v for v in self.pool if fits(v)]
        if found:
            return found[int(len(found) * max(self.rng.random(), self.rng.random()))]
        wanted = [d for d in (f32, i32, f64, i64, bool_) if fits(_Shape(d))]  # type: ignore[arg-type]
        return self.like(wanted[0], self.rng.choice(_LANES))

    def computed(self) -> Value:
        """A value that arithmetic takes."""
        return self.pick(lambda v: v.dtype is not bool_ and v.dtype.compute is v.dtype)

    def like(self, dtype: DType, lanes: int) -> Value:
        """Some value of exactly that type."""
        rng, b = self.rng, self.b
        exact = [v for v in self.pool if v.dtype is dtype and v.lanes == lanes]
        if exact and rng.random() < 0.7:
            return rng.choice(exact)
        same = [v for v in self.pool if v.lanes in (1, lanes)]
        if same and rng.random() < 0.6:
            return b.splat(b.convert(rng.choice(same), dtype), lanes)
        number = rng.choice((0, 1, 3, -1, 5, 100)) if not dtype.is_float else rng.choice((0.0, -0.0, 1.5, -2.0, 0.1))
        return b.constant(number, dtype, lanes)

    def other(self, x: Value) -> Value | int | float:
        """A second operand: of the same lanes, a scalar, or a number."""
        way = self.rng.random()
        if way < 0.2:
            return self.rng.choice((1, 2, 3)) if not x.dtype.is_float else self.rng.choice((1.0, -0.5, 2.0))
        return self.like(x.dtype, 1 if way < 0.4 else x.lanes)

    # -- memory ----------------------------------------------------------------------------------------------------

    def below(self, limit: Value | int) -> Value:
        """An index from 0 to ``limit`` - 1."""
        index = self.pick(lambda v: v.dtype.is_integer and v.lanes == 1)
        return self.b.modulo(self.b.convert(index, i64), limit)

    def size(self, buffer: Buffer) -> Value | int:
        return self.b.index(buffer.size) if buffer in self.sources else _SLICE

    def base(self, buffer: Buffer) -> Value:
        """Where what may be accessed of a buffer begins."""
        return self.b.mul(self.b.iteration, _SLICE) if buffer in self.owned else self.b.constant(0, i64)

    def place(self, buffer: Buffer, lanes: int) -> tuple[Value, dict[str, Value]]:
        """An offset, with what guards the lanes that lie outside or are left out."""
        b, size, way = self.b, self.size(buffer), self.rng.random()
        if way < 0.4:
            return b.add(self.base(buffer), self.below(b.sub(b.index(size), lanes - 1))), {}
        start = self.below(size)
        offset, left = b.add(self.base(buffer), start), b.sub(b.index(size), start)
        if way < 0.6:
            return offset, {"count": left}
        if way < 0.75:
            # none, some, or more than there are lanes
            count = b.sub(self.below(lanes + 3), 1)
            return offset, {"count": b.minimum(count, left)}
        inside = b.compare("lt", b.lane_indices(lanes), left)
        return offset, {"mask": b.bit_and(inside, self.like(bool_, lanes)) if way < 0.9 else inside}

    def readable(self) -> Buffer:
        own = [y for y in self.owned if y.access == "readwrite"]
        return self.rng.choice([*self.sources, *self.sources, *own, *self.scratch])

    def read(self, buffer: Buffer) -> Value:
        lanes = self.rng.choice(_LANES)
        if self.rng.random() < 0.2:
            offsets, mask = self.scattered(buffer, lanes)
            return self.b.gather(buffer, offsets, mask=mask)
        offset, guard = self.place(buffer, lanes)
        return self.b.load(buffer, offset, lanes, **guard)  # type: ignore[arg-type]

    def scattered(self, buffer: Buffer, lanes: int) -> tuple[Value, Value | None]:
        b, dtype = self.b, self.rng.choice((i64, i64, i32))
        size, base = (b.convert(b.index(x), dtype) for x in (self.size(buffer), self.base(buffer)))
        wild = b.convert(self.like(dtype, lanes), dtype)
        if self.rng.random() < 0.7:
            return b.add(b.modulo(wild, size), base), None
        inside = b.bit_and(b.compare("ge", wild, base), b.compare("lt", wild, b.add(base, size)))
        return wild, inside

    def write(self, buffer: Buffer, value: Value) -> None:
        b = self.b
        value = b.convert(value, buffer.dtype)
        if self.rng.random() < 0.2:
            offsets, mask = self.scattered(buffer, value.lanes)
            b.scatter(buffer, offsets, value, mask=mask)
            return
        offset, guard = self.place(buffer, value.lanes)
        b.store(buffer, offset, value, **guard)  # type: ignore[arg-type]

    # -- blocks ----------------------------------------------------------------------------------------------------

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is made here is not visible afterwards."""
        before = len(self.pool)
        self.depth += 1
        yield
        self.depth -= 1
        del self.pool[before:]

    def grow(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self.step()

    def carried(self) -> list[Value]:
        return [self.rng.choice(self.pool) for _ in range(self.rng.randint(0, 3))]


@dataclass(frozen=True)
class _Shape:
    """A dtype as a value, to ask whether such a value fits."""

    dtype: DType
    lanes: int = 1


# -- steps -------------------------------------------------------------------------------------------------------


def _arithmetic(g: _Grower) -> Value:
    b, x = g.b, g.computed()
    names = ["add", "sub", "mul", "div", "minimum", "maximum"]
    if x.dtype.is_integer:
        names += ["rem", "floor_divide", "modulo", "shift_left", "shift_right", "bit_and", "bit_or", "bit_xor"]
        names += ["multiply_high"] * (x.dtype.kind == "uint" and x.dtype.bits >= 32)
    y = g.other(x)
    operands = (x, y) if g.rng.random() < 0.7 else (y, x)
    made = getattr(b, g.rng.choice(names))(*operands)
    return made if isinstance(made, Value) else x


def _fused(g: _Grower) -> Value:
    x = g.pick(lambda v: v.dtype is f32)
    return getattr(g.b, g.rng.choice(("fma", "multiply_add", "multiply_add")))(x, g.other(x), g.other(x))  # type: ignore[no-any-return]


def _unary(g: _Grower) -> Value:
    x = g.computed()
    floats = ("sqrt", "floor", "ceil", "trunc", "round_even")
    integers = ("bit_not", "count_leading_zeros", "population_count")
    return getattr(g.b, g.rng.choice(("neg", "abs", *(floats if x.dtype.is_float else integers))))(x)  # type: ignore[no-any-return]


def _math(g: _Grower) -> Value:
    return g.b.math(g.rng.choice(_MATH), g.pick(lambda v: v.dtype is f32))


def _decide(g: _Grower) -> Value:
    b, x = g.b, g.computed()
    return b.compare(g.rng.choice(("eq", "ne", "lt", "le", "gt", "ge")), x, g.other(x))


def _choose(g: _Grower) -> Value:
    x = g.rng.choice(g.pool)
    return g.b.select(g.like(bool_, g.rng.choice((1, x.lanes))), x, g.like(x.dtype, x.lanes))


def _logic(g: _Grower) -> Value:
    x = g.pick(lambda v: v.dtype is bool_)
    name = g.rng.choice(("bit_and", "bit_or", "bit_xor", "bit_not"))
    return g.b.bit_not(x) if name == "bit_not" else getattr(g.b, name)(x, g.like(bool_, x.lanes))  # type: ignore[no-any-return]


def _convert(g: _Grower) -> Value:
    return g.b.convert(g.rng.choice(g.pool), g._stored())


def _bitcast(g: _Grower) -> Value:
    b, x = g.b, g.pick(lambda v: v.dtype is not bool_)
    if x.dtype.is_float:
        # nothing says which NaN it is
        wide = b.convert(x, x.dtype.compute)
        wide = b.select(b.compare("eq", wide, wide), wide, b.constant(1.0, wide.dtype, wide.lanes))
        x = b.convert(wide, x.dtype)
    bits = x.dtype.bits * x.lanes
    fitting = [d for d in DTYPES.values() if d is not bool_ and bits % d.bits == 0 and bits // d.bits <= 32]
    return b.bitcast(x, g.rng.choice(fitting))


def _lanes(g: _Grower) -> Value:
    b, rng, x = g.b, g.rng, g.rng.choice(g.pool)
    way = rng.random()
    if way < 0.2:
        return b.extract(x, rng.randrange(x.lanes))
    if way < 0.4:
        return b.insert(x, g.like(x.dtype, 1), rng.randrange(x.lanes))
    if way < 0.8:
        count = rng.choice((1, 2, 4, 8, 16, x.lanes, x.lanes))
        return b.shuffle(x, g.like(x.dtype, x.lanes), [rng.randrange(2 * x.lanes) for _ in range(count)])
    if way < 0.9:
        return b.splat(g.pick(lambda v: v.lanes == 1), rng.choice(_LANES))
    return b.lane_indices(rng.choice(_LANES), rng.choice((i64, i32, DTYPES["u8"])))


def _fold(g: _Grower) -> Value:
    x = g.pick(lambda v: v.dtype.compute is v.dtype)
    names = ["add", "mul", "minimum", "maximum"] if x.dtype is not bool_ else []
    names += ["bit_and", "bit_or", "bit_xor"] if not x.dtype.is_float else []
    return g.b.reduce(g.rng.choice(names), x)


def _load(g: _Grower) -> Value:
    return g.read(g.readable())


def _store(g: _Grower) -> None:
    g.write(g.rng.choice([*g.owned, *g.scratch]), g.rng.choice(g.pool))


def _prefetch(g: _Grower) -> None:
    g.b.prefetch(g.rng.choice(g.sources), g.b.convert(g.pick(lambda v: v.dtype.is_integer and v.lanes == 1), i64))


def _rarely(g: _Grower) -> Value:
    x = g.computed()
    condition = g.like(bool_, x.lanes)
    (made,) = g.b.rarely(condition, lambda: (g.b.mul(x, g.other(x)),), (x,))
    return made


def _loop(g: _Grower) -> None:
    b, rng = g.b, g.rng
    low, step = rng.choice((0, 0, 1, -3)), rng.choice((1, 1, 2, 3))
    high = rng.choice((b.index(rng.choice((0, 1, 4))), g.below(5)))
    initial = g.carried()
    with b.loop(low, high, step, carried=initial) as loop, g.inside():
        g.pool += [loop.index, *loop.carried]
        g.grow()
        loop.yield_(*(g.like(v.dtype, v.lanes) for v in initial))
    g.pool += loop.results


def _while(g: _Grower) -> None:
    b = g.b
    initial = [b.constant(0, i64), *g.carried()]
    limit = g.below(4)
    with b.while_loop(initial) as loop:
        with g.inside():
            g.pool += loop.carried
            going = b.compare("lt", loop.carried[0], limit)
            loop.condition(b.bit_and(going, g.like(bool_, 1)) if g.rng.random() < 0.5 else going)
        with g.inside():
            g.pool += loop.carried
            g.grow()
            loop.yield_(b.add(loop.carried[0], 1), *(g.like(v.dtype, v.lanes) for v in initial[1:]))
    g.pool += loop.results


def _branch(g: _Grower) -> None:
    b, wanted = g.b, g.carried()
    with b.if_(g.like(bool_, 1)) as branch, g.inside():
        g.grow()
        branch.yield_(*(g.like(v.dtype, v.lanes) for v in wanted))
    with branch.otherwise(), g.inside():
        if g.rng.random() < 0.5:
            g.grow()
        branch.yield_(*(g.like(v.dtype, v.lanes) for v in wanted))
    g.pool += branch.results


def _tail(g: _Grower) -> None:
    """A loop over a vector axis: whole vectors side by side, then what is left under a count."""
    b, rng = g.b, g.rng
    source, target = g.readable(), rng.choice([*g.owned, *g.scratch])
    low, lanes = rng.choice((0, 0, 3)), rng.choice((1, 2, 4, 8, 16))
    high = rng.choice((rng.choice((0, 7, 31, 64)), g.below(65), symbol("m")))
    if high == symbol("m"):
        high = b.minimum(b.index(high), 64)

    def body(v: Value, count: Value | None) -> None:
        with g.inside():
            x = b.load(source, b.add(g.base(source), v), lanes, count=count)
            g.pool += [x, b.convert(x, f32)]
            for _ in range(rng.randint(0, 2)):
                made = rng.choice((_arithmetic, _fused, _unary, _choose))(g)
                g.pool.append(made)
            y = g.like(target.dtype, lanes)
            b.store(target, b.add(g.base(target), v), y, count=count)

    vector_loop(b, low, high, lanes, body, unroll=rng.choice((1, 1, 2, 4)))


_Act = Callable[[_Grower], "Value | None"]
_SIMPLE: dict[_Act, int] = {
    _arithmetic: 6,
    _fused: 2,
    _unary: 2,
    _math: 1,
    _decide: 2,
    _choose: 2,
    _logic: 1,
    _convert: 3,
    _bitcast: 2,
    _lanes: 4,
    _fold: 2,
    _load: 4,
    _store: 4,
    _prefetch: 1,
    _rarely: 1,
}
_NESTED: dict[_Act, int] = {_loop: 3, _while: 1, _branch: 2, _tail: 3}
