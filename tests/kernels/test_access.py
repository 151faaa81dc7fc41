"""The evaluator: every way that a pointwise region reads its operands, against the reference."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.dtypes import DTYPES, DType, bf16, bool_, f16, f32, f64, i32, i64, u8
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Graph, Value, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.indices import Index
from tgc.kernels.pointwise import lower
from tgc.ops import OPS
from tgc.reference import run_graph

N = symbol("n")
SIZES = (0, 1, 7, 32, 257)


def same(actual: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


def values(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 2 if dtype is bool_ else 100, shape).astype(dtype.numpy)


def region(function: Callable[..., Value | tuple[Value, ...]], *types: TensorType) -> Graph:
    parameters = tuple(parameter(i, t) for i, t in enumerate(types))
    results = function(Builder(OPS), *parameters)
    return Graph(parameters, (results,) if isinstance(results, Value) else results)


def f(*shape: object, layout: Layout | None = None) -> TensorType:
    return TensorType(f32, shape, layout)  # type: ignore[arg-type]


def op(name: str, **attributes: object) -> Callable[..., Value]:
    return lambda b, *xs: b.op(name, *xs, attributes=attributes)


REGIONS = {
    "add": (lambda b, x, y: b.add(x, y), f(N, 5), f(N, 5)),
    "flat": (lambda b, x: b.op("square", x), f(3, N)),
    "broadcast of a column": (lambda b, x, y: b.mul(x, y), f(N, 9), f(N, 1)),
    "broadcast of a row": (lambda b, x, y: b.mul(x, y), f(N, 9), f(9)),
    "outer product": (lambda b, x, y: b.mul(b.broadcast(x, (N, 40), (0,)), b.broadcast(y, (N, 40), (1,))), f(N), f(40)),
    "transpose": (lambda b, x: b.transpose(x, (1, 0)), f(N, 33)),
    "transpose of three": (lambda b, x: b.transpose(x, (2, 0, 1)), f(3, N, 17)),
    "slice": (op("slice", start=(2, 1), stop=(N + 2, 20), step=(1, 2)), f(N + 2, 20)),
    "slice with step 3": (op("slice", start=(1,), stop=(3 * N + 1,), step=(3,)), f(3 * N + 2)),
    "reverse": (op("reverse", axes=(0, 1)), f(N, 35)),
    "pad": (
        lambda b, x: b.op(
            "pad", x, b.constant(2.5, f32), attributes={"low": (1, 2), "high": (0, 3), "interior": (0, 0)}
        ),
        f(N, 20),
    ),
    "pad with interior": (
        lambda b, x: b.op("pad", x, b.constant(-1.0, f32), attributes={"low": (3,), "high": (1,), "interior": (2,)}),
        f(N),
    ),
    "concatenate columns": (op("concatenate", axis=1), f(N, 3), f(N, 40), f(N, 0), f(N, 1)),
    "concatenate rows": (op("concatenate", axis=0), f(N, 3), f(2, 3)),
    "concatenate computed": (
        lambda b, x, y: b.op("concatenate", b.op("square", x), b.neg(y), attributes={"axis": 1}),
        f(N, 16),
        f(N, 5),
    ),
    "units": (lambda b, x: b.reshape(b.op("square", x), (1, N, 1, 6)), f(N, 6, 1)),
    "split": (lambda b, x: b.reshape(x, (N, 6, 4)), f(N, 24)),
    "join": (lambda b, x: b.op("square", b.reshape(b.transpose(x, (0, 2, 1)), (N, 24))), f(N, 6, 4)),
    "regroup": (lambda b, x: b.reshape(b.transpose(x, (1, 0)), (4, 3 * N)), f(N, 12)),
    "gather rows": (op("gather", axis=0), f(10, 20), TensorType(i32, (N,))),
    "gather columns": (op("gather", axis=1), f(3, 100), TensorType(u8, (N, 2))),
    "gather from symbolic": (op("gather", axis=0), f(N), TensorType(i64, (20,))),
    "take along axis": (op("take_along_axis", axis=1), f(N, 100), TensorType(i64, (N, 17))),
    "dynamic slice": (op("dynamic_slice", sizes=(4, 20)), f(9, 30), TensorType(i64, ()), TensorType(i64, ())),
    "dynamic update": (op("dynamic_update_slice"), f(N + 4, 30), f(4, 20), TensorType(i64, ()), TensorType(i64, ())),
    "iota": (
        lambda b, x: b.add(x, b.op("iota", attributes={"shape": (N, 21), "axis": 1, "dtype": f32})),
        f(N, 21),
    ),
    "iota of rows": (
        lambda b, x: b.add(x, b.op("iota", attributes={"shape": (N, 21), "axis": 0, "dtype": f32})),
        f(N, 21),
    ),
    "iota of u8": (lambda b: b.op("iota", attributes={"shape": (300,), "axis": 0, "dtype": u8}),),
    "constant": (lambda b: b.full(1.5, (3, 7), f32),),
    "scalar": (lambda b, x: b.add(x, b.constant(1.0, f32)), f()),
    "scalar spread": (lambda b, x, s: b.mul(x, s), f(N, 3), f()),
    "several": (lambda b, x, y: (b.add(x, y), b.sub(x, y), b.op("gt", x, y)), f(N, 3), f(N, 3)),
    "barrier": (lambda b, x: b.add(b.op("barrier", x), x), f(N)),
    "cast": (lambda b, x: b.cast(b.add(x, x), f64), f(N, 3)),
}


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_equals_its_reference(name: str, compiled: Callable, rng: np.random.Generator) -> None:
    function, *types = REGIONS[name]
    graph = region(function, *types)
    runner = compiled(lower, graph)
    symbolic = any(not isinstance(d, int) for t in types for d in t.shape)
    for n in SIZES if symbolic else (0,):
        if n == 0 and name == "gather from symbolic":
            continue
        shapes = [tuple(d if isinstance(d, int) else int(eval(str(d), {"n": n})) for d in t.shape) for t in types]
        inputs = [values(rng, t.dtype, s) for t, s in zip(types, shapes, strict=True)]
        same(runner(*inputs), run_graph(graph, inputs))


LAYOUTS = {
    "rows": None,
    "channels last": Layout((0, 2, 3, 1)),
    "reversed": Layout((3, 2, 1, 0)),
    "margins": Layout((0, 2, 3, 1), margins=((0, 0), (0, 0), (1, 2), (1, 1))),
    "tiles": Layout((0, 1, 2, 3), tiles=((1, 16),)),
    "rest": Layout((0, 2, 1, 3), tiles=((1, 5), (2, 4))),
    "tiles and margins": Layout((1, 0, 2, 3), tiles=((1, 16),), margins=((0, 0), (0, 0), (1, 1), (2, 0))),
}


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_any_layout_is_read_and_written(source: str, target: str, compiled: Callable, rng: np.random.Generator) -> None:
    given = f(N, 32, 3, 5, layout=LAYOUTS[source])
    wanted = f(N, 32, 3, 5, layout=LAYOUTS[target])
    graph = region(
        lambda b, x, y: b.op("relayout", b.mul(x, b.broadcast(y, x.shape, (1,))), attributes={"type": wanted}),
        given,
        f(32),
    )
    runner = compiled(lower, graph)
    for n in (0, 1, 3):
        inputs = [values(rng, f32, (n, 32, 3, 5)), values(rng, f32, (32,))]
        same(runner(*inputs), run_graph(graph, inputs))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_moves(dtype: DType, compiled: Callable, rng: np.random.Generator) -> None:
    def function(b: Builder, x: Value, y: Value) -> Value:
        joined = b.op("concatenate", b.op("reverse", x, attributes={"axes": (1,)}), x, attributes={"axis": 1})
        return b.select(b.op("eq", joined, y), joined, b.transpose(b.transpose(y, (1, 0)), (1, 0)))

    graph = region(function, TensorType(dtype, (N, 30)), TensorType(dtype, (N, 60)))
    runner = compiled(lower, graph)
    inputs = [values(rng, dtype, (9, 30)), values(rng, dtype, (9, 60))]
    same(runner(*inputs), run_graph(graph, inputs))


@pytest.mark.parametrize("dtype", [bf16, f16])
def test_small_floats_round_after_each_op(dtype: DType, compiled: Callable, rng: np.random.Generator) -> None:
    graph = region(lambda b, x, y: b.sub(b.add(x, y), y), TensorType(dtype, (N,)), TensorType(dtype, (N,)))
    runner = compiled(lower, graph)
    inputs = [rng.normal(size=100).astype(dtype.numpy) for _ in range(2)]
    same(runner(*inputs), run_graph(graph, inputs))


def test_the_memory_of_a_parameter_may_be_written_at_the_index_that_was_read(
    compiled: Callable, rng: np.random.Generator
) -> None:
    graph = region(lambda b, x, g: (b.sub(x, g), b.add(x, g)), f(N), f(N))
    runner = compiled(lower, graph)
    (stage,) = runner.lowering.stages
    x, g = values(rng, f32, (100,)), values(rng, f32, (100,))
    memory, other = x.copy(), np.empty_like(x)
    buffers = {"p0": memory, "p1": g, "r0": memory, "r1": other}
    runner.library.call("kernel", [buffers[b.name] for b in stage.kernel.buffers], {"n": 100})
    np.testing.assert_array_equal(memory, x - g)
    np.testing.assert_array_equal(other, x + g)


def test_an_index_combines_like_terms() -> None:
    i = Index(((3, 2),), constant=N, lane=1)
    assert i.plus(i.scaled(-1)) == Index()
    assert i.scaled(N).terms == ((3, 2 * N),)
    assert not i.uniform
