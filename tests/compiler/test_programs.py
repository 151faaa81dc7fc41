"""Programs: loops, branches and assignments compiled, against the interpreter. Numbers are small integers: exact."""

from collections.abc import Mapping

import numpy as np
import pytest

from tgc.compiler import Options, compile_function, lower_module
from tgc.errors import UserError
from tgc.ir.graph import Array
from tgc.ir.parser import parse_module
from tgc.ops import OPS
from tgc.reference import run

PLAIN = """module @m {
  func @f(%x: f32[n], %y: f32[n]) -> (f32[n], f32[n], f32[n], f32[n], f32[n, 1], f32[3]) {
    %0 = add(%x, %y)
    %1 = reshape(%0) {shape = [n, 1]}
    %2 = constant() {value = 7.0, dtype = f32}
    %3 = broadcast(%2) {shape = [3], axes = []}
    return %x, %x, %0, %0, %1, %3
  }
}"""
BRANCH = """module @m {
  func @f(%p: bool[], %x: f32[n]) -> (f32[n], f32[n]) {
    %0:2 = cond(%p, %x) (^(%a: f32[n]) {
      %0 = neg(%a)
      %1 = mul(%0, %a)
      return %0, %1
    }, ^(%a: f32[n]) {
      %0 = add(%a, %a)
      return %0, %a
    })
    return %0#0, %0#1
  }
}"""
SCAN = """module @m {
  func @f(%start: f32[k], %rows: f32[n, k], %add: f32[k]) -> (f32[k], f32[n, k], i64[n]) {
    %0:3 = scan(%start, %rows, %add) {length = n, carries = 1, sequences = 1, reverse = REVERSE} (
      ^(%i: i64[], %sum: f32[k], %row: f32[k], %more: f32[k]) {
        %0 = add(%sum, %row)
        %1 = add(%0, %more)
        %2 = mul(%row, %sum)
        return %1, %2, %i
    })
    return %0#0, %0#1, %0#2
  }
}"""
SWAP = """module @m {
  func @f(%a: f32[k], %b: f32[k], %m: f32[n, k]) -> (f32[k], f32[k], f32[n, k]) {
    %0:3 = scan(%a, %b, %m) {length = n, carries = 2, sequences = 1} (
      ^(%i: i64[], %x: f32[k], %y: f32[k], %row: f32[k]) { return %y, %x, %y })
    return %0#0, %0#1, %0#2
  }
}"""
NESTED = """module @m {
  func @f(%x: f32[n, k, 2], %zero: f32[2]) -> (f32[2], f32[n, 2]) {
    %0:2 = scan(%zero, %x, %zero) {length = n, carries = 1, sequences = 1} (
      ^(%i: i64[], %total: f32[2], %rows: f32[k, 2], %z: f32[2]) {
        %0 = scan(%z, %rows, %total) {length = k, carries = 1, sequences = 1} (
          ^(%j: i64[], %sum: f32[2], %row: f32[2], %t: f32[2]) {
            %0 = add(%sum, %row)
            %1 = cast(%j) {dtype = f32}
            %2 = broadcast(%1) {shape = [2], axes = []}
            %3 = add(%0, %2)
            return %3
        })
        %1 = add(%total, %0)
        return %1, %0
    })
    return %0#0, %0#1
  }
}"""
WHILE = """module @m {
  func @f(%x: f32[2], %limit: f32[]) -> (f32[2], i64[]) {
    %0 = constant() {value = 0, dtype = i64}
    %1:2 = while_loop(%x, %0, %limit) {carries = 2} (
      ^(%v: f32[2], %n: i64[], %most: f32[]) {
        %0 = max(%v) {axes = [0]}
        %1 = lt(%0, %most)
        return %1
      }, ^(%v: f32[2], %n: i64[], %most: f32[]) {
        %0 = add(%v, %v)
        %1 = constant() {value = 1, dtype = i64}
        %2 = add(%n, %1)
        return %0, %2
    })
    return %1#0, %1#1
  }
}"""
ASSIGN = """module @m {
  state @a : f32[4]
  state @b : f32[4]
  state @c : f32[4]
  state @d : f32[4]
  func @f(%x: f32[4]) -> (f32[4]) {
    %0 = state @a : f32[4]
    %1 = state @b : f32[4]
    %2 = state @c : f32[4]
    %3 = add(%2, %x)
    %4 = add(%0, %3)
    assign @a = %1
    assign @b = %0
    assign @c = %3
    assign @d = %x
    return %4
  }
}"""


def numbers(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-4, 5, shape).astype(np.float32)


def agree(text: str, inputs: list[Array], state: Mapping[str, Array] | None = None, pipeline: str = "O3") -> None:
    """Compiled code gives what the interpreter gives, results and state."""
    module = parse_module(text, OPS)
    function = module.functions[0]
    options = Options(pipeline=pipeline, cached=False, debug=True)
    compiled = compile_function(function, state=module.state, constants=module.constants, options=options)
    held = {name: array.copy() for name, array in (state or {}).items()}
    expected, after = run(function, inputs, state=held, constants=module.constants)
    arrays = {name: array.copy() for name, array in (state or {}).items()}
    results = compiled.run(inputs, [arrays[value.name] for value in compiled.program.state])
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name, wanted in after.items():
        np.testing.assert_array_equal(arrays[name], wanted, err_msg=name)


@pytest.mark.parametrize("pipeline", ["O0", "O3"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_results_may_be_parameters_constants_and_each_other(size: int, pipeline: str, rng: np.random.Generator) -> None:
    agree(PLAIN, [numbers(rng, size), numbers(rng, size)], pipeline=pipeline)


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_runs_one_side(taken: bool, rng: np.random.Generator) -> None:
    agree(BRANCH, [np.array(taken), numbers(rng, 6)])


@pytest.mark.parametrize("reverse", ["true", "false"])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_scan_carries_and_stacks(length: int, reverse: str, rng: np.random.Generator) -> None:
    inputs = [numbers(rng, 3), numbers(rng, length, 3), numbers(rng, 3)]
    agree(SCAN.replace("REVERSE", reverse), inputs)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_carried_values_may_change_places(length: int, rng: np.random.Generator) -> None:
    agree(SWAP, [numbers(rng, 3), numbers(rng, 3), numbers(rng, length, 3)])


def test_loops_may_be_nested(rng: np.random.Generator) -> None:
    agree(NESTED, [numbers(rng, 3, 4, 2), np.zeros(2, np.float32)])


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_loop_ends_when_its_condition_says(limit: float) -> None:
    agree(WHILE, [np.array([1, 3], np.float32), np.array(limit, np.float32)])


@pytest.mark.parametrize("pipeline", ["O0", "O3"])
def test_assignments_see_the_state_on_entry(pipeline: str, rng: np.random.Generator) -> None:
    agree(ASSIGN, [numbers(rng, 4)], {name: numbers(rng, 4) for name in "abcd"}, pipeline)


def test_a_pipeline_that_leaves_memory_unplanned_is_refused() -> None:
    with pytest.raises(UserError, match="leave memory unplanned"):
        agree(PLAIN, [np.zeros(1, np.float32)] * 2, pipeline="decompose,fusion")


@pytest.mark.parametrize("pipeline", ["O0", "decompose,fusion,memory-plan"])
def test_layouts_that_no_pass_brings_together_are_refused(pipeline: str) -> None:
    """Schedules would read the transposed values as row-major."""
    text = """module @m { func @f(%x: f32[4, 6]) -> (f32[4]) {
      %0 = relayout(%x) {type = f32[4, 6]{1,0}}
      %1 = sum(%0) {axes = [1]}
      return %1 } }"""
    module = parse_module(text, OPS)
    with pytest.raises(UserError, match="do not bring layouts together"):
        lower_module(module, Options(pipeline=pipeline))
