"""Compiled files in a process: the object file itself is run, so that no linker is needed."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tgc.backend.abi import ALIGNMENT
from tgc.backend.jit import Library
from tgc.dtypes import named
from tgc.errors import ParseError, TgcError, UserError
from tgc.executable import runtime
from tgc.ir.binding import bind_dimensions
from tgc.ir.dims import evaluate
from tgc.ir.graph import Array
from tgc.ir.types import TensorType
from tgc.kernels.program import Program, ProgramValue
from tgc.signature import FORMAT, signature

_DAMAGED = (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError)


class LoadedFunction:
    """A function of compiled files: NumPy arrays in, NumPy arrays out. ``program`` tells what it takes and gives."""

    def __init__(self, library: LoadedLibrary, program: Program, doc: str) -> None:
        self.program = program
        self.__doc__ = doc
        self._library = library
        symbols = [ctypes.c_int64] * len(program.symbols)
        pointers = [ctypes.c_void_p] * (bool(program.state) + len(program.inputs) + len(program.outputs))
        workspace = ctypes.CFUNCTYPE(ctypes.c_int64, *symbols, ctypes.c_int32)
        run = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, *symbols, ctypes.c_void_p, ctypes.c_void_p)
        self._workspace = workspace(library.address(f"{program.name}_workspace"))
        self._run = run(library.address(f"{program.name}_parallel"))
        self._types = [TensorType(v.dtype, v.shape) for v in program.inputs]

    def __call__(self, *arrays: Any) -> Any:
        """The results for ``arrays``: one array, or a tuple. Raises :class:`UserError` for arrays that do not fit."""
        program, library = self.program, self._library
        if len(arrays) != len(program.inputs):
            raise UserError(f"{program.name} takes {len(program.inputs)} arrays, not {len(arrays)}")
        given = [self._accepted(a, v) for a, v in zip(arrays, program.inputs, strict=True)]
        dims = bind_dimensions(self._types, [a.shape for a in given])
        outputs = [np.empty([evaluate(d, dims) for d in v.shape], v.dtype.numpy) for v in program.outputs]
        sizes = [dims[s] for s in program.symbols]
        linked = runtime()
        needed = self._workspace(*sizes, linked.threads)
        if needed < 0:
            raise library.error(-needed)
        workspace = library.take_workspace(needed)
        pointers = ([library.block.ctypes.data] if program.state else []) + [a.ctypes.data for a in (*given, *outputs)]
        executor = linked.executor if linked.threads > 1 else None
        status = self._run(*pointers, *sizes, workspace.ctypes.data, executor)
        library.give_workspace(workspace)
        if status:
            raise library.error(status)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _accepted(self, array: Any, value: ProgramValue) -> Array:
        if not isinstance(array, np.ndarray) or array.dtype != value.dtype.numpy or array.ndim != len(value.shape):
            what = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UserError(f"{self.program.name}: {value} was expected for {value.name}, not {what}")
        return np.require(array, requirements=("C", "A"))


class LoadedLibrary:
    """Compiled files in memory. Each function is an attribute; state, if there is any, belongs to this object.

    One call at a time may change the state.
    """

    def __init__(self, image: bytes, manifest: Mapping[str, Any]) -> None:
        self.name = str(manifest["name"])
        programs = [(signature(f), str(f.get("doc", ""))) for f in manifest["functions"]]
        self._layout = {
            str(n): (named(dtype).numpy, tuple(map(int, shape)), int(at)) for n, dtype, shape, at in manifest["state"]
        }
        fixed = ("init", "state_size", "error_message")
        own = [program.name + suffix for program, _ in programs for suffix in ("_parallel", "_workspace")]
        self._object = Library(image, [f"{self.name}_{n}" for n in (*fixed, *own)])
        self._workspaces: list[Array] = []
        size = ctypes.CFUNCTYPE(ctypes.c_int64)(self.address("state_size"))()
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.block: Array = raw[start : start + size]
        self.functions = {program.name: LoadedFunction(self, program, doc) for program, doc in programs}
        self.reset()

    def __getattr__(self, name: str) -> LoadedFunction:
        functions = self.__dict__.get("functions", {})
        if name in functions:
            found: LoadedFunction = functions[name]
            return found
        raise AttributeError(f"the library has no function {name!r}; it has {', '.join(functions)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.functions]

    def address(self, name: str) -> int:
        """Where a function of the C interface lies, named without the library's name."""
        return self._object.address(f"{self.name}_{name}")

    def error(self, status: int) -> UserError:
        """What an error code means."""
        message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int32)(self.address("error_message"))(status)
        return UserError((message or b"unknown error").decode(errors="replace"))

    def reset(self) -> None:
        """Puts the state back to what it was when compiled. Raises :class:`UserError` on a CPU it was not made for."""
        init = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)(self.address("init"))
        status = init(self.block.ctypes.data, self.block.nbytes)
        if status:
            raise self.error(status)

    def state(self) -> dict[str, Array]:
        """Copies of the state by name."""
        return {name: self._view(name).copy() for name in self._layout}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Changes some of the state. Raises :class:`UserError` for names, dtypes and shapes it does not have."""
        for name, array in state.items():
            if name not in self._layout:
                raise UserError(f"there is no state {name!r}", hint="there is " + ", ".join(self._layout))
            dtype, shape, _ = self._layout[name]
            if array.dtype != dtype or array.shape != shape:
                raise UserError(f"the state {name} is {dtype}{list(shape)}, not {array.dtype}{list(array.shape)}")
        for name, array in state.items():
            self._view(name)[...] = array

    def _view(self, name: str) -> Array:
        dtype, shape, offset = self._layout[name]
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        view: Array = self.block[offset : offset + size].view(dtype).reshape(shape)
        return view

    def take_workspace(self, size: int) -> Array:
        """Memory for a call, kept from earlier ones."""
        try:
            kept = self._workspaces.pop()
        except IndexError:
            kept = np.empty(0, np.uint8)
        return kept if kept.nbytes >= size else np.empty(size, np.uint8)

    def give_workspace(self, workspace: Array) -> None:
        """Hands the memory of a call back."""
        self._workspaces.append(workspace)


def load(path: str | Path) -> LoadedLibrary:
    """The library in a folder of compiled files (or given one of its files), ready to run: its object file is run.

    Raises :class:`UserError` for a folder without a library, or with several, and :class:`ParseError` for damaged
    files. Objects are code: load only what you would run.
    """
    path = Path(path)
    manifests = [path.with_suffix(".json")] if path.suffix in (".o", ".json", ".h") else sorted(path.glob("*.json"))
    if len(manifests) != 1 or not manifests[0].is_file():
        found = ", ".join(m.name for m in manifests if m.is_file()) or "none"
        raise UserError(
            f"{path} holds no compiled library, or several (found: {found})",
            hint="compile one with tgc.compile or `tgc compile`, or pass its .json file",
        )
    try:
        manifest = json.loads(manifests[0].read_text(encoding="utf8"))
        image = manifests[0].with_suffix(".o").read_bytes()
    except (ValueError, RecursionError) as error:
        raise ParseError(f"{manifests[0].name} is damaged: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return _checked(manifests[0], manifest, image)


def _checked(path: Path, manifest: Any, image: bytes) -> LoadedLibrary:
    try:
        found = manifest["format"]
        if found != FORMAT:
            raise UserError(f"{path.name} has format {found}, not {FORMAT}", hint="compile it again")
        if manifest["object"] != sha256(image).hexdigest():
            raise ParseError(f"{path.with_suffix('.o').name} is not the object that {path.name} describes")
        if manifest["digest"] != manifest_digest(manifest):
            raise ParseError(f"{path.name} is damaged: its digest does not fit")
        return LoadedLibrary(image, manifest)
    except UserError:
        raise
    except (*_DAMAGED, TgcError) as error:
        raise ParseError(f"{path.name} is damaged: {error}") from None


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The digest of everything else in a manifest."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def results_of(value: Any) -> Sequence[Array]:
    """What a loaded function gave, one array or several, as a sequence."""
    return value if isinstance(value, tuple) else (value,)
