"""Descriptions of machines other than this one: what LLVM's code for a CPU shows of it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

from tgc.backend.capabilities import capabilities
from tgc.backend.codegen import assembly
from tgc.backend.host import host_target
from tgc.target import Target, baseline

# widths as LLVM uses them when it is free to: bytes need AVX-512BW, products of 64-bit integers AVX-512DQ
_PROBE: Final = """
define <64 x i8> @bytes(<64 x i8> %x) #0 {
  %y = add <64 x i8> %x, %x
  ret <64 x i8> %y
}
define <8 x i64> @products(<8 x i64> %x) #0 {
  %y = mul <8 x i64> %x, %x
  ret <8 x i64> %y
}
attributes #0 = { "prefer-vector-width"="512" "min-legal-vector-width"="512" }
"""


@functools.lru_cache(maxsize=32)
def describe_target(triple: str | None = None, cpu: str | None = None, features: str = "") -> Target:
    """The description of a machine by the names that LLVM gives it. ``cpu``: ``"native"`` is this machine's.

    Without a triple it is this machine's architecture; without a CPU the least that the architecture has. Raises
    :class:`~tgc.errors.TargetError` for what LLVM or tgc does not know.

    >>> describe_target("x86_64-linux-gnu", "haswell").vector_bits
    256
    >>> describe_target("aarch64-linux-gnu", "cortex-a72").vector_registers
    32
    """
    host = host_target()
    if cpu == "native" or (triple is None and cpu is None):
        own = ",".join(filter(None, (host.features, features)))
        found = replace(host, features=own)
    else:
        least = baseline(triple or host.triple, cpu)
        found = replace(least, features=",".join(filter(None, (least.features, features))))
    if not found.triple.startswith(("x86_64", "amd64")):
        return found
    code = assembly(_PROBE, found)
    wide, avx2 = "zmm" in code and "vpmullq" in code, "vpaddb\t%ymm" in code
    bits, registers = (512, 32) if wide else (256, 16) if avx2 else (128, 16)
    return replace(
        found,
        vector_bits=bits,
        vector_registers=registers,
        masked=bits >= 256,
        fma=capabilities(found).fma,
    )
