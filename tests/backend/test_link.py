"""Libraries: C functions with weights inside, as objects, shared libraries and from C and C++ programs."""

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tgc import dtypes
from tgc.backend.abi import MESSAGES, Status
from tgc.backend.codegen import compile_module
from tgc.backend.entry import entry_text
from tgc.backend.header import header_text
from tgc.backend.host import host_target
from tgc.backend.library import (
    Library,
    LibraryConstant,
    LibraryFunction,
    StateVariable,
    embed,
    exported_names,
    library_text,
)
from tgc.backend.link import linkers, shared
from tgc.backend.objects import undefined_symbols
from tgc.errors import CompilerBug, TargetError, UserError
from tgc.ir.dims import symbol
from tgc.kernels.program import Address, Constraint, Launch, Program, ProgramValue
from tgc.target import NEON, RISCV, WASM, Target

N = symbol("n")
INPUT, OUTPUT, STATE, CONSTANT, ARENA = (
    Address(space) for space in ("input", "output", "state", "constant", "workspace")
)

# z[i] = x[i] + y[0], through the thread's scratch
KERNEL = """
define internal void @add(ptr %buffers, ptr %dims, i64 %begin, i64 %end, ptr %scratch) {
  %x = load ptr, ptr %buffers
  %y.at = getelementptr ptr, ptr %buffers, i64 1
  %y = load ptr, ptr %y.at
  %z.at = getelementptr ptr, ptr %buffers, i64 2
  %z = load ptr, ptr %z.at
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %begin, %0 ], [ %i1, %loop ]
  %p = getelementptr float, ptr %x, i64 %i
  %a = load float, ptr %p
  store float %a, ptr %scratch
  %b = load float, ptr %y
  %c = load float, ptr %scratch
  %s = fadd float %b, %c
  %q = getelementptr float, ptr %z, i64 %i
  store float %s, ptr %q
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


def value(name: str, *shape: object) -> ProgramValue:
    return ProgramValue(name, dtypes.f32, shape)  # type: ignore[arg-type]


def example(target: Target) -> Library:
    """``predict``: y = x + bias + total through the workspace; ``train``: total += bias for each of 3 elements."""
    predict = Program(
        "predict",
        (value("x", N),),
        (value("y", N),),
        (value("total", 3),),
        (value("bias", 1),),
        ("n",),
        (Constraint(N, "<=", 1000, "at most 1000 rows"),),
        (
            Launch("add", (INPUT, CONSTANT, ARENA), (N,), N, scratch=4, cost=1000),
            Launch("add", (ARENA, STATE, OUTPUT), (N,), N, scratch=4, cost=1000),
        ),
        4 * N,
    )
    train = Program(
        "train",
        (),
        (),
        (value("total", 3),),
        (value("bias", 1),),
        steps=(Launch("add", (STATE, CONSTANT, STATE), (), 3, 4),),
    )
    functions = (
        LibraryFunction("predict", predict, "net_predict_entry", doc="Adds.\n\n    Much. */"),
        LibraryFunction("train", train, "net_train_entry"),
    )
    state = (StateVariable("total", np.array([10, 20, 30], np.float32)),)
    constants = (LibraryConstant("weird/name", np.arange(5)), LibraryConstant("bias", np.array([0.5], np.float32)))
    return Library("net", functions, state, constants, target)


def image(library: Library) -> bytes:
    entries = [entry_text(f.program, symbol=f.symbol, exported=False) for f in library.functions]
    return embed(compile_module(KERNEL + "".join(entries) + library_text(library), library.target), library)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = example(host_target())
    path = tmp_path_factory.mktemp("net") / "libnet.so"
    shared([image(library)], path, soname="libnet.so", target=library.target, exported=exported_names(library))
    return ctypes.CDLL(str(path))


class Net:
    """The library as a C caller has it, with all memory at hand."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self.c = loaded
        for name in ("state_size", "predict_workspace", "train_workspace", "pool_size"):
            getattr(loaded, f"net_{name}").restype = ctypes.c_int64
        loaded.net_pool_create.restype = ctypes.c_void_p
        loaded.net_error_message.restype = ctypes.c_char_p
        loaded.net_pool_destroy.argtypes = (ctypes.c_void_p,)
        self.memory = np.zeros(loaded.net_state_size() + 64, np.uint8)
        offset = -self.memory.ctypes.data % 64
        self.state = self.memory[offset : offset + loaded.net_state_size()]
        assert loaded.net_init(pointer(self.state), ctypes.c_int64(self.state.size)) == 0

    def predict(self, x: np.ndarray, y: np.ndarray, n: int, workspace: np.ndarray | None, executor: int = 0) -> int:
        arguments = (pointer(self.state), pointer(x), pointer(y), ctypes.c_int64(n), pointer(workspace))
        return int(self.c.net_predict_parallel(*arguments, ctypes.c_void_p(executor)))


def pointer(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


@pytest.fixture
def net(loaded: ctypes.CDLL) -> Net:
    return Net(loaded)


def test_functions_share_state_and_embedded_constants(net: Net) -> None:
    x, y = np.arange(7, dtype=np.float32), np.zeros(7, np.float32)
    workspace = np.empty(net.c.net_predict_workspace(ctypes.c_int64(7), 1) + 1, np.uint8)[1:]
    assert net.predict(x, y, 7, workspace) == 0
    np.testing.assert_array_equal(y, x + 10.5)
    assert net.c.net_train(pointer(net.state), pointer(np.empty(4096, np.uint8))) == 0
    assert net.predict(x, y, 7, workspace) == 0
    np.testing.assert_array_equal(y, x + 11)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_pool_in_the_callers_memory_gives_the_same(net: Net, threads: int) -> None:
    memory = np.empty(net.c.net_pool_size(threads), np.uint8)
    pool = net.c.net_pool_create(pointer(memory), threads)
    assert pool
    x, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    workspace = np.empty(net.c.net_predict_workspace(ctypes.c_int64(1000), threads), np.uint8)
    for _ in range(50):
        y[:] = 0
        assert net.predict(x, y, 1000, workspace, pool) == 0
        np.testing.assert_array_equal(y, x + 10.5)
    net.c.net_pool_destroy(pool)


def test_an_executor_of_the_caller_is_used_and_may_fail(net: Net) -> None:
    task_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32)
    parts = []

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, task_type, ctypes.c_void_p, ctypes.c_int64)
    def parallel_for(context: int | None, task: Callable[..., None], closure: int, count: int) -> int:
        for part in reversed(range(count)):
            task(closure, part, part + 1, part % 3)
        parts.append(count)
        return len(parts) > 2

    class Executor(ctypes.Structure):
        _fields_ = (("parallel_for", type(parallel_for)), ("context", ctypes.c_void_p), ("threads", ctypes.c_int32))

    executor = Executor(parallel_for, None, 3)
    x, y = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    workspace = np.empty(net.c.net_predict_workspace(ctypes.c_int64(100), 3), np.uint8)
    assert net.predict(x, y, 100, workspace, ctypes.addressof(executor)) == 0
    np.testing.assert_array_equal(y, x + 10.5)
    assert parts == [10, 10]
    assert net.predict(x, y, 100, workspace, ctypes.addressof(executor)) == Status.EXECUTOR


def test_wrong_arguments_are_refused_before_anything_is_written(net: Net) -> None:
    x, y = np.arange(2000, dtype=np.float32), np.zeros(2000, np.float32)
    workspace = np.empty(1 << 14, np.uint8)
    assert net.predict(x, None, 7, workspace) == Status.NULL  # type: ignore[arg-type]
    assert net.predict(x, y, 7, None) == Status.NULL
    assert net.predict(x, y, -1, workspace) == Status.NEGATIVE
    assert net.predict(x, y, (1 << 62) + 1, workspace) == Status.TOO_LARGE
    assert net.predict(x, y, 1001, workspace) == Status.CONSTRAINT
    assert net.predict(x.view(np.uint8)[1:5], y, 1, workspace) == Status.MISALIGNED
    net.state[3] ^= 1
    assert net.predict(x, y, 7, workspace) == Status.STATE
    assert not y.any()


def test_sizes_say_what_is_wrong_with_a_negative_code(net: Net) -> None:
    size = net.c.net_predict_workspace
    assert size(ctypes.c_int64(16), 1) == 64 + 64 + 63
    assert size(ctypes.c_int64(16), 0) == -Status.THREADS
    assert size(ctypes.c_int64(-1), 1) == -Status.NEGATIVE
    assert size(ctypes.c_int64(1001), 1) == -Status.CONSTRAINT
    assert net.c.net_pool_size(0) == -Status.THREADS


def test_init_checks_its_memory(net: Net) -> None:
    size = ctypes.c_int64(net.state.size)
    assert net.c.net_init(pointer(net.state), ctypes.c_int64(net.state.size - 1)) == Status.SIZE
    assert net.c.net_init(None, size) == Status.NULL
    assert net.c.net_init(pointer(net.memory[(1 - net.memory.ctypes.data) % 64 :]), size) == Status.MISALIGNED


def test_every_code_has_a_message(net: Net) -> None:
    for status, text in MESSAGES.items():
        assert net.c.net_error_message(int(status)).decode() == text
    assert net.c.net_error_message(-int(Status.CONSTRAINT)) == b"predict: at most 1000 rows"
    assert net.c.net_error_message(12345) == b"unknown error code"


def test_linking_is_reproducible_and_exports_only_c_functions(tmp_path: Path) -> None:
    library = example(host_target())
    images = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "libnet.so"
        shared([image(library)], path, soname="libnet.so", target=library.target, exported=exported_names(library))
        images.append(path.read_bytes())
        assert [p.name for p in path.parent.iterdir()] == ["libnet.so"]
    assert images[0] == images[1]
    symbols = ctypes.CDLL(str(tmp_path / "a" / "libnet.so"))
    assert symbols.net_init
    assert not hasattr(symbols, "net_predict_entry")
    assert not hasattr(symbols, "net_pool_prepare")


@pytest.mark.parametrize("target", [NEON, RISCV, WASM], ids=lambda target: target.triple)
def test_weights_are_embedded_for_every_target(target: Target) -> None:
    library = example(target)
    made = image(library)
    assert made.count(library.weights) == 1
    assert made == image(library)
    threads = {"pthread_create", "pthread_join", "syscall"} if target is not WASM else set()
    assert undefined_symbols(made) <= {"memcpy", "memset", *threads}


def test_large_weights_do_not_pass_through_text() -> None:
    weights = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    library = Library("big", (), (), (LibraryConstant("w", weights),), host_target())
    assert len(library_text(library)) < 100_000
    assert weights.tobytes() in image(library)


def test_an_object_without_room_is_refused() -> None:
    library = example(host_target())
    with pytest.raises(CompilerBug, match="no room for the weights"):
        embed(b"\x7fELF" + library.weights, library)


def test_names_must_be_c_and_distinct() -> None:
    program = Program("f")
    with pytest.raises(UserError, match="cannot be the name of a C function"):
        Library("net", (LibraryFunction("my-function", program, "e"),), (), (), host_target())
    with pytest.raises(UserError, match="several functions would be called net_init"):
        Library("net", (LibraryFunction("init", program, "e"),), (), (), host_target())


def test_targets_that_cannot_be_linked_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = replace(host_target(), triple="x86_64-pc-windows-msvc")
    with pytest.raises(TargetError, match="for ELF and WebAssembly only"):
        shared([], tmp_path / "x", soname="x", target=windows, exported=())
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("tgc.backend.link.find_spec", lambda name: None)
    with pytest.raises(TargetError, match="there is no linker for aarch64") as caught:
        shared([], tmp_path / "x", soname="x", target=NEON, exported=())
    assert "ld.lld" in str(caught.value)
    assert "tgc[link]" in str(caught.value)


@pytest.mark.parametrize("kind", ["cc", "ld"])
def test_linkers_of_the_host_make_the_same_library(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [linker for linker in linkers(host_target()) if linker.kind == kind][:1]
    monkeypatch.setattr("tgc.backend.link.linkers", lambda target: iter(chosen))
    library = example(host_target())
    path = tmp_path / "libnet.so"
    shared([image(library)], path, soname="libnet.so", target=library.target, exported=exported_names(library))
    assert ctypes.CDLL(str(path)).net_init


def test_what_a_linker_says_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CompilerBug, match=r"linking: .*0\.o"):
        shared([b"not an object"], tmp_path / "x.so", soname="x", target=host_target(), exported=())
    assert not list(tmp_path.iterdir())


C_PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "net.h"

int main(void) {
    int64_t n = 100, i;
    float x[100], y[100];
    static char room[64 + 4096], pool_memory[4096];
    void *state = room + 64 - (uintptr_t)room % 64, *workspace;
    const tgc_executor *pool = net_pool_create(pool_memory, 2);
    int32_t error = net_init(state, net_state_size());
    for (i = 0; i < n; i++) x[i] = (float)i;
    workspace = malloc((size_t)net_predict_workspace(n, 2));
    if (!error) error = net_predict_parallel(state, x, y, n, workspace, pool);
    if (!error && y[99] != 109.5f) error = -1;
    if (!error) error = net_predict(state, x, y, n, workspace);
    net_pool_destroy(pool);
    puts(net_error_message(error));
    free(workspace);
    return error;
}
"""


@pytest.mark.parametrize("language", [("c", "-std=c99"), ("c++", "-std=c++11")])
def test_c_and_cpp_programs_link_the_object(tmp_path: Path, language: tuple[str, str]) -> None:
    library = example(host_target())
    (tmp_path / "net.h").write_text(header_text(library))
    (tmp_path / "net.o").write_bytes(image(library))
    (tmp_path / "main.c").write_text(C_PROGRAM)
    compiler = next(linker for linker in linkers(host_target()) if linker.kind == "cc").command
    warnings = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    command = [*compiler, language[1], *warnings, "-x", language[0], "main.c", "-x", "none", "net.o", "-o", "main"]
    done = subprocess.run([*command, "-lpthread"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("success\n", 0)
