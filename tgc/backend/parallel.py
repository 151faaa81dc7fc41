"""Many modules to objects at once, on several threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from tgc.backend.codegen import EXTERNAL_SYMBOLS, create_machine, parse_module
from tgc.backend.objects import defined_symbols, undefined_symbols
from tgc.errors import CompilerBug
from tgc.lazy import LazyModule
from tgc.target import Target

if TYPE_CHECKING:
    from concurrent.futures import Future

    import llvmlite.binding as llvm
else:
    llvm = LazyModule("llvmlite.binding")

_futures = LazyModule("concurrent.futures")


def compile_modules(
    texts: Sequence[str], target: Target, *, external: frozenset[str] = frozenset(), threads: int | None = None
) -> tuple[bytes, ...]:
    """One object for each module of LLVM IR, the same bytes as without threads; the modules may call one another.

    ``threads``: how many to use, by default one for each processor. Raises as
    :func:`tgc.backend.codegen.compile_module` does.

    >>> from tgc.target import AVX2
    >>> text = "define void @f() { ret void }"
    >>> images = compile_modules([text, text.replace("@f", "@g")], AVX2)
    >>> len(images)
    2
    """
    with ModuleCompiler(
        target, external=external, threads=min(threads or available_processors(), max(1, len(texts)))
    ) as compiler:
        for text in texts:
            compiler.add(text)
        return compiler.finish()


def available_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ModuleCompiler:
    """Compiles modules on threads from the moment they are added: a context, at whose end the threads are gone.

    ``external`` and ``threads`` as in :func:`compile_modules`.
    """

    def __init__(self, target: Target, *, external: frozenset[str] = frozenset(), threads: int | None = None) -> None:
        self._target = target
        self._external = external
        # one thread at least, where no signal interrupts LLVM
        self._pool = _futures.ThreadPoolExecutor(threads or available_processors())
        self._texts: list[str] = []
        self._images: list[Future[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(cancel_futures=failure[0] is not None)

    def add(self, text: str) -> None:
        """Begins to compile a module."""
        self._texts.append(text)
        self._images.append(self._pool.submit(_object, text, self._target))

    def finish(self) -> tuple[bytes, ...]:
        """The objects, in the order in which the modules were added."""
        images = tuple(image.result() for image in self._images)
        known = EXTERNAL_SYMBOLS.union(self._external, *map(defined_symbols, images))
        for text, image in zip(self._texts, images, strict=True):
            unknown = undefined_symbols(image) - known
            if unknown:
                raise CompilerBug(f"the object calls {', '.join(sorted(unknown))}", stage="code generation", ir=text)
        return images


def _object(text: str, target: Target) -> bytes:
    """Emission with a machine and a context of its own, outside of the lock that llvmlite holds around every call.

    LLVM itself needs no lock between contexts.
    """
    machine = create_machine(target)
    module = parse_module(text, machine)
    library = llvm.ffi.lib
    emit = getattr(library.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:
        return bytes(machine.emit_object(module))
    with llvm.ffi.OutputString() as error:
        buffer = emit(machine, module, 1, error)
        if not buffer:
            raise CompilerBug(str(error), stage="code generation", ir=text)
    try:
        return bytes(ctypes.string_at(library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer)))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)
