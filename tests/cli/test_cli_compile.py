"""``tgc compile``, ``tgc run`` and ``tgc explain`` on Python files and graph text."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import tgc
from tgc.backend.objects import architecture, undefined_symbols
from tgc.cli import main
from tgc.ir.parser import parse_module
from tgc.ops import OPS

MODEL = '''
import numpy as np
import tgc

W = tgc.tensor(np.arange(-16, 16, dtype=np.float32).reshape(4, 8))
total = tgc.Variable(np.zeros((), np.float32))


@tgc.export("f32[batch, 4]")
def predict(x):
    """The positive part of a product."""
    return (x @ W).relu()


@tgc.export("f32[batch, 4]")
def accumulate(x):
    total.assign(total + x.sum())
    return total + 0
'''


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


def succeed(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_a_file_becomes_a_library_of_all_its_exports(model: Path, rng: np.random.Generator) -> None:
    succeed("compile", model, "-o", "build/net")
    library = tgc.load("build/net")
    assert library.name == "model"
    assert list(library.functions) == ["predict", "accumulate"]
    assert library.predict.__doc__ == "The positive part of a product."
    x = rng.integers(-9, 9, (3, 4)).astype(np.float32)
    weights = np.arange(-16, 16, dtype=np.float32).reshape(4, 8)
    np.testing.assert_array_equal(library.predict(x), np.maximum(x @ weights, 0))
    ones = np.ones((2, 4), np.float32)
    assert [float(library.accumulate(ones)) for _ in range(3)] == [8, 16, 24]
    assert float(library.state()["total"]) == 24


def test_one_function_alone_can_be_compiled(model: Path) -> None:
    succeed("compile", f"{model}:predict", "-o", "build", "--name", "alone", "--emit", "object")
    assert sorted(path.name for path in Path("build").iterdir()) == ["alone.json", "alone.o"]
    assert list(tgc.load("build").functions) == ["predict"]


def test_every_level_is_written_as_text(model: Path) -> None:
    succeed("compile", model, "-o", "build", "--emit", "graph,kernel,llvm,asm,header")
    texts = {path.name: path.read_bytes() for path in Path("build").iterdir()}
    assert b"func @predict(%x: f32[batch, 4])" in texts["model.tgc"]
    assert b"workspace" in texts["model.optimised.tgc"]
    assert b"kernel" in texts["model.kernel"]
    assert b"define i32 @model_predict(" in texts["model.ll"]
    assert b"model_predict:" in texts["model.s"]
    assert b"int32_t model_predict(" in texts["model.h"]


def test_the_text_of_a_graph_compiles_to_the_same_object(model: Path) -> None:
    succeed("compile", model, "-o", "first", "--emit", "graph,object")
    succeed("compile", "first/model.tgc", "-o", "second", "--emit", "object")
    assert Path("first/model.o").read_bytes() == Path("second/model.o").read_bytes()
    # and so does what the passes made of it
    succeed("compile", "first/model.optimised.tgc", "-o", "third", "--emit", "object")
    assert Path("first/model.o").read_bytes() == Path("third/model.o").read_bytes()


def test_building_twice_gives_the_same_bytes(model: Path) -> None:
    for folder in ("first", "second"):
        succeed("compile", model, "-o", folder, "--emit", "graph,kernel,llvm,asm,object,header")
    names = sorted(path.name for path in Path("first").iterdir())
    assert names
    for name in names:
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name


def test_a_dimension_can_be_fixed(model: Path) -> None:
    succeed("compile", f"{model}:predict", "-o", "build", "--emit", "graph,object", "--dim", "batch=3")
    module = parse_module(Path("build/model.tgc").read_text(), OPS)
    assert [str(p.type) for p in module.functions[0].parameters] == ["f32[3, 4]"]
    with pytest.raises(tgc.UserError, match="expected"):
        tgc.load("build").predict(np.zeros((2, 4), np.float32))


def test_the_range_of_a_dimension_is_checked_at_entry(model: Path) -> None:
    succeed("compile", f"{model}:predict", "-o", "build", "--emit", "object", "--dim", "batch=2..3")
    predict = tgc.load("build").predict
    assert predict(np.zeros((3, 4), np.float32)).shape == (3, 8)
    for size, message in ((1, "batch must be at least 2"), (4, "batch must be at most 3")):
        with pytest.raises(tgc.UserError, match=message):
            predict(np.zeros((size, 4), np.float32))


def test_other_machines_need_no_tool(model: Path) -> None:
    words = ("--emit", "object,header", "--target", "aarch64-linux-gnu", "--cpu", "cortex-a72")
    succeed("compile", model, "-o", "build", *words)
    image = Path("build/model.o").read_bytes()
    assert architecture(image) == "aarch64"
    assert "__truncsfbf2" not in undefined_symbols(image)
    with pytest.raises(tgc.UserError, match="cannot run on"):
        tgc.load("build")


def test_without_threads_the_library_needs_no_pthreads(model: Path) -> None:
    succeed("compile", model, "-o", "build", "--no-threads", "--emit", "object,header")
    assert not {name for name in undefined_symbols(Path("build/model.o").read_bytes()) if "pthread" in name}
    assert "pool_create" not in Path("build/model.h").read_text()


def test_without_a_linker_a_shared_library_is_refused_and_what_to_install_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("tgc.backend.link.find_spec", lambda name: None)
    assert main(["compile", str(model), "-o", "build", "--emit", "shared"]) == 1
    message = capsys.readouterr().err
    assert "ld.lld" in message
    assert "tgc[link]" in message
    succeed("compile", model, "-o", "build")
    assert {path.name for path in Path("build").iterdir()} == {"model.o", "model.h", "model.json"}


def test_functions_run_on_numpy_files_and_on_numbers(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed("compile", model, "-o", "build", "--emit", "object")
    x = np.ones((2, 4), np.float32)
    np.save("x.npy", x)
    succeed("run", "build", "predict", "x=x.npy", "-o", "y.npy")
    assert np.load("y.npy").tobytes() == tgc.load("build").predict(x).tobytes()
    capsys.readouterr()
    succeed("run", "build", "accumulate", "x=[[1, 2, 3, 4]]", "--threads", "1")
    assert capsys.readouterr().out == "out0: f32[]\n10.\n"


def test_explain_tells_kernels_lines_work_and_reasons(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed("explain", f"{model}:predict", "--dim", "batch=10")
    text = capsys.readouterr().out
    assert "predict(x : f32[10, 4]) -> (out0 : f32[10, 8])" in text
    # 2 * 10 * 4 * 8 for the product, 10 * 8 for relu; x, W and the result once each
    assert "720 FLOP" in text
    assert f"{4 * (10 * 4 + 4 * 8 + 10 * 8)} B" in text
    line = MODEL.splitlines().index("    return (x @ W).relu()") + 1
    assert [words.split() for words in text.splitlines() if words.startswith("      ")] == [
        ["contract", "f32[10,", "8]", f"model.py:{line}"],
        ["relu", "f32[10,", "8]", f"model.py:{line}"],
    ]


def test_explain_tells_why_kernels_were_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.tgc"
    path.write_text(
        """module @net { func @f(%x: f32[8, 8]) -> (f32[8, 8]) {
          %0 = contract(%x, %x) {spec = "mk,kn->mn"}
          %1 = contract(%0, %x) {spec = "mk,kn->mn"}
          return %1 } }"""
    )
    succeed("explain", path)
    assert "contract -> contract: no schedule takes a contraction into a contraction" in capsys.readouterr().out
