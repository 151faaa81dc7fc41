"""The pool: all parts of a job run once, whoever comes late; and what the process shares."""

import ctypes
import os
import threading
import time
from collections.abc import Iterator

import llvmlite.binding as llvm
import numpy as np
import pytest

from tgc.backend.abi import Status
from tgc.backend.codegen import compile_module
from tgc.backend.cpu_check import cpu_check_text, required_features
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.pool_text import has_pool, pool_text
from tgc.backend.threads import default_threads, native_calls, num_threads, process_runtime, set_num_threads
from tgc.errors import UserError
from tgc.target import AVX2, NEON, RISCV, SSE2, WASM, Target

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int32)
PARALLEL_FOR = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, TASK, ctypes.c_void_p, ctypes.c_int64)


class Executor(ctypes.Structure):
    _fields_ = (("parallel_for", PARALLEL_FOR), ("context", ctypes.c_void_p), ("threads", ctypes.c_int32))


def run(executor: int, count: int, task: object) -> None:
    struct = Executor.from_address(executor)
    assert struct.parallel_for(struct.context, TASK(task), None, count) == 0


@pytest.fixture(params=[2, 3, 7])
def executor(request: pytest.FixtureRequest) -> Iterator[int]:
    before = num_threads()
    set_num_threads(request.param)
    yield process_runtime().executor
    set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_every_part_runs_once(executor: int, count: int) -> None:
    runs = np.zeros(count, np.int64)
    threads = set()

    def task(closure: object, begin: int, end: int, thread: int) -> None:
        runs[begin:end] += 1
        threads.add(thread)

    for times in range(1, 21):
        run(executor, count, task)
        assert (runs == times).all()
    assert threads <= set(range(num_threads()))


def test_no_two_parts_share_a_thread_at_the_same_time(executor: int) -> None:
    inside: set[int] = set()
    wrong = []

    def task(closure: object, begin: int, end: int, thread: int) -> None:
        if thread in inside:
            wrong.append(thread)
        inside.add(thread)
        time.sleep(0.001)
        inside.discard(thread)

    run(executor, 20, task)
    assert not wrong


def test_sleeping_threads_wake_and_help(executor: int) -> None:
    time.sleep(0.01)
    threads = set()

    def task(closure: object, begin: int, end: int, thread: int) -> None:
        threads.add(thread)
        time.sleep(0.01)

    run(executor, 8, task)
    assert len(threads) > 1


def test_a_job_inside_a_job_runs_alone(executor: int) -> None:
    runs = np.zeros((4, 3), np.int64)

    def outer(closure: object, begin: int, end: int, thread: int) -> None:
        def inner(closure: object, first: int, last: int, thread: int) -> None:
            runs[begin, first:last] += 1

        run(executor, 3, inner)

    run(executor, 4, outer)
    assert (runs == 1).all()


def test_callers_at_the_same_time_do_not_mix(executor: int) -> None:
    sums = np.zeros(4, np.int64)

    def caller(number: int) -> None:
        counts = np.zeros(num_threads(), np.int64)

        def task(closure: object, begin: int, end: int, thread: int) -> None:
            counts[thread] += sum(range(begin, end))

        for _ in range(25):
            run(executor, 10, task)
        sums[number] = counts.sum()

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert (sums == 25 * 45).all()


def test_a_replaced_pool_runs_its_caller_alone() -> None:
    before = num_threads()
    set_num_threads(3)
    old = process_runtime().executor
    set_num_threads(2)
    threads = set()
    run(old, 9, lambda closure, begin, end, thread: threads.add((begin, end, thread)))
    set_num_threads(before)
    assert threads == {(0, 9, 0)}


def test_the_number_of_threads_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGC_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.delenv("TGC_NUM_THREADS")
    assert default_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("given", ["0", "-1", "two", "", "99999"])
def test_a_wrong_number_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TGC_NUM_THREADS", given)
    with pytest.raises(UserError, match="TGC_NUM_THREADS"):
        default_threads()


@pytest.mark.parametrize("given", [0, -1, True, 2.0, 2000])
def test_a_wrong_number_of_threads_is_an_error(given: int) -> None:
    with pytest.raises(UserError, match="number of threads"):
        set_num_threads(given)


def test_arrays_look_as_the_native_call_expects() -> None:
    assert native_calls()


@pytest.mark.parametrize("target", [SSE2, AVX2, NEON, RISCV], ids=lambda target: f"{target.triple} {target.cpu}")
def test_the_pool_compiles_for_every_linux(target: Target) -> None:
    assert has_pool(target.triple)
    assert compile_module(pool_text(target.triple, prefix="p"), target)


def test_other_systems_have_no_pool() -> None:
    assert pool_text(WASM.triple, prefix="p") == ""


def test_the_cpu_check_agrees_with_what_llvm_finds() -> None:
    found = llvm.get_host_cpu_features()
    names = [name for name in found if required_features(alone(name)) == (name,)]
    checks = "".join(renamed(name, index) for index, name in enumerate(names))
    library = Library(compile_module(checks, host_target()), [f"check_{index}" for index in range(len(names))])
    for index, name in enumerate(names):
        check = ctypes.CFUNCTYPE(ctypes.c_int32)(library.address(f"check_{index}"))
        assert check() == (Status.OK if found[name] else Status.CPU), name


def alone(feature: str) -> Target:
    host = host_target()
    return Target(host.triple, "x86-64", f"+{feature}", 128, 16, masked=False, fma=False)


def renamed(feature: str, index: int) -> str:
    text = cpu_check_text(alone(feature)).replace("define internal i32 @tgc_check_cpu", f"define i32 @check_{index}")
    return text.replace("@tgc_cpuid", f"@cpuid_{index}").replace("@tgc_xgetbv", f"@xgetbv_{index}")
