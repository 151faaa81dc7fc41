"""Timing: what is measured is the function on random inputs, and the limits are those of this machine."""

from pathlib import Path

import pytest

from tgc.cli import main
from tgc.errors import UserError
from tgc.inspect.bench import bench
from tgc.inspect.limits import current_limits
from tgc.ir.parser import parse_module
from tgc.ops import OPS
from tgc.specialise import specialise

TEXT = """module @m {
  state @total : f32[k]
  func @f(%x: f32[n, k]) -> (f32[n, k]) {
    %0 = state @total : f32[k]
    %1 = sum(%x) {axes = [0]}
    %2 = add(%0, %1)
    %3 = add(%x, %x)
    assign @total = %2
    return %3
  }
}"""


def test_each_function_is_called_and_its_work_counted() -> None:
    module = specialise(parse_module(TEXT, OPS), {"n": (10, 10), "k": (4, 4)})
    (report,) = bench(module, seconds=0.01)
    assert report.name == "f"
    assert report.calls >= 1
    assert 0 < report.best <= report.median
    assert report.flops == 2 * 40 + 4


def test_every_dimension_needs_a_size() -> None:
    with pytest.raises(UserError, match="no size for k, n") as caught:
        bench(parse_module(TEXT, OPS))
    assert "--dim k=32 --dim n=32" in str(caught.value)


def test_limits_are_measured() -> None:
    limits = current_limits()
    assert limits.flops > 0
    assert limits.bandwidth > 0


def test_the_command_says_how_fast_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.tgc"
    path.write_text(TEXT)
    assert main(["bench", str(path), "--dim", "n=10", "--dim", "k=4", "--seconds", "0.01"]) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("this machine on ")
    assert second.startswith("f: ")
    assert all(line.startswith("  ") for line in rest)
