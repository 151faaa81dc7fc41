"""What this machine can do at most: arithmetic and bytes of main memory per second, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import numpy as np

from tgc.backend.emit import emit_module
from tgc.backend.entry import entry_text
from tgc.backend.host import host_target
from tgc.backend.parallel import compile_modules
from tgc.backend.run_text import RUNTIME_DECLARATION
from tgc.backend.threads import num_threads, set_num_threads
from tgc.compiler import compile_function
from tgc.dtypes import f32
from tgc.executable import load_function
from tgc.ir.parser import parse_module
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Kernel
from tgc.kernels.program import Address, Launch, Program, ProgramValue
from tgc.ops import OPS
from tgc.target import Target

_CHAINS: Final = 12  # more than latency times ports of any core, and few enough for 16 registers
_ROUNDS: Final = 5_000  # some 30 µs: short enough that the machine's other work seldom gets in between
_PARTS: Final = 4  # of the measured work for each thread, which evens out threads that start late
_ELEMENTS: Final = 1 << 26  # far beyond any cache
_STREAM: Final = """module @stream {
  state @s : f32[n]
  func @f() -> () {
    %0 = state @s : f32[n]
    %1 = neg(%0)
    assign @s = %1
    return
  }
}"""


@dataclass(frozen=True)
class Limits:
    """The most that this machine does on ``threads`` threads: f32 operations and bytes of main memory per second."""

    threads: int
    flops: float
    bandwidth: float


@lru_cache(maxsize=4)
def measured_limits(threads: int) -> Limits:
    """The limits of this machine on the ``threads`` threads that it now uses, measured by kernels: a second or so."""
    target = host_target()
    tasks = _PARTS * threads
    kernel = _peak_kernel(target, tasks)
    lanes = target.lanes(f32)
    program = Program(
        "peak",
        (ProgramValue("x", f32, (2 * lanes,)),),
        (ProgramValue("y", f32, (tasks * lanes,)),),
        (),
        (),
        (),
        (),
        (Launch(kernel.name, (Address("input", 0), Address("output", 0)), (), tasks, 0, 10 * _ROUNDS),),
        0,
    )
    text = emit_module([kernel], target) + entry_text(program, symbol="tgc_peak") + RUNTIME_DECLARATION
    images = compile_modules([text], target, external=frozenset({"tgc_run"}))
    peak = load_function(program, "tgc_peak", images, {})
    x = np.full(2 * lanes, 0.5, np.float32)
    flops = 2.0 * _CHAINS * lanes * _ROUNDS * tasks
    stream = compile_function(parse_module(_STREAM, OPS).functions[0], state=parse_module(_STREAM, OPS).state)
    memory = np.ones(_ELEMENTS, np.float32)
    best_peak = min(seconds_of(partial(peak.run, [x]), 0.8))
    best_stream = min(seconds_of(partial(stream.run, [], [memory]), 0.8))
    return Limits(threads, flops / best_peak, 2.0 * memory.nbytes / best_stream)


def _peak_kernel(target: Target, tasks: int) -> Kernel:
    """Chains of multiply-adds that do not wait for each other."""
    lanes = target.lanes(f32)
    b = KernelBuilder("peak", count=tasks)
    x, y = b.buffer("x", f32, 2 * lanes, "read"), b.buffer("y", f32, tasks * lanes, "write")
    factor, term = b.load(x, 0, lanes), b.load(x, lanes, lanes)
    starts = [b.mul(factor, b.constant(float(i), f32, lanes)) for i in range(_CHAINS)]
    with b.loop(0, _ROUNDS, carried=starts) as loop:
        loop.yield_(*(b.multiply_add(a, factor, term) for a in loop.carried))
    total = loop.results[0]
    for chain in loop.results[1:]:
        total = b.add(total, chain)
    b.store(y, b.mul(b.iteration, lanes), total)
    return b.finish()


def current_limits() -> Limits:
    """The limits on as many threads as are used now."""
    return measured_limits(num_threads())


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Runs compiled code on so many threads in the block."""
    before = num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def seconds_of(call: Callable[[], object], seconds: float) -> list[float]:
    """How long calls take, one by one, after the first."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and len(times) < 100_000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
