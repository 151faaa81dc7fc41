"""Small functions that were once compiled wrongly, or not at all: found by the generator of random graphs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fuzz.checks import check
from tests.fuzz.generator import Sample
from tgc.compiler import Options, compile_function
from tgc.dtypes import f32, i64
from tgc.errors import ShapeError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import Attributes, Function, Graph, parameter
from tgc.ir.parser import parse_module
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.reference import run


def agrees(text: str, **sizes: int) -> None:
    """Holds O0 and O3 to the interpreter, on any number of threads."""
    module = parse_module(f"module @m {{ {text} }}", OPS)
    check(Sample(0, module.functions[0], dict(module.state), (sizes,)))


@pytest.mark.parametrize("moved", ["transpose(%0) {permutation = [1, 0]}", "reverse(%0) {axes = [0, 1]}"])
def test_what_is_made_of_folded_rows_is_not_moved_in_their_kernel(moved: str) -> None:
    """Each row's sum was used in another row, where the shape stayed the same."""
    agrees(
        f"""func @f(%x: f32[n, n]) -> (f32[n, n]) {{
          %0 = softmax(%x) {{axis = 1}} : f32[n, n]
          %1 = {moved} : f32[n, n]
          return %1
        }}""",
        n=5,
    )


def test_a_fold_of_moved_rows_is_not_fused_to_the_fold_that_made_them() -> None:
    agrees(
        """func @f(%x: f32[n, n]) -> (f32[n]) {
          %0 = softmax(%x) {axis = 1} : f32[n, n]
          %1 = transpose(%0) {permutation = [1, 0]} : f32[n, n]
          %2 = max(%1) {axes = [1]} : f32[n]
          return %2
        }""",
        n=5,
    )


def test_running_sums_of_16_bits_are_rounded_once() -> None:
    agrees(
        """func @f(%x: bf16[17, 3]) -> (bf16[17, 3]) {
          %0 = cumulative_sum(%x) {axis = 0, reverse = false} : bf16[17, 3]
          return %0
        }"""
    )


def test_tensors_folded_in_a_region_stay_there() -> None:
    """They became constants of the module, which regions cannot see."""
    agrees(
        """func @f(%x: f32[3], %c: bool[]) -> (f32[16]) {
          %0 = cond(%c, %x) (^(%x: f32[3]) {
            %0 = iota() {axis = 0, dtype = f32, shape = [16]} : f32[16]
            %1 = neg(%0) : f32[16]
            %2 = reverse(%1) {axes = [0]} : f32[16]
            return %2
          }, ^(%x: f32[3]) {
            %0 = iota() {axis = 0, dtype = f32, shape = [16]} : f32[16]
            return %0
          }) : f32[16]
          return %0
        }"""
    )


def test_symbolic_constants_are_not_folded() -> None:
    agrees(
        """func @f(%x: f32[n]) -> (bool[], i64[1]) {
          %0 = constant() {dtype = bool, value = true} : bool[]
          %1 = broadcast(%0) {axes = [], shape = [n, n]} : bool[n, n]
          %2 = any(%1) {axes = [0, 1]} : bool[]
          %3 = iota() {axis = 1, dtype = i32, shape = [n, 1]} : i32[n, 1]
          %4 = argmin(%3) {axis = 0} : i64[1]
          return %2, %4
        }""",
        n=3,
    )


def test_products_of_reshaped_constants() -> None:
    """What an alias reads is in memory too."""
    agrees(
        """func @f(%x: f32[n]) -> (f32[n]) {
          %0 = constant() {dtype = f32, value = -0.5} : f32[]
          %1 = broadcast(%0) {axes = [], shape = [n]} : f32[n]
          %2 = reshape(%1) {shape = [1, n]} : f32[1, n]
          %3 = contract(%2, %2) {spec = "ab,ab->b"} : f32[n]
          return %3
        }""",
        n=7,
    )


def test_sums_of_nothing() -> None:
    agrees(
        """func @f(%x: f64[0, 1, 4]) -> (f64[0, 1, 4]) {
          %0 = sum(%x) {axes = [0, 1, 2]} : f64[]
          %1 = broadcast(%0) {axes = [], shape = [0, 1, 4]} : f64[0, 1, 4]
          return %1
        }"""
    )


def test_empty_slices_of_slices_stay_in_bounds() -> None:
    agrees(
        """func @f(%x: i64[7, 1]) -> (i64[2, 0]) {
          %0 = slice(%x) {start = [1, 0], step = [3, 3], stop = [7, 1]} : i64[2, 1]
          %1 = slice(%0) {start = [0, 1], step = [1, 3], stop = [2, 1]} : i64[2, 0]
          return %1
        }"""
    )


def test_inputs_may_have_sizes_that_are_expressions() -> None:
    agrees("func @f(%x: f32[n], %y: f32[n+1, 2]) -> (f32[n+1, 2]) { %0 = neg(%y) : f32[n+1, 2] return %0 }", n=2)


def test_inputs_whose_sizes_break_an_expression_are_refused() -> None:
    module = parse_module("module @m { func @f(%x: f32[n], %y: f32[n+1]) -> (f32[n+1]) { return %y } }", OPS)
    compiled = compile_function(module.functions[0], options=Options(cached=False))
    with pytest.raises(ShapeError, match="n\\+1"):
        compiled.run([np.zeros(3, np.float32), np.zeros(3, np.float32)])


def test_queries_of_no_size_attend_to_all_keys_alike() -> None:
    agrees(
        """func @f(%q: f32[2, d], %k: f32[4, d], %v: f32[4, 3]) -> (f32[2, 3]) {
          %0 = attention(%q, %k, %v) {causal = false, scale = none} : f32[2, 3]
          return %0
        }""",
        d=0,
    )


def test_windows_of_one_slide_over_nothing() -> None:
    agrees(
        """func @f(%x: f32[0, 4]) -> (f32[0, 2]) {
          %0 = window_max(%x) {dilation = [1, 1], padding = [[0, 0], [0, 0]], stride = [1, 2], window = [1, 2]}
            : f32[0, 2]
          return %0
        }"""
    )


def test_filter_gradients_of_empty_batches_are_zero() -> None:
    module = parse_module(
        """module @m { func @f(%dy: f32[0, 2, 3], %x: f32[0, 1, 5]) -> (f32[2, 1, 3]) {
          %0 = convolution_filter_gradient(%dy, %x) {dilation = [1], filter_shape = [2, 1, 3], groups = 1,
            padding = [[0, 0]], stride = [1]} : f32[2, 1, 3]
          return %0
        } }""",
        OPS,
    )
    function: Function = module.functions[0]
    arrays = [np.zeros((0, 2, 3), np.float32), np.zeros((0, 1, 5), np.float32)]
    assert not np.any(run(function, arrays)[0][0])
    assert not np.any(compile_function(function, options=Options(cached=False)).run(arrays)[0])


def test_columns_that_a_turned_tile_has_in_excess_read_no_operand() -> None:
    """A bias of 17 channels was read up to its 24th element, in squares of 8."""
    agrees(
        """func @f(%x: f32[n, 2, 4], %w: f32[17, 2, 3], %bias: f32[17]) -> (f32[n, 17, 4]) {
          %0 = convolution(%x, %w) {dilation = [1], groups = 1, padding = [[1, 1]], stride = [1]} : f32[n, 17, 4]
          %1 = broadcast(%bias) {axes = [1], shape = [n, 17, 4]} : f32[n, 17, 4]
          %2 = add(%0, %1) : f32[n, 17, 4]
          return %2
        }""",
        n=3,
    )


def test_one_element_of_16_bits_is_stored_and_none_behind_it() -> None:
    """A masked store of one truncated lane wrote 32 bits; with checks of bounds, LLVM did not see that lane alone."""
    text = """module @m { func @f(%w: bf16[3, 11, 3, 3], %x: bf16[2, 33, 24, 2]) -> (bf16[2, 3, 8, 1]) {
      %0 = convolution(%x, %w) {dilation = [1, 1], groups = 3, padding = [[1, 0], [0, 2]], stride = [3, 2]}
      return %0
    } }"""
    function: Function = parse_module(text, OPS).functions[0]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-2, 3, [int(d) for d in v.shape]).astype(v.dtype.numpy) for v in function.parameters]
    (result,) = compile_function(function, options=Options(cached=False)).run(arrays)
    np.testing.assert_array_equal(result, run(function, arrays)[0][0])


def test_parts_of_a_long_axis_stay_in_their_places() -> None:
    """Iterations wrote a vector of each part that lies behind them, over what was there: to before its own begin."""
    agrees(
        """func @f(%x: f32[40001], %y: f32[40003]) -> (f32[80004]) {
          %0 = concatenate(%x, %y) {axis = 0} : f32[80004]
          return %0
        }"""
    )


@pytest.mark.parametrize(
    ("x", "y", "result", "spec"),
    [("[37]", "[37]", "[]", "a,a->"), ("[2, 517]", "[50, 517]", "[2, 50]", "ab,cb->ac")],
)
def test_dot_products_of_what_is_computed_end_with_the_last_element(x: str, y: str, result: str, spec: str) -> None:
    """Beyond it, in the rest of a vector, nothing plus one was one, and added to the sum."""
    agrees(
        f"""func @f(%x: f32{x}, %y: f32{y}) -> (f32{result}) {{
          %0 = constant() {{dtype = f32, value = 1.0}} : f32[]
          %1 = broadcast(%0) {{axes = [], shape = {x}}} : f32{x}
          %2 = add(%x, %1) : f32{x}
          %3 = broadcast(%0) {{axes = [], shape = {y}}} : f32{y}
          %4 = add(%y, %3) : f32{y}
          %5 = contract(%2, %4) {{spec = "{spec}"}} : f32{result}
          return %5
        }}"""
    )


_N, _M = symbol("n"), symbol("m")


@pytest.mark.parametrize(
    ("op", "count", "attributes"),
    [
        ("reshape", 1, {"shape": (_M, 3)}),
        ("broadcast", 1, {"shape": (_M, 2), "axes": (0, 1)}),
        ("slice", 1, {"start": (_M, 0), "stop": (_N, 2), "step": (1, 1)}),
        ("slice", 1, {"start": (_N - 5, 0), "stop": (_N - 4, 2), "step": (1, 1)}),
        ("concatenate", 2, {"axis": 1}),
        ("contract", 2, {"spec": "ab,ac->bc"}),
        ("window_max", 1, {"window": (9, 1), "stride": (1, 1), "padding": ((0, 0),) * 2, "dilation": (1, 1)}),
        ("dynamic_update_slice", 2, {}),
    ],
)
def test_sizes_that_an_op_takes_for_fitting_are_checked_before_it_runs(
    op: str, count: int, attributes: Attributes
) -> None:
    """They were believed, and what lay behind a smaller tensor was read."""
    builder = Builder(OPS)
    parameters = tuple(parameter(i, TensorType(f32, (size, 2))) for i, size in enumerate((_N, _M)))
    starts = [builder.constant(0, i64)] * 2 if op == "dynamic_update_slice" else []
    result = builder.op(op, *parameters[:count], *starts, attributes=attributes)
    function = Function("f", Graph(parameters, (result,)), constraints=tuple(builder.constraints))
    assert function.constraints
    compiled = compile_function(function, options=Options(cached=False))
    with pytest.raises(ShapeError):
        compiled.run([np.zeros((3, 2), np.float32), np.zeros((4, 2), np.float32)])
