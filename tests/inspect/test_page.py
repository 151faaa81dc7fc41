"""The page of ``tgc explain``: where boxes and lines are, and that it needs nothing but itself."""

import json
import random
import re
from itertools import combinations
from pathlib import Path

import pytest

import tgc
from tgc.cli import main
from tgc.inspect.drawing import Box, draw
from tgc.ir.parser import parse_module
from tgc.ops import OPS

TEXT = """module @net {
  func @f(%x: f32[8, 8]) -> (f32[8, 8]) {
    %0 = contract(%x, %x) {spec = "mk,kn->mn"} : f32[8, 8]  loc("</script>.py":3:1)
    %1 = contract(%0, %x) {spec = "mk,kn->mn"}
    return %1
  }
}"""


def apart(a: Box, b: Box) -> bool:
    return a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y


@pytest.mark.parametrize("seed", range(20))
def test_boxes_do_not_overlap_and_lines_go_down(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [f"n{i}" for i in range(rng.randint(2, 40))]
    pairs = list(combinations(nodes, 2))
    edges = sorted(rng.sample(pairs, min(len(pairs), 2 * len(nodes))))
    drawing = draw(nodes, frozenset(nodes[:3]), edges)
    assert list(drawing.boxes) == nodes
    assert all(apart(a, b) for a, b in combinations(drawing.boxes.values(), 2))
    for (source, target), line in zip(edges, drawing.lines, strict=True):
        heights = [y for _, y in line]
        assert heights == sorted(heights)
        assert line[0][1] == drawing.boxes[source].y + drawing.boxes[source].height
        assert line[-1][1] == drawing.boxes[target].y


def test_the_page_needs_nothing_but_itself() -> None:
    explanation = tgc.explain(parse_module(TEXT, OPS))
    page = explanation.html()
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", page)
    assert set(re.findall(r"https?://[^\"'\s]+", page)) == {"http://www.w3.org/2000/svg"}
    # whatever a program is called, its name does not end the script
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    found = json.loads(data)
    assert found["functions"][0]["kernels"][0]["operations"][0]["lines"] == ["script>.py:3"]
    assert {name for k in found["functions"][0]["kernels"] for name in k["names"]} == found["code"].keys()
    for code in found["code"].values():
        assert code["kernel"].startswith("kernel @")
        assert "ret" in code["assembly"]


@pytest.mark.parametrize(("form", "start"), [("text", "f(x"), ("json", "{"), ("html", "<!doctype html>")])
def test_the_command_writes_each_form(
    form: str, start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.tgc").write_text(TEXT)
    words = ["explain", str(tmp_path / "net.tgc"), "--format", form]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith(start)
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == text
    assert main([*words, "-o", str(tmp_path / "missing" / "out")]) == 1
