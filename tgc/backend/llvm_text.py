"""The text of LLVM IR: types, literals, and a writer of the instructions of one function."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import ml_dtypes
import numpy as np

from tgc.backend.capabilities import Capabilities
from tgc.dtypes import DType
from tgc.errors import CompilerBug
from tgc.kernels.ir import Buffer, Kernel, Value
from tgc.target import Target

# bf16 and f16 live in registers as their bits, since not every target can select LLVM's own types
REGISTER_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"bool": "i1", "bf16": "i16", "f16": "i16", "f32": "float", "f64": "double"}
    | {f"{sign}{bits}": f"i{bits}" for sign in "iu" for bits in (8, 16, 32, 64)}
)
MOST_OPERATIONS: Final = 1500


@lru_cache(maxsize=1024)
def register_type(dtype: DType, lanes: int) -> str:
    """The LLVM type of a value.

    >>> from tgc.dtypes import bf16, f32
    >>> register_type(f32, 8), register_type(bf16, 1)
    ('<8 x float>', 'i16')
    """
    return vector(REGISTER_TYPES[dtype.name], lanes)


@lru_cache(maxsize=1024)
def memory_type(dtype: DType, lanes: int) -> str:
    """The LLVM type of ``lanes`` elements in memory."""
    return vector("i8" if dtype.name == "bool" else REGISTER_TYPES[dtype.name], lanes)


def vector(element: str, lanes: int) -> str:
    """A vector type, or its element for one lane."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


@lru_cache(maxsize=1024)
def suffix(dtype: DType, lanes: int) -> str:
    """How the name of an overloaded intrinsic ends."""
    element = {"float": "f32", "double": "f64"}.get(REGISTER_TYPES[dtype.name], REGISTER_TYPES[dtype.name])
    return element if lanes == 1 else f"v{lanes}{element}"


def float_literal(value: float, dtype: DType) -> str:
    """A float constant, exact; LLVM writes f32 as the bits of the double of the same value.

    >>> from tgc.dtypes import f32
    >>> float_literal(0.1, f32)
    '0x3FB99999A0000000'
    """
    if dtype.name == "f32":
        value = ctypes.c_float(value).value
    if dtype.bits == 16:
        bits = np.array(value).astype(ml_dtypes.bfloat16 if dtype.name == "bf16" else np.float16).view(np.int16)
        return str(int(bits))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def literal(value: bool | int | float, dtype: DType, lanes: int = 1) -> str:
    """A constant of any dtype in every lane, without its type."""
    if dtype.is_float:
        text = float_literal(float(value), dtype)
    else:
        text = ("true" if value else "false") if dtype.kind == "bool" else str(int(value))
    if lanes == 1:
        return text
    return f"splat ({REGISTER_TYPES[dtype.name]} {text})"


class Writer:
    """Writes the instructions of one function; knows the names of the values that were written."""

    def __init__(self, kernel: Kernel, target: Target, capabilities: Capabilities) -> None:
        self.kernel = kernel
        self.target = target
        self.capabilities = capabilities
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self.pointers: dict[Buffer, str] = {}
        self.metadata: dict[Buffer, str] = {}
        self.addresses: dict[tuple[Buffer, int], str] = {}
        self.masks: dict[tuple[int, int, int], str] = {}
        self.block = "entry"
        self.tail_bytes = 0
        self.checks: str | None = None
        self.sizes: dict[Buffer, str] = {}
        self._counter = 0
        self._weight = 0

    def name(self, value: Value) -> str:
        """The text of a value as an operand."""
        return self.names[value.number]

    def typed(self, value: Value) -> str:
        """The text of a value with its type."""
        return f"{register_type(value.dtype, value.lanes)} {self.names[value.number]}"

    def fresh(self, prefix: str = "t") -> str:
        self._counter += 1
        return f"{prefix}{self._counter}"

    def op(self, text: str) -> str:
        """Write an instruction that has a result."""
        self._counter += 1
        name = f"%t{self._counter}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Write an instruction without a result."""
        self.lines.append(f"  {text}")

    def label(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.block = label
        self._weight = 0

    def weigh(self, values: Sequence[Value]) -> None:
        """Count instructions: LLVM's time is quadratic in the length of a block."""
        for v in values:
            self._weight += max(1, v.dtype.bits * v.lanes // self.target.vector_bits)
        if self._weight > MOST_OPERATIONS:
            raise CompilerBug(
                f"kernel {self.kernel.name} has a block of more than {MOST_OPERATIONS} vector operations",
                stage="emission",
            )

    def call(self, intrinsic: str, result: str, *arguments: tuple[str, str]) -> str:
        """Call an intrinsic, which LLVM declares by itself; ``arguments`` are (type, text)."""
        text = f"call {result} @{intrinsic}({', '.join([f'{t} {v}' for t, v in arguments])})"
        if result == "void":
            self.do(text)
            return ""
        return self.op(text)

    def splat(self, element: str, text: str, lanes: int) -> str:
        """A scalar in every lane."""
        if lanes == 1:
            return text
        whole = vector(element, lanes)
        one = self.op(f"insertelement {whole} poison, {element} {text}, i64 0")
        return self.op(f"shufflevector {whole} {one}, {whole} poison, <{lanes} x i32> zeroinitializer")


def all_lanes(element: str, text: str, lanes: int) -> str:
    """A literal in every lane."""
    return text if lanes == 1 else f"splat ({element} {text})"
