"""Entries: programs run as they say, on dimensions known only then, and refuse what they cannot run."""

import ctypes
import subprocess
import sys
import threading

import numpy as np
import pytest

from tgc import dtypes
from tgc.backend.abi import Status
from tgc.backend.call import NativeFunction
from tgc.backend.codegen import compile_module
from tgc.backend.entry import entry_symbols, entry_text
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.run_text import RUNTIME_DECLARATION
from tgc.backend.threads import process_runtime, set_num_threads
from tgc.errors import DTypeError, ShapeError, UserError, VerificationError
from tgc.ir.dims import Dim, dim_max, symbol
from tgc.kernels.program import (
    Address,
    Branch,
    Constraint,
    Copy,
    Launch,
    Program,
    ProgramValue,
    Repeat,
    Step,
    While,
    verify,
)

INPUT, OUTPUT, STATE, ARENA = Address("input"), Address("output"), Address("state"), Address("workspace")
N, M = symbol("n"), symbol("m")


def loop_kernel(name: str, body: str) -> str:
    """A kernel over f32 (or i8) elements: ``body`` computes ``%r`` from ``%v`` = buffer 0 at ``%i`` and stores it."""
    return f"""
define void @{name}(ptr %buffers, ptr %dims, i64 %begin, i64 %end, ptr %scratch) {{
  %a = load ptr, ptr %buffers
  %b.at = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %b.at
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %end.label
loop:
  %i = phi i64 [ %begin, %0 ], [ %i1, %loop ]
  %p = getelementptr float, ptr %a, i64 %i
  %q = getelementptr float, ptr %b, i64 %i
  %v = load float, ptr %p
{body}
  store float %r, ptr %q
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %end
  br i1 %more, label %loop, label %end.label
end.label:
  ret void
}}
"""


KERNELS = (
    loop_kernel("increment", "  %r = fadd float %v, 1.0")
    + loop_kernel("add_dim", "  %d = load i64, ptr %dims\n  %f = sitofp i64 %d to float\n  %r = fadd float %v, %f")
    + loop_kernel(  # through the thread's own scratch
        "by_scratch", "  store float %v, ptr %scratch\n  %w = load float, ptr %scratch\n  %r = fadd float %w, 1.0"
    )
    + loop_kernel(
        "below_ten",
        "  %c = fcmp olt float %v, 10.0\n  %c8 = zext i1 %c to i8\n  store i8 %c8, ptr %b\n"
        "  %w = load float, ptr %q\n  %r = fadd float %w, 0.0",
    )
)


def value(name: str, *shape: Dim) -> ProgramValue:
    return ProgramValue(name, dtypes.f32, shape)


def launch(
    kernel: str, source: Address, target: Address, count: Dim, *dims: Dim, scratch: int = 0, cost: int = 1
) -> Launch:
    return Launch(kernel, (source, target), dims, count, scratch, cost)


def build(program: Program, constants: tuple[np.ndarray, ...] = ()) -> NativeFunction:
    runtime = process_runtime()
    text = KERNELS + entry_text(program, symbol="p") + RUNTIME_DECLARATION
    image = compile_module(text, host_target(), external=frozenset(runtime.symbols))
    library = Library(image, entry_symbols("p"), addresses=runtime.symbols, dependencies=(runtime,))
    return NativeFunction(program, address=library.address, symbol="p", constants=constants, keepalive=library)


def mapping(*steps: Step, workspace: Dim = 0, constraints: tuple[Constraint, ...] = ()) -> Program:
    """f32[n] to f32[n]."""
    return Program("f", (value("x", N),), (value("y", N),), (), (), ("n",), constraints, steps, workspace)


@pytest.mark.parametrize("n", [0, 1, 7, 257])
def test_launches_pass_values_through_the_workspace(n: int) -> None:
    steps = (
        launch("increment", INPUT, Address("workspace", 0, 64), N),
        launch("increment", Address("workspace", 0, 64), OUTPUT, N),
    )
    x = np.arange(n, dtype=np.float32)
    result = build(mapping(*steps, workspace=64 + 4 * N)).call(x)
    np.testing.assert_array_equal(result, x + 2)


def test_addresses_and_copies_have_symbolic_offsets() -> None:
    program = Program(
        "f",
        (value("x", N, M),),
        (value("y", M), value("z", dim_max(N, M) // 2, 3)),
        symbols=("n", "m"),
        steps=(
            Copy(Address("input", 0, 4 * M * (N - 1)), Address("output", 0), 4 * M),
            Launch("add_dim", (Address("input"), Address("output", 1)), (2 * M + N,), dim_max(N, M) // 2 * 3),
        ),
    )
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    y, z = build(program).call(x)
    np.testing.assert_array_equal(y, x[-1])
    np.testing.assert_array_equal(z, x.ravel()[:6].reshape(2, 3) + 13)


def test_repeat_offers_its_iteration_to_addresses_and_kernels() -> None:
    i, j = symbol("i"), symbol("j")
    inner = Repeat(M, "j", (launch("add_dim", OUTPUT, OUTPUT, 1, i * N + j),))
    outer = Repeat(
        N, "i", (launch("add_dim", Address("input", 0, 4 * i), Address("output", 1, 4 * (N - 1 - i)), 1, i), inner)
    )
    outputs = (value("total", 1), value("reversed", N))
    program = Program(
        "f",
        (value("x", N), value("k", M)),
        outputs,
        (),
        (),
        ("n", "m"),
        (),
        (Copy(Address("input", 1), OUTPUT, 0), outer),
    )
    first = Copy(Address("input", 0), OUTPUT, 4)
    program = Program("f", program.inputs, outputs, (), (), ("n", "m"), (), (first, outer))
    x = np.array([5, 6, 7], np.float32)
    total, backwards = build(program).call(x, np.zeros(2, np.float32))
    assert total[0] == 5 + sum(a * 3 + b for a in range(3) for b in range(2))
    np.testing.assert_array_equal(backwards, (x + np.arange(3))[::-1])


@pytest.mark.parametrize(("maximum", "expected"), [(None, 10), (4, 7), (0, 3)])
def test_while_runs_until_its_condition_fails(maximum: int | None, expected: int) -> None:
    step = While(ARENA, (launch("below_ten", OUTPUT, ARENA, 1),), (launch("increment", OUTPUT, OUTPUT, 1),), maximum)
    program = mapping(Copy(INPUT, OUTPUT, 4 * N), step, workspace=64)
    np.testing.assert_array_equal(build(program).call(np.array([3], np.float32)), [expected])


@pytest.mark.parametrize(("x", "expected"), [(3, 4), (20, 22)])
def test_branch_takes_one_side(x: int, expected: int) -> None:
    once = launch("increment", INPUT, OUTPUT, 1)
    twice = (launch("increment", INPUT, ARENA, 1), launch("increment", ARENA, OUTPUT, 1))
    program = mapping(launch("below_ten", INPUT, ARENA, 1), Branch(ARENA, (once,), twice), workspace=64)
    np.testing.assert_array_equal(build(program).call(np.array([x], np.float32)), [expected])


def test_state_is_updated_in_place_and_constants_are_read() -> None:
    steps = (launch("increment", STATE, STATE, 2), launch("increment", Address("constant"), OUTPUT, 2))
    program = Program("f", (), (value("y", 2),), (value("s", 2),), (value("c", 2),), steps=steps)
    function = build(program, (np.array([5, 6], np.float32),))
    state = np.zeros(2, np.float32)
    np.testing.assert_array_equal(function.call(state), [6, 7])
    bound = function.bind([state])
    bound()
    np.testing.assert_array_equal(state, [2, 2])


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_results_and_scratch_do_not_depend_on_threads(threads: int) -> None:
    n = 10_007
    steps = tuple(launch("by_scratch", OUTPUT if k else INPUT, OUTPUT, N, scratch=100, cost=1000) for k in range(20))
    function = build(mapping(*steps))
    x = np.arange(n, dtype=np.float32)
    before = process_runtime().threads
    set_num_threads(threads)
    try:
        for _ in range(20):
            np.testing.assert_array_equal(function.call(x), x + 20)
    finally:
        set_num_threads(before)


def test_python_threads_may_call_at_once() -> None:
    function = build(
        mapping(
            *(launch("increment", ARENA if k else INPUT, ARENA, N, cost=1000) for k in range(9)),
            launch("increment", ARENA, OUTPUT, N),
            workspace=4 * N,
        )
    )
    wrong = []

    def work(seed: int) -> None:
        x = np.arange(seed, seed + 500, dtype=np.float32)
        wrong.extend(1 for _ in range(200) if not np.array_equal(function.call(x), x + 10))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_constraints_stop_a_call_before_it_writes() -> None:
    constraint = Constraint(N, "<=", 4, "at most four at once")
    program = mapping(launch("increment", INPUT, OUTPUT, N), constraints=(constraint,))
    function = build(program)
    function.call(np.zeros(4, np.float32))
    with pytest.raises(ShapeError, match="at most four at once"):
        function.call(np.zeros(5, np.float32))


def test_negative_results_are_refused() -> None:
    program = Program("f", (value("x", N),), (value("y", N - 3),), symbols=("n",))
    assert build(program).call(np.zeros(3, np.float32)).shape == (0,)
    with pytest.raises(ShapeError, match=r"would have the shape \[-1\]"):
        build(program).call(np.zeros(2, np.float32))


def native(program: Program, part: str, result: type, *arguments: type) -> tuple[object, object]:
    image = compile_module(
        KERNELS + entry_text(program, symbol="p") + RUNTIME_DECLARATION, host_target(), external=frozenset({"tgc_run"})
    )
    library = Library(image, entry_symbols("p"), addresses=process_runtime().symbols)
    return library, ctypes.CFUNCTYPE(result, *arguments)(library.address(f"p_{part}"))


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [
        (2, 3, 0),
        (-1, 3, -Status.NEGATIVE),
        (1 << 40, 1 << 40, -Status.TOO_LARGE),
        (1 << 61, 2, -Status.TOO_LARGE),
        ((1 << 63) - 1, 1, -Status.TOO_LARGE),
        (0, 3, -Status.TOO_LARGE),  # a division by zero
        (9, 3, 1),
    ],
)
def test_check_finds_what_cannot_be_computed(n: int, m: int, expected: int) -> None:
    constraint = Constraint(N, "<=", dim_max(8, M), "n is small")
    program = Program(
        "f",
        (value("x", N, M),),
        symbols=("n", "m"),
        constraints=(constraint,) if n == 9 else (),
        workspace=4 * N * M,
        steps=(launch("increment", INPUT, ARENA, (M + 1) // N),),
    )
    _, check = native(program, "check", ctypes.c_int32, ctypes.c_void_p)
    assert check(ctypes.addressof((ctypes.c_int64 * 2)(n, m))) == expected  # type: ignore[operator]


@pytest.mark.parametrize(
    ("n", "threads", "expected"),
    [
        (1, 1, 64 + 128),
        (16, 4, 64 + 4 * 128),
        (17, 1, 128 + 128),
        (1, 0, -Status.THREADS),
        (1 << 62, 1, -Status.TOO_LARGE),
    ],
)
def test_workspace_counts_arena_and_scratch(n: int, threads: int, expected: int) -> None:
    program = mapping(
        launch("by_scratch", INPUT, OUTPUT, N, scratch=65),
        launch("by_scratch", INPUT, OUTPUT, N, scratch=1),
        workspace=4 * N,
    )
    _, size = native(program, "workspace", ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32)
    assert size(ctypes.addressof((ctypes.c_int64 * 1)(n)), threads) == expected  # type: ignore[operator]


def identity() -> NativeFunction:
    return build(mapping(Copy(INPUT, OUTPUT, 4 * N)))


def test_arrays_that_are_not_contiguous_are_copied() -> None:
    x = np.arange(20, dtype=np.float32)
    np.testing.assert_array_equal(identity().call(x[::-2]), x[::-2])
    np.testing.assert_array_equal(identity().call(x.astype(">f4")), x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), UserError, "takes 1 arrays, not 0"),
        (([1.0],), DTypeError, "was given a list"),
        ((np.zeros(3),), DTypeError, r"was given float64\[3\]"),
        ((np.zeros((3, 1), np.float32),), ShapeError, "2 dimensions, not 1"),
    ],
)
def test_wrong_arguments_are_explained(arguments: tuple[object, ...], error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        identity().call(*arguments)


def test_dimensions_must_agree() -> None:
    program = Program("f", (value("x", N), value("y", 2, N)), symbols=("n",))
    with pytest.raises(ShapeError, match=r"dimension 1 of what was given is 4, not n = 3, from dimension 0 of x"):
        build(program).call(np.zeros(3, np.float32), np.zeros((2, 4), np.float32))


def test_read_only_state_is_refused() -> None:
    state = np.zeros(2, np.float32)
    state.flags.writeable = False
    with pytest.raises(UserError, match="not a contiguous, writeable array"):
        build(Program("f", state=(value("s", 2),))).call(state)


def test_bfloat16_arrays_pass_as_they_are() -> None:
    x = ProgramValue("x", dtypes.bf16, (N,))
    program = Program(
        "f", (x,), (ProgramValue("y", dtypes.bf16, (N,)),), symbols=("n",), steps=(Copy(INPUT, OUTPUT, 2 * N),)
    )
    array = np.arange(5).astype(dtypes.bf16.numpy)
    result = build(program).call(array)
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(result, array)


def test_calls_leak_no_references() -> None:
    function, x = identity(), np.zeros(3, np.float32)
    objects = (x, np.empty, np.ndarray, x.dtype)
    before = [sys.getrefcount(o) for o in objects]
    for _ in range(100):
        function.call(x)
    assert [sys.getrefcount(o) for o in objects] == before


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program("f", symbols=("n",)), "no input or state has the dimension n"),
        (Program("f", (value("x", 2 * N),), symbols=("n",)), "no input or state has the dimension n"),
        (Program("f", (value("x", N),)), "depends on n"),
        (mapping(Copy(INPUT, INPUT, 4)), "is written to"),
        (mapping(Copy(INPUT, Address("output", 1), 4)), r"there is no output\[1\]"),
        (mapping(Repeat(2, "n", ())), "name of another symbol"),
        (mapping(Repeat(2, "i", (Launch("k", (), (), 1, symbol("i")),))), "scratch of k depends on i"),
        (mapping(workspace=-1), "negative"),
    ],
)
def test_malformed_programs_do_not_verify(program: Program, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(program)


def test_many_symbolic_launches_compile_quickly_enough_to_be_data() -> None:
    offset = (4 * N + 63) // 64 * 64
    steps = tuple(
        launch("increment", Address("workspace", 0, k * offset), Address("workspace", 0, (k + 1) * offset), N)
        for k in range(300)
    )
    text = entry_text(mapping(*steps, workspace=301 * offset), symbol="p")
    assert text.count("call i32 @tgc_run") == 1


def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    script = """
import os, numpy as np
import sys; sys.path.insert(0, 'tests/backend')
from test_entry import *
set_num_threads(2)
function = build(mapping(launch("increment", INPUT, OUTPUT, N, cost=1000)))
x = np.arange(1000, dtype=np.float32)
function.call(x)
child = os.fork()
ok = all(np.array_equal(function.call(x), x + 1) for _ in range(50))
if child == 0:
    os._exit(0 if ok and len(os.listdir('/proc/self/task')) == 2 else 1)
assert ok and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
