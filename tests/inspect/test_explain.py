"""Reports of what the compiler did: which op is in which kernel, how much work it is, and why kernels stay apart."""

import json

import numpy as np
import pytest

import tgc
from tgc.dtypes import f32, f64
from tgc.inspect.work import node_flops
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Attributes, parameter
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module
from tgc.ir.types import TensorType
from tgc.kernels.lowering import Stage
from tgc.kernels.program import launches
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
    (report,) = tgc.explain(parse_module(text, OPS)).functions
    n, k = symbol("n"), symbol("k")
    assert [(kernel.flops, kernel.times) for kernel in report.kernels] == [(k, n)]
    assert (report.flops, report.bytes) == (n * k, 12 * n * k)


def test_every_operation_is_in_one_kernel_or_is_none() -> None:
    @tgc.export("f32[n, 8]")
    def f(x: tgc.Tensor) -> tgc.Tensor:
        return (x @ x.T).softmax(-1) + 1

    (report,) = tgc.explain(f).functions
    ops = [operation.op for kernel in report.kernels for operation in kernel.operations]
    assert ops.count("contract") == ops.count("exp") == ops.count("reciprocal") == 1
    lines = {line for kernel in report.kernels for operation in kernel.operations for line in operation.lines}
    assert {line.partition(":")[0] for line in lines} == {"test_explain.py"}
    for refusal in report.refusals:
        assert refusal.reason


def test_kernels_that_were_joined_are_not_called_apart() -> None:
    text = "module @m { func @f(%x: f32[4]) -> (f32[4]) { %0 = exp(%x) %1 = neg(%0) %2 = mul(%1, %0) return %2 } }"
    (report,) = tgc.explain(parse_module(text, OPS)).functions
    assert len(report.kernels) == 1
    assert report.refusals == ()


NET = """module @net {
  state @w : f32[8, 8]
  func @f(%x: f32[n, 8]) -> (f32[n, 8]) {
    %0 = state @w : f32[8, 8]
    %1 = contract(%x, %0) {spec = "mk,kn->mn"}
    %2 = reshape(%1) {shape = [4*n, 2]}
    %3 = exp(%2)
    %4 = neg(%3)
    %5 = neg(%4)
    %6 = reshape(%5) {shape = [n, 8]}
    %7 = contract(%6, %0) {spec = "mk,kn->mn"}
    %8 = add(%0, %0)
    assign @w = %8
    return %7
  }
}"""


def test_every_edge_between_kernels_says_why_it_is_one() -> None:
    (report,) = tgc.explain(parse_module(NET, OPS)).functions
    kernels = {kernel.id for kernel in report.kernels}
    reasons = {(e.source, e.target): e.reasons for e in report.edges}
    assert all(bool(why) == (set(edge) <= kernels) for edge, why in reasons.items())
    assert {edge for edge in reasons if "0" in edge} == {("input x", "0"), ("state w", "0"), ("0", "1")}
    assert {target for _, target in reasons} - kernels == {"output out0", "assign w"}
    assert reasons["0", "1"] == ("they are joined by a reshape, whose operand lies in memory",)


def test_rules_that_were_applied_are_told_with_their_reason() -> None:
    rules = [(r.by, r.rule, r.count) for r in tgc.explain(parse_module(NET, OPS)).rules]
    assert ("algebraic", "neg(neg(x)) → x", 1) in rules
    text = "module @m { func @f(%x: f32[3]) -> (f32[3]) { %0 = reshape(%x) {shape = [3]} return %0 } }"
    assert [(r.by, r.rule) for r in tgc.explain(parse_module(text, OPS)).rules] == [("canonicalize", "reshape(a) → a")]


def test_kernels_in_loops_are_joined_with_what_is_outside() -> None:
    text = """module @m { func @f(%start: f32[k], %rows: f32[n, k]) -> (f32[k]) {
      %0 = exp(%start)
      %1 = scan(%0, %rows) {length = n, carries = 1, sequences = 1} (
        ^(%i: i64[], %sum: f32[k], %row: f32[k]) { %0 = add(%sum, %row) return %0 })
      return %1
    } }"""
    (report,) = tgc.explain(parse_module(text, OPS)).functions
    edges = {(e.source, e.target): e.reasons for e in report.edges}
    assert edges["0", "1"] == ("control flow stands between them",)
    assert {("input rows", "1"), ("1", "output out0")} <= edges.keys()


def test_what_runs_once_is_no_part_of_a_call() -> None:
    """Packing weights, that is: the kernel that packs them is one of those that the product becomes."""
    text = """module @m { state @w : f32[64, 256]
      func @f(%x: f32[128, 64]) -> (f32[128, 256]) {
        %0 = state @w : f32[64, 256]
        %1 = contract(%x, %0) {spec = "mk,kn->mn"}
        return %1 } }"""
    explanation = tgc.explain(parse_module(text, OPS))
    (report,) = explanation.functions
    (kernel,) = report.kernels
    costs = {stage.kernel.name: stage.kernel.count * stage.cost for stage in stages(explanation)}
    assert set(kernel.names) == costs.keys()
    program = explanation.compiled.programs["f"]
    once = {launch.kernel for launch in launches(program.setup)} if program.setup else set()
    assert kernel.nanoseconds == sum(cost for name, cost in costs.items() if name not in once)


def stages(explanation: tgc.inspect.Explanation) -> tuple[Stage, ...]:
    (function,) = explanation.compiled.module.functions
    return explanation.compiled.library.lowering(function.results[0].node).stages


def test_a_text_that_is_fused_already_is_explained_too() -> None:
    text = print_module(tgc.explain(parse_module(NET, OPS)).compiled.module)
    (report,) = tgc.explain(parse_module(text, OPS)).functions
    assert [o.op for k in report.kernels for o in k.operations].count("contract") == 2
    assert report.flops == 264 * symbol("n") + 64


def test_kernels_are_timed_beside_what_the_machine_does() -> None:
    explanation = tgc.explain(parse_module(NET, OPS), run=True)
    (report,) = explanation.functions
    assert explanation.limits is not None
    assert all(kernel.seconds is not None and kernel.seconds >= 0 for kernel in report.kernels)
    assert report.seconds == pytest.approx(sum(kernel.seconds or 0 for kernel in report.kernels))
    assert "measured" in explanation.text()


def test_a_jitted_function_is_explained_in_each_of_its_forms() -> None:
    f = tgc.jit(lambda x: -x.exp())
    with pytest.raises(tgc.UserError, match="was not compiled yet"):
        tgc.explain(f)
    for size in (2, 3):
        f(tgc.tensor(np.zeros(size, np.float32)))
    explanation = tgc.explain(f)
    assert [(s.signature, s.cause) for s in explanation.specialisations] == [
        ("(f32[d0])", "a second size (argument 0, dimension 0: 2, then 3)")
    ]
    assert len(explanation.functions) == 1
    assert "<lambda> was compiled for" in str(explanation)


def test_an_explanation_is_data_too() -> None:
    data = json.loads(tgc.explain(parse_module(NET, OPS)).json())
    (function,) = data["functions"]
    assert function["flops"] == {"formula": "264*n+64", "value": 264 * 32 + 64}
    assert function["sizes"] == {"n": 32}
    assert [kernel["id"] for kernel in function["kernels"]] == [str(i) for i in range(len(function["kernels"]))]
    assert {t["place"] for t in function["tensors"]} >= {"arena", "state"}
