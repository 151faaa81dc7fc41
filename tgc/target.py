"""What a schedule must know of a machine, as pure data: registers, vector widths, caches.

Detecting the host's CPU is :mod:`tgc.backend.host`'s work; here are the descriptions themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tgc.dtypes import DType
from tgc.errors import TargetError


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to compile for.

    ``vector_bits``: width of one vector register; ``vector_registers``: how many there are; ``masked``: whether loads
    and stores under a run-time mask are cheap; caches and their lines in bytes, ``l1_ways``: lines of a set of the
    first level. ``features`` is LLVM's feature string.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int
    masked: bool
    fma: bool
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    l3_bytes: int = 16 * 1024 * 1024
    pointer_bits: int = 64
    l1_ways: int = 8
    line_bytes: int = 64

    def lanes(self, dtype: DType) -> int:
        """Elements of ``dtype`` in one vector register, computing type included: bf16 counts as f32.

        >>> from tgc import dtypes
        >>> AVX512.lanes(dtypes.f32), AVX512.lanes(dtypes.bf16), AVX2.lanes(dtypes.f64)
        (16, 16, 4)
        """
        return max(1, self.vector_bits // dtype.compute.bits)

    def with_cpu(self, cpu: str, features: str) -> Target:
        return replace(self, cpu=cpu, features=features)


AVX512 = Target("x86_64-unknown-linux-gnu", "x86-64-v4", "", 512, 32, masked=True, fma=True)
AVX2 = Target("x86_64-unknown-linux-gnu", "x86-64-v3", "", 256, 16, masked=True, fma=True)
SSE2 = Target("x86_64-unknown-linux-gnu", "x86-64", "", 128, 16, masked=False, fma=False)
NEON = Target("aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32, masked=False, fma=True, l1_bytes=64 * 1024)
RISCV = Target(
    "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c,+v,+zvl256b", 256, 32, masked=True, fma=True
)
WASM = Target("wasm32-unknown-unknown", "generic", "+simd128", 128, 16, masked=False, fma=False, pointer_bits=32)

BASELINES: Mapping[str, Mapping[str, Target]] = {
    "x86_64": {"x86-64": SSE2, "x86-64-v2": SSE2.with_cpu("x86-64-v2", ""), "x86-64-v3": AVX2, "x86-64-v4": AVX512},
    "aarch64": {"generic": NEON},
    "riscv64": {"generic-rv64": RISCV},
    "wasm32": {"generic": WASM},
}


def baseline(triple: str, cpu: str | None = None) -> Target:
    """The description of a triple such as ``aarch64-linux-gnu`` with one of its baseline CPUs.

    Raises :class:`TargetError` for an architecture that has no description.
    """
    architecture = triple.split("-", 1)[0]
    table = BASELINES.get({"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture))
    if table is None:
        raise TargetError(
            f"no target is described for {triple!r}", hint="architectures: " + ", ".join(sorted(BASELINES))
        )
    chosen = next(iter(table.values())) if cpu is None or cpu not in table else table[cpu]
    return replace(chosen, triple=triple, cpu=cpu or chosen.cpu)
