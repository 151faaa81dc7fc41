"""LLVM IR as text to objects and assembly.

There is no pass pipeline: kernel IR has decided everything, and LLVM selects instructions and allocates registers.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from tgc.backend.host import check_cpu
from tgc.backend.objects import undefined_symbols
from tgc.backend.uninterrupted import uninterrupted
from tgc.errors import CompilerBug
from tgc.lazy import LazyModule
from tgc.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm
else:
    llvm = LazyModule("llvmlite.binding")

# what an object may leave to its linker: memory functions, and what the thread pool takes from the system
EXTERNAL_SYMBOLS: Final = frozenset(
    (
        "memcpy",
        "memmove",
        "memset",
        "memcmp",
        "pthread_create",
        "pthread_join",
        "syscall",
        "sched_getaffinity",
        "sched_yield",
        "_GLOBAL_OFFSET_TABLE_",
    )
)


@functools.lru_cache(maxsize=32)
def target_machine(target: Target) -> llvm.TargetMachine:
    """The code generator for a target, kept."""
    return create_machine(target)


def create_machine(target: Target) -> llvm.TargetMachine:
    """A new code generator of LLVM; :class:`~tgc.errors.TargetError` if LLVM does not know the CPU."""
    check_cpu(target.triple, target.cpu, target.features)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=1,
        reloc="pic",
        codemodel="small",
        abiname="lp64d" if target.triple.startswith("riscv64") and "+d" in target.features.split(",") else "",
    )


def compile_module(text: str, target: Target, *, external: frozenset[str] = frozenset()) -> bytes:
    """An object file of LLVM IR.

    ``external``: names besides memory functions that the linker will know. Raises :class:`CompilerBug` if the text is
    malformed, or the object needs a function that no linker would find.
    """
    image = unchecked_object(text, target)
    unknown = undefined_symbols(image) - EXTERNAL_SYMBOLS - external
    if unknown:
        raise CompilerBug(f"the object calls {', '.join(sorted(unknown))}", stage="code generation", ir=text)
    return image


def unchecked_object(text: str, target: Target) -> bytes:
    """An object file of LLVM IR, whatever it calls: not to be loaded."""

    def emitted() -> bytes:
        machine = target_machine(target)
        image: bytes = machine.emit_object(parse_module(text, machine))
        return image

    return uninterrupted(emitted)


def assembly(text: str, target: Target) -> str:
    """The assembly of LLVM IR."""

    def emitted() -> str:
        machine = target_machine(target)
        return str(machine.emit_assembly(parse_module(text, machine)))

    return uninterrupted(emitted)


@functools.lru_cache(maxsize=32)
def data_layout(target: Target) -> str:
    """How LLVM lays out data on a target."""
    return uninterrupted(lambda: str(target_machine(target).target_data))


def parse_module(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """LLVM IR, verified, in a context of its own, since contexts keep every type and constant that they have seen."""
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        # emission of a module that does not verify ends the process
        module.verify()
    except RuntimeError as error:
        raise CompilerBug(str(error), stage="LLVM IR", ir=text) from None
    module.data_layout = str(machine.target_data)
    module.triple = machine.triple
    return module
