"""Libraries: programs as C functions, with the weights inside and mutable state in one block that the caller owns.

The C functions of a library ``net`` with a function ``predict`` are ``net_init``, ``net_state_size``,
``net_error_message``, ``net_pool_size``, ``net_pool_create``, ``net_pool_destroy``, ``net_predict``,
``net_predict_parallel`` (on an executor) and ``net_predict_workspace``; :mod:`tgc.backend.header` documents them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tgc.backend.abi import ALIGNMENT, Status
from tgc.backend.pool_text import has_pool
from tgc.errors import UserError
from tgc.kernels.program import Program
from tgc.target import Target

DIGEST_BYTES: Final = 32
STATE_HEADER: Final = 64
"""The state block begins with the digest of its layout, by which functions know that it was set up."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYWORDS: Final = frozenset(
    "alignas alignof and asm auto bool break case catch char class compl const constexpr continue decltype default "
    "delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long "
    "mutable namespace new noexcept not nullptr operator or private protected public register reinterpret_cast "
    "requires restrict return short signed sizeof static static_assert static_cast struct switch template this "
    "thread_local throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t "
    "while xor state workspace executor threads int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t "
    "uint64_t".split()
)


@dataclass(frozen=True, eq=False)
class StateVariable:
    """An array that functions update, with what it holds at first."""

    name: str
    initial: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LibraryConstant:
    """An array that no function changes."""

    name: str
    array: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LibraryFunction:
    """A program under its C name; ``symbol``: the symbol of its entry (:func:`tgc.backend.entry.entry_text`)."""

    name: str
    program: Program
    symbol: str
    doc: str = ""


@dataclass(frozen=True, eq=False)
class Library:
    """What becomes one object or shared library. State and constants of the programs are found by their names.

    ``threads``: whether it offers a pool of threads of its own, where the target has one. Raises :class:`UserError` for
    names that are no C identifiers or clash.
    """

    name: str
    functions: tuple[LibraryFunction, ...]
    state: tuple[StateVariable, ...]
    constants: tuple[LibraryConstant, ...]
    target: Target
    threads: bool = True

    def __post_init__(self) -> None:
        for name in (self.name, *(function.name for function in self.functions)):
            if not _IDENTIFIER.fullmatch(name) or name in _KEYWORDS:
                raise UserError(f"{name!r} cannot be the name of a C function", hint="use letters, digits and _")
        names = exported_names(self)
        if clashes := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"several functions would be called {', '.join(clashes)}", hint="rename one of them")

    @property
    def has_pool(self) -> bool:
        """Whether there are functions that make and end threads."""
        return self.threads and has_pool(self.target.triple)

    @cached_property
    def state_offsets(self) -> Mapping[str, int]:
        """Where each variable lies in the state block."""
        return MappingProxyType(_offsets({v.name: v.initial for v in self.state}, STATE_HEADER))

    @cached_property
    def state_size(self) -> int:
        """Bytes of the state block, 0 if there is no state."""
        return _end({v.name: v.initial for v in self.state}, STATE_HEADER) if self.state else 0

    @cached_property
    def weight_offsets(self) -> Mapping[str, int]:
        """Where each constant lies in the embedded weights, after their digest and the first state."""
        return MappingProxyType(_offsets({c.name: c.array for c in self.constants}, STATE_HEADER + self.state_size))

    @cached_property
    def state_digest(self) -> bytes:
        """Tells blocks of this library's state from anything else."""
        layout = [(v.name, str(v.initial.dtype), v.initial.shape, self.state_offsets[v.name]) for v in self.state]
        return hashlib.sha256(repr((self.name, layout)).encode()).digest()

    @cached_property
    def weights(self) -> bytes:
        """What is embedded: a digest of the rest, the first state, the constants."""
        arrays = {c.name: c.array for c in self.constants}
        size = max(_end(arrays, STATE_HEADER + self.state_size), STATE_HEADER)
        block = np.zeros(size, np.uint8)
        if self.state:
            _place(block[STATE_HEADER:], {v.name: v.initial for v in self.state}, self.state_offsets)
            block[STATE_HEADER : STATE_HEADER + DIGEST_BYTES] = np.frombuffer(self.state_digest, np.uint8)
        _place(block, arrays, self.weight_offsets)
        block[:DIGEST_BYTES] = np.frombuffer(hashlib.sha256(block.tobytes()).digest(), np.uint8)
        return block.tobytes()

    def constraint_codes(self, function: LibraryFunction) -> int:
        """The error code of the first constraint of a function."""
        index = self.functions.index(function)
        return int(Status.CONSTRAINT) + sum(len(f.program.constraints) for f in self.functions[:index])


def exported_names(library: Library) -> tuple[str, ...]:
    """The C functions of a library."""
    shared = ["init", "state_size", "error_message"]
    if library.has_pool:
        shared += ["pool_size", "pool_create", "pool_destroy"]
    own = [f.name + suffix for f in library.functions for suffix in ("", "_parallel", "_workspace")]
    return tuple(f"{library.name}_{name}" for name in (*shared, *own))


def c_names(program: Program) -> dict[str, str]:
    """C identifiers for the inputs (``i.NAME``), outputs (``o.NAME``) and symbols (``s.NAME``) of a program."""
    found: dict[str, str] = {}
    taken = set(_KEYWORDS)
    keys = [f"s.{name}" for name in program.symbols]
    keys += [f"{space}.{v.name}" for space, values in (("i", program.inputs), ("o", program.outputs)) for v in values]
    for key in keys:
        name = re.sub(r"\W", "_", key[2:], flags=re.ASCII) or "_"
        name = f"_{name}" if name[0].isdigit() else name
        while name in taken:
            name += "_"
        taken.add(name)
        found[key] = name
    return found


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _walk(arrays: Mapping[str, npt.NDArray[Any]], start: int) -> Iterator[tuple[str, int, int]]:
    for name, array in arrays.items():
        yield name, start, start + array.nbytes
        start = _aligned(start + array.nbytes)


def _offsets(arrays: Mapping[str, npt.NDArray[Any]], start: int) -> dict[str, int]:
    return {name: begin for name, begin, _ in _walk(arrays, start)}


def _end(arrays: Mapping[str, npt.NDArray[Any]], start: int) -> int:
    return _aligned(max((end for _, _, end in _walk(arrays, start)), default=start))


def _place(block: npt.NDArray[np.uint8], arrays: Mapping[str, npt.NDArray[Any]], offsets: Mapping[str, int]) -> None:
    for name, array in arrays.items():
        data = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        block[offsets[name] : offsets[name] + array.nbytes] = data.reshape(-1).view(np.uint8)
