"""Objects placed in memory without LLVM: the same code, nothing left behind, and damage that is noticed."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tgc.backend import jit
from tgc.backend.codegen import compile_module
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.loader import Placed, place
from tgc.target import NEON

FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
# a table of addresses, data that changes, a call of another object and one of the process
FIRST = """
@count = internal global i64 40
@table = internal constant [2 x ptr] [ptr @add, ptr @second]
declare i64 @second(i64)
declare i64 @labs(i64)
define internal i64 @add(i64 %x) {
  %old = load i64, ptr @count
  %new = add i64 %old, %x
  store i64 %new, ptr @count
  ret i64 %new
}
define i64 @first(i64 %which) {
  %at = getelementptr [2 x ptr], ptr @table, i64 0, i64 %which
  %function = load ptr, ptr %at
  %value = call i64 %function(i64 -2)
  %positive = call i64 @labs(i64 %value)
  ret i64 %positive
}
"""
SECOND = "define i64 @second(i64 %x) {\n  %y = mul i64 %x, 100\n  ret i64 %y\n}\n"
PROGRAM = """
import sys, numpy as np, tgc
f = tgc.jit(lambda x: (x @ x).exp().sum())
print(float(f(tgc.tensor(np.eye(8, dtype=np.float32)))), "llvmlite.binding" in sys.modules)
"""


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    outside = frozenset(["second", "labs"])
    return [compile_module(text, host_target(), external=outside) for text in (FIRST, SECOND)]


def placed(images: list[bytes], names: list[str]) -> Placed:
    found = place(images, names, {})
    assert found is not None
    return found


def test_objects_call_each_other_and_the_process(images: list[bytes]) -> None:
    code = placed(images, ["first"])
    first = FUNCTION(code.addresses["first"])
    assert [first(0), first(0), first(1)] == [38, 36, 200]
    again = placed(images, ["first"])
    assert FUNCTION(again.addresses["first"])(0) == 38, "each has its own data"


def test_names_may_be_given_from_elsewhere(images: list[bytes]) -> None:
    callback = FUNCTION(lambda x: x * 7)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    code = place(images[:1], ["first"], {"second": address})
    assert code is not None
    assert FUNCTION(code.addresses["first"])(1) == 14


def test_what_is_missing_or_twice_or_foreign_is_left_to_llvm(images: list[bytes]) -> None:
    assert place(images[:1], ["first"], {}) is None
    assert place(images, ["third"], {}) is None
    assert place([*images, images[1]], ["first"], {}) is None
    assert place([compile_module(SECOND, NEON)], ["second"], {}) is None
    weak = compile_module(SECOND.replace("define", "define weak"), host_target())
    assert place([weak], ["second"], {}) is None
    linked = Library([weak], ["second"])
    assert FUNCTION(linked.address("second"))(3) == 300


def test_both_linkers_give_the_same(images: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "place", lambda *arguments: None)
    linked = Library(images, ["first"])
    first = FUNCTION(linked.address("first"))
    assert [first(0), first(0), first(1)] == [38, 36, 200]


def test_damage_is_noticed_or_does_no_harm(images: list[bytes], rng: np.random.Generator) -> None:
    image = images[0]
    assert all(place([image[:size], images[1]], ["first"], {}) is None for size in range(0, len(image), 7))
    for _ in range(3000):
        damaged = bytearray(image)
        for at in rng.integers(0, len(image), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        place([bytes(damaged), images[1]], ["first"], {})  # not run: instructions may be what has changed


def test_memory_goes_back(images: list[bytes]) -> None:
    def pages() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("\n")

    placed(images, ["first"])
    before = pages()
    kept = [placed(images, ["first"]) for _ in range(50)]
    assert pages() > before
    del kept
    assert pages() <= before + 1


def test_a_process_that_finds_its_code_does_not_load_llvm(tmp_path: Path) -> None:
    environment = {**os.environ, "TGC_CACHE_DIR": str(tmp_path / "cache")}
    said = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, second = (result.stdout.split() for result in said)
    assert first[0] == second[0]
    assert [first[1], second[1]] == ["True", "False"]
