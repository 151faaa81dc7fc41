"""Times contestants fairly: their results agree first; then they take turns, and the best of many rounds counts.

Each row runs in a process of its own, confined to as many CPUs as there are threads, so that no contestant inherits
another row's threads or caches and one that crashes takes only its row with it.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.processes import ROOT
from benchmarks.workloads import Contestant, Workload, workloads

PEERS: Mapping[str, str] = {
    "tgc": "benchmarks.peers.tgc_jit",
    "torch": "benchmarks.peers.torch_eager",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TGC_NUM_THREADS")
BATCH_SECONDS = 0.01  # one timing spans at least this, so that the clock's own cost does not count
ROW_SECONDS = 6.0  # per row, shared by the contestants
MAXIMUM_ROUNDS = 50
MINIMUM_ROUNDS = 3


@dataclass(frozen=True)
class Measurement:
    """A contestant's best seconds per call, or why there are none."""

    seconds: float | None
    problem: str = ""


def disagreement(reference: list[np.ndarray], other: list[np.ndarray], tolerance: float) -> str:
    """Says how two contestants' outputs differ, or nothing."""
    if [a.shape for a in reference] != [a.shape for a in other]:
        return f"shapes {[a.shape for a in other]}, not {[a.shape for a in reference]}"
    for a, b in zip(reference, other, strict=True):
        difference = float(np.max(np.abs(a.astype(np.float64) - b))) if a.size else 0.0
        allowed = tolerance * float(np.max(np.abs(a), initial=0.0))
        if not difference <= allowed:
            return f"differs by {difference:.3g}, allowed {allowed:.3g}"
    return ""


def seconds_per_call(contestant: Contestant, calls: int) -> float:
    """One timing of so many calls."""
    if contestant.measures_itself:
        return float(contestant.run())
    run = contestant.run
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def build(workload: Workload, peers: list[str]) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The contestants whose first results agree with the last peer's, and what is wrong with the others.

    tgc comes first among the peers, so it is judged by one that is not tgc where there is any.
    """
    contestants: dict[str, Contestant] = {}
    problems: dict[str, str] = {}
    results = {}
    for peer in peers:
        try:
            builder = importlib.import_module(PEERS[peer]).BUILDERS.get(workload.name)
            if builder is None:
                continue
            contestants[peer] = builder(workload)
            if not contestants[peer].measures_itself:
                results[peer] = contestants[peer].outputs(contestants[peer].run())
        except Exception as error:  # noqa: BLE001 (a row that fails says so)
            contestants.pop(peer, None)
            problems[peer] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    reference = next(reversed(results.values()), [])
    for peer, result in results.items():
        if problem := disagreement(reference, result, workload.tolerance):
            del contestants[peer]
            problems[peer] = problem
    return contestants, problems


def measure_row(name: str, peers: list[str]) -> dict[str, Measurement]:
    """A row's measurements by peer, in this process."""
    workload = workloads()[name]
    contestants, problems = build(workload, peers)
    calls = {}
    for peer, contestant in contestants.items():
        once = min(seconds_per_call(contestant, 1) for _ in range(1 if contestant.measures_itself else 3))
        calls[peer] = max(1, round(BATCH_SECONDS / once))
    best = dict.fromkeys(contestants, float("inf"))
    begin = time.perf_counter()
    for index in range(MAXIMUM_ROUNDS):
        if index >= MINIMUM_ROUNDS and time.perf_counter() - begin > ROW_SECONDS:
            break
        for peer, contestant in contestants.items():
            best[peer] = min(best[peer], seconds_per_call(contestant, calls[peer]))
    measured = {peer: Measurement(seconds) for peer, seconds in best.items()}
    return measured | {peer: Measurement(None, problem) for peer, problem in problems.items()}


def measure_apart(name: str, peers: list[str], *, threads: int) -> dict[str, Measurement]:
    """A row's measurements by peer, taken in a process that may use so many CPUs."""
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.harness", name, *peers, "--cpus", ",".join(map(str, cpus))],
        cwd=ROOT,
        env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [""]
        return {peer: Measurement(None, f"process ended with {result.returncode}: {lines[-1]}") for peer in peers}
    return {peer: Measurement(**fields) for peer, fields in json.loads(result.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Measures one row and prints JSON: what `measure_apart` starts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("row")
    parser.add_argument("peers", nargs="+")
    parser.add_argument("--cpus", required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    measured = measure_row(arguments.row, arguments.peers)
    print(json.dumps({peer: {"seconds": m.seconds, "problem": m.problem} for peer, m in measured.items()}))


if __name__ == "__main__":
    main()
