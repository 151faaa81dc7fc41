"""Compiled functions in memory, and the process's runtime that they are linked with."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from tgc.backend.abi import ALIGNMENT, OUT_OF_BOUNDS
from tgc.backend.call import NativeFunction
from tgc.backend.entry import entry_symbols, setup_symbol
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.threads import Runtime, compile_runtime, process_runtime
from tgc.errors import CompilerBug
from tgc.ir.dims import evaluate
from tgc.ir.graph import Array
from tgc.kernels.program import Program, ProgramValue
from tgc.storage import COMPILER, Storage


@dataclass(frozen=True)
class CompiledFunction:
    """One native function: arrays in, fresh arrays out, state updated in place.

    ``arity``: how many inputs it takes. ``violation``: for code that checks its accesses, where it records the first
    that is out of bounds, of which :meth:`run` tells. ``setup`` computes what it keeps of state that it does not
    assign, such as packed weights, from ``sources``: the names of that state.
    """

    program: Program
    native: NativeFunction
    violation: int = 0
    setup: Callable[..., object] | None = None

    @property
    def arity(self) -> int:
        return len(self.program.inputs)

    @property
    def sources(self) -> tuple[str, ...]:
        setup = self.program.setup
        return () if setup is None else tuple(value.name for value in setup.inputs)

    def run(self, inputs: Sequence[Array], state: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The results for ``inputs``; ``state`` arrays are updated in place."""
        if self.sources:
            self.prepare(state)
        results = self.native.call(*inputs, *state)
        if self.violation:
            kernel, buffer, offset, size = (ctypes.c_int64 * 4).from_address(self.violation)
            if kernel:
                message = f"kernel {kernel - 1} accesses buffer {buffer} of {size} elements at {offset}"
                raise CompilerBug(message, stage="bounds check")
        return (results,) if isinstance(results, np.ndarray) else tuple(results)

    def bind(self, state: Sequence[Array]) -> Callable[..., Any]:
        """A callable on the inputs alone, for state that stays where it is; one result comes as an array.

        :meth:`prepare` must come before the first call, and after each change of ``sources``.
        """
        return self.native.bind(state)

    def prepare(self, state: Sequence[Array]) -> None:
        """Runs the setup for this state; not while another thread is in a call."""
        if self.setup is not None:
            arrays = {value.name: array for value, array in zip(self.program.state, state, strict=True)}
            self.setup(*(arrays[name] for name in self.sources))


@functools.lru_cache(maxsize=1)
def runtime() -> Runtime:
    """The process's runtime, whose code is cached like a function's."""
    cache = Storage.default()
    if cache is None:
        return process_runtime()
    key = sha256(f"runtime {COMPILER} {host_target()}".encode()).hexdigest()
    image = cache.read(key)
    if image is None:
        image = compile_runtime()
        cache.write(key, image)
    return process_runtime(image)


def kept_arrays(values: Sequence[ProgramValue]) -> dict[str, Array]:
    """Zeros for what a setup computes, aligned like a workspace, in one block: large ones get large pages."""
    shapes = [[evaluate(d, {}) for d in value.shape] for value in values]
    sizes = [prod(shape) * value.dtype.itemsize for value, shape in zip(values, shapes, strict=True)]
    starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    block = np.zeros(starts[-1] + ALIGNMENT, np.uint8)
    first = -block.ctypes.data % ALIGNMENT
    found = {}
    for value, shape, size, start in zip(values, shapes, sizes, starts, strict=False):
        found[value.name] = block[first + start : first + start + size].view(value.dtype.numpy).reshape(shape)
    return found


def load_function(
    program: Program, symbol: str, images: Sequence[bytes], constants: Mapping[str, Array], *, debug: bool = False
) -> CompiledFunction:
    """The function whose entry is ``symbol`` in these object files, ready to be called.

    ``debug``: the code checks its accesses.
    """
    linked = runtime()
    once = program.setup
    names = entry_symbols(symbol) + ((OUT_OF_BOUNDS,) if debug else ())
    names += () if once is None else entry_symbols(setup_symbol(symbol))
    library = Library(images, names, addresses=linked.symbols, dependencies=(linked,))
    kept = {} if once is None else kept_arrays(once.state)

    def native(program: Program, symbol: str) -> NativeFunction:
        arrays = [kept[v.name] if v.name in kept else constants[v.name] for v in program.constants]
        return NativeFunction(program, address=library.address, symbol=symbol, constants=arrays, keepalive=library)

    setup = None
    if once is not None:
        call = native(once, setup_symbol(symbol)).call

        def setup(*state: Array) -> None:
            call(*state, *kept.values())

        if not once.inputs:
            setup()
    return CompiledFunction(program, native(program, symbol), library.address(OUT_OF_BOUNDS) if debug else 0, setup)
