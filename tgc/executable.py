"""Compiled functions in memory, and the process's runtime that they are linked with."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from tgc.backend.call import NativeFunction
from tgc.backend.emit import OUT_OF_BOUNDS
from tgc.backend.entry import entry_symbols
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.threads import Runtime, compile_runtime, process_runtime
from tgc.cache import COMPILER, Cache
from tgc.errors import CompilerBug
from tgc.ir.graph import Array
from tgc.kernels.program import Program


@dataclass(frozen=True)
class CompiledFunction:
    """One native function: arrays in, fresh arrays out, state updated in place.

    ``arity``: how many inputs it takes. ``violation``: for code that checks its accesses, where it records the first
    that is out of bounds, of which :meth:`run` tells.
    """

    program: Program
    native: NativeFunction
    violation: int = 0

    @property
    def arity(self) -> int:
        return len(self.program.inputs)

    def run(self, inputs: Sequence[Array], state: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The results for ``inputs``; ``state`` arrays are updated in place."""
        results = self.native.call(*inputs, *state)
        if self.violation:
            kernel, buffer, offset, size = (ctypes.c_int64 * 4).from_address(self.violation)
            if kernel:
                message = f"kernel {kernel - 1} accesses buffer {buffer} of {size} elements at {offset}"
                raise CompilerBug(message, stage="bounds check")
        return (results,) if isinstance(results, np.ndarray) else tuple(results)

    def bind(self, state: Sequence[Array]) -> Callable[..., Any]:
        """A callable on the inputs alone, for state that stays where it is; one result comes as an array."""
        return self.native.bind(state)


@functools.lru_cache(maxsize=1)
def runtime() -> Runtime:
    """The process's runtime, whose code is cached like a function's."""
    cache = Cache.default()
    if cache is None:
        return process_runtime()
    key = sha256(f"runtime {COMPILER} {host_target()}".encode()).hexdigest()
    image = cache.read(key)
    if image is None:
        image = compile_runtime()
        cache.write(key, image)
    return process_runtime(image)


def load_function(
    program: Program, symbol: str, images: Sequence[bytes], constants: Mapping[str, Array], *, debug: bool = False
) -> CompiledFunction:
    """The function whose entry is ``symbol`` in these object files, ready to be called.

    ``debug``: the code checks its accesses.
    """
    linked = runtime()
    names = entry_symbols(symbol) + ((OUT_OF_BOUNDS,) if debug else ())
    library = Library(images, names, addresses=linked.symbols, dependencies=(linked,))
    arrays = [constants[value.name] for value in program.constants]
    native = NativeFunction(program, address=library.address, symbol=symbol, constants=arrays, keepalive=library)
    return CompiledFunction(program, native, library.address(OUT_OF_BOUNDS) if debug else 0)
