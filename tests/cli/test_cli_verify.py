"""``tgc verify``: everything is compared with the interpreter, and what is wrong is named and made small."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tgc.cli import main
from tgc.ir.graph import Module
from tgc.ir.parser import parse_module
from tgc.ops import OPS

NET = """module @net {
  state @w : f32[4, 4]
  func @f(%x: f32[n, 4]) -> (f32[n, 4]) {
    %0 = state @w : f32[4, 4]
    %1 = contract(%x, %0) {spec = "mk,kn->mn"}
    %2 = tanh(%1) : f32[n, 4]  loc("net.py":7:5)
    %3 = add(%2, %x)
    %4 = softmax(%3) {axis = 1}
    %5 = mul(%0, %0)
    assign @w = %5
    return %4
  }
}"""
WRONG = """from dataclasses import dataclass
from passes.base import Pass, rewrite


@dataclass(frozen=True)
class Wrong(Pass):
    name = "wrong"

    def run(self, module, context):
        def rule(builder, node):
            return builder.sub(*node.operands) if node.op == "add" else None

        return rewrite(module, rule, context)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.tgc").write_text(NET)
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


@pytest.fixture
def wrong_tanh() -> Iterator[None]:
    """Kernels of tanh give the half of it; what it means stays what it is."""
    definition = OPS["tanh"]
    right = definition.scalar
    assert right is not None

    def half(s, operands, attributes, dtype):  # type: ignore[no-untyped-def]
        return s.mul(right(s, operands, attributes, dtype), s.constant(0.5, dtype))

    object.__setattr__(definition, "scalar", half)
    yield
    object.__setattr__(definition, "scalar", right)


def reproducer(folder: Path) -> Module:
    (path,) = folder.glob("tgc-bug-*.tgc")
    return parse_module(path.read_text(), OPS)


def test_what_is_right_is_told_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "net.tgc"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    found = {(row[3], " ".join(row[4:])) for row in rows if len(row) > 4}
    assert found >= {("pass", "decompose"), ("op", "tanh net.py:7"), ("whole", "f")}
    assert any(stage == "kernel" and "tanh, add" in what for stage, what in found)
    assert text.endswith("all of it is as it should be, for n = 17\n")


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2"])
def test_every_level_is_right(level: str) -> None:
    assert main(["verify", "net.tgc", level, "--dim", "n=5", "--seed", "1"]) == 0


def test_a_pass_that_is_wrong_is_named_and_a_small_file_shows_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--passes", "canonicalize,wrong.py:Wrong,cse"]
    assert main(["verify", "net.tgc", *words]) == 70
    text = capsys.readouterr().err
    assert "this is a fault of tgc itself: wrong: the pass goes wrong in f: result 0[" in text
    assert "ULP off)" in text
    small = reproducer(folder)
    assert [n.op for n in small.functions[0].nodes() if n.op != "parameter"] == ["add"]
    (path,) = folder.glob("tgc-bug-*.tgc")
    assert main(["verify", str(path), *words]) == 70
    assert "wrong: the pass goes wrong in f" in capsys.readouterr().err


def test_a_pass_that_fails_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = WRONG.replace("builder.sub(*node.operands)", "builder.nothing")
    (folder / "broken.py").write_text(broken)
    assert main(["verify", "net.tgc", "--passes", "broken.py:Wrong"]) == 70
    assert "fault of tgc itself: wrong: the pass goes wrong in f: AttributeError: " in capsys.readouterr().err
    assert [n.op for n in reproducer(folder).functions[0].nodes() if n.op != "parameter"] == ["add"]


@pytest.mark.usefixtures("wrong_tanh")
def test_an_op_that_is_wrong_is_named_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "net.tgc"]) == 70
    captured = capsys.readouterr()
    assert "fault of tgc itself: tanh: the op goes wrong in f at net.py:7: result 0[" in captured.err
    assert "ULP off)" in captured.err
    # all that was compared until then is told
    assert "contract" in captured.out
    assert [n.op for n in reproducer(folder).functions[0].nodes()] == ["parameter", "tanh"]
