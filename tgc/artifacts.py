"""Artifacts: a module as files that need nothing of tgc.

``NAME.o`` holds kernels, entry points and weights, ``NAME.h`` declares them for C, ``libNAME.so`` is the same object
linked (where there is a linker), ``NAME.json`` tells :mod:`tgc.loading` the signatures. Any level of the compiler can
be written as text too. Same module, same options: same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

from safetensors.numpy import save

from passes.base import substitute
from tgc.backend.c_library import Library, LibraryConstant, LibraryFunction, StateVariable, exported_names
from tgc.backend.codegen import assembly, compile_module
from tgc.backend.emit import emit_module
from tgc.backend.entry import entry_text
from tgc.backend.header import header_text
from tgc.backend.library import embed, library_text
from tgc.backend.link import linkers, shared
from tgc.compiler import Compiled, Options, computed_constants, lower_module, reproducible
from tgc.dtypes import from_numpy
from tgc.errors import UserError
from tgc.ir.builder import Builder
from tgc.ir.graph import Array, Constant, Module, literal, state
from tgc.ir.printer import print_module
from tgc.kernels.printer import print_kernel
from tgc.kernels.program import launches
from tgc.loading import manifest_digest
from tgc.ops import OPS
from tgc.signature import FORMAT, described
from tgc.storage import write_atomically

EMISSIONS: Final = ("graph", "kernel", "llvm", "asm", "object", "shared", "header")
"""What can be written: the graph (as recorded and as optimised), kernel IR, LLVM IR, assembly, an object file, a shared
library, a C header."""


@dataclass(frozen=True)
class Artifact:
    """A module, compiled for files. ``source``: the module before the passes; ``threads``: whether to offer a pool."""

    name: str
    source: Module
    compiled: Compiled
    docs: Mapping[str, str] = field(default_factory=dict)
    threads: bool = True

    @cached_property
    def library(self) -> Library:
        """The C functions. Raises :class:`UserError` for state and constants whose values are not known."""
        compiled = self.compiled
        functions = tuple(
            LibraryFunction(name, replace(program, setup=None), f"{self.name}_{name}_entry", self.docs.get(name, ""))
            for name, program in compiled.programs.items()
        )
        used = {v.name for p in compiled.programs.values() for v in p.state}
        held = tuple(StateVariable(n, _data(s.initial, n)) for n, s in compiled.module.state.items() if n in used)
        constants = {v.name: None for p in compiled.programs.values() for v in p.constants}
        computed = self._computed()
        fixed = tuple(
            LibraryConstant(n, computed[n] if n in computed else _data(compiled.module.constants[n], n))
            for n in constants
        )
        return Library(self.name, functions, held, fixed, compiled.target, threads=self.threads)

    def _computed(self) -> dict[str, Array]:
        """What the functions' setups compute, by this machine's code of the same kernels, whatever the target."""
        found: dict[str, Array] = {}
        for program in self.compiled.programs.values():
            if program.setup is not None:
                found |= computed_constants(program.setup, self.compiled)
        return found

    @cached_property
    def llvm(self) -> str:
        """LLVM IR of everything in the object, the weights' bytes excepted."""
        library, programs = self.library, self.compiled.programs.values()
        launched = {launch.kernel for program in programs for launch in launches(program)}
        with reproducible(self.source, "code generation"):
            needed = [kernel for kernel in self.compiled.kernels if kernel.name in launched]
            kernels = emit_module(needed, self.compiled.target, internal=True)
            entries = [entry_text(f.program, symbol=f.symbol, exported=False) for f in library.functions]
            return "\n".join([kernels, *entries, library_text(library)])

    @cached_property
    def object(self) -> bytes:
        """The object file."""
        text = self.llvm
        with reproducible(self.source, "code generation"):
            return embed(compile_module(text, self.compiled.target), self.library)

    def manifest(self) -> str:
        """The signatures, as JSON."""
        target, library = self.compiled.target, self.library
        content = {
            "format": FORMAT,
            "name": self.name,
            "target": {"triple": target.triple, "cpu": target.cpu, "features": target.features},
            "functions": [{"doc": f.doc, **described(f.program)} for f in library.functions],
            "state": [
                [v.name, from_numpy(v.initial.dtype).name, list(v.initial.shape), library.state_offsets[v.name]]
                for v in library.state
            ],
            "object": sha256(self.object).hexdigest(),
        }
        return json.dumps({**content, "digest": manifest_digest(content)}, indent=1, sort_keys=True) + "\n"

    def weights(self) -> bytes:
        """State and constants as a safetensors file: what the texts of graphs name by digest only."""
        named: dict[str, Constant | None] = {n: s.initial for n, s in self.source.state.items()}
        named |= {**self.compiled.module.constants, **self.source.constants}
        return save({n: c.data for n, c in sorted(named.items()) if c is not None and c.data is not None})


def compile_artifact(
    module: Module,
    name: str,
    *,
    options: Options | None = None,
    docs: Mapping[str, str] | None = None,
    threads: bool = True,
) -> Artifact:
    """Compiles every function of ``module`` into one library ``name``. State that no function assigns is constant."""
    return Artifact(name, module, lower_module(_frozen(module), options), docs or {}, threads)


def _data(constant: Constant | None, name: str) -> Array:
    if constant is None or constant.data is None:
        raise UserError(
            f"the values of {name} are not known",
            hint="compile from Python, or put the .safetensors file that was written with the graph beside it",
        )
    return constant.data


def _frozen(module: Module) -> Module:
    """The module with every state that nothing assigns turned into a constant."""
    assigned = {name for f in module.functions for name, _ in f.assigns}
    fixed = {n: s.initial for n, s in module.state.items() if n not in assigned and s.initial is not None}
    if not fixed:
        return module
    builder = Builder(OPS, module.locations)
    constants = {state(n, c.type): literal(n, c.type) for n, c in fixed.items()}
    functions = tuple(f.with_outputs(substitute(builder, f.outputs, constants)) for f in module.functions)
    rest = {n: s for n, s in module.state.items() if n not in fixed}
    return replace(
        module, functions=functions, state=rest, constants={**module.constants, **fixed}, locations=builder.locations
    )


def write(artifact: Artifact, folder: Path, emit: Sequence[str] | None = None) -> list[Path]:
    """Writes the artifact's files into ``folder``, each atomically, and tells which.

    ``emit``: some of ``EMISSIONS``; by default what a C user needs, with ``shared`` only where there is a linker.
    Raises :class:`UserError` for others, and for a folder that cannot be written to.
    """
    target = artifact.compiled.target
    if emit is None:
        emit = ("object", "header") + (("shared",) if next(iter(linkers(target)), None) is not None else ())
    unknown = [e for e in emit if e not in EMISSIONS]
    if unknown:
        raise UserError(
            f"nothing called {', '.join(unknown)} can be emitted", hint="choose from " + ", ".join(EMISSIONS)
        )
    files = _files(artifact, frozenset(emit))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [write_atomically(folder / file, data) for file, data in files.items()]
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from None
    if "shared" in emit:
        output = folder / f"lib{artifact.name}.so"
        exported = exported_names(artifact.library)
        shared([artifact.object], output, soname=output.name, target=target, exported=exported)
        written.append(output)
    return written


def _files(artifact: Artifact, emit: frozenset[str]) -> dict[str, bytes]:
    """The files' contents by name, the shared library excepted."""
    name, compiled = artifact.name, artifact.compiled
    files: dict[str, bytes] = {}
    if "graph" in emit:
        files[f"{name}.tgc"] = f"{print_module(artifact.source, locations=True)}\n".encode()
        files[f"{name}.optimised.tgc"] = f"{print_module(compiled.module, locations=True)}\n".encode()
        files[f"{name}.safetensors"] = artifact.weights()
    if "kernel" in emit:
        files[f"{name}.kernel"] = "\n".join(map(print_kernel, compiled.kernels)).encode()
    if "llvm" in emit:
        files[f"{name}.ll"] = artifact.llvm.encode()
    if "asm" in emit:
        files[f"{name}.s"] = assembly(artifact.llvm, compiled.target).encode()
    if "object" in emit:
        files[f"{name}.o"] = artifact.object
        files[f"{name}.json"] = artifact.manifest().encode()
    if "header" in emit:
        files[f"{name}.h"] = header_text(artifact.library).encode()
    return files
