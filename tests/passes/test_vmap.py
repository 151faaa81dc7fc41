"""Batching: many examples at once are the examples one by one, bit for bit."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from passes.autodiff import vjp
from passes.instruments import same_bits
from passes.vmap import batch
from tgc.dtypes import bool_, f32, f64, i64
from tgc.errors import UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Graph, Value, parameter
from tgc.ir.types import TensorType
from tgc.location import Location
from tgc.ops import OPS
from tgc.reference import run_graph

SIZE = 3
WITHOUT_OPERANDS = ("parameter", "state", "literal", "constant", "iota", "dimension")


def graph_of(function: Callable[..., Value | Sequence[Value]], *types: TensorType) -> Graph:
    values = tuple(parameter(i, t) for i, t in enumerate(types))
    results = function(Builder(OPS), *values)
    return Graph(values, (results,) if isinstance(results, Value) else tuple(results))


def batched_graph(graph: Graph, flags: Sequence[bool]) -> Graph:
    """The graph of ``SIZE`` examples, of which some operands differ."""
    b = Builder(OPS)
    wide = [
        parameter(i, TensorType(p.dtype, (SIZE, *p.shape)) if flag else p.type)
        for i, (p, flag) in enumerate(zip(graph.parameters, flags, strict=True))
    ]
    inputs = [p for p, flag in zip(graph.parameters, flags, strict=True) if flag]
    results = batch(b, graph.results, inputs, [w for w, f in zip(wide, flags, strict=True) if f], SIZE)
    return Graph(tuple(wide), results)


def assert_examples_agree(graph: Graph, flags: Sequence[bool], inputs: Sequence[Array]) -> None:
    """``inputs`` have a batch dimension where ``flags`` say so."""
    together = run_graph(batched_graph(graph, flags), inputs)
    for i in range(SIZE):
        alone = run_graph(graph, [x[i] if flag else x for x, flag in zip(inputs, flags, strict=True)])
        for one, all_ in zip(alone, together, strict=True):
            assert same_bits(one, all_[i])


def random(rng: np.random.Generator, graph: Graph, flags: Sequence[bool]) -> list[Array]:
    found = []
    for p, flag in zip(graph.parameters, flags, strict=True):
        shape = ((SIZE,) if flag else ()) + tuple(int(str(d)) for d in p.shape)
        if p.dtype is bool_:
            found.append(np.asarray(rng.integers(0, 2, shape), np.bool_))
        else:
            found.append(np.asarray(rng.integers(0, 4, shape), p.dtype.numpy))
    return found


CASES = [
    (name, i, mask)
    for name, op in OPS.items()
    if name not in WITHOUT_OPERANDS and op.kind.value != "control"
    for i in range(min(2, len(op.cases)))
    for mask in ("all", "first", "last")
    if all(isinstance(d, int) for t in op.cases[i][0] for d in t.shape) and op.cases[i][0]
]


@pytest.mark.parametrize(("name", "case", "mask"), CASES)
def test_ops(name: str, case: int, mask: str, rng: np.random.Generator) -> None:
    types, attributes = OPS[name].cases[case]
    graph = graph_of(lambda b, *xs: b.results(name, *xs, attributes=attributes), *types)
    count = len(types)
    flags = [mask == "all" or i == (0 if mask == "first" else count - 1) for i in range(count)]
    inputs = random(rng, graph, flags)
    # the only op that asks something of its operands
    assert_examples_agree(graph, flags, [np.sort(x) for x in inputs] if name == "searchsorted" else inputs)


def f(*shape: int) -> TensorType:
    return TensorType(f64, shape)


SCALAR = TensorType(i64, ())


def scanned(b: Builder, h: Value, k: Value, xs: Value, w: Value) -> tuple[Value, ...]:
    def body(b: Builder, i: Value, h: Value, k: Value, x: Value, w: Value) -> tuple[Value, ...]:
        return b.add(b.contract(w, h, "ij,j->i"), x), b.add(k, i), b.mul(x, x), b.cast(k, f64)

    region = graph_of(body, SCALAR, h.type, k.type, f(2), w.type)
    attributes = {"carries": 2, "sequences": 1, "length": 4, "reverse": True}
    return b.results("scan", h, k, xs, w, attributes=attributes, regions=(region,))


@pytest.mark.parametrize("flags", [(1, 1, 1, 1), (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0)])
def test_scan(flags: Sequence[int], rng: np.random.Generator) -> None:
    graph = graph_of(scanned, f(2), SCALAR, f(4, 2), f(2, 2))
    chosen = [bool(flag) for flag in flags]
    assert_examples_agree(graph, chosen, random(rng, graph, chosen))


@pytest.mark.parametrize("flags", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_cond(flags: Sequence[int], rng: np.random.Generator) -> None:
    def build(b: Builder, p: Value, x: Value, y: Value) -> tuple[Value, ...]:
        then = graph_of(lambda b, x, y: (b.mul(x, y), b.constant(1.0, f64)), x.type, y.type)
        other = graph_of(lambda b, x, y: (y, b.sum(y, (0,))), x.type, y.type)
        return b.results("cond", p, x, y, regions=(then, other))

    graph = graph_of(build, TensorType(bool_, ()), f(2), f(2))
    chosen = [bool(flag) for flag in flags]
    assert_examples_agree(graph, chosen, random(rng, graph, chosen))


@pytest.mark.parametrize("flags", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_while_loop_stops_for_each_example_by_itself(flags: Sequence[int], rng: np.random.Generator) -> None:
    def build(b: Builder, n: Value, x: Value, w: Value) -> tuple[Value, ...]:
        types = (n.type, x.type, w.type)
        condition = graph_of(lambda b, n, x, w: b.op("gt", n, b.constant(0, i64)), *types)
        body = graph_of(lambda b, n, x, w: (b.sub(n, b.constant(1, i64)), b.add(b.mul(x, w), w)), *types)
        return b.results("while_loop", n, x, w, attributes={"carries": 2}, regions=(condition, body))

    graph = graph_of(build, SCALAR, f(2), f(2))
    chosen = [bool(flag) for flag in flags]
    assert_examples_agree(graph, chosen, random(rng, graph, chosen))


def test_a_fusion_group(rng: np.random.Generator) -> None:
    region = graph_of(lambda b, x, y: (b.mul(x, y), b.op("square", y)), f(3), f(3))
    graph = graph_of(
        lambda b, x, y: b.results("fusion", x, y, attributes={"kind": "pointwise"}, regions=(region,)), f(3), f(3)
    )
    assert_examples_agree(graph, (True, False), random(rng, graph, (True, False)))


def test_a_checkpoint_stays_one(rng: np.random.Generator) -> None:
    region = graph_of(lambda b, x, y: (b.mul(x, y), b.op("square", y)), f(3), f(3))
    graph = graph_of(lambda b, x, y: b.results("checkpoint", x, y, regions=(region,)), f(3), f(3))
    assert_examples_agree(graph, (True, False), random(rng, graph, (True, False)))
    assert "checkpoint" in {n.op for n in batched_graph(graph, (True, False)).nodes()}


def test_gradients_for_each_example(rng: np.random.Generator) -> None:
    """vmap of grad: the derivative of a loss of each example, with the weights in common."""

    def build(b: Builder, x: Value, w: Value) -> Value:
        loss = b.sum(b.op("square", b.contract(x, w, "k,kn->n")), (0,))
        (gradient,) = vjp(b, [loss], [w], [b.constant(1.0, f64)])
        assert gradient is not None
        return gradient

    graph = graph_of(build, f(3), f(3, 2))
    assert_examples_agree(graph, (True, False), random(rng, graph, (True, False)))


def test_what_does_not_depend_on_the_inputs_is_computed_once() -> None:
    b = Builder(OPS)
    x, w = parameter(0, f(2)), parameter(1, f(2))
    shared = b.op("exp", w)
    many = parameter(2, TensorType(f64, (symbol("n"), 2)))
    (y, z) = batch(b, [b.mul(x, shared), shared], [x], [many], symbol("n"))
    assert y.shape == z.shape == (symbol("n"), 2)
    assert shared.node in {v.node for v in z.node.operands}


def test_an_op_without_a_rule_says_so_and_where() -> None:
    plain = OPS["exp"]
    b = Builder({**OPS, "opaque": type(plain)(name="opaque", doc="", kind=plain.kind, operands=1, infer=plain.infer)})
    x = parameter(0, TensorType(f32, (2,)))
    b.place = Location("net.py", 3, 5)
    y = b.op("opaque", x)
    with pytest.raises(UnsupportedError, match="opaque cannot be batched") as caught:
        batch(b, [y], [x], [parameter(1, TensorType(f32, (3, 2)))], 3)
    assert caught.value.location == Location("net.py", 3, 5)
