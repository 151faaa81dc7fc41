"""Pipelines as text, what they check, and the instruments around them."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from passes.base import Pass, PassContext, rewrite
from passes.instruments import Differential, Dump, Timing, Verify
from passes.pipeline import PASSES, PIPELINES, Pipeline, parse_pipeline, run_text
from tgc.dtypes import f32
from tgc.errors import CompilerBug, UserError
from tgc.ir.builder import Builder
from tgc.ir.graph import Function, Graph, Module, Node, Value, intern, parameter
from tgc.ir.parser import parse_module
from tgc.ir.types import TensorType
from tgc.location import Location
from tgc.ops import OPS

TEXT = """module @m { func @f(%x: f32[n]) -> (f32[n]) {
  %y = softmax(%x) {axis = 0}
  return %y
} }"""


@dataclass(frozen=True)
class Swap(Pass):
    """Replaces one op by another of the same operands."""

    name = "swap"
    old: str = "exp"
    new: str = "sin"
    times: int = 1
    really: bool = True

    def run(self, module: Module, context: PassContext) -> Module:
        def rule(b: Builder, node: Node) -> Value | None:
            return b.op(self.new, *node.operands) if node.op == self.old and self.really else None

        return rewrite(module, rule, context)


@pytest.mark.parametrize(
    "text", ["cse", "decompose,canonicalize,constant-folding{limit=7}", "decompose,fusion{max-ops=32}", ""]
)
def test_text_and_pipeline_are_inverses(text: str) -> None:
    assert str(parse_pipeline(text)) == text


def test_options_of_each_type_and_blanks() -> None:
    passes = {"swap": Swap}
    parsed = parse_pipeline(" swap , swap{ old=neg, times=3  really=false } ", passes=passes)
    assert parsed.passes == (Swap(), Swap(old="neg", times=3, really=False))
    assert str(parsed) == "swap,swap{old=neg times=3 really=false}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decompose,nothing", "there is no pass 'nothing'"),
        ("cse{limit=3}", "pass cse has no option 'limit'"),
        ("constant-folding{limit=many}", "option limit takes int, not 'many'"),
        ("constant-folding{limit}", "expected option=value at 'limit'"),
        ("cse,,dce", "expected the name of a pass at ',dce'"),
        ("cse{", "expected the name of a pass at 'cse{'"),
        ("fusion", "pass fusion requires primitive modules"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_pipeline(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", PIPELINES)
def test_named_pipelines_hold_together(name: str) -> None:
    assert parse_pipeline(name).passes
    assert parse_pipeline(f"canonicalize,{name}").passes[1:] == parse_pipeline(name).passes


def test_names_are_what_the_passes_are_called() -> None:
    assert all(PASSES[name].name == name for name in PASSES)


def test_timing_counts_every_pass() -> None:
    timing = Timing()
    run_text(TEXT, "decompose,cse,dce", instruments=[timing])
    assert [name for name, _ in timing.seconds] == ["decompose", "cse", "dce"]
    assert timing.table().splitlines()[-1].endswith("ms  all passes")


@pytest.mark.parametrize(
    ("when", "titles"),
    [
        ("all", ["// 00 input", "// 01 decompose", "// 02 cse (unchanged)"]),
        ("change", ["// 00 input", "// 01 decompose", "// 02 cse (unchanged)"]),
        ({"decompose"}, ["// 01 decompose"]),
    ],
)
def test_dumps_are_numbered(when: str | set[str], titles: list[str]) -> None:
    dumps: list[str] = []
    run_text(TEXT, "decompose,cse", instruments=[Dump(dumps.append, when)])
    assert [dump.splitlines()[0] for dump in dumps] == titles
    assert ("module" in dumps[-1]) == (when != "change")


def test_a_pass_that_changes_the_meaning_is_found() -> None:
    pipeline = Pipeline((PASSES["decompose"](), Swap()))
    with pytest.raises(CompilerBug, match=r"swap: f: result 0 was") as caught:
        run_text(TEXT, pipeline, instruments=[Differential()])
    assert "exp" in caught.value.ir


def test_an_inexact_pass_may_change_what_the_bounds_allow() -> None:
    @dataclass(frozen=True)
    class Reciprocal(Pass):
        name = "reciprocal"
        exact = False

        def run(self, module: Module, context: PassContext) -> Module:
            def rule(b: Builder, node: Node) -> Value | None:
                return b.mul(node.operands[0], b.op("reciprocal", node.operands[1])) if node.op == "div" else None

            return rewrite(module, rule, context)

    run_text(TEXT, Pipeline((PASSES["decompose"](), Reciprocal())), instruments=[Differential()])


def test_a_pass_that_breaks_the_ir_is_found() -> None:
    @dataclass(frozen=True)
    class Break(Pass):
        name = "break"

        def run(self, module: Module, context: PassContext) -> Module:
            (function,) = module.functions
            wrong = intern("exp", function.parameters, {}, (), (TensorType(f32, (7,)),))
            return module.with_functions((function.with_outputs((wrong.result,)),))

    with pytest.raises(CompilerBug, match="break: ") as caught:
        run_text(TEXT, Pipeline((Break(),)), instruments=[Verify()])
    assert "softmax" in caught.value.ir


def test_an_exception_names_the_pass() -> None:
    @dataclass(frozen=True)
    class Fail(Pass):
        name = "fail"

        def run(self, module: Module, context: PassContext) -> Module:
            raise KeyError("x")

    with pytest.raises(CompilerBug, match="fail: KeyError: 'x'"):
        run_text(TEXT, Pipeline((Fail(),)))


def test_a_rule_that_goes_in_circles_is_a_bug_and_not_a_hang() -> None:
    def rule(b: Builder, node: Node) -> Value | None:
        other = {"sin": "cos", "cos": "sin"}.get(node.op)
        return None if other is None else b.op(other, *node.operands)

    module = parse_module("module @m { func @f(%x: f32[]) -> (f32[]) { %y = sin(%x) return %y } }", OPS)
    with pytest.raises(CompilerBug, match="leads back to itself"):
        rewrite(module, rule, PassContext())


def test_locations_survive_and_merge() -> None:
    b = Builder(OPS)
    x = parameter(0, TensorType(f32, (2,)))
    b.place = Location("a.py", 1)
    first = b.add(x, b.op("exp", x))
    b.place = Location("b.py", 2)
    second = b.add(b.op("exp", x), x)
    function = Function("f", Graph((x,), (first, second)))
    after = parse_pipeline("cse").run(Module("m", (function,), locations=b.locations))
    (left, right) = after.functions[0].results
    assert left == right
    assert set(after.locations[left.node.operands[1].node]) == {Location("a.py", 1), Location("b.py", 2)}
    assert after.locations.keys() == {n for n in after.functions[0].nodes() if n.op != "parameter"}


def test_a_pass_of_your_own_is_a_file(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "examples" / "my_pass.py"
    scope: dict[str, type[Pass]] = {"__name__": "my_pass"}  # type: ignore[dict-item]
    exec(compile(source.read_text(), str(source), "exec"), scope)  # type: ignore[arg-type]
    text = """module @m { func @f(%x: f32[4]) -> (f32[4]) {
      %c = constant() {value = 3.0, dtype = f32}
      %b = broadcast(%c) {shape = [4], axes = []}
      %y = pow(%x, %b)
      return %y
    } }"""
    name = "examples/my_pass.py:SmallPowers"
    pipeline = parse_pipeline(f"canonicalize,{name}{{largest=4}}", load=lambda path: scope[path.rpartition(":")[2]])
    after = run_text(text, pipeline, instruments=[Verify(), Differential()])
    assert after.count("mul") == 2
    assert "pow" not in after
