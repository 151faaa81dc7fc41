"""Artifacts: a module as files that need nothing of tgc, and how tgc runs them.

``NAME.o`` holds kernels, entry points and weights, ``NAME.h`` declares them for C, ``libNAME.so`` is the same object
linked (where there is a linker), ``NAME.json`` tells ``tgc.load`` and ``tgc run`` the signatures. Same module, same
options: same bytes.
"""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from passes.base import substitute
from tgc.backend.abi import ALIGNMENT
from tgc.backend.c_library import Library, LibraryConstant, LibraryFunction, StateVariable, exported_names
from tgc.backend.codegen import assembly, compile_module
from tgc.backend.emit import emit_module
from tgc.backend.entry import entry_text
from tgc.backend.header import header_text
from tgc.backend.jit import Library as LoadedObject
from tgc.backend.library import embed, library_text
from tgc.backend.link import linkers, shared
from tgc.compiler import Compiled, Options, lower_module
from tgc.dtypes import from_numpy, named
from tgc.errors import ParseError, UserError
from tgc.executable import runtime
from tgc.ir.builder import Builder
from tgc.ir.dims import evaluate
from tgc.ir.graph import Array, Module, literal, state
from tgc.ir.printer import print_module
from tgc.ir.types import TensorType
from tgc.kernels.printer import print_kernel
from tgc.kernels.program import Program
from tgc.ops import OPS
from tgc.reference import bind_dimensions
from tgc.signature import described, signature

FORMAT = 1
EMISSIONS = ("graph", "kernel", "llvm", "asm", "object", "shared", "header")


@dataclass(frozen=True)
class Artifact:
    """A module, compiled for files."""

    compiled: Compiled
    library: Library
    docs: Mapping[str, str]

    def llvm(self) -> str:
        """LLVM IR of everything in the object, the weights' bytes excepted."""
        kernels = emit_module(self.compiled.kernels, self.compiled.target, internal=True)
        entries = [entry_text(f.program, symbol=f.symbol, exported=False) for f in self.library.functions]
        return "\n".join([kernels, *entries, library_text(self.library)])

    def object(self) -> bytes:
        """The object file."""
        return embed(compile_module(self.llvm(), self.compiled.target), self.library)

    def manifest(self) -> str:
        """The signatures, as JSON."""
        target = self.compiled.target
        content = {
            "format": FORMAT,
            "name": self.library.name,
            "target": {"triple": target.triple, "cpu": target.cpu, "features": target.features},
            "functions": [{"doc": f.doc, **described(f.program)} for f in self.library.functions],
            "state": [
                [v.name, from_numpy(v.initial.dtype).name, list(v.initial.shape), self.library.state_offsets[v.name]]
                for v in self.library.state
            ],
        }
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def compile_artifact(
    module: Module, name: str, *, options: Options | None = None, docs: Mapping[str, str] | None = None
) -> Artifact:
    """Compiles every function of ``module`` into one library ``name``.

    State that no function assigns becomes a constant. Raises :class:`UserError` for state without an initial value.
    """
    options = options or Options()
    compiled = lower_module(_frozen(module), options)
    docs = docs or {}
    functions = tuple(
        LibraryFunction(fn, program, f"{name}_{fn}_entry", docs.get(fn, ""))
        for fn, program in compiled.programs.items()
    )
    used = {v.name for p in compiled.programs.values() for v in p.state}
    constants = {v.name for p in compiled.programs.values() for v in p.constants}
    state = tuple(StateVariable(n, _data(s.initial, n)) for n, s in compiled.module.state.items() if n in used)
    held = tuple(LibraryConstant(n, _data(c, n)) for n, c in compiled.module.constants.items() if n in constants)
    return Artifact(compiled, Library(name, functions, state, held, compiled.target), docs)


def _data(constant: Any, name: str) -> Array:
    if constant is None or constant.data is None:
        raise UserError(f"{name} has no value", hint="compile from Python, or from a file that holds its weights")
    data: Array = constant.data
    return data


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
    """
    name, target = artifact.library.name, artifact.compiled.target
    if emit is None:
        emit = ("object", "header") + (("shared",) if next(iter(linkers(target)), None) is not None else ())
    unknown = [e for e in emit if e not in EMISSIONS]
    if unknown:
        raise UserError(
            f"nothing called {', '.join(unknown)} can be emitted", hint="choose from " + ", ".join(EMISSIONS)
        )
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    if "graph" in emit:
        files[f"{name}.tgc"] = print_module(artifact.compiled.module, locations=True).encode()
    if "kernel" in emit:
        files[f"{name}.kernel"] = "\n".join(map(print_kernel, artifact.compiled.kernels)).encode()
    if "llvm" in emit:
        files[f"{name}.ll"] = artifact.llvm().encode()
    if "asm" in emit:
        files[f"{name}.s"] = assembly(artifact.llvm(), target).encode()
    image = artifact.object() if {"object", "shared"} & set(emit) else b""
    if "object" in emit:
        files[f"{name}.o"] = image
    if {"object", "shared"} & set(emit):
        files[f"{name}.json"] = artifact.manifest().encode()
    if "header" in emit:
        files[f"{name}.h"] = header_text(artifact.library).encode()
    written = [_write(folder / file, data) for file, data in files.items()]
    if "shared" in emit:
        output = folder / f"lib{name}.so"
        shared([image], output, soname=output.name, target=target, exported=exported_names(artifact.library))
        written.append(output)
    return written


def _write(path: Path, data: bytes) -> Path:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


class LoadedFunction:
    """A function of compiled files: NumPy arrays in, NumPy arrays out."""

    def __init__(self, library: LoadedLibrary, program: Program, doc: str) -> None:
        self.program = program
        self.__doc__ = doc
        self._library = library

    def __call__(self, *arrays: Any) -> Any:
        """The results for ``arrays``: one array, or a tuple. Raises :class:`UserError` for arrays that do not fit."""
        results = self._library.call(self.program, arrays)
        return results[0] if len(results) == 1 else results


class LoadedLibrary:
    """Compiled files in memory. Each function is an attribute; state, if there is any, belongs to this object."""

    def __init__(self, image: bytes, manifest: Mapping[str, Any]) -> None:
        self.name = str(manifest["name"])
        self.functions = {
            p.name: LoadedFunction(self, p, doc)
            for p, doc in ((signature(f), str(f.get("doc", ""))) for f in manifest["functions"])
        }
        self._layout = [(str(n), d, tuple(map(int, s)), int(o)) for n, d, s, o in manifest["state"]]
        fixed = ("init", "state_size", "error_message")
        own = [f + suffix for f in self.functions for suffix in ("_parallel", "_workspace")]
        self._object = LoadedObject(image, [f"{self.name}_{n}" for n in (*fixed, *own)])
        self._runtime = runtime()
        size = self._function("state_size", ctypes.c_int64)()
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self._block = raw[start : start + size]
        self.reset()

    def __getattr__(self, name: str) -> LoadedFunction:
        functions = self.__dict__.get("functions", {})
        if name in functions:
            found: LoadedFunction = functions[name]
            return found
        raise AttributeError(f"the library has no function {name!r}; it has {', '.join(functions)}")

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *arguments)(self._object.address(f"{self.name}_{name}"))

    def reset(self) -> None:
        """Puts the state back to what it was when compiled. Raises :class:`UserError` on a CPU it was not made for."""
        init = self._function("init", ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)
        self._check(init(self._block.ctypes.data, self._block.nbytes))

    def state(self) -> dict[str, Array]:
        """Copies of the state by name."""
        return {name: self._view(name).copy() for name, *_ in self._layout}

    def _view(self, name: str) -> Array:
        dtype, shape, offset = next((d, s, o) for n, d, s, o in self._layout if n == name)
        type_ = named(dtype).numpy
        size = int(np.prod(shape)) * type_.itemsize
        return self._block[offset : offset + size].view(type_).reshape(shape)

    def _check(self, status: int) -> None:
        if status:
            message = self._function("error_message", ctypes.c_char_p, ctypes.c_int32)(status)
            raise UserError((message or b"unknown error").decode(errors="replace"))

    def call(self, program: Program, arrays: Sequence[Any]) -> tuple[Array, ...]:
        """Runs a function of the library."""
        if len(arrays) != len(program.inputs):
            raise UserError(f"{program.name} takes {len(program.inputs)} arrays, not {len(arrays)}")
        given = []
        for array, value in zip(arrays, program.inputs, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype != value.dtype.numpy or array.ndim != len(value.shape):
                what = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
                raise UserError(f"{program.name}: {value} was expected for {value.name}, not {what}")
            given.append(np.ascontiguousarray(array).reshape(array.shape))
        types = [TensorType(v.dtype, v.shape) for v in program.inputs]
        dims = bind_dimensions(types, [a.shape for a in given])
        outputs = [np.empty([evaluate(d, dims) for d in v.shape], v.dtype.numpy) for v in program.outputs]
        sizes = [dims[s] for s in program.symbols]
        threads = self._runtime.threads
        integers = [ctypes.c_int64] * len(sizes)
        workspace = self._function(f"{program.name}_workspace", ctypes.c_int64, *integers, ctypes.c_int32)
        needed = workspace(*sizes, threads)
        if needed < 0:
            self._check(-needed)
        scratch = np.empty(needed, np.uint8)
        pointers = ([self._block.ctypes.data] if program.state else []) + [a.ctypes.data for a in (*given, *outputs)]
        types_ = [ctypes.c_void_p] * len(pointers) + integers + [ctypes.c_void_p] * 2
        run = self._function(f"{program.name}_parallel", ctypes.c_int32, *types_)
        executor = self._runtime.executor if threads > 1 else None
        self._check(run(*pointers, *sizes, scratch.ctypes.data, executor))
        return tuple(outputs)


def load(path: str | Path) -> LoadedLibrary:
    """The library in a folder of compiled files (or given one of its files), ready to run: its object file is run.

    Raises :class:`UserError` for a folder without a library, or with several, and :class:`ParseError` for damaged
    files.
    """
    path = Path(path)
    manifests = [path.with_suffix(".json")] if path.suffix in (".o", ".json", ".h") else sorted(path.glob("*.json"))
    if len(manifests) != 1 or not manifests[0].is_file():
        found = ", ".join(m.name for m in manifests) or "none"
        raise UserError(f"{path} holds no compiled library, or several (found: {found})", hint="pass the .json file")
    try:
        manifest = json.loads(manifests[0].read_text(encoding="utf8"))
        if manifest["format"] != FORMAT:
            raise UserError(f"{manifests[0].name} has format {manifest['format']}, not {FORMAT}")
        return LoadedLibrary(manifests[0].with_suffix(".o").read_bytes(), manifest)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParseError(f"{manifests[0].name} is damaged: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
