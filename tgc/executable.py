"""Compiled functions in memory, and the process's runtime that they are linked with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from tgc.backend.call import NativeFunction
from tgc.backend.entry import entry_symbols
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.backend.threads import Runtime, compile_runtime, process_runtime
from tgc.cache import Cache, compiler_fingerprint
from tgc.ir.graph import Array
from tgc.kernels.program import Program


@dataclass(frozen=True)
class CompiledFunction:
    """One native function: arrays in, fresh arrays out, state updated in place.

    ``arity``: how many inputs it takes.
    """

    program: Program
    native: NativeFunction

    @property
    def arity(self) -> int:
        return len(self.program.inputs)

    def run(self, inputs: Sequence[Array], state: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The results for ``inputs``; ``state`` arrays are updated in place."""
        results = self.native.call(*inputs, *state)
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
    key = sha256(f"runtime {compiler_fingerprint()} {host_target()}".encode()).hexdigest()
    image = cache.read(key)
    if image is None:
        image = compile_runtime()
        cache.write(key, image)
    return process_runtime(image)


def load_function(
    program: Program, symbol: str, images: Sequence[bytes], constants: Mapping[str, Array]
) -> CompiledFunction:
    """The function whose entry is ``symbol`` in these object files, ready to be called."""
    linked = runtime()
    library = Library(images, entry_symbols(symbol), addresses=linked.symbols, dependencies=(linked,))
    arrays = [constants[value.name] for value in program.constants]
    native = NativeFunction(program, address=library.address, symbol=symbol, constants=arrays, keepalive=library)
    return CompiledFunction(program, native)
