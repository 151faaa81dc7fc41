"""The textual tests, ``*.tgc``: IR in, CHECK lines out.

A file holds cases separated by ``// -----``. Each begins with ``// RUN: --passes PIPELINE`` and a sentence on what it
shows; the module follows, and between its lines what the output must be::

    // CHECK: text        occurs in a line below the last match
    // CHECK-NEXT: text   occurs in the very next line
    // CHECK-NOT: text    occurs in no line up to the next match

``{{...}}`` is a regular expression. Values have whatever names the printer gives them.
"""

import re
from pathlib import Path

import pytest

from passes.pipeline import run_text

FILES = sorted(Path(__file__).parent.glob("*.tgc"))
SEPARATOR = re.compile(r"^// -----$", re.MULTILINE)
RUN = re.compile(r"^// RUN: --passes (\S+)$", re.MULTILINE)
CHECK = re.compile(r"^\s*// CHECK(-NEXT|-NOT|):\s*(.*?)\s*$", re.MULTILINE)

CASES = [
    pytest.param(path, case, id=f"{path.stem}-{i}")
    for path in FILES
    for i, case in enumerate(SEPARATOR.split(path.read_text()))
]


def pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"\{\{(.*?)\}\}", text)
    return re.compile("".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def match(checks: list[tuple[str, str]], output: str) -> None:
    lines = output.splitlines()
    position = 0
    forbidden: list[str] = []
    for kind, text in [*checks, ("-END", "")]:
        if kind == "-NOT":
            forbidden.append(text)
            continue
        found = len(lines)
        if kind != "-END":
            window = range(position, position + 1 if kind == "-NEXT" else len(lines))
            found = next((i for i in window if i < len(lines) and pattern(text).search(lines[i])), -1)
            assert found >= 0, f"CHECK{kind}: {text}\nnot found from line {position + 1} of\n{output}"
        for absent in forbidden:
            for line in lines[position:found]:
                assert not pattern(absent).search(line), f"CHECK-NOT: {absent}\nfound in\n{output}"
        forbidden = []
        position = found + 1


@pytest.mark.parametrize(("path", "case"), CASES)
def test_text(path: Path, case: str) -> None:
    run = RUN.search(case)
    assert run is not None, f"{path}: a case begins with // RUN: --passes PIPELINE"
    checks = CHECK.findall(case)
    assert checks, f"{path}: nothing is checked"
    match(checks, run_text(case, run.group(1), source=str(path)))


@pytest.mark.parametrize(
    ("checks", "output"),
    [
        ([("", "b"), ("", "a")], "a\nb"),
        ([("", "a"), ("-NEXT", "c")], "a\nb\nc"),
        ([("-NOT", "a"), ("", "b")], "a\nb"),
        ([("", "a"), ("-NOT", "b")], "a\nb"),
        ([("", "a{{[0-9]}}")], "ax"),
    ],
)
def test_the_matcher_can_fail(checks: list[tuple[str, str]], output: str) -> None:
    with pytest.raises(AssertionError):
        match(checks, output)
