"""Dimensions of a module, fixed and bounded."""

import pytest

from tgc.errors import UserError
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module
from tgc.ir.verify import verify
from tgc.ops import OPS
from tgc.specialise import specialise

TEXT = """module @m {
  func @f(%x: f32[n, k], %y: f32[m], %z: f32[k]) -> (f32[2*n, k], f32[k]) {
    require m == n : "rows"
    %0 = concatenate(%x, %x) {axis = 0}
    %1 = scan(%z, %x) {length = n, carries = 1, sequences = 1} (^(%i: i64[], %sum: f32[k], %row: f32[k]) {
      %0 = add(%sum, %row)
      return %0
    })
    return %0, %1
  }
}"""
FIXED = """module @m {
  func @f(%x: f32[3, 5], %y: f32[m], %z: f32[5]) -> (f32[6, 5], f32[5]) {
    require m == 3 : "rows"
    %0 = concatenate(%x, %x) {axis = 0}
    %1 = scan(%z, %x) {length = 3, carries = 1, sequences = 1} (^(%i: i64[], %sum: f32[5], %row: f32[5]) {
      %0 = add(%sum, %row)
      return %0
    })
    return %0, %1
  }
}"""


def test_a_size_takes_the_place_of_a_dimension_everywhere() -> None:
    module = specialise(parse_module(TEXT, OPS), {"n": (3, 3), "k": (5, 5)})
    verify(module, OPS)
    assert print_module(module) == print_module(parse_module(FIXED, OPS))


def test_ranges_are_kept_beside_each_other() -> None:
    module = specialise(parse_module(TEXT, OPS), {"n": (1, 8), "k": (4, None)})
    assert module.ranges == {"n": (1, 8), "k": (4, None)}
    assert specialise(module, {"n": (2, 2)}).ranges == {"k": (4, None)}


def test_sizes_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="rows: m and n must be equal"):
        specialise(parse_module(TEXT, OPS), {"n": (3, 3), "m": (4, 4)})


def test_a_dimension_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match="there is no dimension batch"):
        specialise(parse_module(TEXT, OPS), {"batch": (3, 3)})
