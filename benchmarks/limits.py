"""What this machine can do at most: fused multiply-adds per second in f32, and bytes per second from each cache.

Both are measured by kernels written here in LLVM IR, so that nothing of tgc is the measure of tgc.
"""

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import llvmlite.binding as llvm
import numpy as np

FOOTPRINTS = (1 << 19, 1 << 22, 3 << 23, 3 << 27)  # bytes of a thread's three arrays: in L2, in L3, beyond any cache
ACCUMULATORS = 12  # more chains than latency x ports of any core, and they fit into 16 registers


@dataclass(frozen=True)
class Limits:
    """A machine's peak arithmetic rate (FLOP/s, f32) and bandwidths (bytes/s), with so many threads.

    ``bandwidths`` holds (footprint in bytes, bytes/s), from the smallest footprint to main memory.
    """

    threads: int
    flops: float
    bandwidths: tuple[tuple[int, float], ...]

    def bandwidth(self, footprint: float) -> float:
        """The rate at which that many bytes can be gone through again and again."""
        return next(
            (rate for size, rate in self.bandwidths if footprint <= size * self.threads), self.bandwidths[-1][1]
        )

    def seconds(self, flops: float | None, moved: float | None, *, peak_share: float = 1.0) -> float | None:
        """The least time for so many operations and so many bytes; None if neither is known."""
        bounds = [flops / (self.flops * peak_share)] if flops else []
        bounds += [moved / self.bandwidth(moved)] if moved else []
        return max(bounds, default=None)


def vector_lanes() -> int:
    """How many f32 the widest vector register of this CPU holds."""
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx") else 4


def fma_kernel(lanes: int) -> str:
    """A loop of independent chains of fused multiply-adds: 2 * lanes * ACCUMULATORS FLOP per iteration."""
    vector = f"<{lanes} x float>"
    chains = range(ACCUMULATORS)
    phis = "\n".join(f"  %a{i} = phi {vector} [ %start{i}, %entry ], [ %b{i}, %loop ]" for i in chains)
    starts = "\n".join(f"  %start{i} = fadd {vector} %x, splat (float {float(i)!r})" for i in chains)
    steps = "\n".join(
        f"  %b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {vector} %x, {vector} %y)" for i in chains
    )
    sums = "\n".join(f"  %s{i + 1} = fadd {vector} %{f's{i}' if i else 'b0'}, %b{i}" for i in chains)
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define void @fma(ptr %data, i64 %count) {{
entry:
  %x = load {vector}, ptr %data, align 4
  %next = getelementptr {vector}, ptr %data, i64 1
  %y = load {vector}, ptr %next, align 4
{starts}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
{phis}
{steps}
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %count
  br i1 %more, label %loop, label %done
done:
{sums}
  store {vector} %s{ACCUMULATORS}, ptr %data, align 4
  ret void
}}
"""


def triad_kernel(lanes: int) -> str:
    """STREAM's triad (McCalpin), a[i] = b[i] + 3 c[i], over `count` vectors, so many times."""
    vector = f"<{lanes} x float>"
    return f"""
define void @triad(ptr noalias %a, ptr noalias %b, ptr noalias %c, i64 %count, i64 %passes) {{
entry:
  br label %pass
pass:
  %p = phi i64 [ 0, %entry ], [ %q, %end ]
  br label %loop
loop:
  %i = phi i64 [ 0, %pass ], [ %j, %loop ]
  %pa = getelementptr {vector}, ptr %a, i64 %i
  %pb = getelementptr {vector}, ptr %b, i64 %i
  %pc = getelementptr {vector}, ptr %c, i64 %i
  %vb = load {vector}, ptr %pb, align 4
  %vc = load {vector}, ptr %pc, align 4
  %scaled = fmul {vector} %vc, splat (float 3.0)
  %sum = fadd {vector} %vb, %scaled
  store {vector} %sum, ptr %pa, align 4
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %count
  br i1 %more, label %loop, label %end
end:
  %q = add i64 %p, 1
  %again = icmp ult i64 %q, %passes
  br i1 %again, label %pass, label %done
done:
  ret void
}}
"""


def compile_kernels(text: str) -> tuple[llvm.ResourceTracker, llvm.TargetMachine]:
    """The loaded library of a module's functions, for this very CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, reloc="pic"
    )
    engine = llvm.create_lljit_compiler(machine)
    builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module))
    for function in module.functions:
        if not function.is_declaration:
            builder.export_symbol(function.name)
    return builder.link(engine, "limits"), machine


def best_time(tasks: Sequence[Callable[[], object]], *, rounds: int, clock: Callable[[], float]) -> float:
    """The shortest time, of some rounds, in which all tasks, started together on a thread each, are done."""
    best = float("inf")
    with ThreadPoolExecutor(len(tasks)) as pool:
        for _ in range(rounds):
            start = clock()
            for future in [pool.submit(task) for task in tasks]:
                future.result()
            best = min(best, clock() - start)
    return best


def measure(*, threads: int = 1, rounds: int = 20, clock: Callable[[], float] = time.perf_counter) -> Limits:
    """The limits of this machine with so many threads, by the clock that times the contestants."""
    lanes = vector_lanes()
    library, _machine = compile_kernels(fma_kernel(lanes) + triad_kernel(lanes))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    fma = ctypes.CFUNCTYPE(None, pointer, integer)(library["fma"])
    triad = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, integer, integer)(library["triad"])

    count = 1_000_000
    factors = [np.concatenate([np.full(lanes, 0.5, np.float32), np.ones(lanes, np.float32)]) for _ in range(threads)]
    seconds = best_time([partial(fma, data.ctypes.data, count) for data in factors], rounds=rounds, clock=clock)
    flops = threads * count * 2 * lanes * ACCUMULATORS / seconds

    bandwidths = []
    for footprint in FOOTPRINTS:
        vectors = footprint // (3 * 4 * lanes)
        passes = max(1, (FOOTPRINTS[-1] // 8) // footprint)
        arrays = [[np.ones(vectors * lanes, np.float32) for _ in range(3)] for _ in range(threads)]

        tasks = [partial(triad, *(array.ctypes.data for array in part), vectors, passes) for part in arrays]
        seconds = best_time(tasks, rounds=max(3, rounds // 2), clock=clock)
        bandwidths.append((footprint, 3 * 4 * lanes * vectors * passes * threads / seconds))
    return Limits(threads, flops, tuple(bandwidths))


def main() -> None:
    """Prints the limits for one thread and for all."""
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        limits = measure(threads=threads)
        rates = ", ".join(f"{rate / 1e9:.1f} GB/s in {size >> 10} KiB" for size, rate in limits.bandwidths)
        print(f"{threads} thread(s): {limits.flops / 1e9:.0f} GFLOP/s f32; {rates}")


if __name__ == "__main__":
    main()
