"""The machine that tgc runs on, and the names of CPUs that LLVM knows."""

from __future__ import annotations

import functools
import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tgc.backend.uninterrupted import uninterrupted
from tgc.errors import TargetError
from tgc.lazy import LazyModule
from tgc.storage import COMPILER, SEPARATOR, Storage
from tgc.target import BASELINES, Target, baseline

if TYPE_CHECKING:
    import llvmlite.binding as llvm
else:
    llvm = LazyModule("llvmlite.binding")

_subprocess = LazyModule("subprocess")

_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_LIST_CPUS: Final = """
import llvmlite.binding as llvm, sys
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.Target.from_triple(sys.argv[1]).create_target_machine(cpu="help")
"""


@functools.lru_cache(maxsize=1)
def initialize() -> None:
    """Make LLVM's targets known to it, and forks safe; to be called before anything else of LLVM."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    # a child forked while another thread holds llvmlite's lock would wait for it forever
    lock = getattr(getattr(llvm.ffi.lib, "_lock", None), "_lock", None)
    if lock is not None and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@functools.lru_cache(maxsize=1)
def host_target() -> Target:
    """The description of this machine: CPU, features, vector width and caches.

    Raises :class:`TargetError` on an architecture that tgc does not describe.
    """
    triple, cpu, flat = _processor()
    features = frozenset(flat.split(","))
    described = baseline(triple)
    bits, registers, masked, fma = (
        described.vector_bits,
        described.vector_registers,
        described.masked,
        described.fma,
    )
    if triple.startswith(("x86_64", "amd64")):
        wide = features >= {"+avx512f", "+avx512vl", "+avx512bw", "+avx512dq"}
        avx2 = "+avx2" in features
        bits, registers = (512, 32) if wide else (256, 16) if avx2 else (128, 16)
        masked, fma = wide or avx2, "+fma" in features
    return Target(
        triple=triple,
        cpu=cpu,
        features=flat,
        vector_bits=bits,
        vector_registers=registers,
        masked=masked,
        fma=fma,
        l1_bytes=cache_bytes(1, described.l1_bytes),
        l2_bytes=cache_bytes(2, described.l2_bytes),
        l3_bytes=cache_bytes(3, described.l3_bytes),
        pointer_bits=described.pointer_bits,
    )


def _processor() -> tuple[str, str, str]:
    """What LLVM says of the processor: triple, name, features. Kept, as loading LLVM takes longer than most calls."""
    storage, said = Storage.default(), _system_says()
    key = sha256(SEPARATOR.join(("processor", COMPILER, said)).encode()).hexdigest()
    known = storage.read(key) if storage is not None and said else None
    match known.decode(errors="replace").split(SEPARATOR) if known is not None else []:
        case [triple, cpu, features]:
            return triple, cpu, features
    found = uninterrupted(_detected)
    if storage is not None and said:
        storage.write(key, SEPARATOR.join(found).encode())
    return found


def _detected() -> tuple[str, str, str]:
    initialize()
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _system_says(cpus: Path = Path("/proc/cpuinfo")) -> str:
    """What the system tells of its first processor, its present speed apart; empty if it tells nothing."""
    try:
        first = cpus.read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if not line.startswith(("cpu MHz", "bogomips")))


def cache_bytes(level: int, default: int, caches: Path = _CACHES) -> int:
    """The size of the data cache of a level, ``default`` where the system does not tell."""
    for index in sorted(caches.glob("index*")):
        try:
            found = (index / "level").read_text().strip(), (index / "type").read_text().strip()
            size = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
        except OSError:
            continue
        if found[0] == str(level) and found[1] != "Instruction" and size is not None and int(size[1]):
            return int(size[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[size[2]]
    return default


@functools.lru_cache(maxsize=64)
def check_cpu(triple: str, cpu: str, features: str) -> None:
    """Raise :class:`TargetError` unless LLVM knows CPU and features: it would end the process, or ignore them."""
    initialize()
    try:
        llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise TargetError(f"LLVM has no target for {triple!r}: {error}") from None
    names = [name.strip() for name in features.split(",") if name.strip()]
    if not all(re.fullmatch(r"[+-][A-Za-z0-9._-]+", name) for name in names):
        raise TargetError(f"malformed CPU features {features!r}", hint="write them like +avx2,-fma")
    architecture = triple.split("-", 1)[0]
    is_host = triple == llvm.get_process_triple() and cpu == llvm.get_host_cpu_name()
    described = BASELINES.get(architecture, {}).get(cpu)
    if is_host and (not features or features == llvm.get_host_cpu_features().flatten()):
        return
    if described is not None and features in ("", described.features):
        return
    cpus, known = known_cpus(triple)
    if cpu not in cpus:
        raise TargetError(f"there is no CPU {cpu!r} for {triple}", hint="CPUs: " + ", ".join(sorted(cpus)))
    for name in names:
        if name[1:] not in known:
            raise TargetError(f"there is no CPU feature {name[1:]!r} for {triple}")


@functools.lru_cache(maxsize=8)
def known_cpus(triple: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the CPUs and of the features that LLVM knows for a triple.

    LLVM prints them to the standard error of a process, so this starts one.
    """
    listed = _subprocess.run(
        [sys.executable, "-c", _LIST_CPUS, triple], capture_output=True, text=True, check=False, timeout=60
    )
    cpus, _, features = listed.stderr.partition("Available features")
    names = re.compile(r"^  ([A-Za-z0-9._-]+) +- ", re.MULTILINE)
    return frozenset(names.findall(cpus)), frozenset(names.findall(features))
