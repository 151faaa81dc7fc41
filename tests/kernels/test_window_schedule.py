"""Pooling and its gradients against the reference: strides, padding, dilation, layouts, ties and NaN."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.dtypes import DType, bf16, f32, f64, i32
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Graph, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.window import lower
from tgc.ops import OPS
from tgc.reference import run_graph

N = symbol("n")
NCHW, NHWC = None, Layout((0, 2, 3, 1))
# window, stride, padding, dilation of the last two of four dimensions
POOLS = {
    "2x2": ((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "3x3 overlapping": ((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "3x3 everywhere": ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "one sided": ((2, 3), (1, 2), ((1, 0), (0, 2)), (1, 1)),
    "dilated": ((2, 2), (2, 1), ((0, 0), (1, 1)), (2, 3)),
    "gaps": ((1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1)),
    "large": ((5, 6), (5, 6), ((2, 3), (0, 5)), (1, 1)),
    "large overlapping": ((5, 5), (2, 1), ((2, 2), (2, 2)), (1, 1)),
}


def attributes(pool: str) -> dict[str, object]:
    window, stride, padding, dilation = POOLS[pool]
    return {
        "window": (1, 1, *window),
        "stride": (1, 1, *stride),
        "padding": ((0, 0), (0, 0), *padding),
        "dilation": (1, 1, *dilation),
    }


def region(op: str, pool: str, dtype: DType, layout: Layout | None, height: int = 13, width: int = 40) -> Graph:
    b, given = Builder(OPS), attributes(pool)
    x = TensorType(dtype, (N, 5, height, width), layout)
    (y,) = b.infer("window_max", [x], given)  # type: ignore[arg-type]
    y = y.with_layout(layout)
    if op == "window_sum_gradient":
        parameters = (parameter(0, y),)
        given = {**given, "input_shape": x.shape}
    elif op in ("window_max", "window_sum"):
        parameters = (parameter(0, x),)
    else:
        parameters = (parameter(0, x), parameter(1, y if op == "window_max_gradient" else x))
    result = b.op(op, *parameters, attributes=given)  # type: ignore[arg-type]
    result = b.op("relayout", result, attributes={"type": result.type.with_layout(layout)}) if layout else result
    return Graph(parameters, (result,))


def inputs_of(graph: Graph, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Small integers: sums are exact, and ties are many."""
    shapes = [tuple(d if isinstance(d, int) else n for d in v.shape) for v in graph.parameters]
    return [rng.integers(-4, 4, s).astype(v.dtype.numpy) for s, v in zip(shapes, graph.parameters, strict=True)]


@pytest.mark.parametrize("layout", [NCHW, NHWC], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "op", ["window_max", "window_sum", "window_max_gradient", "window_max_take", "window_sum_gradient"]
)
def test_a_window_equals_its_reference(
    op: str, pool: str, layout: Layout | None, compiled: Callable, rng: np.random.Generator
) -> None:
    graph = region(op, pool, f32, layout)
    runner = compiled(lower, graph)
    for n in (0, 1, 3):
        inputs = inputs_of(graph, n, rng)
        np.testing.assert_array_equal(runner(*inputs)[0], run_graph(graph, inputs)[0])


@pytest.mark.parametrize("dtype", [f64, bf16, i32], ids=str)
@pytest.mark.parametrize("op", ["window_max", "window_sum", "window_max_gradient", "window_sum_gradient"])
def test_windows_take_every_kind_of_number(op: str, dtype: DType, compiled: Callable, rng: np.random.Generator) -> None:
    graph = region(op, "3x3 overlapping", dtype, NCHW, 8, 9)
    inputs = inputs_of(graph, 2, rng)
    np.testing.assert_array_equal(compiled(lower, graph)(*inputs)[0], run_graph(graph, inputs)[0])


def test_nan_and_infinities_win_as_they_should(compiled: Callable, rng: np.random.Generator) -> None:
    for op in ("window_max", "window_max_gradient"):
        graph = region(op, "3x3 overlapping", f32, NCHW, 9, 20)
        inputs = inputs_of(graph, 4, rng)
        x = inputs[0]
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.3] = -np.inf
        np.testing.assert_array_equal(compiled(lower, graph)(*inputs)[0], run_graph(graph, inputs)[0])


def test_a_window_over_the_channels(compiled: Callable, rng: np.random.Generator) -> None:
    b = Builder(OPS)
    x = parameter(0, TensorType(f32, (N, 37)))
    given = {"window": (1, 3), "stride": (1, 2), "padding": ((0, 0), (1, 1)), "dilation": (1, 1)}
    graph = Graph((x,), (b.op("window_max", x, attributes=given),))
    values = rng.normal(size=(4, 37)).astype(np.float32)
    np.testing.assert_array_equal(compiled(lower, graph)(values)[0], run_graph(graph, [values])[0])


def test_maps_before_and_after_are_fused(compiled: Callable, rng: np.random.Generator) -> None:
    b = Builder(OPS)
    x, bias = parameter(0, TensorType(f32, (N, 6, 8, 10))), parameter(1, TensorType(f32, (6,)))
    shifted = b.op("relu", b.add(x, b.broadcast(bias, x.shape, (1,))))
    pooled = b.op("window_max", shifted, attributes=attributes("2x2"))
    graph = Graph((x, bias), (b.mul(pooled, b.broadcast(bias, pooled.shape, (1,))),))
    inputs = [rng.normal(size=s).astype(np.float32) for s in ((3, 6, 8, 10), (6,))]
    np.testing.assert_array_equal(compiled(lower, graph)(*inputs)[0], run_graph(graph, inputs)[0])
