"""Steps of growth with regions: control flow, grown like functions themselves, and gradients."""

from __future__ import annotations

from collections.abc import Sequence

from passes.autodiff import vjp
from tests.fuzz import moves, steps
from tests.fuzz.grower import Grower, Step
from tgc.dtypes import bool_, i64
from tgc.errors import DTypeError, ShapeError, UnsupportedError
from tgc.ir.graph import Attributes, Graph, Value, parameter
from tgc.ir.types import TensorType


def subgraph(outer: Grower, types: Sequence[TensorType], results: Sequence[TensorType], steps: int) -> Graph:
    """A region with parameters of ``types`` and results of ``results``, grown like a function."""
    inner = Grower(outer.rng, outer.sizes, outer.extent, outer.builder, depth=outer.depth + 1, closed=True)
    inner.parameters = [parameter(i, t) for i, t in enumerate(types)]
    inner.pool = list(inner.parameters)
    for _ in range(steps):
        try:
            outer.rng.choice(_STEPS)(inner)
        except (ShapeError, DTypeError, UnsupportedError):
            continue
    return Graph(tuple(inner.parameters), tuple(_coerced(inner, wanted) for wanted in results))


def _coerced(g: Grower, wanted: TensorType) -> Value:
    """Some value of the region as a value of that type."""
    exact = [v for v in g.pool[::-1] if v.type == wanted]
    if exact and g.rng.random() < 0.8:
        return exact[int(len(exact) * g.rng.random() ** 2)]
    value = g.operand(wanted.shape, wanted.dtype)
    floats = [v for v in exact if v.dtype.is_float]
    if floats and value.dtype.is_float:
        return g.builder.op("tanh", g.builder.add(value, floats[0]))
    return value


# -- control and gradients ---------------------------------------------------------------------------------------


def cond(g: Grower) -> None:
    captures = [g.pick() for _ in range(g.rng.randint(1, 3))]
    types = [v.type for v in captures]
    wanted = [g.pick().type for _ in range(g.rng.randint(1, 2))]
    regions = tuple(subgraph(g, types, wanted, g.rng.randint(1, 4)) for _ in range(2))
    for value in g.builder.results("cond", g.operand((), bool_), *captures, regions=regions):
        g.keep(value)


def scan(g: Grower) -> None:
    rng = g.rng
    carries = [g.pick() for _ in range(rng.randint(0, 2))]
    first = g.pick(rank=1)
    length = first.shape[0]
    others = [v for v in g.pool if v.shape and v.shape[0] == length]
    sequences = [first, *rng.sample(others, min(len(others), rng.choice((0, 0, 1))))]
    captures = [g.pick() for _ in range(rng.randint(0, 2))]
    slices = [TensorType(s.dtype, s.shape[1:]) for s in sequences]
    types = [TensorType(i64, ()), *(v.type for v in carries), *slices, *(v.type for v in captures)]
    outputs = [rng.choice(types) for _ in range(rng.randint(1, 2))]
    region = subgraph(g, types, [*(v.type for v in carries), *outputs], rng.randint(2, 5))
    attributes: Attributes = {
        "carries": len(carries), "sequences": len(sequences), "length": length, "reverse": rng.random() < 0.4,
    }  # fmt: skip
    results = g.builder.results("scan", *carries, *sequences, *captures, attributes=attributes, regions=(region,))
    for value in results:
        g.check(value)
    for value in results:
        g.keep(value)


def while_(g: Grower) -> None:
    rng, b = g.rng, g.builder
    carries = [b.constant(0, i64), *(g.pick() for _ in range(rng.randint(1, 2)))]
    captures = [g.pick() for _ in range(rng.randint(0, 1))]
    types = [v.type for v in (*carries, *captures)]
    body = subgraph(g, types, types[1 : len(carries)], rng.randint(1, 4))
    counter = body.parameters[0]
    results = (b.add(counter, b.constant(1, i64)), *body.results)
    limit = b.constant(rng.choice((0, 1, 3)), i64)
    condition = Graph(body.parameters, (b.op("lt", counter, limit),))
    body = Graph(body.parameters, results)
    for value in b.results(
        "while_loop", *carries, *captures, attributes={"carries": len(carries)}, regions=(condition, body)
    ):
        g.keep(value)


def gradient(g: Grower) -> None:
    """The derivative of a value so far by some of those it depends on."""
    known = [v for v in g.pool if v.dtype.is_float and v.node.operands]
    if not known or g.closed:
        raise UnsupportedError("nothing to differentiate")
    y = g.rng.choice(known[-6:])
    inputs = [v for v in g.pool if v.dtype.is_float and v != y]
    inputs = g.rng.sample(inputs, min(len(inputs), 3))
    seed = g.operand(y.shape, y.dtype)
    found = vjp(g.builder, [y], inputs, [seed])
    for value in found:
        if value is not None:
            g.check(value)
            g.keep(value)


def checkpoint(g: Grower) -> None:
    captures = [g.pick() for _ in range(g.rng.randint(1, 3))]
    wanted = [g.rng.choice(captures).type]
    region = subgraph(g, [v.type for v in captures], wanted, g.rng.randint(1, 4))
    g.keep(g.builder.op("checkpoint", *captures, regions=(region,)))


_STEPS: tuple[Step, ...] = (
    *(steps.map_step, steps.common_map, steps.common_map, steps.choose, steps.compare, steps.cast, steps.reduce),
    *(steps.reduce, steps.cumulative, steps.contract, steps.dense, steps.arg, steps.composite),
    *(moves.reshape, moves.transpose, moves.broadcast, moves.reverse, moves.slice_, moves.pad, moves.concatenate),
    *(moves.gather, moves.scatter, moves.dynamic, moves.sort, cond),
)
