"""What a CPU can do without calling a library, asked of LLVM itself rather than of a table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tgc.backend.codegen import compile_module
from tgc.errors import CompilerBug
from tgc.target import Target


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``fma``, ``half`` (conversion of f16) and ``rounding`` (floor and the like) are instructions."""

    fma: bool
    half: bool
    rounding: bool


_PROBES: Final = MappingProxyType(
    {
        "fma": "declare float @llvm.fma.f32(float, float, float)\n"
        "define float @f(float %x) {\n %y = call float @llvm.fma.f32(float %x, float %x, float %x)\n ret float %y\n}\n",
        "half": "define half @f(float %x, ptr %p) {\n %h = load half, ptr %p\n %w = fpext half %h to float\n"
        " store float %w, ptr %p\n %y = fptrunc float %x to half\n ret half %y\n}\n",
        "rounding": "declare float @llvm.floor.f32(float)\ndeclare float @llvm.roundeven.f32(float)\n"
        "define float @f(float %x) {\n %y = call float @llvm.floor.f32(float %x)\n"
        " %z = call float @llvm.roundeven.f32(float %y)\n ret float %z\n}\n",
    }
)


@functools.lru_cache(maxsize=32)
def capabilities(target: Target) -> Capabilities:
    """What ``target`` has; costs a few milliseconds once."""
    return Capabilities(**{name: _native(text, target) for name, text in _PROBES.items()})


def _native(text: str, target: Target) -> bool:
    try:
        compile_module(text, target)
    except CompilerBug:
        return False
    return True
