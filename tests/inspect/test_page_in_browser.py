"""The page of ``tgc explain`` in a browser: what is drawn, found and told. Lightpanda has a document and JavaScript."""

import functools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from lightpanda import Browser

import tgc
from tgc.ir.parser import parse_module
from tgc.ops import OPS

TEXT = """module @net {
  state @w : f32[8, 8]
  func @first(%x: f32[n, 8]) -> (f32[n, 8]) {
    %0 = state @w : f32[8, 8]
    %1 = contract(%x, %0) {spec = "mk,kn->mn"} : f32[n, 8]  loc("net.py":3:1)
    %2 = softmax(%1) {axis = 1} : f32[n, 8]  loc("net.py":4:1)
    return %2
  }
  func @second(%x: f32[n, 8]) -> (f32[n, 8]) {
    %0 = exp(%x)
    return %0
  }
}"""
Page = Callable[[str], Any]


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def explanation() -> tgc.inspect.Explanation:
    return tgc.explain(parse_module(TEXT, OPS), run=True)


@pytest.fixture
def page(explanation: tgc.inspect.Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Evaluates an expression of JavaScript in the page."""
    monkeypatch.setenv("LIGHTPANDA_DISABLE_TELEMETRY", "true")
    (tmp_path / "index.html").write_text(explanation.html())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Browser() as browser, browser.new_session() as session:
            session.goto(url=f"http://127.0.0.1:{server.server_port}/")
            yield lambda script: session.evaluate(script=f"JSON.stringify([{script}])")[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_kernel_is_a_box_and_every_value_a_line(page: Page, explanation: tgc.inspect.Explanation) -> None:
    function = explanation.functions[0]
    boxes = page("[...document.querySelectorAll('.box[role=button]')].map(b => b.dataset.id)")
    assert boxes == [kernel.id for kernel in function.kernels]
    drawn = page("[...document.querySelectorAll('.edge')].map(e => [e.dataset.source, e.dataset.target])")
    assert {tuple(edge) for edge in drawn} == {(e.source, e.target) for e in function.edges}
    refused = page("[...document.querySelectorAll('.edge.no title')].map(t => t.textContent)")
    assert len(refused) == 1
    assert "not joined: no schedule takes a contraction into a reduction" in refused[0]


def test_a_click_on_a_box_shows_its_operations_and_code(page: Page, explanation: tgc.inspect.Explanation) -> None:
    page("document.querySelector('[data-id=\"0\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    panel = page("document.getElementById('panel').textContent")
    assert "contract" in panel
    assert "net.py:3" in panel
    assert "no schedule takes a contraction into a reduction" in panel
    names = explanation.functions[0].kernels[0].names
    code = "document.getElementById('code').textContent"
    assert page(code) == "\n\n".join(explanation.code[name].kernel for name in names)
    page("document.getElementById('assembly').click()")
    assert page(code) == "\n\n".join(explanation.code[name].assembly for name in names)
    assert page("location.hash") == "#first/0"


def test_a_search_finds_kernels_by_their_ops_and_lines(page: Page) -> None:
    def search(words: str) -> list[str]:
        page(f"(document.getElementById('search').value = {json.dumps(words)}, 0)")
        page("document.getElementById('search').dispatchEvent(new Event('input'))")
        found: list[str] = page("[...document.querySelectorAll('.box[role=button]:not(.dim)')].map(b => b.dataset.id)")
        return found

    assert search("net.py:4") == ["1"]
    assert page("document.getElementById('hits').textContent") == "1 of 2 kernels"
    assert search("CONTRACT") == ["0"]
    assert search("nothing of this kind") == []
    assert search("") == ["0", "1"]


def test_another_function_can_be_chosen(page: Page) -> None:
    page("(document.getElementById('functions').value = '1', 0)")
    page("document.getElementById('functions').dispatchEvent(new Event('change'))")
    assert page("document.querySelectorAll('.box[role=button]').length") == 1
    assert page("document.querySelector('#panel h2').textContent") == "second"


def test_the_graph_can_be_zoomed_and_moved(page: Page) -> None:
    place = "[box.x, box.y, box.k]"
    page("(document.getElementById('fit').click(), 0)")
    x, y, scale = page(place)
    page("(zoom(2, 10, 20), 0)")
    assert page(place) == pytest.approx([10 - (10 - x) * 2, 20 - (20 - y) * 2, 2 * scale])
    page("document.getElementById('graph').dispatchEvent(new MouseEvent('dblclick'))")
    assert page(place) == pytest.approx([x, y, scale])
