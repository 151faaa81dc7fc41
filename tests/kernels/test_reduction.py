"""Reductions over any dimensions, in one pass and in several, against the reference."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tgc.dtypes import DType, bf16, bool_, f16, f32, f64, i32, i64, u8
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, symbol
from tgc.ir.graph import Function, Graph, Value, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.reduction import lower
from tgc.ops import OPS
from tgc.reference import run_graph, run_with_bounds

N = symbol("n")
SPACES: list[tuple[tuple[Dim, ...], tuple[int, ...]]] = [
    ((5,), (0,)),
    ((N,), (0,)),
    ((N, 7), (0,)),
    ((N, 7), (1,)),
    ((N, 100), (1,)),
    ((N, 100), (0,)),
    ((3, N, 40), (1,)),
    ((3, N, 40), (0, 2)),
    ((2, 3, 4, 5), (1, 3)),
    ((N, 70, 3), (0,)),
    ((N, N), (0, 1)),
    ((4, 1, 5), (1,)),
    ((1,), (0,)),
    ((2, N, 100), (0, 1)),
    ((N, 300), (0,)),
    ((2, 40, 1000), (1,)),
    ((600, 700), (0,)),
    ((N, N), (0,)),
]


def graph_of(function: Callable[..., Value | tuple[Value, ...]], *types: TensorType) -> Graph:
    parameters = tuple(parameter(i, t) for i, t in enumerate(types))
    results = function(Builder(OPS), *parameters)
    return Graph(parameters, (results,) if isinstance(results, Value) else results)


def sized(shape: Sequence[Dim], n: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else n for d in shape)


def check(graph: Graph, actual: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> None:
    """Within the bounds that the ops state."""
    bounds, _ = run_with_bounds(Function("f", graph), inputs)
    for a, (expected, error) in zip(actual, bounds, strict=True):
        assert a.dtype == expected.dtype
        left, right = a.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            close = np.abs(left - right) <= error
        assert (close | (np.isnan(left) & np.isnan(right)) | (left == right)).all()


@pytest.mark.parametrize("op", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize(("shape", "axes"), SPACES, ids=str)
def test_a_reduction_equals_its_reference(
    op: str, shape: tuple[Dim, ...], axes: tuple[int, ...], compiled: Callable, rng: np.random.Generator
) -> None:
    graph = graph_of(lambda b, x: b.op(op, x, attributes={"axes": axes}), TensorType(f32, shape))
    runner = compiled(lower, graph)
    for n in (0, 1, 7, 32, 257) if any(d is N for d in shape) else (0,):
        x = rng.normal(size=sized(shape, n)).astype(np.float32)
        check(graph, runner(x), [x])


@pytest.mark.parametrize("dtype", [bf16, f16, f64, i32, i64, u8], ids=str)
@pytest.mark.parametrize("op", ["sum", "max", "min"])
@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_reductions_take_every_kind_of_number(
    dtype: DType, op: str, axes: tuple[int, ...], compiled: Callable, rng: np.random.Generator
) -> None:
    graph = graph_of(lambda b, x: b.op(op, x, attributes={"axes": axes}), TensorType(dtype, (N, 50)))
    x = rng.integers(0, 100, (30, 50)).astype(dtype.numpy)
    check(graph, compiled(lower, graph)(x), [x])


@pytest.mark.parametrize("op", ["any", "all"])
@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_bools_are_folded(op: str, axes: tuple[int, ...], compiled: Callable, rng: np.random.Generator) -> None:
    graph = graph_of(lambda b, x: b.op(op, x, attributes={"axes": axes}), TensorType(bool_, (N, 20)))
    x = rng.integers(0, 8, (9, 20)) > (0 if op == "all" else 6)
    np.testing.assert_array_equal(compiled(lower, graph)(x)[0], run_graph(graph, [x])[0])


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize(("shape", "axis"), [((N, 40), 1), ((N, 40), 0), ((N, 3, 7), 2), ((5, N, 20), 1)], ids=str)
def test_a_search_finds_the_first(
    op: str, shape: tuple[Dim, ...], axis: int, compiled: Callable, rng: np.random.Generator
) -> None:
    graph = graph_of(lambda b, x: b.op(op, x, attributes={"axis": axis}), TensorType(f32, shape))
    runner = compiled(lower, graph)
    for n in (1, 7, 100):
        # few different numbers: ties, and now and then a NaN or an infinity
        x = rng.integers(-3, 3, sized(shape, n)).astype(np.float32)
        x[rng.random(x.shape) < 0.02] = np.nan
        x[rng.random(x.shape) < 0.02] = -np.inf
        np.testing.assert_array_equal(runner(x)[0], run_graph(graph, [x])[0])
        same = np.full_like(x, -np.inf if op == "argmax" else np.inf)
        np.testing.assert_array_equal(runner(same)[0], np.zeros_like(run_graph(graph, [x])[0]))


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("axes", [(0,), (1,)])
@pytest.mark.parametrize("dtype", [f32, f64, bf16], ids=str)
def test_extremes_propagate_nan_and_order_zeros(
    op: str, axes: tuple[int, ...], dtype: DType, compiled: Callable, rng: np.random.Generator
) -> None:
    graph = graph_of(lambda b, x: b.op(op, x, attributes={"axes": axes}), TensorType(dtype, (40, 40)))
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-40, -1e-40])
    runner = compiled(lower, graph)

    def check_bits(x: np.ndarray) -> None:
        y, expected = (r[0].astype(np.float64) for r in (runner(x), run_graph(graph, [x])))
        np.testing.assert_array_equal(y, expected)
        real = ~np.isnan(y)
        np.testing.assert_array_equal(np.signbit(y[real]), np.signbit(expected[real]))

    for count in range(1, len(special) + 1):
        x = rng.choice(special[:count], (40, 40)).astype(dtype.numpy)
        check_bits(x)
        x[3, 5], x[7, 9] = np.nan, np.copysign(np.nan, -1)
        check_bits(x)
        check_bits(-np.abs(x))


def along(b: Builder, op: str, x: Value, axes: Sequence[int]) -> Value:
    reduced = b.op(op, x, attributes={"axes": tuple(axes)})
    return b.broadcast(reduced, x.shape, tuple(i for i in range(len(x.shape)) if i not in axes))


def softmax(b: Builder, x: Value, axis: int) -> Value:
    e = b.op("exp", b.sub(x, along(b, "max", x, (axis,))))
    return b.div(e, along(b, "sum", e, (axis,)))


def layer_norm(b: Builder, x: Value, w: Value, c: Value) -> tuple[Value, ...]:
    last = len(x.shape) - 1
    count = b.op("dimension", attributes={"size": x.shape[last], "dtype": f32})
    centered = b.sub(x, b.div(along(b, "sum", x, (last,)), b.broadcast(count, x.shape, ())))
    variance = b.div(b.sum(b.op("square", centered), (last,)), b.broadcast(count, x.shape[:-1], ()))
    root = b.op("rsqrt", b.add(variance, b.constant(1e-5, f32)))
    scaled = b.mul(centered, b.broadcast(root, x.shape, tuple(range(last))))
    return b.add(b.mul(scaled, b.broadcast(w, x.shape, (last,))), b.broadcast(c, x.shape, (last,))), root


@pytest.mark.parametrize("size", [1, 10, 16, 100, 1024, 5000, N], ids=str)
def test_softmax_is_one_kernel(size: Dim, compiled: Callable, rng: np.random.Generator) -> None:
    graph = graph_of(lambda b, x: softmax(b, x, 1), TensorType(f32, (N, size)))
    runner = compiled(lower, graph)
    for n in (0, 1, 33):
        x = rng.normal(size=sized((N, size), n)).astype(np.float32)
        (y,), (expected,) = runner(x), run_graph(graph, [x])
        # e/Σe: the errors of exp, of the sum and of the division, each relative
        steps = 4 + 2 + x.shape[1]
        np.testing.assert_allclose(y, expected, rtol=steps * 2.0**-24 + 2.0**-20)


def test_softmax_over_columns(compiled: Callable, rng: np.random.Generator) -> None:
    layout = Layout((0, 2, 1))
    graph = graph_of(lambda b, x: softmax(b, x, 2), TensorType(f32, (2, 70, 9), layout))
    x = rng.normal(size=(2, 70, 9)).astype(np.float32)
    np.testing.assert_allclose(compiled(lower, graph)(x)[0], run_graph(graph, [x])[0], rtol=2.0**-19)


def test_layer_norm_gives_its_statistics_too(compiled: Callable, rng: np.random.Generator) -> None:
    for size in (5, 64, N):
        graph = graph_of(layer_norm, TensorType(f32, (3, N, size)), TensorType(f32, (size,)), TensorType(f32, (size,)))
        inputs = [rng.normal(size=sized(s, 20)).astype(np.float32) for s in ((3, N, size), (size,), (size,))]
        for y, expected in zip(compiled(lower, graph)(*inputs), run_graph(graph, inputs), strict=True):
            np.testing.assert_allclose(y, expected, rtol=2.0**-17, atol=2.0**-19)


def test_reductions_side_by_side_with_an_epilogue(compiled: Callable, rng: np.random.Generator) -> None:
    def function(b: Builder, x: Value, y: Value) -> tuple[Value, ...]:
        product = b.mul(x, y)
        total = b.sum(product, (0, 2, 3))
        return b.sum(x, (0, 2, 3)), b.op("square", total), b.op("max", product, attributes={"axes": (0, 2, 3)})

    for layout in (None, Layout((0, 2, 3, 1))):
        type_ = TensorType(f32, (N, 40, 3, 7), layout)
        graph = graph_of(function, type_, type_)
        runner = compiled(lower, graph)
        for n in (0, 1, 50):
            inputs = [rng.integers(-3, 3, (n, 40, 3, 7)).astype(np.float32) for _ in range(2)]
            for y, expected in zip(runner(*inputs), run_graph(graph, inputs), strict=True):
                np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("shape", "axes"), [((40, 700), (1,)), ((700, 40), (0,)), ((30, 4, 50), (0, 2)), ((9, 5), (0, 1))], ids=str
)
def test_fusion_does_not_change_the_bits_of_a_sum(
    shape: tuple[int, ...], axes: tuple[int, ...], compiled: Callable, rng: np.random.Generator
) -> None:
    type_ = TensorType(f32, shape)
    x = rng.normal(size=shape).astype(np.float32)
    alone = graph_of(lambda b, x: b.sum(x, axes), type_)
    (expected,) = compiled(lower, alone)(np.square(x))

    def fused(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        y = b.op("square", x)
        spread = b.op("tanh", b.broadcast(w, shape, (0,)))
        return b.sum(y, axes), b.op("max", b.mul(y, spread), attributes={"axes": axes})

    graph = graph_of(fused, type_, TensorType(f32, (shape[0],)))
    y, _ = compiled(lower, graph)(x, rng.normal(size=shape[0]).astype(np.float32))
    assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((100000,), (0,)), ((40000, 5), (0,)), ((600, 2, 700), (0, 2)), ((3, 50000), (1,)), ((600, 700), (0,))],
    ids=str,
)
def test_parts_have_the_bits_of_one_pass(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    compiled: Callable,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def function(b: Builder, x: Value) -> tuple[Value, ...]:
        total = b.op("sqrt", b.sum(b.op("square", x), axes))
        return total, b.op("min", x, attributes={"axes": axes}), b.sum(x, axes)

    graph = graph_of(function, TensorType(f32, shape))
    x = rng.normal(size=shape).astype(np.float32)
    parts = compiled(lower, graph)
    assert len(parts.lowering.stages) == 2
    monkeypatch.setattr("tgc.kernels.reduction.Parts.of", lambda *_: None)
    whole = compiled(lower, graph)
    assert len(whole.lowering.stages) == 1
    for a, b in zip(parts(x), whole(x), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", [(300, 300), (3, 40, 2100), (N, 280), (50, N)], ids=str)
def test_panels_have_the_bits_of_columns_in_registers(
    shape: tuple[Dim, ...], compiled: Callable, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(b: Builder, x: Value) -> tuple[Value, ...]:
        axis = len(x.shape) - 2
        centered = b.sub(x, along(b, "sum", x, (axis,)))
        return b.mul(centered, along(b, "sum", b.op("square", centered), (axis,))), b.sum(x, (axis,))

    graph = graph_of(function, TensorType(f32, shape))
    x = rng.normal(size=sized(shape, 290)).astype(np.float32)
    panels = compiled(lower, graph)
    monkeypatch.setattr("tgc.kernels.reduction.panel_columns", lambda *_: 0)
    registers = compiled(lower, graph)
    assert panels.lowering.stages[0].kernel.scratch
    assert not registers.lowering.stages[0].kernel.scratch
    for a, b in zip(panels(x), registers(x), strict=True):
        assert a.tobytes() == b.tobytes()


def test_sums_are_as_accurate_as_pairwise_ones(compiled: Callable) -> None:
    x = np.full(1 << 20, 0.1, np.float32)
    exact = float(np.float32(0.1)) * x.size
    graph = graph_of(lambda b, x: b.sum(x, (0,)), TensorType(f32, (N,)))
    (y,) = compiled(lower, graph)(x)
    # one rounding for each level of a binary tree
    assert abs(float(y) - exact) <= 20 * 2.0**-24 * exact
    column = graph_of(lambda b, x: b.sum(x, (0,)), TensorType(f32, (N, 2)))
    (z,) = compiled(lower, column)(np.stack([x, x], 1))
    assert (np.abs(z.astype(np.float64) - exact) <= 20 * 2.0**-24 * exact).all()


def test_a_row_may_be_written_where_it_was_read(compiled: Callable, rng: np.random.Generator) -> None:
    graph = graph_of(lambda b, x: softmax(b, x, 1), TensorType(f32, (9, 40)))
    runner = compiled(lower, graph)
    x = rng.normal(size=(9, 40)).astype(np.float32)
    (expected,) = runner(x)
    (stage,) = runner.lowering.stages
    memory = x.reshape(-1).copy()
    runner.library.call("kernel", [memory for _ in stage.kernel.buffers])
    np.testing.assert_array_equal(memory, expected.reshape(-1))


@pytest.mark.parametrize("axes", [(1, 2), (0, 2), (0, 1), (0, 1, 2), (2,), (0,)], ids=str)
def test_dimensions_that_an_operand_tells_apart_are_folded_together(
    axes: tuple[int, ...], compiled: Callable, rng: np.random.Generator
) -> None:
    def function(b: Builder, x: Value, u: Value, w: Value) -> tuple[Value, ...]:
        place = b.op("iota", attributes={"shape": x.shape, "axis": 1, "dtype": f32})
        y = b.mul(b.mul(x, b.broadcast(u, x.shape, (1,))), b.broadcast(w, x.shape, (0, 2)))
        y = b.add(y, place)
        return b.sum(y, axes), b.op("max", y, attributes={"axes": axes})

    graph = graph_of(function, TensorType(f32, (N, 6, 21)), TensorType(f32, (6,)), TensorType(f32, (N, 21)))
    runner = compiled(lower, graph)
    for n in (0, 1, 9, 40):
        inputs = [rng.integers(-3, 3, s).astype(np.float32) for s in ((n, 6, 21), (6,), (n, 21))]
        for y, expected in zip(runner(*inputs), run_graph(graph, inputs), strict=True):
            np.testing.assert_array_equal(y, expected)


def test_rows_of_several_dimensions_are_normalised(compiled: Callable, rng: np.random.Generator) -> None:
    def function(b: Builder, x: Value, w: Value) -> Value:
        e = b.op("exp", b.sub(b.mul(x, b.broadcast(w, x.shape, (1,))), along(b, "max", x, (1, 2))))
        return b.div(e, along(b, "sum", e, (1, 2)))

    graph = graph_of(function, TensorType(f32, (N, 5, 7)), TensorType(f32, (5,)))
    runner = compiled(lower, graph)
    for n in (0, 1, 9):
        inputs = [rng.normal(size=s).astype(np.float32) for s in ((n, 5, 7), (5,))]
        np.testing.assert_allclose(runner(*inputs)[0], run_graph(graph, inputs)[0], rtol=2.0**-18)
