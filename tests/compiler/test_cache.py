"""The cache: found again in another process, never wrong, never anybody else's, bounded."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from passes.base import Pass, PassContext
from tgc import dtypes
from tgc.backend.parallel import ModuleCompiler
from tgc.cache import Cache, Entry, cache_key
from tgc.compiler import Options, compile_function
from tgc.executable import CompiledFunction
from tgc.ir.dims import symbol
from tgc.ir.graph import Constant, Module, State
from tgc.ir.parser import parse_module
from tgc.ir.types import TensorType
from tgc.kernels.program import Constraint, Program, ProgramValue
from tgc.location import Location
from tgc.ops import OPS
from tgc.target import AVX2, AVX512

KEY = "0f" * 32
n = symbol("n")
PROGRAM = Program(
    "f",
    (ProgramValue("x", dtypes.f32, (n, 2 * n + 1)),),
    (ProgramValue("y", dtypes.bf16, ()),),
    (ProgramValue("s", dtypes.i64, (3,)),),
    (ProgramValue("c", dtypes.bool_, (0, 4)),),
    ("n",),
    (Constraint(n, "<=", 64, "n is large"), Constraint(n % 2, "==", 0, "n is odd")),
    (),
    64 * n,
)
ENTRY = Entry(
    PROGRAM,
    (b"first image", b"", b"third"),
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1.5, ml_dtypes.bfloat16)},
)
ADD = """module @m {
  state @s : f32[4]
  constant @c : f32[4] = [1.0, 2.0, 3.0, 4.0]
  func @f(%x: f32[4]) -> (f32[4]) {
    %0 = state @s : f32[4]
    %1 = literal @c : f32[4]
    %2 = add(%x, %0)
    %3 = add(%2, %1)
    return %3
  }
}"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def path_of(cache: Cache, key: str = KEY) -> Path:
    return cache.folder / key[:2] / key


def compiled(module: Module, options: Options | None = None) -> CompiledFunction:
    return compile_function(
        module.functions[0],
        state=module.state,
        constants=module.constants,
        locations=module.locations,
        options=options,
    )


def test_an_entry_is_found_as_it_was_put(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    found = cache.get(KEY)
    assert found is not None
    assert (found.program, found.images) == (ENTRY.program, ENTRY.images)
    assert {k: (a.dtype, a.shape, a.tobytes()) for k, a in found.constants.items()} == {
        k: (a.dtype, a.shape, a.tobytes()) for k, a in ENTRY.constants.items()
    }


def test_damaged_entries_count_as_absent(cache: Cache) -> None:
    cache.put(KEY, ENTRY)
    path = path_of(cache)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert cache.get(KEY) is None
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert cache.get(KEY) is None
    path.write_bytes(whole)
    assert cache.get(KEY) is not None


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"{}", (4).to_bytes(8, "little") + b"null", b"[" * 9000]
)
def test_whole_entries_of_another_kind_count_as_absent(body: bytes, cache: Cache) -> None:
    cache.write(KEY, body)
    assert cache.read(KEY) == body
    assert cache.get(KEY) is None


def test_only_the_user_can_read_and_write(cache: Cache) -> None:
    cache.put(KEY, ENTRY)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert path_of(cache).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_others_may_write_to_is_not_used(cache: Cache) -> None:
    cache.put(KEY, ENTRY)
    cache.folder.chmod(0o777)
    assert cache.get(KEY) is None
    other = "1e" * 32
    cache.put(other, ENTRY)
    assert not path_of(cache, other).exists()


def test_a_folder_that_cannot_be_used_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file")
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) is None


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=2500)
    keys = [f"{i:02x}" * 32 for i in range(1, 6)]
    for age, key in enumerate(reversed(keys)):
        cache.write(key, bytes(1000))
        os.utime(path_of(cache, key), (1000 - age, 1000 - age))
    cache.trim()
    assert [cache.read(key) is not None for key in keys] == [False, False, False, True, True]


def test_processes_may_share_the_folder(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tgc.cache import Cache
cache = Cache(Path({str(tmp_path)!r}), most_bytes=20_000)
for round in range(40):
    for key in range(16):
        name = f"{{key:02x}}" * 32
        body = cache.read(name)
        assert body is None or body == bytes([key]) * 3000, (key, body)
        cache.write(name, bytes([key]) * 3000)
        cache.trim()
"""
    root = Path(__file__).resolve().parents[2]
    workers = [subprocess.Popen([sys.executable, "-c", program], cwd=root) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]


def test_the_environment_says_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TGC_CACHE_DIR", str(tmp_path))
    assert Cache.default() == Cache(tmp_path)
    monkeypatch.setenv("TGC_CACHE_DIR", "")
    assert Cache.default() is None


def test_the_key_is_the_content() -> None:
    module = parse_module(ADD, OPS)
    function = module.functions[0]
    located = replace(module, locations={function.results[0].node: (Location("a.py", 1),)})
    constant = Constant.of(np.zeros(4, np.float32), TensorType(dtypes.f32, (4,)))
    key = cache_key(module, AVX2, "O3")
    assert cache_key(parse_module(ADD, OPS), AVX2, "O3") == key
    assert cache_key(located, AVX2, "O3") == key
    others = [
        cache_key(module, AVX512, "O3"),
        cache_key(module, AVX2, "O2"),
        cache_key(replace(module, constants={"c": constant}), AVX2, "O3"),
        cache_key(replace(module, functions=(replace(function, name="g"),)), AVX2, "O3"),
    ]
    assert len({key, *others}) == 5


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Counts how often code is generated, with an empty cache."""
    monkeypatch.setenv("TGC_CACHE_DIR", str(tmp_path / "fresh"))
    calls = []

    class Counted(ModuleCompiler):
        def finish(self) -> tuple[bytes, ...]:
            calls.append(self)
            return super().finish()

    monkeypatch.setattr("tgc.compiler.ModuleCompiler", Counted)
    return lambda: len(calls)


def test_a_function_is_compiled_once_whatever_its_state_is(compilations: Callable[[], int]) -> None:
    module = parse_module(ADD, OPS)
    x, s = np.ones(4, np.float32), np.full(4, 10, np.float32)
    first = compiled(module).run([x], [s])
    other = Constant.of(s, TensorType(dtypes.f32, (4,)))
    second = compiled(replace(module, state={"s": State(other.type, other)})).run([x], [s])
    assert compilations() == 1
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], [12, 13, 14, 15])


def test_constants_that_passes_compute_are_kept_with_the_code(compilations: Callable[[], int]) -> None:
    text = """module @m {
      constant @c : f32[3] = [1.0, 2.0, 3.0]
      func @f(%x: f32[3]) -> (f32[3]) {
        %0 = literal @c : f32[3]
        %1 = reverse(%0) {axes = [0]}
        %2 = add(%x, %1)
        return %2
      }
    }"""
    module = parse_module(text, OPS)
    x = np.zeros(3, np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(compiled(module).run([x])[0], [3, 2, 1])
    assert compilations() == 1


@dataclass(frozen=True)
class Mine(Pass):
    name = "mine"

    def run(self, module: Module, context: PassContext) -> Module:
        return module


def test_code_made_with_ones_own_pass_is_not_kept(compilations: Callable[[], int]) -> None:
    module = parse_module(ADD, OPS)
    for _ in range(2):
        compiled(module, Options(passes=(Mine(),)))
    assert compilations() == 2
