"""What a CPU can do without calling a library, asked of LLVM itself rather than of a table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from tgc.backend.codegen import unchecked_object
from tgc.backend.objects import undefined_symbols
from tgc.target import Target


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``fma``, ``half`` (conversion of f16) and ``rounding`` (floor and the like) are instructions."""

    fma: bool
    half: bool
    rounding: bool


_PROBE: Final = """
define float @fused(float %x) {
  %y = call float @llvm.fma.f32(float %x, float %x, float %x)
  ret float %y
}
define float @rounded(float %x) {
  %y = call float @llvm.floor.f32(float %x)
  ret float %y
}
define void @halved(ptr %p, ptr %q) {
  %h = load half, ptr %p
  %w = fpext half %h to float
  %x = load float, ptr %q
  %y = fptrunc float %x to half
  store float %w, ptr %q
  store half %y, ptr %p
  ret void
}
"""


@functools.lru_cache(maxsize=32)
def capabilities(target: Target) -> Capabilities:
    """What ``target`` has: where it lacks an instruction, LLVM calls a function of that name in C's library.

    >>> from tgc.target import AVX512, WASM
    >>> capabilities(AVX512)
    Capabilities(fma=True, half=True, rounding=True)
    >>> capabilities(WASM)
    Capabilities(fma=False, half=False, rounding=True)
    """
    called = undefined_symbols(unchecked_object(_PROBE, target))
    others = called - {"fmaf", "floorf", "_GLOBAL_OFFSET_TABLE_"}
    return Capabilities(fma="fmaf" not in called, half=not others, rounding="floorf" not in called)
