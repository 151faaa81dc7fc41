"""Many modules to objects at once, on several threads."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm

from tgc.backend.codegen import EXTERNAL_SYMBOLS, create_machine, parse_module
from tgc.backend.objects import defined_symbols, undefined_symbols
from tgc.errors import CompilerBug
from tgc.target import Target


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
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(threads or allowed, len(texts))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            images = tuple(pool.map(lambda text: _object(text, target), texts))
    else:
        images = tuple(_object(text, target) for text in texts)
    known = EXTERNAL_SYMBOLS.union(external, *map(defined_symbols, images))
    for text, image in zip(texts, images, strict=True):
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
