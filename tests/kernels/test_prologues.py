"""What is computed on the way into a product: the same bits as when it is written to memory first."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from passes.base import substitute
from tgc.dtypes import bf16, bool_, f32
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, evaluate, symbol
from tgc.ir.graph import Graph, Node, Value, parameter
from tgc.ir.kinds import OpKind
from tgc.ir.types import Layout, TensorType
from tgc.kernels import contraction, convolution, pointwise
from tgc.ops import OPS

N, S = symbol("n"), symbol("s")
SIZES = (0, 1, 7, 33)
Shape = tuple[Dim, ...]
Prologue = Callable[[Builder, list[Value], Shape], Value]


def cast(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    return b.op("cast", new(parameters, TensorType(bf16, shape)), attributes={"dtype": f32})


def scaled_relu(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    scale = b.broadcast(new(parameters, TensorType(f32, ())), shape, ())
    return b.mul(b.op("relu", new(parameters, TensorType(f32, shape))), scale)


def masked(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    zero = b.broadcast(b.constant(0.0, f32), shape, ())
    return b.op("select", new(parameters, TensorType(bool_, shape)), new(parameters, TensorType(f32, shape)), zero)


def spread(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    """Factors along the first dimension, which joins no other, and terms along the last."""
    first, last = (new(parameters, TensorType(f32, (d,))) for d in (shape[0], shape[-1]))
    value = b.mul(new(parameters, TensorType(f32, shape)), b.broadcast(first, shape, (0,)))
    return b.add(value, b.broadcast(last, shape, (len(shape) - 1,)))


def below_diagonal(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    rows, columns = (b.op("iota", attributes={"shape": shape, "axis": a, "dtype": f32}) for a in (0, len(shape) - 1))
    zero = b.broadcast(b.constant(0.0, f32), shape, ())
    return b.op("select", b.op("ge", rows, columns), new(parameters, TensorType(f32, shape)), zero)


def turned(b: Builder, parameters: list[Value], shape: Shape) -> Value:
    order = (*range(2, len(shape)), 0, 1) if len(shape) > 2 else (1, 0)
    value = b.op("relu", new(parameters, TensorType(f32, shape, Layout(order))))
    return b.op("relayout", value, attributes={"type": TensorType(f32, shape)})


PROLOGUES = [cast, scaled_relu, masked, spread, below_diagonal, turned]


def new(parameters: list[Value], type_: TensorType) -> Value:
    parameters.append(parameter(len(parameters), type_))
    return parameters[-1]


def arrays(graph: Graph, **sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=[evaluate(d, sizes) for d in v.shape]) * (3 if v.dtype is not bool_ else 1)).astype(
            v.dtype.numpy
        )
        if v.dtype is not bool_
        else rng.random([evaluate(d, sizes) for d in v.shape]) < 0.5
        for v in graph.parameters
    ]


def same_bits(compiled: Callable, graph: Graph, sizes: Sequence[dict[str, int]]) -> None:
    """The region's results are those of its prologues, run first, and of the anchor on what they left in memory."""
    anchor: Node = next(n for n in graph.nodes() if OPS[n.op].kind in (OpKind.CONTRACT, OpKind.CONVOLUTION))
    lower = contraction.lower if OPS[anchor.op].kind is OpKind.CONTRACT else convolution.lower
    apart = [v for v in dict.fromkeys(anchor.operands) if v.node.op != "parameter"]
    count = len(graph.parameters)
    stored = {v: parameter(count + i, v.type) for i, v in enumerate(apart)}
    rest = Graph((*graph.parameters, *stored.values()), substitute(Builder(OPS), graph.results, stored))
    joined, second = compiled(lower, graph), compiled(lower, rest)
    first = [compiled(pointwise.lower, Graph(graph.parameters, (v,))) for v in apart]
    for known in sizes:
        inputs = arrays(graph, **known)
        expected = second(*inputs, *(run(*inputs, **known)[0] for run in first), **known)
        for a, b in zip(joined(*inputs, **known), expected, strict=True):
            assert a.tobytes() == b.tobytes()


def product(spec: str, left: Prologue | None, right: Prologue | None, a: Shape, b: Shape) -> Graph:
    builder, parameters = Builder(OPS), list[Value]()
    x, y = (
        new(parameters, TensorType(f32, shape)) if make is None else make(builder, parameters, shape)
        for make, shape in ((left, a), (right, b))
    )
    return Graph(tuple(parameters), (builder.op("relu", builder.contract(x, y, spec)),))


@pytest.mark.parametrize("prologue", PROLOGUES)
@pytest.mark.parametrize(
    ("spec", "a", "b"),
    [
        ("mk,kn->mn", (37, 70), (70, 45)),
        ("mk,nk->mn", (3, 40), (70, 40)),
        ("mk,kn->mn", (3, 530), (530, 300)),
        ("mk,nk->mn", (20, 530), (1000, 530)),
        ("ni,oi->no", (N, 64), (40, 64)),
        ("no,ni->oi", (N, 10), (N, 33)),
        ("bsi,bso->io", (2, S, 18), (2, S, 40)),
        ("bsi,oi->bso", (3, 5, 18), (40, 18)),
        ("bqd,bkd->bqk", (2, S, 16), (2, S, 16)),
    ],
)
def test_either_operand_of_a_product(compiled: Callable, spec: str, a: Shape, b: Shape, prologue: Prologue) -> None:
    names = {str(d) for d in (*a, *b) if not isinstance(d, int)}
    sizes = [dict.fromkeys(names, size) for size in SIZES] if names else [{}]
    same_bits(compiled, product(spec, prologue, None, a, b), sizes)
    same_bits(compiled, product(spec, None, prologue, a, b), sizes)


def test_both_operands_of_a_product(compiled: Callable) -> None:
    same_bits(compiled, product("mk,nk->mn", masked, cast, (20, 700), (37, 700)), [{}])


def test_both_operands_may_be_one_value_that_the_epilogue_reads_too(compiled: Callable) -> None:
    builder, parameters = Builder(OPS), list[Value]()
    x = scaled_relu(builder, parameters, (S, S))
    y = builder.add(builder.contract(x, x, "mk,nk->mn"), x)
    same_bits(compiled, Graph(tuple(parameters), (y,)), [{"s": size} for size in SIZES])


WINDOW = {"stride": (2, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1), "groups": 2}


@pytest.mark.parametrize("prologue", PROLOGUES)
@pytest.mark.parametrize("op", ["convolution", "convolution_input_gradient", "convolution_filter_gradient"])
def test_images_and_errors_of_convolutions(compiled: Callable, op: str, prologue: Prologue) -> None:
    image, filter_ = (N, 6, 9, 20), (10, 3, 3, 3)
    builder, parameters = Builder(OPS), list[Value]()
    error = (N, 10, 5, 19)
    first = prologue(builder, parameters, image if op == "convolution" else error)
    extra: dict[str, Shape] = {}
    if op == "convolution_filter_gradient":
        second, extra = prologue(builder, parameters, image), {"filter_shape": filter_}
    else:
        second = new(parameters, TensorType(f32, filter_))
        if op == "convolution_input_gradient":
            extra = {"input_shape": image}
    y = builder.op(op, first, second, attributes={**WINDOW, **extra})
    same_bits(compiled, Graph(tuple(parameters), (y,)), [{"n": size} for size in (0, 1, 3)])


def test_images_that_lie_channels_last(compiled: Callable) -> None:
    builder, parameters = Builder(OPS), list[Value]()
    image = new(parameters, TensorType(bf16, (2, 40, 9, 9), Layout((0, 2, 3, 1))))
    filter_ = new(parameters, TensorType(f32, (40, 1, 3, 3)))
    window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 40}
    y = builder.op("convolution", builder.op("cast", image, attributes={"dtype": f32}), filter_, attributes=window)
    same_bits(compiled, Graph(tuple(parameters), (y,)), [{}])
