"""The schedule of pointwise regions: how it walks, what it joins, and what the walk costs."""

from collections.abc import Callable

import numpy as np
import pytest

from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.dtypes import DType, bf16, f32, f64, i8, i64, u16
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Graph, Value, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.ir import Kernel
from tgc.kernels.pointwise import lower
from tgc.ops import OPS
from tgc.reference import run_graph
from tgc.target import AVX2, AVX512, NEON, RISCV, SSE2, Target

N = symbol("n")


def graph_of(function: Callable[..., Value | tuple[Value, ...]], *types: TensorType) -> Graph:
    parameters = tuple(parameter(i, t) for i, t in enumerate(types))
    results = function(Builder(OPS), *parameters)
    return Graph(parameters, (results,) if isinstance(results, Value) else results)


def kernel_of(graph: Graph, target: Target = AVX512) -> Kernel:
    (stage,) = lower(graph, name="kernel", target=target, table=OPS).stages
    return stage.kernel


def count_of(kernel: Kernel, *names: str) -> int:
    return sum(operation.name in names for operation in kernel.walk())


@pytest.mark.parametrize("layout", [None, Layout((0, 2, 3, 1))])
def test_what_is_contiguous_everywhere_is_one_loop(layout: Layout | None) -> None:
    type_ = TensorType(f32, (N, 32, 14, 14), layout)
    graph = graph_of(lambda b, x, y: b.op("relayout", b.add(x, y), attributes={"type": type_}), type_, type_)
    kernel = kernel_of(graph)
    assert count_of(kernel, "modulo", "floor_divide") <= 1  # the split into whole vectors
    assert count_of(kernel, "gather", "scatter") == 0


def test_a_bias_joins_what_it_does_not_tell_apart() -> None:
    graph = graph_of(
        lambda b, x, w: b.add(x, b.broadcast(w, x.shape, (1,))),
        TensorType(f32, (8, 32, 16, 16)),
        TensorType(f32, (32,)),
    )
    kernel = kernel_of(graph)
    loads = [op for op in kernel.walk() if op.name == "load" and op.buffer.name == "p1"]
    assert [op.results[0].lanes for op in loads] == [1]
    inner = [op for op in kernel.walk() if op.name == "for"][-1]
    assert all(load not in inner.blocks[0].operations for load in loads)


def test_a_transpose_neither_gathers_nor_scatters() -> None:
    graph = graph_of(lambda b, x: b.transpose(x, (1, 0)), TensorType(f32, (N, 100)))
    kernel = kernel_of(graph)
    assert count_of(kernel, "gather", "scatter") == 0
    assert count_of(kernel, "shuffle") > 0


@pytest.mark.parametrize("dtype", [f32, f64, bf16, i8, u16, i64], ids=str)
@pytest.mark.parametrize(
    "permutation", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (2, 0, 1), (1, 2, 0)], ids=lambda p: "".join(map(str, p))
)
def test_any_transpose_of_any_dtype(
    dtype: DType, permutation: tuple[int, ...], compiled: Callable, rng: np.random.Generator
) -> None:
    def function(b: Builder, x: Value, y: Value) -> tuple[Value, ...]:
        turned = b.transpose(x, permutation)
        return turned, b.add(turned, y)

    shape = (19, N, 37)
    x_type = TensorType(dtype, shape)
    graph = graph_of(function, x_type, TensorType(dtype, [shape[p] for p in permutation]))
    runner = compiled(lower, graph)
    for n in (1, 5, 16, 33):
        x = rng.integers(0, 60, (19, n, 37)).astype(dtype.numpy)
        inputs = [x, np.ascontiguousarray(rng.permuted(x.transpose(permutation)))]
        for actual, expected in zip(runner(*inputs), run_graph(graph, inputs), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_a_matrix_and_its_transpose_together(compiled: Callable, rng: np.random.Generator) -> None:
    graph = graph_of(lambda b, x: b.sub(x, b.transpose(x, (1, 0))), TensorType(f32, (N, N)))
    runner = compiled(lower, graph)
    for n in (0, 1, 15, 40):
        x = rng.integers(0, 60, (n, n)).astype(np.float32)
        np.testing.assert_array_equal(runner(x)[0], x - x.T)


def test_results_of_different_layouts(compiled: Callable, rng: np.random.Generator) -> None:
    shape = (2, 5, 6, 7)
    layouts = (None, Layout((0, 2, 3, 1)), Layout((0, 2, 3, 1), margins=((0, 0), (0, 0), (1, 1), (1, 1))))
    more = Layout((0, 1, 2, 3), tiles=((1, 4),))

    def function(b: Builder, x: Value) -> tuple[Value, ...]:
        types = [TensorType(f32, shape, layout) for layout in (*layouts, more)]
        return tuple(
            b.op("relayout", b.add(x, b.full_like(x, float(k))), attributes={"type": t}) for k, t in enumerate(types)
        )

    graph = graph_of(function, TensorType(f32, shape))
    x = rng.integers(0, 60, shape).astype(np.float32)
    for k, y in enumerate(compiled(lower, graph)(x)):
        np.testing.assert_array_equal(y, x + k)


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512, NEON, RISCV], ids=lambda t: f"{t.triple}-{t.cpu}")
def test_every_target_takes_the_code(target: Target) -> None:
    def function(b: Builder, x: Value, y: Value) -> tuple[Value, ...]:
        z = b.op("exp", b.add(x, b.transpose(y, (1, 0))))
        return z, b.op("gt", z, x)

    graph = graph_of(function, TensorType(f32, (N, 40)), TensorType(f32, (40, N)))
    assert compile_module(emit_module([kernel_of(graph, target)], target), target)


def test_large_inner_dimensions_are_shared_too() -> None:
    kernel = kernel_of(graph_of(lambda b, x: b.op("sqrt", x), TensorType(f32, (1 << 20,))))
    assert isinstance(kernel.count, int)
    assert 16 <= kernel.count <= 1024


def test_pieces_of_a_concatenation_are_read_without_masks() -> None:
    types = [TensorType(f32, (N, size)) for size in (64, 32, 16)]
    kernel = kernel_of(graph_of(lambda b, *xs: b.op("concatenate", *xs, attributes={"axis": 1}), *types))
    assert count_of(kernel, "select", "compare") == 0


def test_where_a_gathered_row_lies_is_found_once_for_whole_vectors() -> None:
    types = [TensorType(f32, (100, 256)), TensorType(i64, (N,))]
    kernel = kernel_of(graph_of(lambda b, x, i: b.op("gather", x, i, attributes={"axis": 0}), *types))
    inner = [op for op in kernel.walk() if op.name == "for"][-1]
    loads = [op for op in inner.blocks[0].walk() if op.name == "load"]
    assert {(op.buffer.name, op.results[0].lanes) for op in loads} == {("p0", 16)}


def test_starts_of_a_slice_are_read_once() -> None:
    types = [TensorType(f32, (100, 256)), TensorType(i64, ()), TensorType(i64, ())]
    attributes = {"sizes": (50, 100)}
    kernel = kernel_of(graph_of(lambda b, *xs: b.op("dynamic_slice", *xs, attributes=attributes), *types))
    loads = [op.buffer.name for op in kernel.walk() if op.name == "load"]
    assert loads.count("p1") == loads.count("p2") == 1 < loads.count("p0")


def test_padding_of_rows_reads_nothing_there(compiled: Callable, rng: np.random.Generator) -> None:
    def function(b: Builder, x: Value, y: Value) -> Value:
        zero = b.constant(0.0, f32)
        left = b.op("pad", x, zero, attributes={"low": (0, 0), "high": (0, 70), "interior": (0, 0)})
        right = b.op("pad", y, zero, attributes={"low": (0, 33), "high": (0, 0), "interior": (0, 0)})
        return b.add(left, right)

    graph = graph_of(function, TensorType(f32, (N, 33)), TensorType(f32, (N, 70)))
    runner = compiled(lower, graph)
    for n in (0, 1, 9):
        x, y = (rng.integers(0, 60, (n, size)).astype(np.float32) for size in (33, 70))
        np.testing.assert_array_equal(runner(x, y)[0], np.concatenate([x, y], 1))


@pytest.mark.parametrize("dtype", [f32, bf16, i64], ids=str)
def test_results_that_lie_across_are_written_in_tiles(
    dtype: DType, compiled: Callable, rng: np.random.Generator
) -> None:
    last = Layout((0, 2, 3, 1))
    shape = (N, 20, 3, 7)

    def function(b: Builder, x: Value, y: Value) -> tuple[Value, ...]:
        total = b.add(x, y)
        turned = b.op("relayout", total, attributes={"type": TensorType(dtype, shape, last)})
        return total, turned, b.op("relayout", b.mul(x, y), attributes={"type": turned.type}), b.op("gt", x, y)

    graph = graph_of(function, TensorType(dtype, shape, last), TensorType(dtype, shape, last))
    (stage,) = lower(graph, name="kernel", target=AVX512, table=OPS).stages
    assert not any(op.name in ("gather", "scatter") and op.buffer.name != "r3" for op in stage.kernel.walk())
    runner = compiled(lower, graph)
    for n in (0, 1, 3):
        inputs = [rng.integers(0, 12, (n, 20, 3, 7)).astype(dtype.numpy) for _ in range(2)]
        for actual, expected in zip(runner(*inputs), run_graph(graph, inputs), strict=True):
            np.testing.assert_array_equal(actual, expected)


def long_chain(b: Builder, x: Value) -> Value:
    """More instructions than a core's schedulers hold."""
    for name in ("exp", "log", "tanh", "erf", "sin"):
        x = b.op(name, x)
    return x


@pytest.mark.parametrize("target", [AVX512, AVX2, SSE2, NEON, RISCV], ids=lambda t: t.cpu)
def test_long_chains_go_side_by_side(target: Target) -> None:
    def widest(kernel: Kernel) -> int:
        return max(v.lanes for op in kernel.walk() for v in op.results)

    type_ = TensorType(f32, (1 << 12,))
    assert widest(kernel_of(graph_of(lambda b, x: b.op("exp", x), type_), target)) == target.lanes(f32)
    assert widest(kernel_of(graph_of(long_chain, type_), target)) > target.lanes(f32)


@pytest.mark.parametrize("size", [N, 129])
def test_what_goes_side_by_side_has_the_same_bits(size: object, compiled: Callable, rng: np.random.Generator) -> None:
    whole = compiled(lower, graph_of(long_chain, TensorType(f32, (size,))))  # type: ignore[arg-type]
    for n in (129,) if size == 129 else (0, 1, 63, 64, 65, 200):
        x = rng.uniform(0.1, 2, n).astype(np.float32)
        expected = x
        for name in ("exp", "log", "tanh", "erf", "sin"):
            one = graph_of(lambda b, v, name=name: b.op(name, v), TensorType(f32, (n,)))
            (expected,) = compiled(lower, one)(expected)
        assert whole(x)[0].tobytes() == expected.tobytes()
