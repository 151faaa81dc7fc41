"""Passes and derivatives on random graphs. All values are small integers, so that every rewriting must be exact."""

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.autodiff import jvp, vjp
from passes.base import PassContext
from passes.instruments import Differential, Verify, same_bits
from passes.pipeline import parse_pipeline
from passes.vmap import batch
from tgc.dtypes import DType, bool_, f32, f64, i32, i64
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, evaluate, symbol
from tgc.ir.graph import Array, Function, Graph, Module, Value, parameter
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.reference import run

N = symbol("n")
SIZE = 3
FRONT = "decompose,canonicalize,algebraic,constant-folding,scan-hoist,canonicalize,cse,dce,rematerialization"
Draw = Callable[[st.SearchStrategy[int]], int]


class Maker:
    """Adds random nodes to a pool of values."""

    def __init__(self, draw: Draw, builder: Builder, pool: Sequence[Value], dtype: DType) -> None:
        self.draw = draw
        self.b = builder
        self.pool = list(pool)
        self.dtype = dtype

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def choose(self, values: Sequence[Value]) -> Value:
        return values[self.number(0, len(values) - 1)]

    def value(self) -> Value:
        return self.choose(self.pool)

    def like(self, x: Value) -> Value:
        """A value of the type of ``x``: one of the pool, a constant, or ``x`` itself."""
        same = [v for v in self.pool if v.type == x.type]
        kind = self.number(0, 3)
        return self.b.full_like(x, self.number(-1, 2)) if kind == 0 else self.choose(same) if same else x

    def bounded(self, x: Value) -> Value:
        """Keeps numbers small; integers wrap and need it not."""
        if not x.dtype.is_float:
            return x
        return self.b.op("clamp", x, self.b.full_like(x, -8), self.b.full_like(x, 8))

    def step(self, *, control: bool = False) -> None:
        """Adds a value."""
        makers = [self.unary, self.binary, self.binary, self.choice, self.moved, self.sliced, self.joined, self.summed]
        makers += [self.product, self.repeated]
        if control:
            makers += [self.loop, self.branch]
        self.pool.append(makers[self.number(0, len(makers) - 1)]())

    def unary(self) -> Value:
        x = self.value()
        name = ("neg", "abs", "square", "sign", "relu", "barrier")[self.number(0, 5 if x.dtype.is_float else 3)]
        return self.bounded(self.b.op(name, x))

    def binary(self) -> Value:
        x = self.value()
        pair = (x, self.like(x)) if self.number(0, 1) else (self.like(x), x)
        return self.bounded(self.b.op(("add", "sub", "mul", "maximum", "minimum")[self.number(0, 4)], *pair))

    def choice(self) -> Value:
        x = self.value()
        y = self.like(x)
        condition = self.b.op(("lt", "ge", "eq", "ne")[self.number(0, 3)], x, self.like(x))
        if self.number(0, 1):
            condition = self.b.op("logical_not", condition)
        return self.b.select(condition, x, y)

    def moved(self) -> Value:
        x = self.value()
        rank = len(x.shape)
        kind = self.number(0, 3)
        if kind == 0 and rank:
            order = list(range(rank))
            first, second = self.number(0, rank - 1), self.number(0, rank - 1)
            order[first], order[second] = order[second], order[first]
            return self.b.op("transpose", x, attributes={"permutation": tuple(order)})
        if kind == 1 and rank:
            axes = tuple(i for i in range(rank) if self.number(0, 1))
            return self.b.op("reverse", x, attributes={"axes": axes})
        shape: tuple[Dim, ...] = x.shape
        if kind == 2 and rank > 1 and not any(s == 0 for s in shape):
            return self.b.op("reshape", x, attributes={"shape": (shape[0] * shape[1], *shape[2:])})
        at = self.number(0, rank)
        return self.b.op("reshape", x, attributes={"shape": (*shape[:at], 1, *shape[at:])})

    def repeated(self) -> Value:
        x = self.value()
        if len(x.shape) > 3:
            return x
        at = self.number(0, len(x.shape))
        shape = [*x.shape[:at], (2, N)[self.number(0, 1)], *x.shape[at:]]
        axes = [i for i in range(len(shape)) if i != at]
        stretched = tuple(2 if d == 1 and self.number(0, 1) else d for d in shape)
        return self.b.op("broadcast", x, attributes={"shape": stretched, "axes": tuple(axes)})

    def sliced(self) -> Value:
        x = self.value()
        start, stop, step = [], [], []
        for d in x.shape:
            if isinstance(d, int) and d:
                low = self.number(0, d - 1)
                start.append(low)
                stop.append(self.number(low + 1, d))
                step.append(self.number(1, 2))
            else:
                start.append(0)
                stop.append(d)
                step.append(1)
        part = self.b.op("slice", x, attributes={"start": tuple(start), "stop": tuple(stop), "step": tuple(step)})
        if self.number(0, 1):
            return part
        amounts = [tuple(self.number(0, 1) for _ in x.shape) for _ in range(3)]
        zero = self.b.constant(0, x.dtype)
        return self.b.op("pad", part, zero, attributes=dict(zip(("low", "high", "interior"), amounts, strict=True)))

    def joined(self) -> Value:
        x = self.value()
        if not x.shape:
            return x
        axis = self.number(0, len(x.shape) - 1)
        return self.b.op("concatenate", x, self.like(x), attributes={"axis": axis})

    def summed(self) -> Value:
        x = self.value()
        axes = tuple(i for i in range(len(x.shape)) if self.number(0, 1))
        # the gradient of max divides by the number of the largest, which may be three
        name = ("sum", "max")[0 if x.dtype is f64 else self.number(0, 1)]
        return self.bounded(self.b.op(name, x, attributes={"axes": axes}))

    def product(self) -> Value:
        x = self.value()
        y = self.like(x)
        letters = "abcdefgh"[: len(x.shape)]
        other = letters if not letters or self.number(0, 1) else letters[:-1] + "z"
        kept = "".join(dict.fromkeys(c for c in letters + other if self.number(0, 1)))[:4]
        if self.number(0, 1) and len(y.shape) > 1:
            y, other = self.b.transpose(y, (1, 0, *range(2, len(y.shape)))), other[1] + other[0] + other[2:]
        return self.bounded(self.b.contract(x, y, f"{letters},{other}->{kept}"))

    def body(self, types: Sequence[TensorType], results: Sequence[TensorType], *, first: int = 0) -> list[Value]:
        """Values of the types ``results`` computed from parameters, numbered from ``first``."""
        inner = Maker(self.draw, self.b, [parameter(first + i, t) for i, t in enumerate(types)], self.dtype)
        for _ in range(self.number(1, 4)):
            inner.step()
        found = []
        for type in results:
            same = [v for v in inner.pool if v.type == type]
            found.append(inner.choose(same) if same else self.b.full(1, type.shape, type.dtype))
        return found

    def loop(self) -> Value:
        x, capture = self.value(), self.value()
        carry = self.like(x)
        sequence = self.b.broadcast(x, (4, *x.shape), range(1, len(x.shape) + 1))
        types = (carry.type, x.type, capture.type)
        results = self.body(types, (carry.type, x.type, capture.type), first=1)
        region = Graph(
            (parameter(0, TensorType(i64, ())), *(parameter(1 + i, t) for i, t in enumerate(types))), tuple(results)
        )
        attributes = {"carries": 1, "sequences": 1, "length": 4, "reverse": bool(self.number(0, 1))}
        made = self.b.results("scan", carry, sequence, capture, attributes=attributes, regions=(region,))
        self.pool.extend(self.b.sum(v, (0,)) if v.dtype is i32 else v for v in made[1:])
        return self.bounded(made[0])

    def branch(self) -> Value:
        x, y = self.value(), self.value()
        total = self.b.op("sum", x, attributes={"axes": tuple(range(len(x.shape)))})
        predicate = self.b.op("gt", total, self.b.constant(0, x.dtype))
        if self.number(0, 3) == 0:
            predicate = self.b.constant(bool(self.number(0, 1)), bool_)
        regions = []
        for _ in range(2):
            results = self.body((x.type, y.type), (y.type,))
            regions.append(Graph((parameter(0, x.type), parameter(1, y.type)), tuple(results)))
        return self.b.op("cond", predicate, x, y, regions=tuple(regions))


@st.composite
def functions(draw: Draw, *, dtypes: tuple[DType, ...] = (f32, i32)) -> Function:
    """A function of parameters that are all of one dtype."""
    dtype = dtypes[draw(st.integers(0, len(dtypes) - 1))]
    others: tuple[tuple[Dim, ...], ...] = ((), (2,), (2, 3), (N, 2), (1, N))
    shapes = [(N,), *(others[draw(st.integers(0, 4))] for _ in range(draw(st.integers(1, 2))))]
    parameters = tuple(parameter(i, TensorType(dtype, s)) for i, s in enumerate(shapes))
    b = Builder(OPS)
    maker = Maker(draw, b, parameters, dtype)
    for _ in range(draw(st.integers(1, 12))):
        maker.step(control=True)
    results = maker.pool[-draw(st.integers(1, 3)) :]
    return Function("f", Graph(parameters, tuple(results)), constraints=tuple(b.constraints))


@settings(max_examples=150)
@given(functions())
def test_passes_keep_the_meaning(function: Function) -> None:
    pipeline = parse_pipeline(FRONT)
    after = pipeline.run(Module("m", (function,)), instruments=[Verify(), Differential(sizes=(SIZE,))])
    for one in pipeline.passes:
        once = one.run(after, PassContext())
        assert one.run(once, PassContext()) is once, one.name


def dot(left: Sequence[Array], right: Sequence[Array]) -> float:
    return float(sum(np.sum(a * b) for a, b in zip(left, right, strict=True)))


@settings(max_examples=100)
@given(functions(dtypes=(f64,)), st.integers(0, 2**32 - 1))
def test_both_modes_agree(function: Function, seed: int) -> None:
    """⟨ȳ, J ẋ⟩ = ⟨Jᵀ ȳ, ẋ⟩."""
    rng = np.random.default_rng(seed)
    b = Builder(OPS)
    inputs, outputs = function.parameters, function.results
    count = len(inputs)
    directions = [parameter(count + i, v.type) for i, v in enumerate(inputs)]
    seeds = [parameter(2 * count + i, v.type) for i, v in enumerate(outputs)]
    forward = zip(jvp(b, outputs, inputs, directions), outputs, strict=True)
    back = zip(vjp(b, outputs, inputs, seeds), inputs, strict=True)
    derivatives = [b.full_like(v, 0) if t is None else t for t, v in (*forward, *back)]
    arrays = [
        np.asarray(rng.integers(-2, 3, [evaluate(d, {"n": SIZE}) for d in v.shape]), np.float64)
        for v in (*inputs, *directions, *seeds)
    ]
    graph = Graph((*inputs, *directions, *seeds), tuple(derivatives))
    found, _ = run(Function("both", graph), arrays)
    left = dot(arrays[2 * count :], found[: len(outputs)])
    right = dot(found[len(outputs) :], arrays[count : 2 * count])
    assert left == right


@settings(max_examples=100)
@given(functions(), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_a_batch_is_its_examples_one_by_one(function: Function, flags: list[bool], seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = Builder(OPS)
    inputs = function.parameters
    wide = [TensorType(v.dtype, (2, *v.shape)) if has else v.type for v, has in zip(inputs, flags, strict=False)]
    parameters = [parameter(i, t) for i, t in enumerate(wide)]
    chosen = [i for i in range(len(inputs)) if flags[i]]
    results = batch(b, function.results, [inputs[i] for i in chosen], [parameters[i] for i in chosen], 2)
    arrays = [np.asarray(rng.integers(-2, 3, [evaluate(d, {"n": SIZE}) for d in t.shape]), t.dtype.numpy) for t in wide]
    together, _ = run(Function("many", Graph(tuple(parameters), results)), arrays)
    for i in range(2):
        alone, _ = run(function, [a[i] if has else a for a, has in zip(arrays, flags, strict=False)])
        assert all(same_bits(one, every[i]) for one, every in zip(alone, together, strict=True))
