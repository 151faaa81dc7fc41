"""tgc with every dimension fixed: what rows with symbolic dimensions are compared with."""

from benchmarks.peers import tgc_jit
from benchmarks.workload import Contestant, Inputs, Workload


def build(workload: Workload, inputs: Inputs) -> Contestant:
    """The row's contestant."""
    return tgc_jit.contestant(workload, inputs, types=())
