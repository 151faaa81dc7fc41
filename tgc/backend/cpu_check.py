"""A function that asks the CPU whether it has what code was compiled for, as text of LLVM IR.

Only x86-64 code asks: its ``cpuid`` instruction is free to use. On other architectures the question needs the system,
and the answer is always yes. The two instructions that LLVM IR has no word for stand as machine code in front of
functions that are otherwise empty (LLVM's prologue data), so that no assembler is needed, whatever the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tgc.backend.abi import Status
from tgc.target import Target

# Where CPUID tells of a feature: leaf, subleaf, register (0 eax, 1 ebx, 2 ecx, 3 edx), bit (Intel SDM 2A, CPUID)
_FEATURES: Final[Mapping[str, tuple[int, int, int, int]]] = MappingProxyType(
    {
        **{n: (1, 0, 2, b) for n, b in (("sse3", 0), ("pclmul", 1), ("ssse3", 9), ("fma", 12), ("cx16", 13))},
        **{n: (1, 0, 2, b) for n, b in (("sse4.1", 19), ("sse4.2", 20), ("movbe", 22), ("popcnt", 23), ("aes", 25))},
        **{n: (1, 0, 2, b) for n, b in (("avx", 28), ("f16c", 29))},
        **{n: (7, 0, 1, b) for n, b in (("bmi", 3), ("avx2", 5), ("bmi2", 8), ("avx512f", 16), ("avx512dq", 17))},
        **{n: (7, 0, 1, b) for n, b in (("adx", 19), ("avx512ifma", 21), ("avx512cd", 28), ("avx512bw", 30))},
        **{n: (7, 0, 1, b) for n, b in (("avx512vl", 31), ("sha", 29))},
        **{n: (7, 0, 2, b) for n, b in (("avx512vbmi", 1), ("avx512vbmi2", 6), ("gfni", 8), ("vaes", 9))},
        **{n: (7, 0, 2, b) for n, b in (("vpclmulqdq", 10), ("avx512vnni", 11), ("avx512bitalg", 12))},
        **{n: (7, 0, 2, b) for n, b in (("avx512vpopcntdq", 14),)},
        **{n: (7, 0, 3, b) for n, b in (("avx512vp2intersect", 8), ("avx512fp16", 23), ("amx-tile", 24))},
        **{n: (7, 1, 0, b) for n, b in (("avxvnni", 4), ("avx512bf16", 5), ("avxifma", 23))},
        **{n: (0x80000001, 0, 2, b) for n, b in (("lzcnt", 5), ("sse4a", 6))},
    }
)
_V2: Final = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16")
_V3: Final = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4: Final = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_LEVELS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"x86-64": (), "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
)

_CPUID: Final = bytes.fromhex(
    "53"  # push rbx
    "4989d0"  # mov r8, rdx
    "89f8 89f1"  # mov eax, edi; mov ecx, esi
    "0fa2"  # cpuid
    "418900 41895804 41894808 4189500c"  # mov [r8], eax; mov [r8 + 4], ebx; mov [r8 + 8], ecx; mov [r8 + 12], edx
    "5b c3"  # pop rbx; ret
)
_XGETBV: Final = bytes.fromhex("31c9 0f01d0 c3")  # xor ecx, ecx; xgetbv; ret

# The system saves the upper halves of the vector registers, the mask registers and the upper 16 vector registers.
_AVX_STATE, _AVX512_STATE = 0x6, 0xE6
_OSXSAVE: Final = (1, 0, 2, 27)


def required_features(target: Target) -> tuple[str, ...]:
    """The features that code for an x86-64 target may use, as far as CPUID is asked for them; none for others.

    >>> from tgc.target import AVX2, NEON
    >>> required_features(AVX2)[:3], required_features(NEON)
    (('avx', 'avx2', 'bmi'), ())
    """
    if not target.triple.startswith(("x86_64", "amd64")):
        return ()
    level = _LEVELS.get(target.cpu)
    if level is None:
        level = {512: _V4, 256: _V3}.get(target.vector_bits, _V2)
    named = [word[1:] for word in target.features.replace(" ", "").split(",") if word.startswith("+")]
    without = {word[1:] for word in target.features.replace(" ", "").split(",") if word.startswith("-")}
    return tuple(sorted({name for name in (*level, *named) if name in _FEATURES} - without))


def baseline_attributes(target: Target) -> str:
    """The attributes of a function that must run before the CPU is known to be the right one."""
    return '"target-cpu"="x86-64" "target-features"="" ' if required_features(target) else ""


def _bytes(code: bytes) -> str:
    escaped = "".join(f"\\{byte:02x}" for byte in code)
    return f'[{len(code)} x i8] c"{escaped}"'


def cpu_check_text(target: Target) -> str:
    """LLVM IR of ``i32 tgc_check_cpu()``: 0, or :data:`~tgc.backend.abi.Status.CPU` if the CPU lacks a feature.

    The function itself uses the baseline of its architecture only.
    """
    features = required_features(target)
    if not features:
        return "define internal i32 @tgc_check_cpu() {\n  ret i32 0\n}\n"
    wanted: dict[tuple[int, int], list[int]] = {}
    places = [_FEATURES[name] for name in features]
    extended = any(name.startswith("avx") for name in features)
    for leaf, subleaf, register, bit in (*places, *([_OSXSAVE] if extended else [])):
        wanted.setdefault((leaf, subleaf), [0, 0, 0, 0])[register] |= 1 << bit
    lines = []
    for name, code, signature in (
        ("cpuid", _CPUID, "void @tgc_cpuid(i32, i32, ptr)"),
        ("xgetbv", _XGETBV, "i32 @tgc_xgetbv()"),
    ):
        result = "ret void" if name == "cpuid" else "ret i32 0"
        lines.append(
            f"define internal x86_64_sysvcc {signature} noinline optnone prologue {_bytes(code)} {{\n  {result}\n}}"
        )
    attributes = baseline_attributes(target)
    lines.append(f"define internal i32 @tgc_check_cpu() noinline optnone {attributes}{{")
    lines += ["  %words = alloca [4 x i32]", "  br label %leaf.0", "leaf.0:"]
    # Beyond the highest leaf, CPUID answers with something else.
    highest = max((leaf for leaf, _ in wanted if leaf < 0x80000000), default=0)
    lines += _ask(0, 0)
    lines += ["  %highest = load i32, ptr %words", f"  %enough = icmp uge i32 %highest, {highest}"]
    lines += ["  br i1 %enough, label %leaf.1, label %lacking"]
    number = 1
    for (leaf, subleaf), masks in wanted.items():
        lines += [f"leaf.{number}:", *_ask(leaf, subleaf)]
        for register, mask in enumerate(masks):
            stem = f"%has.{number}.{register}"
            lines.append(f"  {stem}.at = getelementptr i32, ptr %words, i64 {register}")
            lines.append(f"  {stem} = load i32, ptr {stem}.at")
            lines.append(f"  {stem}.lacks = xor i32 {stem}, -1")
            lines.append(f"  {stem}.lacking = and i32 {stem}.lacks, {mask}")
        lines.append(f"  %some.{number} = or i32 %has.{number}.0.lacking, %has.{number}.1.lacking")
        lines.append(f"  %more.{number} = or i32 %has.{number}.2.lacking, %has.{number}.3.lacking")
        lines.append(f"  %all.{number} = or i32 %some.{number}, %more.{number}")
        lines.append(f"  %fine.{number} = icmp eq i32 %all.{number}, 0")
        number += 1
        lines.append(f"  br i1 %fine.{number - 1}, label %leaf.{number}, label %lacking")
    lines.append(f"leaf.{number}:")
    if extended:
        state = _AVX512_STATE if any(name.startswith("avx512") for name in features) else _AVX_STATE
        lines.append("  %enabled = call x86_64_sysvcc i32 @tgc_xgetbv()")
        lines.append(f"  %saved = and i32 %enabled, {state}")
        lines.append(f"  %kept = icmp eq i32 %saved, {state}")
        lines.append("  br i1 %kept, label %fine, label %lacking")
    else:
        lines.append("  br label %fine")
    lines += ["fine:", "  ret i32 0", "lacking:", f"  ret i32 {int(Status.CPU)}", "}", ""]
    return "\n".join(lines)


def _ask(leaf: int, subleaf: int) -> list[str]:
    return [f"  call x86_64_sysvcc void @tgc_cpuid(i32 {leaf}, i32 {subleaf}, ptr %words)"]
