"""Objects: what they may call, damaged ones, loading, CPUs that LLVM does not know, caches."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tgc.backend.capabilities import capabilities
from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import cache_bytes, check_cpu, host_target
from tgc.backend.jit import KernelLibrary, Library
from tgc.backend.objects import architecture, undefined_symbols
from tgc.backend.parallel import compile_modules
from tgc.dtypes import f32
from tgc.errors import CompilerBug, ParseError, TargetError, UnsupportedError
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel
from tgc.target import AVX2, AVX512, NEON, SSE2, WASM

CALLER = "declare float @{0}(float)\ndefine float @f(float %x) {{\n %y = call float @{0}(float %x)\n ret float %y\n}}\n"


def doubling(name: str = "double") -> Kernel:
    b = KernelBuilder(name, count=8)
    x = b.buffer("x", f32, 8, "readwrite")
    b.store(x, b.iteration, b.mul(b.load(x, b.iteration), 2.0))
    return b.finish()


@pytest.mark.parametrize("target", [AVX2, NEON, WASM], ids=lambda t: t.triple.split("-")[0])
def test_calls_of_unknown_functions_are_refused(target: object) -> None:
    text = CALLER.format("mystery")
    with pytest.raises(CompilerBug, match="the object calls mystery"):
        compile_module(text, target)  # type: ignore[arg-type]
    image = compile_module(text, target, external=frozenset(["mystery"]))  # type: ignore[arg-type]
    assert "mystery" in undefined_symbols(image)


def test_capabilities_are_what_llvm_has_instructions_for() -> None:
    assert capabilities(AVX512) == capabilities(NEON) == replace(capabilities(SSE2), fma=True, half=True, rounding=True)
    assert not capabilities(SSE2).rounding
    assert not capabilities(WASM).fma
    assert capabilities(WASM).rounding


@pytest.mark.parametrize("text", ["define void @f() {", "define void @f() {\n ret i32 0\n}", "garbage"])
def test_malformed_llvm_ir_is_a_compiler_bug(text: str) -> None:
    with pytest.raises(CompilerBug):
        compile_module(text, AVX2)


def test_ir_that_does_not_verify_does_not_end_the_process() -> None:
    text = (
        "define i32 @f(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n ret i32 %x\nb:\n ret i32 %x\n}"
    )
    with pytest.raises(CompilerBug, match="dominate"):
        compile_module(text, AVX2)


@pytest.mark.parametrize("target", [AVX2, WASM], ids=["elf", "wasm"])
def test_damaged_objects_raise_and_nothing_else(target: object) -> None:
    image = compile_module(emit_module([doubling()], target), target)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    damaged = 0
    for _ in range(3000):
        changed = bytearray(image[: rng.integers(8, len(image) + 1)])
        for _ in range(4):
            changed[rng.integers(4, len(changed))] = rng.integers(256)
        try:
            undefined_symbols(bytes(changed))
        except (ParseError, UnsupportedError):
            damaged += 1
    assert damaged > 100


def test_other_formats_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        undefined_symbols(b"MZ\x90\0")
    assert architecture(b"MZ\x90\0") is None


def test_an_object_for_another_machine_is_not_loaded() -> None:
    image = compile_module(emit_module([doubling()], WASM), WASM)
    with pytest.raises(TargetError, match="wasm32"):
        Library(image, ["double"])


def test_a_symbol_that_is_missing_is_told() -> None:
    host = host_target()
    image = compile_module(emit_module([doubling()], host), host)
    with pytest.raises(CompilerBug, match="linking"):
        Library(image, ["triple"])
    with pytest.raises(CompilerBug, match="no symbol 'triple'"):
        Library(image, ["double"]).address("triple")


def test_code_lives_as_long_as_its_library() -> None:
    host = host_target()
    image = compile_module(emit_module([doubling()], host), host)
    libraries = [KernelLibrary(image, [doubling()]) for _ in range(20)]
    del libraries[::2]
    gc.collect()
    x = np.ones(8, np.float32)
    for library in libraries:
        library.call("double", [x])
    assert (x == 2.0**10).all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    host = host_target()
    library = KernelLibrary(compile_module(emit_module([doubling()], host), host), [doubling()])
    for wrong in (np.ones(7, np.float32), np.ones(8), np.ones(16, np.float32)[::2]):
        with pytest.raises(CompilerBug, match=r"takes f32\[8\] for x"):
            library.call("double", [wrong])


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "message"),
    [
        ("x86_64-unknown-linux-gnu", "pentium9", "", "no CPU 'pentium9'"),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", "+warp", "no CPU feature 'warp'"),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", "+avx;rm", "malformed"),
        ("nowhere-unknown-none", "generic", "", "no target"),
    ],
)
def test_unknown_cpus_and_features_are_errors(triple: str, cpu: str, features: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        check_cpu(triple, cpu, features)


def test_known_cpus_pass() -> None:
    check_cpu("aarch64-linux-gnu", "cortex-a72", "+neon")
    check_cpu("x86_64-unknown-linux-gnu", "skylake", "-avx2")
    host = host_target()
    check_cpu(host.triple, host.cpu, host.features)


def test_caches_are_read_where_the_system_tells(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Instruction", "64K"), ("1", "Data", "48K"), ("2", "Unified", "2M")]
    ):
        entry = tmp_path / f"index{index}"
        entry.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (entry / name).write_text(value + "\n")
    assert cache_bytes(1, 7, tmp_path) == 48 * 1024
    assert cache_bytes(2, 7, tmp_path) == 2 * 1024**2
    assert cache_bytes(3, 7, tmp_path) == 7


def test_modules_are_compiled_on_threads_to_the_same_bytes() -> None:
    host = host_target()
    kernels = [doubling(f"double{n}") for n in range(12)]
    texts = [emit_module([kernel], host) for kernel in kernels]
    images = compile_modules(texts, host, threads=4)
    assert images == tuple(compile_module(text, host) for text in texts)
    addresses = [Library(images, [kernel.name for kernel in kernels]).address(kernel.name) for kernel in kernels]
    assert len(set(addresses)) == 12


def test_modules_may_call_one_another_but_nothing_else() -> None:
    host = host_target()
    callee = "define float @mystery(float %x) {\n ret float %x\n}\n"
    images = compile_modules([CALLER.format("mystery"), callee], host)
    assert Library(images, ["f"]).address("f")
    with pytest.raises(CompilerBug, match="the object calls mystery"):
        compile_modules([CALLER.format("mystery"), emit_module([doubling()], host)], host)


FORKING = """
import os, threading, warnings
warnings.simplefilter("ignore")
from tgc.backend.codegen import compile_module
from tgc.target import AVX2
text = "".join(f"define float @f{n}(float %x) {{ %y = fadd float %x, %x\\n ret float %y }}" for n in range(200))
stop = threading.Event()
def work():
    while not stop.is_set():
        compile_module(text, AVX2)
thread = threading.Thread(target=work)
compile_module(text, AVX2)
thread.start()
for _ in range(5):
    child = os.fork()
    if not child:
        compile_module(text, AVX2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
"""


def test_a_child_forked_during_compilation_can_compile() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKING], timeout=60, check=False)
    assert ended.returncode == 0


def test_emission_is_reproducible() -> None:
    assert emit_module([doubling()], AVX2) == emit_module([doubling()], AVX2)
