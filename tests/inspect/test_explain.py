"""Reports of what the compiler did: which op is in which kernel, how much work it is, and why kernels stay apart."""

import pytest

import tgc
from tgc.dtypes import f32, f64
from tgc.inspect import explain, explain_functions
from tgc.inspect.work import node_flops
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Attributes, parameter
from tgc.ir.parser import parse_module
from tgc.ir.types import TensorType
from tgc.ops import OPS

IMAGES, FILTERS, GRADIENT = (2, 4, 9, 9), (6, 4, 3, 3), (2, 6, 7, 7)
PLAIN: Attributes = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
# every tap of the filter at every element of the convolution's result: a multiplication and an addition
PRODUCTS = 2 * (2 * 6 * 7 * 7) * (4 * 3 * 3)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "expected"),
    [
        ("exp", [IMAGES], {}, 2 * 4 * 9 * 9),
        ("cast", [IMAGES], {"dtype": f64}, 0),
        ("transpose", [IMAGES], {"permutation": (1, 0, 2, 3)}, 0),
        ("sum", [IMAGES], {"axes": (1,)}, 2 * 4 * 9 * 9),
        ("contract", [(5, 7), (7, 3)], {"spec": "mk,kn->mn"}, 2 * 5 * 7 * 3),
        ("convolution", [IMAGES, FILTERS], PLAIN, PRODUCTS),
        ("convolution_input_gradient", [GRADIENT, FILTERS], {**PLAIN, "input_shape": IMAGES}, PRODUCTS),
        # with a border of one zero, 3 taps meet 9 elements in 8 + 9 + 8 places along each dimension
        ("convolution", [IMAGES, FILTERS], {**PLAIN, "padding": ((1, 1), (1, 1))}, 2 * (2 * 6 * 4) * (25 * 25)),
        ("convolution", [IMAGES, FILTERS], {**PLAIN, "stride": (2, 4)}, 2 * (2 * 6 * 4) * (3 * 4) * (3 * 2)),
        ("convolution_filter_gradient", [GRADIENT, IMAGES], {**PLAIN, "filter_shape": FILTERS}, PRODUCTS),
    ],
)
def test_the_arithmetic_of_an_op_is_counted(
    op: str, shapes: list[tuple[int, ...]], attributes: Attributes, expected: int
) -> None:
    operands = [parameter(i, TensorType(f32, shape)) for i, shape in enumerate(shapes)]
    assert node_flops(Builder(OPS).op(op, *operands, attributes=attributes).node, OPS) == expected


def test_a_loop_counts_each_iteration() -> None:
    text = """module @m { func @f(%start: f32[k], %rows: f32[n, k]) -> (f32[k]) {
      %0 = scan(%start, %rows) {length = n, carries = 1, sequences = 1} (
        ^(%i: i64[], %sum: f32[k], %row: f32[k]) { %0 = add(%sum, %row) return %0 })
      return %0
    } }"""
    (report,) = explain(parse_module(text, OPS))
    n, k = symbol("n"), symbol("k")
    assert [(kernel.flops, kernel.times) for kernel in report.kernels] == [(k, n)]
    assert (report.flops, report.bytes) == (n * k, 12 * n * k)


def test_every_operation_is_in_one_kernel_or_is_none() -> None:
    @tgc.export("f32[n, 8]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return (x @ x.T).softmax(-1) + 1

    (report,) = explain_functions(f)
    ops = [operation.op for kernel in report.kernels for operation in kernel.operations]
    assert ops.count("contract") == ops.count("exp") == ops.count("reciprocal") == 1
    lines = {line for kernel in report.kernels for operation in kernel.operations for line in operation.lines}
    assert {line.partition(":")[0] for line in lines} == {"test_explain.py"}
    for refusal in report.refusals:
        assert refusal.reason


def test_kernels_that_were_joined_are_not_called_apart() -> None:
    text = "module @m { func @f(%x: f32[4]) -> (f32[4]) { %0 = exp(%x) %1 = neg(%0) %2 = mul(%1, %0) return %2 } }"
    (report,) = explain(parse_module(text, OPS))
    assert len(report.kernels) == 1
    assert report.refusals == ()
