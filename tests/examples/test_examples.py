"""Everything that a reader is shown runs: each example, and the README's Python from top to bottom."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], directory: Path) -> None:
    """Runs a program in a directory of its own; warnings are errors there too."""
    result = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_the_example_runs(example: str, tmp_path: Path) -> None:
    run([sys.executable, str(ROOT / "examples" / example)], tmp_path)


def test_the_readmes_python_and_then_its_commands_run(tmp_path: Path) -> None:
    """The blocks are one program; the `tgc` commands find it as model.py, beside what it wrote."""
    program = tmp_path / "model.py"
    program.write_text("\n".join(blocks("python")), encoding="utf-8")
    run([sys.executable, program.name], tmp_path)
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "tgc":
            run([sys.executable, "-m", *words], tmp_path)


def test_the_readme_names_only_files_that_exist() -> None:
    paths = re.findall(r"(?<![\w/.])((?:tgc|passes|tests|examples|benchmarks)/[\w/.]*\w)", README)
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
