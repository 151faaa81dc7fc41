"""What the command line says when something is wrong, and its exit codes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tgc.cli import main
from tgc.ir.parser import parse_module
from tgc.ops import OPS

NET = "module @net { func @f(%x: f32[n]) -> (f32[n]) { %0 = exp(%x) return %0 } }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.tgc").write_text(NET)
    return tmp_path


def failure(capsys: pytest.CaptureFixture[str], *words: str, code: int = 1) -> str:
    assert main(words) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "words",
    [
        ("compile",),
        ("compile", "net.tgc"),
        ("compile", "net.tgc", "-o", "build", "-O7"),
        ("nothing",),
        ("run", "build"),
        ("run", "build", "f", "--threads", "0"),
    ],
)
def test_a_command_line_that_is_none_exits_with_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: tgc" in failure(capsys, *words, code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compile", "missing.py", "-o", "b"), "there is no file missing.py"),
        (("compile", "net.txt", "-o", "b"), "there is no file net.txt"),
        (("compile", "net.tgc", "-o", "b", "--emit", "wheel"), "nothing called wheel can be emitted"),
        (("compile", "net.tgc", "-o", "b", "--dim", "m=1"), "there is no dimension m"),
        (("compile", "net.tgc", "-o", "b", "--dim", "n"), "'n' is no dimension"),
        (("compile", "net.tgc", "-o", "b", "--dim", "n=3..1"), "the range is empty"),
        (("compile", "net.tgc", "-o", "b", "--target", "pdp11"), "no target is described for 'pdp11'"),
        (("compile", "net.tgc", "-o", "b", "--cpu", "z80"), "there is no CPU 'z80'"),
        (("compile", "net.tgc", "-o", "b", "--name", "a b"), "cannot be the name of a C function"),
        (("compile", "net.tgc", "-o", "net.tgc"), "cannot be written to"),
        (("run", "missing", "f"), "holds no compiled library"),
        (("opt", "missing.tgc"), "missing.tgc cannot be read"),
    ],
)
def test_mistakes_exit_with_1_and_say_what_to_do(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure(capsys, *words)
    assert text.startswith("error: ")
    assert message in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "f needs x as well"),
        (("y=1",), "'y=1' is no argument of f"),
        (("x=one",), "neither a NumPy file nor numbers"),
        (("x=missing.npy",), "missing.npy cannot be read"),
        (("x=double.npy",), "double.npy holds float64[2]"),
        (("x=pickle.npy",), "pickle.npy cannot be read"),
        (("x=1",), "was expected for x"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "net.tgc", "-o", "build", "--emit", "object"]) == 0
    np.save(folder / "double.npy", np.zeros(2))
    np.save(folder / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert message in failure(capsys, "run", "build", "f", *arguments)
    assert "it has f" in failure(capsys, "run", "build", "g")


def test_an_exception_in_the_users_file_shows_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
    text = failure(capsys, "compile", "broken.py", "-o", "build")
    assert "broken.py raised ZeroDivisionError: division by zero" in text
    assert "broken.py:2" in text
    assert "2 | y = x / 0" in text


def test_a_mistake_in_a_traced_function_shows_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shapes.py").write_text(
        'import tgc\n\n\n@tgc.export("f32[2, 3]", "f32[4]")\ndef add(x, y):\n    return x + y\n'
    )
    text = failure(capsys, "compile", "shapes.py", "-o", "build")
    assert "do not broadcast" in text
    assert "6 |     return x + y" in text


def test_a_file_that_exports_nothing_says_how_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plain.py").write_text("def f(x):\n    return x\n")
    assert "mark one with @tgc.export" in failure(capsys, "compile", "plain.py", "-o", "build")
    assert "does not export the function 'f'" in failure(capsys, "compile", "plain.py:f", "-o", "build")


def test_text_that_is_malformed_shows_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.tgc").write_text("module @m {\n  func @f(%x f32[2]) -> (f32[2]) { return %x }\n}\n")
    text = failure(capsys, "opt", "bad.tgc")
    assert "bad.tgc:2" in text
    assert "^" in text


def test_text_that_breaks_an_invariant_says_which(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.tgc").write_text("module @m { func @f() -> (f32[2]) { %0 = state @missing : f32[2] return %0 } }")
    for command in (["opt", "bad.tgc"], ["compile", "bad.tgc", "-o", "build"], ["explain", "bad.tgc"]):
        assert "breaks an invariant" in failure(capsys, *command)


def test_weights_that_are_not_there_are_missed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "weights.tgc").write_text(
        'module @m { constant @w : f32[100] {digest = "sha256:00"}\n'
        "func @f() -> (f32[100]) { %0 = literal @w : f32[100] return %0 } }"
    )
    assert "the values of w are not known" in failure(capsys, "compile", "weights.tgc", "-o", "build")


def test_a_fault_of_the_compiler_leaves_a_file_that_reproduces_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "faulty.py").write_text(
        "from dataclasses import dataclass\nfrom passes.base import Pass\n\n\n"
        '@dataclass(frozen=True)\nclass Faulty(Pass):\n    name = "faulty"\n\n'
        "    def run(self, module, context):\n        return module.nothing\n"
    )
    text = failure(capsys, "compile", "net.tgc", "-o", "build", "--passes", "faulty.py:Faulty", code=70)
    assert "this is a fault of tgc itself: faulty: AttributeError" in text
    (report,) = folder.glob("tgc-bug-*.tgc")
    assert report.name in text
    written = report.read_text()
    assert "// command: tgc compile net.tgc -o build --passes faulty.py:Faulty" in written
    assert parse_module(written, OPS) == parse_module(NET, OPS)
    assert main(["compile", str(report), "-o", "build", "--emit", "object", "--name", "net"]) == 0


def test_the_process_exits_with_the_code() -> None:
    command = [sys.executable, "-m", "tgc"]
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([*command, "--version"], cwd=root, check=False, capture_output=True).returncode == 0
    assert subprocess.run([*command, "compile"], cwd=root, check=False, capture_output=True).returncode == 2
    assert subprocess.run([*command, "opt", "missing"], cwd=root, check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize("command", ["compile", "opt", "run", "explain", "verify", "bench"])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  tgc {command} " in text[text.index("Examples:") :]
