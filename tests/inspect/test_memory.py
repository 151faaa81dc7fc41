"""What a workspace is made of, and the limit that a compile may be given."""

from pathlib import Path

import pytest

from tgc.cli import main
from tgc.compiler import lower_module
from tgc.inspect.memory import typical_sizes, workspace_of, workspace_tensors
from tgc.ir.dims import evaluate
from tgc.ir.parser import parse_module
from tgc.ops import OPS

# two products, of which the first one lies in the arena
TEXT = """module @m {
  func @f(%x: f32[n, 64], %w: f32[64, 64]) -> (f32[n, 64]) {
    %0 = contract(%x, %w) {spec = "nk,km->nm"}
    %1 = contract(%0, %w) {spec = "nk,km->nm"}
    return %1
  }
}"""
LOOP = """module @m { func @f(%start: f32[k], %rows: f32[n, k]) -> (f32[k]) {
  %0 = scan(%start, %rows) {length = n, carries = 1, sequences = 1} (
    ^(%i: i64[], %sum: f32[k], %row: f32[k]) { %0 = add(%sum, %row) %1 = exp(%0) return %1 })
  return %0
} }"""


@pytest.mark.parametrize(("text", "size"), [(TEXT, 4 * 64 * 32), (LOOP, 4 * 32)])
def test_the_tensors_of_a_workspace_fit_into_it(text: str, size: int) -> None:
    compiled = lower_module(parse_module(text, OPS))
    program = compiled.programs["f"]
    sizes = typical_sizes(program, {})
    tensors = workspace_tensors(compiled, "f", sizes)
    told = [evaluate(t.bytes, sizes) for t in tensors]
    assert told == sorted(told, reverse=True)
    assert size in [evaluate(t.bytes, sizes) for t in tensors if t.place == "arena"]
    assert sum(told) <= evaluate(workspace_of(program), sizes)


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.tgc"
    path.write_text(TEXT)
    return str(path)


def compile_within(net: str, *words: str) -> int:
    return main(["compile", net, "-o", str(Path(net).parent / "build"), "--emit", "object", *words])


def test_a_compile_that_needs_more_workspace_fails_and_names_what_for(
    net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_within(net, "--max-workspace", "1K", "--dim", "n=1..100") == 1
    first, culprit, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("error: f needs a workspace of ")
    assert first.endswith(" for n = 100, and 1 KiB are allowed. Most of it is")
    assert culprit.split()[:4] == ["25", "KiB", "contract", "f32[n,"]
    assert not (Path(net).parent / "build").exists()


def test_what_is_not_bounded_is_said(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_within(net, "--max-workspace", "64M") == 1
    text = capsys.readouterr().err
    assert "error: f may need any amount of workspace, since nothing bounds n: " in text
    assert text.endswith("help: bound it: --dim n=1..32\n")


def test_a_compile_that_needs_no_more_succeeds(net: str) -> None:
    assert compile_within(net, "--max-workspace", "1.5M", "--dim", "n=1..100") == 0


def test_a_limit_that_is_no_size_is_refused(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_within(net, "--max-workspace", "plenty") == 1
    assert "error: 'plenty' is no size\nhelp: write bytes" in capsys.readouterr().err
