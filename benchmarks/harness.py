"""Times contestants fairly: their results agree first; then they take turns, and the best of many rounds counts. With
several threads, each turn begins when all threads rest: those of the contestant before may spin for a while.

Each row runs in a process of its own, confined to as many CPUs as there are threads and with empty compilation caches,
so that no contestant inherits another row's threads, memory or code, and one that crashes takes only its row with it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.models import first_weights
from benchmarks.processes import ROOT
from benchmarks.workload import Array, Contestant, Inputs, Workload
from benchmarks.workloads import WORKLOADS

PEERS: Mapping[str, str] = {
    "tgc": "benchmarks.peers.tgc_jit",
    "torch": "benchmarks.peers.torch_eager",
    "torch.compile": "benchmarks.peers.torch_compiled",
    "jax": "benchmarks.peers.jax_jit",
    "onnxruntime": "benchmarks.peers.onnx_runtime",
    "tgc-static": "benchmarks.peers.tgc_static",
}
GENERAL = ("tgc", "torch", "torch.compile", "jax", "onnxruntime")  # asked for every row that names no peers
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TGC_NUM_THREADS")
CACHE_VARIABLES = ("TGC_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
# the processor's clock counts no time in which others have it: for one thread on a machine that is shared
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
BATCH_SECONDS = 0.003  # one timing spans at least this: the clock's own cost does not count, and some are undisturbed
MAXIMUM_ROUNDS = 1000
TURN_TIMINGS = 8  # timings of a turn where threads must come to rest before it
REST_SECONDS = 0.002
MAXIMUM_REST_SECONDS = 1.0
MINIMUM_ROUNDS = 2
MAXIMUM_SECONDS = 900.0  # after which a row's process is given up


@dataclass(frozen=True)
class Measurement:
    """A contestant's best seconds per call, or why there are none.

    ``cold`` and ``warm``: seconds from the model's text to the first result, with an empty and with a full cache.
    ``memory``: bytes by which a process grew from its loaded framework and inputs to its peak.
    """

    seconds: float | None = None
    cold: float | None = None
    warm: float | None = None
    memory: float | None = None
    problem: str = ""


def disagreement(reference: list[Array], other: list[Array], tolerance: float) -> str:
    """Says how two contestants' outputs differ, or nothing."""
    if [a.shape for a in reference] != [a.shape for a in other]:
        return f"shapes {[a.shape for a in other]}, not {[a.shape for a in reference]}"
    for a, b in zip(reference, other, strict=True):
        difference = float(np.max(np.abs(a.astype(np.float64) - b))) if a.size else 0.0
        allowed = tolerance * float(np.max(np.abs(a), initial=0.0))
        if not difference <= allowed:
            return f"differs by {difference:.3g}, allowed {allowed:.3g}"
    return ""


def seconds_per_call(contestant: Contestant, calls: int, clock: Callable[[], float]) -> float:
    """One timing of so many calls, after one that warms the caches and wakes the threads."""
    if contestant.measures_itself:
        return float(contestant.run())
    run = contestant.run
    run()
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def rest() -> None:
    """Waits until no thread of this process runs: threads of the contestant before may look for work for a while."""
    end = time.perf_counter() + MAXIMUM_REST_SECONDS
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - before < REST_SECONDS / 10:
            return


def inputs_of(workload: Workload) -> Inputs:
    """The row's arrays, and its model's first weights: those that tgc's own initialisation gives."""
    weights = {} if workload.model is None else first_weights(workload.model)
    return Inputs(workload.arrays(np.random.default_rng(0)), weights)


def in_short(error: BaseException) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def prepare(
    workload: Workload, inputs: Inputs, peers: Sequence[str], clock: Callable[[], float]
) -> tuple[dict[str, Contestant], dict[str, Measurement]]:
    """The contestants whose first results agree with the reference's, and what is known of each so far.

    The reference is the first peer that is not tgc itself, where there is any.
    """
    contestants: dict[str, Contestant] = {}
    measured: dict[str, Measurement] = {}
    results: dict[str, list[Array]] = {}
    for peer in peers:
        try:
            module = importlib.import_module(PEERS[peer])
            start = clock()
            contestant = module.build(workload, inputs)
            if contestant is None:
                continue
            if not contestant.measures_itself:
                results[peer] = contestant.outputs(contestant.run())
            cold = None if contestant.measures_itself else clock() - start
            contestants[peer], measured[peer] = contestant, Measurement(cold=cold)
        except Exception as error:  # noqa: BLE001 (a row that fails says so)
            measured[peer] = Measurement(problem=in_short(error))
    judge = next((peer for peer in results if not peer.startswith("tgc")), next(iter(results), ""))
    for peer, result in results.items():
        if problem := disagreement(results[judge], result, workload.tolerance):
            del contestants[peer]
            measured[peer] = replace(measured[peer], problem=f"{problem} (from {judge})")
    return contestants, measured


def time_row(
    workload: Workload, peers: Sequence[str], *, seconds: float, clock: Callable[[], float]
) -> dict[str, Measurement]:
    """A row's times by peer, in this process: each contestant has about so many seconds."""
    contestants, measured = prepare(workload, inputs_of(workload), peers, clock)
    calls = {}
    for peer, contestant in contestants.items():
        once = seconds_per_call(contestant, 1, clock)
        if once < BATCH_SECONDS:
            once = min(once, *(seconds_per_call(contestant, 1, clock) for _ in range(3)))
        calls[peer] = max(1, round(BATCH_SECONDS / once))
    best = dict.fromkeys(contestants, float("inf"))
    alone = len(os.sched_getaffinity(0)) == 1
    begin = time.perf_counter()
    for index in range(MAXIMUM_ROUNDS):
        if index >= MINIMUM_ROUNDS and time.perf_counter() - begin > seconds * len(contestants):
            break
        for peer, contestant in contestants.items():
            if not alone:
                rest()
            for _ in range(1 if alone or contestant.measures_itself else TURN_TIMINGS):
                best[peer] = min(best[peer], seconds_per_call(contestant, calls[peer], clock))
    return measured | {peer: replace(measured[peer], seconds=found) for peer, found in best.items()}


def first_row(workload: Workload, peers: Sequence[str], clock: Callable[[], float]) -> dict[str, Measurement]:
    """The time to the first result alone."""
    return prepare(workload, inputs_of(workload), peers, clock)[1]


def resident_bytes(what: str) -> float:
    """The memory of this process: present now (`VmRSS`) or at most so far (`VmHWM`).

    What getrusage says at most includes the process that started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def memory_row(workload: Workload, peers: Sequence[str]) -> dict[str, Measurement]:
    """How much this process grows while the first of the peers runs the row a few times."""
    inputs = inputs_of(workload)
    importlib.import_module(PEERS[peers[0]])
    before = resident_bytes("VmRSS")
    contestants, measured = prepare(workload, inputs, peers[:1], time.perf_counter)
    for peer, contestant in contestants.items():
        for _ in range(3):
            contestant.run()
        grown = resident_bytes("VmHWM") - before
        measured[peer] = replace(measured[peer], memory=grown)
    return measured


def in_process(
    name: str, peers: Sequence[str], *, threads: int, seconds: float, clock: str, mode: str, caches: str
) -> dict[str, Measurement]:
    """What one mode measures, in a process that may use so many CPUs."""
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    arguments = [name, *peers, "--cpus", cpus, "--seconds", str(seconds), "--mode", mode, "--clock", clock]
    settings = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict.fromkeys(CACHE_VARIABLES, caches)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.harness", *arguments],
            cwd=ROOT,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=MAXIMUM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {peer: Measurement(problem=f"not done after {MAXIMUM_SECONDS:.0f} s") for peer in peers}
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [""]
        problem = f"process ended with {result.returncode}: {lines[-1]}"
        return {peer: Measurement(problem=problem) for peer in peers}
    return {peer: Measurement(**fields) for peer, fields in json.loads(result.stdout.splitlines()[-1]).items()}


def measure_apart(
    name: str, peers: Sequence[str], *, threads: int, seconds: float, clock: str
) -> dict[str, Measurement]:
    """A row's measurements by peer: times, then tgc's warm start, then memory where the row wants it."""
    workload = WORKLOADS[name]
    asked = [peer for peer in peers if peer == "tgc" or not workload.peers or peer in workload.peers]
    asked += [peer for peer in workload.peers if peer not in GENERAL]
    with tempfile.TemporaryDirectory() as caches:

        def run(some: Sequence[str], mode: str) -> dict[str, Measurement]:
            return in_process(name, some, threads=threads, seconds=seconds, clock=clock, mode=mode, caches=caches)

        measured = run(asked, "time")
        if len(asked) > 1 and all(m.problem for m in measured.values()):
            # one that ended the process must not hide the others
            measured = {peer: m for some in asked for peer, m in run([some], "time").items()}
        if (ours := measured.get("tgc")) and ours.cold is not None:
            measured["tgc"] = replace(ours, warm=run(["tgc"], "first")["tgc"].cold)
        if workload.memory:
            for peer in [peer for peer, m in measured.items() if not m.problem]:
                measured[peer] = replace(measured[peer], memory=run([peer], "memory")[peer].memory)
    return measured


def main() -> None:
    """Measures one row and prints JSON: what `measure_apart` starts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("row")
    parser.add_argument("peers", nargs="+")
    parser.add_argument("--cpus", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--mode", choices=("time", "first", "memory"), required=True)
    parser.add_argument("--clock", choices=tuple(CLOCKS), required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    workload = WORKLOADS[arguments.row]
    clock, peers = CLOCKS[arguments.clock], arguments.peers
    if arguments.mode == "time":
        measured = time_row(workload, peers, seconds=arguments.seconds, clock=clock)
    elif arguments.mode == "first":
        measured = first_row(workload, peers, clock)
    else:
        measured = memory_row(workload, peers)
    print(json.dumps({peer: asdict(m) for peer, m in measured.items()}))


if __name__ == "__main__":
    main()
