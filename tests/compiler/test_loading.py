"""Compiled files in a process: what fits runs, what does not is refused before it runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from tgc.artifacts import compile_artifact, write
from tgc.errors import ParseError, ShapeError, UserError
from tgc.ir.parser import parse_module
from tgc.loading import LoadedLibrary, load
from tgc.ops import OPS

TEXT = """module @m {
  state @total : f32[2] = [1.0, 2.0]
  state @scale : f32[2] = [3.0, 4.0]
  func @update(%x: f32[n, 2]) -> (f32[n, 2], f32[2]) {
    %0 = state @total : f32[2]
    %1 = state @scale : f32[2]
    %2 = broadcast(%1) {shape = [n, 2], axes = [1]}
    %3 = mul(%x, %2)
    %4 = sum(%3) {axes = [0]}
    %5 = add(%0, %4)
    assign @total = %5
    return %3, %0
  }
  func @both(%x: f32[n], %y: bf16[2 * n + 1]) -> (f32[n], bf16[2 * n + 1]) {
    %0 = neg(%x)
    %1 = neg(%y)
    return %0, %1
  }
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write(compile_artifact(parse_module(TEXT, OPS), "net"), folder, ["object", "header"])
    return folder


@pytest.fixture
def library(folder: Path) -> LoadedLibrary:
    return load(folder)


def test_state_is_updated_and_what_nothing_assigns_is_constant(library: LoadedLibrary) -> None:
    x = np.ones((3, 2), np.float32)
    scaled, before = library.update(x)
    np.testing.assert_array_equal(scaled, [[3, 4]] * 3)
    np.testing.assert_array_equal(before, [1, 2])
    assert library.state().keys() == {"total"}
    np.testing.assert_array_equal(library.state()["total"], [10, 14])
    library.set_state({"total": np.array([5, 6], np.float32)})
    np.testing.assert_array_equal(library.update(x)[1], [5, 6])
    library.reset()
    np.testing.assert_array_equal(library.state()["total"], [1, 2])


def test_each_library_has_its_own_state(folder: Path) -> None:
    first, second = load(folder), load(folder / "net.o")
    first.update(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(second.state()["total"], [1, 2])


def test_arrays_of_any_strides_and_of_no_elements_are_taken(library: LoadedLibrary) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::3].T
    np.testing.assert_array_equal(library.update(np.ascontiguousarray(x))[0], library.update(x)[0])
    assert library.update(np.zeros((0, 2), np.float32))[0].shape == (0, 2)


def test_what_does_not_fit_is_refused(library: LoadedLibrary) -> None:
    bf16 = library.both.program.inputs[1].dtype.numpy
    x, y = np.ones(2, np.float32), np.ones(5, bf16)
    assert library.both(x, y)[1].dtype == bf16
    with pytest.raises(UserError, match="both takes 2 arrays, not 1"):
        library.both(x)
    with pytest.raises(UserError, match=r"f32\[n\] was expected for x, not float64\[2\]"):
        library.both(x.astype(np.float64), y)
    with pytest.raises(UserError, match="not list"):
        library.both([1.0, 2.0], y)
    with pytest.raises(ShapeError, match="got 4 for the dimension"):
        library.both(x, y[:4])
    with pytest.raises(UserError, match="there is no state 'other'"):
        library.set_state({"other": x})
    with pytest.raises(UserError, match="the state total is"):
        library.set_state({"total": np.ones(3, np.float32)})
    with pytest.raises(AttributeError, match="it has update, both"):
        library.missing  # noqa: B018


def test_files_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    manifest, image = (folder / "net.json").read_text(), (folder / "net.o").read_bytes()
    path = tmp_path / "net.json"

    def refused(text: str, code: bytes, message: str) -> None:
        path.write_text(text)
        (tmp_path / "net.o").write_bytes(code)
        with pytest.raises(UserError, match=message):
            load(tmp_path)

    refused(manifest, image[:-1], "is not the object")
    refused(manifest[:-9], image, "is damaged")
    refused(manifest.replace("2*n+1", "n"), image, "its digest does not fit")
    refused(json.dumps({**json.loads(manifest), "format": 1}), image, "has format 1")
    refused("[]", image, "is damaged")
    refused("[" * 100_000, image, "is damaged")
    path.unlink()
    with pytest.raises(UserError, match="holds no compiled library"):
        load(tmp_path)


def test_damage_is_a_parse_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.o").write_bytes((folder / "net.o").read_bytes())
    (tmp_path / "net.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ParseError):
        load(tmp_path)
