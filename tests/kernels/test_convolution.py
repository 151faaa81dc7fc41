"""Convolutions and their gradients against the reference: every window, layout, dtype, and sizes that are not known."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from tgc.dtypes import DType, bf16, f32, f64, i32
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, evaluate, symbol
from tgc.ir.graph import Attributes, Function, Graph, Value, parameter
from tgc.ir.types import Layout, TensorType
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.convolution import lower
from tgc.kernels.convolution_plan import Plan, plan_convolution
from tgc.kernels.sliding import backward, forward, looked_up
from tgc.ops import OPS
from tgc.ops.convolve import Windows
from tgc.reference import run_with_bounds
from tgc.target import AVX512

N, H, W, C, O = map(symbol, "nhwco")
Shape = tuple[Dim, ...]
FORWARD, INPUT, FILTER = "convolution", "convolution_input_gradient", "convolution_filter_gradient"
OPS_UNDER_TEST = (FORWARD, INPUT, FILTER)


def window(rank: int, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> Attributes:
    return {
        "stride": (stride,) * rank,
        "padding": ((padding, padding),) * rank,
        "dilation": (dilation,) * rank,
        "groups": groups,
    }


UNEVEN: Attributes = {"stride": (2, 3), "padding": ((0, 1), (2, 0)), "dilation": (1, 2), "groups": 2}
SHAPES: dict[str, tuple[Shape, Shape, Attributes]] = {
    "padded": ((2, 5, 9, 40), (20, 5, 3, 3), window(2, padding=1)),
    "one-channel": ((3, 1, 28, 28), (32, 1, 3, 3), window(2, padding=1)),
    "pointwise": ((2, 33, 7, 7), (40, 33, 1, 1), window(2)),
    "strided": ((2, 6, 11, 11), (17, 6, 3, 3), window(2, stride=2, padding=1)),
    "strided-pointwise": ((2, 6, 11, 11), (17, 6, 1, 1), window(2, stride=2)),
    "patches": ((2, 3, 8, 8), (20, 3, 2, 2), window(2, stride=2)),
    "dilated": ((1, 4, 12, 12), (16, 4, 3, 3), window(2, dilation=2, padding=2)),
    "strided-and-dilated": ((1, 4, 12, 13), (16, 4, 3, 3), window(2, stride=2, dilation=2, padding=2)),
    "grouped": ((2, 8, 7, 7), (12, 2, 3, 3), window(2, groups=4, padding=1)),
    "depthwise": ((2, 40, 9, 9), (40, 1, 3, 3), window(2, stride=2, padding=1, groups=40)),
    "depthwise-rows": ((2, 4, 21, 40), (12, 1, 3, 3), window(2, padding=1, groups=4)),
    "depthwise-odd": ((2, 3, 9, 31), (3, 1, 3, 3), window(2, stride=2, padding=1, groups=3)),
    "depthwise-line": ((2, 6, 1200), (6, 1, 4), window(1, stride=3, padding=1, groups=6)),
    "depthwise-volume": ((1, 2, 4, 9, 20), (2, 1, 2, 3, 2), window(3, padding=1, groups=2)),
    "one-output": ((1, 2, 20, 70), (1, 2, 5, 5), window(2, padding=2, dilation=2)),
    "uneven": ((2, 4, 7, 7), (6, 2, 3, 2), UNEVEN),
    "wide": ((1, 3, 5, 150), (8, 3, 3, 5), window(2, padding=1)),
    "one-dimension": ((2, 3, 200), (8, 3, 5), window(1, stride=3, padding=2)),
    "three-dimensions": ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), window(3, padding=1)),
    "large-filter": ((1, 2, 9, 9), (3, 2, 9, 9), window(2, padding=2)),
    "many-outputs": ((1, 5, 5, 4), (500, 5, 3, 3), window(2, padding=1)),
    "many-outputs-and-images": ((2, 64, 3, 3), (676, 64, 2, 2), window(2)),
    "many-groups": ((1, 192, 4, 4), (192, 16, 3, 3), window(2, padding=1, groups=12)),
    "many-inputs": ((1, 500, 5, 4), (5, 500, 3, 3), window(2, padding=1)),
    "unknown-batch": ((N, 6, 8, 8), (20, 6, 3, 3), window(2, padding=1)),
    "unknown-channels": ((N, 2 * C, 6, 7), (2 * O, C, 3, 2), window(2, groups=2)),
    "unknown-rows": ((N, 3, H, W), (3, 1, 3, 3), window(2, stride=2, padding=1, dilation=2, groups=3)),
    "unknown-sizes": ((N, 6, H, W), (36, 3, 3, 2), window(2, stride=2, padding=1, dilation=2, groups=2)),
}


def channels_last(type_: TensorType) -> TensorType:
    return type_.with_layout(Layout((0, *range(2, type_.rank), 1)))


def region(op: str, x: Shape, w: Shape, attributes: Attributes, dtype: DType = f32, last: bool = False) -> Graph:
    """The op with a factor of its result's shape, so that the result's sizes are known at every call."""
    image, filter_ = TensorType(dtype, x), TensorType(dtype, w)
    error = Windows.of(attributes).result(image, filter_)
    types = {FORWARD: (image, filter_), INPUT: (error, filter_), FILTER: (error, image)}[op]
    extra = {FORWARD: {}, INPUT: {"input_shape": x}, FILTER: {"filter_shape": w}}[op]
    laid = [channels_last(t) if last and t is not filter_ else t for t in types]
    a, b = (parameter(i, t) for i, t in enumerate(laid))
    builder = Builder(OPS)
    value = builder.op(op, a, b, attributes={**attributes, **extra})
    wanted = channels_last(value.type) if last and op != FILTER else value.type
    factor = parameter(2, wanted)
    result = builder.op("relayout", builder.mul(value, factor), attributes={"type": wanted})
    return Graph((a, b, factor), (result,))


def arrays(graph: Graph, **sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [[evaluate(d, sizes) for d in v.shape] for v in graph.parameters]
    return [
        (rng.normal(size=s) if v.dtype.is_float else rng.integers(-9, 9, s)).astype(v.dtype.numpy)
        for v, s in zip(graph.parameters, shapes, strict=True)
    ]


def check(actual: Sequence[np.ndarray], graph: Graph, inputs: Sequence[np.ndarray], **sizes: int) -> None:
    """Within the bounds that the ops state."""
    parameters = [*graph.parameters]
    known = list(inputs)
    for name, size in sizes.items():  # the reference learns sizes from shapes
        parameters.append(parameter(len(parameters), TensorType(f32, (symbol(name),))))
        known.append(np.zeros(size, np.float32))
    bounds, _ = run_with_bounds(Function("f", Graph(tuple(parameters), graph.results)), known)
    for a, (expected, error) in zip(actual, bounds, strict=True):
        assert (a.dtype, a.shape) == (expected.dtype, expected.shape)
        assert (np.abs(a.astype(np.float64) - expected.astype(np.float64)) <= error).all()


def sizes_of(name: str) -> Iterator[dict[str, int]]:
    if name == "unknown-batch":
        yield from ({"n": size} for size in (0, 1, 7, 33))
    elif name == "unknown-channels":
        yield from ({"n": n, "c": c, "o": o} for n, c, o in ((2, 3, 5), (1, 20, 40)))
    elif name in ("unknown-rows", "unknown-sizes"):
        yield from ({"n": n, "h": h, "w": w} for n, h, w in ((3, 11, 23), (1, 5, 3), (0, 7, 7), (1, 40, 130)))
    else:
        yield {}


@pytest.mark.parametrize("op", OPS_UNDER_TEST)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_every_window_and_both_gradients(compiled: Callable, name: str, op: str, last: bool) -> None:
    graph = region(op, *SHAPES[name], last=last)
    runner = compiled(lower, graph)
    for sizes in sizes_of(name):
        inputs = arrays(graph, **sizes)
        check(runner(*inputs, **sizes), graph, inputs, **sizes)


@pytest.mark.parametrize("name", ["padded", "pointwise", "grouped", "depthwise", "dilated", "unknown-batch"])
def test_a_filter_gradient_without_an_epilogue(compiled: Callable, name: str) -> None:
    whole = region(FILTER, *SHAPES[name], last=True)
    anchor = next(n for n in whole.nodes() if n.op == FILTER)
    graph = Graph(whole.parameters[:2], (anchor.result,))
    runner = compiled(lower, graph)
    for sizes in sizes_of(name):
        inputs = arrays(graph, **sizes)
        check(runner(*inputs, **sizes), graph, inputs, **sizes)


@pytest.mark.parametrize("op", OPS_UNDER_TEST)
@pytest.mark.parametrize(("name", "rows"), [("depthwise-rows", True), ("depthwise-line", True), ("padded", False)])
def test_few_channels_of_row_major_images_go_row_by_row(name: str, rows: bool, op: str) -> None:
    for last in (False, True):
        stages = lower(region(op, *SHAPES[name], last=last), name="kernel", target=AVX512, table=OPS).stages
        assert (stages[0].kernel.name == "kernel_rows") == (rows and not last)


def test_what_no_window_covers_is_not_in_a_filter_gradient(compiled: Callable) -> None:
    graph = region(FILTER, (1, 3, 5, 20), (3, 1, 3, 3), window(2, stride=2, groups=3))
    error, image, factor = arrays(graph)
    image[..., -1] = 0
    (expected,) = compiled(lower, graph)(error, image, factor)
    image[..., -1] = np.inf
    np.testing.assert_array_equal(compiled(lower, graph)(error, image, factor)[0], expected)


@pytest.mark.parametrize("op", OPS_UNDER_TEST)
@pytest.mark.parametrize("dtype", [f64, bf16, i32])
def test_every_dtype(compiled: Callable, op: str, dtype: DType) -> None:
    graph = region(op, (2, 3, 6, 6), (5, 3, 3, 3), window(2, padding=1), dtype)
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


def test_an_epilogue_may_have_several_results(compiled: Callable) -> None:
    builder = Builder(OPS)
    x, w = parameter(0, channels_last(TensorType(f32, (2, 5, 9, 9)))), parameter(1, TensorType(f32, (20, 5, 3, 3)))
    bias = parameter(2, TensorType(f32, (20,)))
    y = builder.op(FORWARD, x, w, attributes=window(2, padding=1))
    pre = builder.add(y, builder.broadcast(bias, y.shape, (1,)))
    mask = builder.op("gt", pre, builder.broadcast(builder.constant(0.0, f32), y.shape, ()))

    def laid(v: Value) -> Value:
        return builder.op("relayout", v, attributes={"type": channels_last(v.type)})

    graph = Graph((x, w, bias), (laid(builder.op("relu", pre)), laid(mask), pre))
    inputs = arrays(graph)
    hidden, positive, before = compiled(lower, graph)(*inputs)
    check((before,), Graph(graph.parameters, (pre,)), inputs)
    np.testing.assert_array_equal(positive, before > 0)
    np.testing.assert_array_equal(hidden, np.maximum(before, 0))


@pytest.mark.parametrize("name", ["padded", "unknown-sizes", "one-dimension"])
def test_an_epilogue_may_be_too_long_to_be_unrolled(compiled: Callable, name: str) -> None:
    short = region(FORWARD, *SHAPES[name])
    builder, value = Builder(OPS), short.results[0]
    for _ in range(30):
        value = builder.op("abs", builder.op("neg", value))
    graph = Graph(short.parameters, (value,))
    runner = compiled(lower, graph)
    for sizes in sizes_of(name):
        inputs = arrays(graph, **sizes)
        check(runner(*inputs, **sizes), graph, inputs, **sizes)


@pytest.mark.parametrize("make", [forward, backward])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 2, 3, 5])
def test_a_sliding_dimension_meets_what_the_definition_says(
    make: Callable, stride: int, dilation: int, taps: int
) -> None:
    low, size = 2, 17
    count = (size + 2 * low - dilation * (taps - 1) - 1) // stride + 1
    definition = {(o, k, o * stride + k * dilation - low) for o in range(count) for k in range(taps)}
    if make is forward:
        axis, wanted = forward(size, count, taps, stride, low, dilation), definition
    else:
        axis, wanted = backward(count, size, taps, stride, low, dilation), {(i, k, o) for o, k, i in definition}
    met = {
        (q * axis.out_step + f, axis.order[phase.start + j], q * axis.in_step + phase.first + j * axis.tap_step)
        for f, phase in enumerate(axis.phases)
        for q in range(axis.positions)
        for j in range(phase.count)
    }
    inside = {(r, k, s) for r, k, s in met if r < axis.result and 0 <= s < axis.source}
    assert inside == {(r, k, s) for r, k, s in wanted if 0 <= s < axis.source and 0 <= r < axis.result}
    assert all(axis.low <= s - r // axis.out_step * axis.in_step < axis.low + axis.span for r, _, s in met)


def test_a_table_of_equal_steps_needs_no_choice() -> None:
    b = KernelBuilder("lookup", count=1)
    assert looked_up(b, b.iteration, (3, 2, 1)).operation is not None
    assert "select" not in {op.name for op in b.finish().walk()}


def planned(name: str, op: str, kept: frozenset[int] = frozenset()) -> Plan:
    graph = region(op, *SHAPES[name])
    return plan_convolution(next(n for n in graph.nodes() if n.op == op), AVX512, kept)


@pytest.mark.parametrize(
    ("name", "op", "resident"),
    [
        ("many-outputs", FORWARD, True),
        ("many-outputs-and-images", FORWARD, True),
        ("many-groups", FORWARD, True),
        ("many-inputs", INPUT, True),
        ("many-inputs", FORWARD, False),
        ("unknown-batch", FORWARD, False),
        ("wide", FORWARD, False),
    ],
)
def test_panels_stay_in_the_cache_where_filters_are_larger_than_images(name: str, op: str, resident: bool) -> None:
    assert planned(name, op).resident == resident
    assert not planned(name, op, kept=frozenset({1})).resident, "a filter that is kept is packed once"


def test_blocks_are_iterations_enough_with_all_panels_at_once() -> None:
    graph = region(FORWARD, (1, 64, 56, 56), (256, 64, 1, 1), window(2))
    plan = plan_convolution(next(n for n in graph.nodes() if n.op == FORWARD), AVX512)
    assert plan.panels_per_item == plan.panels
    assert evaluate(plan.places, {}) >= 12


def test_the_positions_of_a_tile_do_not_share_the_sets_of_a_cache(compiled: Callable) -> None:
    graph = region(FORWARD, (1, 1024, 2, 14), (5, 1024, 1, 1), window(2), last=True)
    plan = plan_convolution(next(n for n in graph.nodes() if n.op == FORWARD), AVX512)
    assert plan.position_pitch > 1024
    inputs = arrays(graph)
    check(compiled(lower, graph)(*inputs), graph, inputs)


@pytest.mark.parametrize(("size", "pattern"), [(56, (1, 14)), (28, (1, 14)), (14, (1, 14)), (7, (1, 7)), (6, (2, 6))])
def test_tiles_fit_the_image(size: int, pattern: tuple[int, int]) -> None:
    graph = region(FORWARD, (8, 64, size, size), (64, 64, 3, 3), window(2, padding=1))
    anchor = next(n for n in graph.nodes() if n.op == FORWARD)
    assert plan_convolution(anchor, AVX512).pattern == pattern
