"""Derivatives, against formulas and against each other. Inputs are small integers, so that sums are exact."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from passes.autodiff import graph_jvp, graph_vjp, jvp, vjp
from passes.base import inline
from passes.pipeline import parse_pipeline
from tgc.dtypes import bool_, f32, f64, i64
from tgc.errors import UnsupportedError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Array, Function, Graph, Module, Value, parameter, topological
from tgc.ir.types import TensorType
from tgc.location import Location
from tgc.ops import OPS
from tgc.reference import run_graph, run_with_bounds

N = symbol("n")


def params(*types: TensorType) -> tuple[Value, ...]:
    return tuple(parameter(i, t) for i, t in enumerate(types))


def f(*shape: int) -> TensorType:
    return TensorType(f64, shape)


def graph_of(function: Callable[..., Value | Sequence[Value]], *types: TensorType) -> Graph:
    values = params(*types)
    results = function(Builder(OPS), *values)
    return Graph(values, (results,) if isinstance(results, Value) else tuple(results))


def integers(rng: np.random.Generator, *types: TensorType) -> list[Array]:
    return [np.asarray(rng.integers(-3, 4, t.shape), t.dtype.numpy) for t in types]


def gradients(graph: Graph, inputs: Sequence[Array], cotangents: Sequence[Array | None]) -> list[Array]:
    """Reverse mode; zeros for None."""
    b = Builder(OPS)
    n = len(graph.parameters)
    seeds = [
        None if c is None else parameter(n + i, v.type)
        for i, (c, v) in enumerate(zip(cotangents, graph.results, strict=True))
    ]
    found = vjp(b, graph.results, graph.parameters, seeds)
    filled = [b.full_like(p, 0) if g is None else g for g, p in zip(found, graph.parameters, strict=True)]
    given = [s for s in seeds if s is not None]
    zeros = [np.zeros(v.shape, v.dtype.numpy) for v in graph.results]
    # parameters without gaps
    everything = params(*(p.type for p in graph.parameters), *(v.type for v in graph.results))
    assert all(s in everything for s in given)
    arrays = [z if c is None else c for c, z in zip(cotangents, zeros, strict=True)]
    return list(run_graph(Graph(everything, tuple(filled)), [*inputs, *arrays]))


def tangents(graph: Graph, inputs: Sequence[Array], directions: Sequence[Array]) -> list[Array]:
    """Forward mode; zeros for None."""
    b = Builder(OPS)
    everything = params(*(p.type for p in graph.parameters), *(p.type for p in graph.parameters))
    n = len(graph.parameters)
    names = [p if p.dtype.is_float else None for p in everything[n:]]
    found = jvp(b, graph.results, graph.parameters, names)
    filled = [b.full_like(v, 0) if t is None else t for t, v in zip(found, graph.results, strict=True)]
    return list(run_graph(Graph(everything, tuple(filled)), [*inputs, *directions]))


def assert_modes_agree(graph: Graph, rng: np.random.Generator) -> None:
    """⟨ȳ, J ẋ⟩ = ⟨Jᵀ ȳ, ẋ⟩, exactly: everything is a small integer."""
    inputs = integers(rng, *(p.type for p in graph.parameters))
    directions = integers(rng, *(p.type for p in graph.parameters))
    cotangents = integers(rng, *(v.type for v in graph.results))
    back = gradients(graph, inputs, [c if c.dtype.kind == "f" else None for c in cotangents])
    forward = tangents(graph, inputs, directions)
    left = sum(np.sum(c * t) for c, t in zip(cotangents, forward, strict=True) if c.dtype.kind == "f")
    right = sum(np.sum(g * d) for g, d in zip(back, directions, strict=True) if g.dtype.kind == "f")
    assert left == right


def test_gradient_of_a_dense_layer(rng: np.random.Generator) -> None:
    graph = graph_of(lambda b, x, w, c: b.op("square", b.add(b.contract(x, w, "mk,kn->mn"), c)), f(3, 4), f(4, 5), f(5))
    x, w, c = integers(rng, f(3, 4), f(4, 5), f(5))
    (y,) = integers(rng, f(3, 5))
    dz = y * 2 * (x @ w + c)
    got = gradients(graph, [x, w, c], [y])
    for have, want in zip(got, [dz @ w.T, x.T @ dz, dz.sum(0)], strict=True):
        np.testing.assert_array_equal(have, want)


def test_cotangents_that_meet_are_summed() -> None:
    graph = graph_of(lambda b, x: b.add(b.mul(x, x), b.mul(x, b.op("square", x))), f())
    assert gradients(graph, [np.float64(3)], [np.float64(1)]) == [2 * 3 + 3 * 9]


def test_inputs_may_be_intermediate_and_depend_on_each_other() -> None:
    b = Builder(OPS)
    (x,) = params(f())
    y = b.op("square", x)
    z = b.mul(y, x)
    of_x, of_y = vjp(b, [z], [x, y], [b.constant(1.0, f64)])
    assert of_x is not None
    assert of_y is not None
    assert run_graph(Graph((x,), (of_x, of_y)), [np.float64(2)]) == (12.0, 2.0)


def test_derivatives_nest() -> None:
    b = Builder(OPS)
    (x,) = params(f())
    y = b.op("pow", x, b.constant(4.0, f64))
    one = b.constant(1.0, f64)
    (first,) = vjp(b, [y], [x], [one])
    assert first is not None
    (second,) = vjp(b, [first], [x], [one])
    (mixed,) = jvp(b, [first], [x], [one])
    assert second is not None
    assert mixed is not None
    got = run_graph(Graph((x,), (first, second, mixed)), [np.float64(2)])
    assert got == (32.0, 48.0, 48.0)


def test_what_is_not_connected_has_no_gradient() -> None:
    b = Builder(OPS)
    x, y, k = params(f(2), f(2), TensorType(i64, (2,)))
    through_integers = b.cast(b.cast(y, i64), f64)
    z = b.add(b.add(x, through_integers), b.cast(k, f64))
    assert vjp(b, [z], [x, y, k], [b.full_like(z, 1.0)])[1:] == (None, None)
    assert jvp(b, [z], [y, k], [y, None]) == (None,)


def test_an_output_that_is_an_input_hands_its_cotangent_through() -> None:
    b = Builder(OPS)
    x, seed = params(f(2), f(2))
    assert vjp(b, [x], [x], [seed]) == (seed,)
    assert jvp(b, [x], [x], [seed]) == (seed,)
    assert vjp(b, [x], [x], [None]) == (None,)


def test_new_nodes_are_located_where_the_function_was() -> None:
    b = Builder(OPS)
    (x,) = params(f(2))
    b.place = Location("net.py", 7)
    y = b.op("exp", b.op("sin", x))
    b.place = None
    (g,) = vjp(b, [y], [x], [parameter(1, f(2))])
    assert g is not None
    assert b.locations[g.node] == (Location("net.py", 7),)
    assert b.place is None


def test_composites_are_differentiated_through_their_bodies(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 5)).astype(np.float32)
    graph = graph_of(lambda b, x: b.op("log_softmax", x, attributes={"axis": 1}), TensorType(f32, (2, 5)))
    one = np.zeros((2, 5), np.float32)
    one[:, 3] = 1
    b = Builder(OPS)
    (of_x,) = vjp(b, graph.results, graph.parameters, [parameter(1, TensorType(f32, (2, 5)))])
    assert of_x is not None
    function = Function("gradient", Graph((*graph.parameters, parameter(1, of_x.type)), (of_x,)))
    ((got, error),), _ = run_with_bounds(function, [x, one])
    exact = np.exp(x.astype(np.float64))
    assert np.all(np.abs(got - (one - exact / exact.sum(1, keepdims=True))) <= error)


def test_a_graph_may_be_differentiated_at_arguments_that_it_computes_itself() -> None:
    """With x² as argument, the x² of the body is the same node and still no function of the argument."""
    b = Builder(OPS)
    x, seed = params(f(), f())
    body = graph_of(lambda b, u, v: b.mul(v, b.op("square", u)), f(), f())
    of_u, of_v = graph_vjp(b, body, (x, b.op("square", x)), (seed,))
    assert of_u is not None
    assert of_v is not None
    assert run_graph(Graph((x, seed), (of_u, of_v)), [np.float64(3), np.float64(1)]) == (54.0, 9.0)
    (t,) = graph_jvp(b, body, (x, b.op("square", x)), (None, seed))
    assert t is not None
    assert run_graph(Graph((x, seed), (t,)), [np.float64(3), np.float64(1)]) == (9.0,)


def test_forward_mode_follows_from_the_reverse_rule(rng: np.random.Generator) -> None:
    """With the forward rules taken away, both modes still agree, to second order."""
    table = {name: op for name, op in OPS.items() if name not in ("mul", "contract", "sin")}
    for name in ("mul", "contract"):
        op = OPS[name]
        table[name] = type(op)(**{k: None if k == "jvp" else getattr(op, k) for k in op.__dataclass_fields__})
    x, w, t = params(f(2, 3), f(3, 2), f(2, 3))
    got = []
    for b in (Builder(OPS), Builder(table)):
        y = b.contract(b.mul(x, x), w, "mk,kn->mn")
        (tangent,) = jvp(b, [y], [x, w], [t, w])
        assert tangent is not None
        (twice,) = jvp(b, [tangent], [x], [t])
        assert twice is not None
        got.append(
            run_graph(Graph((x, w, t), (tangent, twice)), integers(np.random.default_rng(0), x.type, w.type, t.type))
        )
    for have, want in zip(got[1], got[0], strict=True):
        np.testing.assert_array_equal(have, want)


def cond_graph() -> Graph:
    def build(b: Builder, p: Value, x: Value, y: Value, k: Value) -> tuple[Value, ...]:
        then = graph_of(lambda b, x, y, k: (b.mul(x, x), b.mul(x, y), k), x.type, y.type, k.type)
        other = graph_of(lambda b, x, y, k: (y, b.mul(y, b.mul(y, y)), b.add(k, k)), x.type, y.type, k.type)
        return b.results("cond", p, x, y, k, regions=(then, other))

    return graph_of(build, TensorType(bool_, ()), f(2), f(2), TensorType(i64, ()))


@pytest.mark.parametrize("predicate", [True, False])
def test_cond(predicate: bool, rng: np.random.Generator) -> None:
    graph = cond_graph()
    x, y, k = integers(rng, f(2), f(2), TensorType(i64, ()))
    one, two = integers(rng, f(2), f(2))
    _, of_x, of_y, _ = gradients(graph, [np.bool_(predicate), x, y, k], [one, two, None])
    np.testing.assert_array_equal(of_x, 2 * x * one + y * two if predicate else 0 * x)
    np.testing.assert_array_equal(of_y, x * two if predicate else one + 3 * y * y * two)
    first, second, _ = tangents(graph, [np.bool_(predicate), x, y, k], [np.bool_(False), one, two, k])
    np.testing.assert_array_equal(first, 2 * x * one if predicate else two)
    np.testing.assert_array_equal(second, x * two + y * one if predicate else 3 * y * y * two)


def test_while_loop_has_forward_mode_only(rng: np.random.Generator) -> None:
    def build(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        types = (TensorType(i64, ()), f(2), f(2))
        condition = graph_of(lambda b, i, x, w: b.op("lt", i, b.constant(3, i64)), *types)
        body = graph_of(lambda b, i, x, w: (b.add(i, b.constant(1, i64)), b.mul(x, w)), *types)
        loop = b.results("while_loop", b.constant(0, i64), x, w, attributes={"carries": 2}, regions=(condition, body))
        return loop[1:]

    graph = graph_of(build, f(2), f(2))
    x, w, dx, dw = integers(rng, f(2), f(2), f(2), f(2))
    (got,) = tangents(graph, [x, w], [dx, dw])
    np.testing.assert_array_equal(got, dx * w**3 + x * 3 * w**2 * dw)
    with pytest.raises(UnsupportedError, match="max_steps"):
        vjp(Builder(OPS), graph.results, graph.parameters, [parameter(2, f(2))])


def cell(b: Builder, i: Value, h: Value, count: Value, x: Value, w: Value, u: Value, c: Value) -> tuple[Value, ...]:
    """A recurrent step: matrices, a bias, a capture used elementwise, an integer carry and two outputs."""
    z = b.add(b.add(b.contract(x, w, "bi,ih->bh"), b.contract(b.transpose(h, (1, 0)), u, "kb,kh->bh")), c)
    new = b.mul(b.sub(z, b.cast(i, f64)), c)
    return new, b.add(count, b.constant(1, i64)), b.mul(new, h), b.sum(x, (0,))


CELL_TYPES = (f(2, 2), TensorType(i64, ()), f(2, 3), f(3, 2), f(2, 2), f(2))


def scan_graph(length: int, *, reverse: bool) -> Graph:
    def build(b: Builder, *operands: Value) -> tuple[Value, ...]:
        region = graph_of(cell, TensorType(i64, ()), *CELL_TYPES)
        attributes = {"carries": 2, "sequences": 1, "length": length, "reverse": reverse}
        return b.results("scan", *operands, attributes=attributes, regions=(region,))

    h, count, x, *captures = CELL_TYPES
    return graph_of(build, h, count, f(length, *x.shape), *captures)  # type: ignore[arg-type]


def unrolled(length: int, *, reverse: bool) -> Graph:
    def build(b: Builder, h: Value, count: Value, xs: Value, *captures: Value) -> tuple[Value, ...]:
        region = graph_of(cell, TensorType(i64, ()), *CELL_TYPES)
        stacks: list[list[Value]] = [[], []]
        for i in reversed(range(length)) if reverse else range(length):
            window = {"start": (i, 0, 0), "stop": (i + 1, 2, 3), "step": (1, 1, 1)}
            x = b.reshape(b.op("slice", xs, attributes=window), (2, 3))
            h, count, *outputs = inline(b, region, (b.constant(i, i64), h, count, x, *captures))
            for stack, y in zip(stacks, outputs, strict=True):
                stack.append(b.reshape(y, (1, *y.shape)))
        if reverse:
            stacks = [stack[::-1] for stack in stacks]
        return h, count, *(b.op("concatenate", *stack, attributes={"axis": 0}) for stack in stacks)

    h, count, x, *captures = CELL_TYPES
    return graph_of(build, h, count, f(length, *x.shape), *captures)  # type: ignore[arg-type]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "given", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_scan_backwards_is_the_unrolled_loop_backwards(
    reverse: bool, given: tuple[bool, bool, bool], rng: np.random.Generator
) -> None:
    looped, flat = scan_graph(3, reverse=reverse), unrolled(3, reverse=reverse)
    inputs = integers(rng, *(p.type for p in looped.parameters))
    final, _, first, second = integers(rng, *(v.type for v in looped.results))
    chosen = [c if g else None for c, g in zip((final, first, second), given, strict=True)]
    cotangents = [chosen[0], None, *chosen[1:]]
    for have, want in zip(gradients(looped, inputs, cotangents), gradients(flat, inputs, cotangents), strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_forwards_is_the_unrolled_loop_forwards(reverse: bool, rng: np.random.Generator) -> None:
    looped, flat = scan_graph(3, reverse=reverse), unrolled(3, reverse=reverse)
    inputs = integers(rng, *(p.type for p in looped.parameters))
    directions = integers(rng, *(p.type for p in looped.parameters))
    for have, want in zip(tangents(looped, inputs, directions), tangents(flat, inputs, directions), strict=True):
        np.testing.assert_array_equal(have, want)


def gradient_graph(graph: Graph) -> Graph:
    """The gradients of the sum of the float results, as a graph."""
    b = Builder(OPS)
    seeds = [b.full_like(v, 1.0) if v.dtype.is_float else None for v in graph.results]
    found = vjp(b, graph.results, graph.parameters, seeds)
    return Graph(graph.parameters, tuple(g for g in found if g is not None))


def test_the_derivative_of_a_scan_has_derivatives(rng: np.random.Generator) -> None:
    looped, flat = (gradient_graph(g) for g in (scan_graph(2, reverse=False), unrolled(2, reverse=False)))
    inputs = integers(rng, *(p.type for p in looped.parameters))
    cotangents = integers(rng, *(v.type for v in looped.results))
    for have, want in zip(gradients(looped, inputs, cotangents), gradients(flat, inputs, cotangents), strict=True):
        np.testing.assert_array_equal(have, want)
    assert_modes_agree(looped, rng)


def test_weight_gradients_of_a_scan_are_one_contraction_after_it() -> None:
    graph = gradient_graph(scan_graph(5, reverse=False))
    after = [n for n in graph.nodes() if n.op == "contract"]
    assert [n.types[0].shape for n in after] == [(3, 2), (2, 2)]
    (backward,) = [n for n in graph.nodes() if n.op == "scan" and n.attributes["reverse"]]
    inside = [n for n in backward.regions[0].nodes() if n.op == "contract"]
    # what carries the cotangent from step to step, and that of the input
    assert [n.types[0].shape for n in inside] == [(2, 2), (2, 3)] or [n.types[0].shape for n in inside] == [
        (2, 3),
        (2, 2),
    ]


def test_scan_of_symbolic_length(rng: np.random.Generator) -> None:
    def build(b: Builder, h: Value, xs: Value, w: Value) -> tuple[Value, ...]:
        region = graph_of(
            lambda b, i, h, x, w: (b.add(b.mul(h, w), x), b.mul(h, h)), TensorType(i64, ()), f(2), f(2), f(2)
        )
        attributes = {"carries": 1, "sequences": 1, "length": N, "reverse": False}
        return b.results("scan", h, xs, w, attributes=attributes, regions=(region,))

    graph = graph_of(build, f(2), TensorType(f64, (N, 2)), f(2))
    b = Builder(OPS)
    seeds = [parameter(3 + i, v.type) for i, v in enumerate(graph.results)]
    found = vjp(b, graph.results, graph.parameters, seeds)
    assert all(g is not None for g in found)
    results = tuple(g for g in found if g is not None)
    h, xs, w = (np.asarray(rng.integers(-3, 4, s), np.float64) for s in ((2,), (4, 2), (2,)))
    one, two = (np.asarray(rng.integers(-3, 4, s), np.float64) for s in ((2,), (4, 2)))
    of_h, of_x, of_w = run_graph(Graph((*graph.parameters, *seeds), results), [h, xs, w, one, two])
    states = [h]
    for x in xs:
        states.append(states[-1] * w + x)
    back, want_w = one, np.zeros(2)
    for i in reversed(range(4)):
        np.testing.assert_array_equal(of_x[i], back)
        want_w = want_w + back * states[i]
        back = back * w + 2 * states[i] * two[i]
    np.testing.assert_array_equal(of_h, back)
    np.testing.assert_array_equal(of_w, want_w)


def test_a_fusion_group_is_differentiated_through_its_region(rng: np.random.Generator) -> None:
    region = graph_of(lambda b, x, y: (b.mul(x, y), b.op("square", x)), f(3), f(3))
    graph = graph_of(
        lambda b, x, y: b.results("fusion", x, y, attributes={"kind": "pointwise"}, regions=(region,)), f(3), f(3)
    )
    x, y = integers(rng, f(3), f(3))
    one, two = integers(rng, f(3), f(3))
    of_x, of_y = gradients(graph, [x, y], [one, two])
    np.testing.assert_array_equal(of_x, one * y + two * 2 * x)
    np.testing.assert_array_equal(of_y, one * x)
    assert_modes_agree(graph, rng)


def test_a_checkpoint_is_computed_again_from_its_operands(rng: np.random.Generator) -> None:
    region = graph_of(lambda b, x, y: b.op("square", b.op("square", b.mul(x, y))), f(3), f(3))
    graph = graph_of(lambda b, x, y: b.results("checkpoint", b.op("square", x), y, regions=(region,)), f(3), f(3))
    x, y, one, dx, dy = integers(rng, f(3), f(3), f(3), f(3), f(3))
    of_x, of_y = gradients(graph, [x, y], [one])
    np.testing.assert_array_equal(of_x, one * 8 * x**7 * y**4)
    np.testing.assert_array_equal(of_y, one * 4 * x**8 * y**3)
    (tangent,) = tangents(graph, [x, y], [dx, dy])
    np.testing.assert_array_equal(tangent, 8 * x**7 * y**4 * dx + 4 * x**8 * y**3 * dy)
    found = gradient_graph(graph)
    function = Function("f", Graph(graph.parameters, graph.results + found.results))
    after = parse_pipeline("decompose,canonicalize,cse").run(Module("m", (function,))).functions[0]
    # twice in the region forwards, once again backwards, and the operand, which is kept
    assert [n.op for n in after.nodes()].count("square") >= 4
    assert [n.op for n in after.nodes()].count("barrier") == 2


def test_an_op_without_a_derivative_says_so_and_where() -> None:
    b = Builder(
        {
            **OPS,
            "opaque": type(OPS["exp"])(name="opaque", doc="", kind=OPS["exp"].kind, operands=1, infer=OPS["exp"].infer),
        }
    )
    (x,) = params(f(2))
    b.place = Location("net.py", 3, 5)
    y = b.op("opaque", x)
    with pytest.raises(UnsupportedError, match="opaque has no derivative") as caught:
        vjp(b, [y], [x], [x])
    assert caught.value.location == Location("net.py", 3, 5)


@pytest.mark.parametrize(
    ("bounds", "ops"),
    [
        ([(0, 2), (2, 3), (3, 7)], {"concatenate"}),
        ([(3, 7), (0, 2)], {"concatenate"}),
        ([(1, 2), (3, 4)], {"concatenate"}),
        ([(0, 4), (2, 7)], {"concatenate", "pad", "add"}),
        ([(0, 3)], {"pad"}),
    ],
)
def test_the_gradient_of_slices_is_put_together(
    bounds: list[tuple[int, int]], ops: set[str], rng: np.random.Generator
) -> None:
    def build(b: Builder, x: Value) -> list[Value]:
        windows = [{"start": (0, low), "stop": (2, high), "step": (1, 1)} for low, high in bounds]
        return [b.op("slice", x, attributes=window) for window in windows]

    graph = graph_of(build, f(2, 7))
    (x,) = integers(rng, f(2, 7))
    cotangents = integers(rng, *(v.type for v in graph.results))
    (got,) = gradients(graph, [x], cotangents)
    want = np.zeros((2, 7))
    for (low, high), c in zip(bounds, cotangents, strict=True):
        want[:, low:high] += c
    np.testing.assert_array_equal(got, want)
    b = Builder(OPS)
    seeds = [parameter(1 + i, v.type) for i, v in enumerate(graph.results)]
    (found,) = vjp(b, graph.results, graph.parameters, seeds)
    assert found is not None
    nodes = {n.op for n in topological([found])}
    assert nodes & {"concatenate", "pad", "add"} == ops
