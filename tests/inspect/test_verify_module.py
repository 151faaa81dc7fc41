"""Comparing compiled code with the interpreter: what is right is not called wrong, and what is wrong is found."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from passes.memory_plan import MemoryPlan
from passes.pipeline import Pipeline, parse_pipeline
from tests.fuzz.generator import sample
from tgc import programs
from tgc.compiler import Options
from tgc.dtypes import f32
from tgc.errors import CompilerBug
from tgc.inspect.native import from_buffer, to_buffer
from tgc.inspect.verify import _distances, verify_module
from tgc.ir.graph import Function, Graph, Module, Node, Value, intern
from tgc.ir.kinds import FusionKind
from tgc.ir.parser import parse_module
from tgc.ir.types import Layout, TensorType
from tgc.kernels.lowering import Lowering
from tgc.ops import OPS

LOOP = """module @m { func @f(%start: f32[k], %rows: f32[n, k]) -> (f32[k]) {
  %0 = scan(%start, %rows) {length = n, carries = 1, sequences = 1} (
    ^(%i: i64[], %sum: f32[k], %row: f32[k]) {
      %0 = add(%sum, %row) %1 = exp(%0) %2 = neg(%1) : f32[k] loc("loop.py":3:1) return %2 })
  return %0
} }"""
CHAIN = """module @m { func @f(%x: f32[n, 8]) -> (f32[n, 8]) {
  %0 = contract(%x, %x) {spec = "ab,cb->ac"}
  %1 = contract(%0, %x) {spec = "ac,cb->ab"}
  %2 = contract(%0, %1) {spec = "ac,cb->ab"}
  return %2
} }"""


@pytest.mark.parametrize("seed", [0, 5, 8, 17])
def test_random_functions_are_right(seed: int) -> None:
    assert all(check.share <= 1 for check in verify_module(sample(seed, length=6).module))


def test_kernels_in_loops_are_compared_each_time_and_told_once() -> None:
    checks = verify_module(parse_module(LOOP, OPS))
    assert [(c.name, c.lines) for c in checks if c.stage == "kernel"] == [("add, exp, neg", ("loop.py:3",))]
    assert [c.stage for c in checks if c.name in ("add", "exp", "neg")] == ["op"] * 3


def test_a_kernel_that_is_wrong_though_its_ops_are_right_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = programs.lower

    def forgetful(kind: FusionKind, region: Graph, **options: object) -> Lowering:
        (result,) = region.results
        if result.node.op == "neg" and result.node.operands[0].node.op == "exp":
            region = Graph(region.parameters, result.node.operands)
        return right(kind, region, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(programs, "lower", forgetful)
    with pytest.raises(CompilerBug, match=r"the kernel goes wrong in f at loop\.py:3: result 0") as caught:
        verify_module(parse_module(LOOP, OPS))
    assert caught.value.stage == "add, exp, neg"
    assert re.findall(r"= (\w+)\(", caught.value.ir) == ["exp", "neg"]


@dataclass(frozen=True)
class Overlapping(MemoryPlan):
    """Puts everything in the arena at its beginning."""

    name = "overlapping"

    def run(self, module: Module, context: object) -> Module:
        planned = super().run(module, context)  # type: ignore[arg-type]
        return planned.with_functions(tuple(map(self._moved, planned.functions)))

    def _moved(self, function: Function) -> Function:
        new: dict[Value, Value] = {}
        for node in function.nodes():
            made = self._node(node, tuple(new[v] for v in node.operands))
            new.update(zip(node.results, made.results, strict=True))
        return function.with_outputs(tuple(new[v] for v in function.outputs))

    def _node(self, node: Node, operands: tuple[Value, ...]) -> Node:
        places = node.attributes.get("places")
        if not isinstance(places, tuple):
            return intern(node.op, operands, node.attributes, node.regions, node.types)
        moved = tuple(("arena", 0) if isinstance(p, tuple) and p[0] == "arena" else p for p in places)
        return intern(node.op, operands, {**node.attributes, "places": moved}, node.regions, node.types)


def test_a_memory_plan_that_is_wrong_shows_in_the_whole_alone() -> None:
    pipeline = Pipeline((*parse_pipeline("decompose,dce,fusion").passes, Overlapping()))
    options = Options("", pipeline.passes)
    with pytest.raises(CompilerBug, match="all of it goes wrong, though every kernel by itself is right: result 0"):
        verify_module(parse_module(CHAIN, OPS), options)


def test_differences_are_measured_in_bounds_and_units() -> None:
    one, far = np.float32([1, np.inf, np.nan]), np.float32([1 + 2**-22, np.inf, np.nan])
    shares, ulps = _distances(one, far, np.full(3, 2.0**-21))
    assert shares.tolist() == [0.5, 0, 0]
    assert ulps.tolist() == [2, 0, 0]
    large = np.int64([2**60])
    assert _distances(large, large + 1, np.zeros(1))[0] > 1
    assert not _distances(large, large.copy(), np.zeros(1))[0]


@pytest.mark.parametrize(
    "layout",
    [Layout((0, 2, 1)), Layout((0, 1, 2), tiles=((1, 4),)), Layout((1, 2, 0), margins=((1, 1), (0, 0), (2, 1)))],
)
def test_arrays_in_any_layout_come_back(layout: Layout, rng: np.random.Generator) -> None:
    x = rng.random((3, 5, 4)).astype(np.float32)
    type_ = TensorType(f32, x.shape, layout)
    buffer = to_buffer(x, type_, {})
    assert buffer.size == type_.buffer_size
    assert np.count_nonzero(buffer) == x.size
    np.testing.assert_array_equal(from_buffer(buffer, type_, {}), x)
