"""``tgc opt``, and passes of one's own."""

import io
from pathlib import Path

import pytest

from tgc.cli import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_pass.py"
CUBE = """module @m {
  func @f(%x: f32[n]) -> (f32[n]) {
    %0 = constant() {value = 3.0, dtype = f32}
    %1 = broadcast(%0) {shape = [n], axes = []}
    %2 = pow(%x, %1)
    return %2
  }
}
"""


@pytest.fixture
def cube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cube.tgc"
    path.write_text(CUBE)
    return path


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_opt_reads_a_file_or_stdin(
    cube: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from_file = output(capsys, "opt", cube)
    monkeypatch.setattr("sys.stdin", io.StringIO(CUBE))
    assert output(capsys, "opt") == from_file
    # what is printed reads as the same
    cube.write_text(from_file)
    assert output(capsys, "opt", cube, "--verify") == from_file


def test_opt_runs_a_pass_of_ones_own(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "pow" in output(capsys, "opt", cube, "--passes", "canonicalize")
    text = output(capsys, "opt", cube, "--passes", f"{EXAMPLE}:SmallPowers,dce")
    assert "pow" not in text
    assert text.count("mul(") == 2
    assert "pow" in output(capsys, "opt", cube, "--passes", f"{EXAMPLE}:SmallPowers{{largest=2}}")


def test_the_example_pass_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 30


def test_compile_puts_a_pass_of_ones_own_before_the_others(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(cube), "-o", "build", "--emit", "graph", "--passes", f"{EXAMPLE}:SmallPowers"]) == 0
    assert "pow" in Path("build/cube.tgc").read_text()
    assert "pow" not in Path("build/cube.optimised.tgc").read_text()


def test_passes_up_to_the_memory_plan_are_the_whole_pipeline(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compile", cube, "-o", "build", "--emit", "kernel", "--time-passes"]
    assert main([*map(str, words), "--passes", "decompose,fusion,memory-plan"]) == 0
    timed = [line.split()[-1] for line in capsys.readouterr().err.splitlines()]
    assert timed[:3] == ["decompose", "fusion", "memory-plan"]


def test_a_pipeline_that_plans_no_memory_is_completed_by_the_level(
    cube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compile", cube, "-o", "build", "--emit", "kernel", "--time-passes", "-O0", "--passes", "cse"]
    assert main(list(map(str, words))) == 0
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()][:2] == ["cse", "decompose"]


@pytest.mark.parametrize(
    ("option", "present", "absent"),
    [
        (("--print-ir-after-all",), ["// 01 canonicalize", "// 02 cse (unchanged)", "// 03 dce"], []),
        (("--print-ir-after", "dce"), ["// 03 dce"], ["canonicalize", "cse"]),
        (("--print-ir-after-change",), ["// 02 cse (unchanged)"], []),
    ],
)
def test_the_graph_can_be_printed_after_passes(
    option: tuple[str, ...], present: list[str], absent: list[str], cube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["opt", str(cube), "--passes", "canonicalize,cse,dce", *option]) == 0
    text = capsys.readouterr().err
    assert all(words in text for words in present)
    assert not any(words in text for words in absent)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("nothing", "there is no pass 'nothing'"),
        ("cse{x=1}", "pass cse has no option 'x'"),
        ("missing.py:Pass", "there is no file missing.py"),
        (f"{EXAMPLE}:Missing", "my_pass.py has no pass Missing"),
        (f"{EXAMPLE}:dataclass", "my_pass.py has no pass dataclass"),
        ("memory-plan", "pass memory-plan requires fused modules"),
    ],
)
def test_a_pipeline_that_is_none_is_an_error(
    passes: str, message: str, cube: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["opt", str(cube), "--passes", passes]) == 1
    assert message in capsys.readouterr().err


def test_a_pass_that_does_not_run_cannot_be_looked_at(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["opt", str(cube), "--passes", "cse,dce", "--print-ir-after", "fusion"]) == 1
    assert "no pass 'fusion' runs\nhelp: these do: cse, dce" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3"])
def test_every_level_keeps_the_invariants(level: str, cube: Path) -> None:
    assert main(["compile", str(cube), "-o", "build", "--emit", "object", "--verify", level]) == 0


def test_what_the_text_is_already_need_not_be_made(cube: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cube.write_text(output(capsys, "opt", cube, "--passes", "cse,fusion"))
    assert "workspace" in output(capsys, "opt", cube, "--passes", "memory-plan")
    cube.write_text("module @m { func @f(%x: f32[n]) -> (f32[n]) { %0 = silu(%x) return %0 } }")
    assert main(["opt", str(cube), "--passes", "fusion"]) == 1
    assert "pass fusion requires primitive modules" in capsys.readouterr().err
