"""What all native code of this process shares: the launch loop, calls from CPython, threads and workspaces."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Mapping

import numpy as np

from tgc.backend.call_text import MEMORY_FUNCTIONS, PYTHON_FUNCTIONS, SLOTS, Slot, call_text
from tgc.backend.codegen import compile_module
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.pool_text import has_pool, pool_text, rouse_text
from tgc.backend.result_memory import ResultMemory
from tgc.backend.run_text import run_text
from tgc.errors import UserError

_PREPARE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
_DESTROY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SIZE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int32)


def default_threads() -> int:
    """``TGC_NUM_THREADS``, else the number of CPUs that this process may run on.

    Raises :class:`UserError` if the variable is not a positive number.
    """
    given = os.environ.get("TGC_NUM_THREADS")
    if given is not None:
        if not given.isdecimal() or not 0 < int(given) <= 1024:
            raise UserError(f"TGC_NUM_THREADS is {given!r}", hint="set it to a number of threads, from 1 to 1024")
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.lru_cache(maxsize=1)
def native_calls() -> bool:
    """Whether ``tgc_call`` works here: on a 64-bit CPython whose arrays look as NumPy's headers say."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.platform == "win32":
        return False
    probe = np.zeros((3, 5), np.float32)
    words = (ctypes.c_int64 * 7).from_address(id(probe) + object.__basicsize__ - 8)
    sizes = (ctypes.c_int64 * 2).from_address(words[3])
    flags = ctypes.c_int32.from_address(id(probe) + object.__basicsize__ + 48).value
    return (
        words[0] == id(np.ndarray)
        and words[1] == probe.ctypes.data
        and words[2] & 0xFFFFFFFF == probe.ndim
        and tuple(sizes) == probe.shape
        and words[6] == id(probe.dtype)
        and flags & 0xFFF == probe.flags.num & 0xFFF
    )


def runtime_text() -> str:
    """LLVM IR of the process's runtime."""
    triple = host_target().triple
    calls = call_text(object.__basicsize__) + rouse_text(triple) if native_calls() else ""
    return run_text(exported=True) + pool_text(triple, prefix="tgc", lazy=True) + calls


def compile_runtime() -> bytes:
    """The object of :func:`runtime_text`, which depends on the host's CPU and Python only: worth a place in a cache."""
    return compile_module(runtime_text(), host_target(), external=frozenset((*PYTHON_FUNCTIONS, *MEMORY_FUNCTIONS)))


class Runtime:
    """The native runtime of this process.

    ``symbols``: what entries may call. ``call``: the address of ``tgc_call``, 0 where there is none.
    ``executor_cell``: where the address of the current executor is kept, which is 0 for a single thread.
    ``results``: the memory of large results.
    """

    def __init__(self, image: bytes) -> None:
        self._pooled = has_pool(host_target().triple)
        names = ["tgc_run", *(["tgc_call"] if native_calls() else [])]
        pool = ["tgc_pool_size", "tgc_pool_prepare", "tgc_pool_destroy"] if self._pooled else []
        self._library = Library(image, names + pool)
        self.symbols: Mapping[str, int] = {"tgc_run": self._library.address("tgc_run")}
        self.call = self._library.address("tgc_call") if native_calls() else 0
        self.results = ResultMemory()
        self._cell = ctypes.c_void_p()
        self._slots = (Slot * SLOTS)()
        self.executor_cell = ctypes.addressof(self._cell)
        self.slots = ctypes.addressof(self._slots)
        # A pool that is replaced keeps its memory: a call that has read its address may still ask it for threads.
        self._memories: list[ctypes.Array[ctypes.c_char]] = []
        self._lock = threading.Lock()
        self.threads = 1
        self.set_threads(default_threads())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @property
    def executor(self) -> int:
        """The address of the current executor, 0 if there is one thread only."""
        return self._cell.value or 0

    def set_threads(self, threads: int) -> None:
        """Replaces the pool; running calls end on the threads they began with."""
        with self._lock:
            old = self._cell.value
            self._prepare(threads)
            if old:
                _DESTROY(self._library.address("tgc_pool_destroy"))(old)

    def _prepare(self, threads: int) -> None:
        if threads == 1 or not self._pooled:
            self.threads, self._cell.value = 1, None
            return
        size = _SIZE(self._library.address("tgc_pool_size"))(threads)
        memory = ctypes.create_string_buffer(size)
        self._memories.append(memory)
        address = _PREPARE(self._library.address("tgc_pool_prepare"))(ctypes.addressof(memory), threads)
        self.threads, self._cell.value = threads, address

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._prepare(self.threads)


class _Process:
    """Where the one runtime is kept."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _process() -> _Process:
    return _Process()


def process_runtime(image: bytes | None = None) -> Runtime:
    """The runtime of this process, made on first use: from ``image`` (:func:`compile_runtime`) if there is one."""
    process = _process()
    if process.runtime is None:
        with process.lock:
            if process.runtime is None:
                process.runtime = Runtime(compile_runtime() if image is None else image)
    return process.runtime


def num_threads() -> int:
    """How many threads large kernels run on."""
    return process_runtime().threads


def set_num_threads(threads: int) -> None:
    """Lets large kernels run on ``threads`` threads, the calling one included. Results do not depend on it.

    Raises :class:`UserError` unless it is from 1 to 1024.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise UserError(f"the number of threads is {threads!r}", hint="give a number from 1 to 1024")
    process_runtime().set_threads(threads)
