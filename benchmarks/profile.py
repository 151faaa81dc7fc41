"""`python -m benchmarks.profile ROW`: where a row's time goes, kernel by kernel, on one thread.

Each launch of the row's program is called on its own, in order, some times over, and the best time counts. So a kernel
that reads what it writes computes nonsense here; its time is right.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness import CLOCKS, inputs_of
from benchmarks.peers.tgc_jit import function
from benchmarks.report import duration
from benchmarks.workload import Array, Workload
from benchmarks.workloads import WORKLOADS
from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import Library
from tgc.compiler import Compiled, lower_module
from tgc.executable import kept_arrays
from tgc.frontend.jit import as_module, record
from tgc.frontend.signature import parse_spec
from tgc.frontend.trace import type_of
from tgc.frontend.tree import flatten
from tgc.ir.dims import evaluate
from tgc.kernels.program import Address, Copy, Launch, Program, Repeat, Step

ALIGNMENT = 64
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass(frozen=True)
class Timed:
    """A launch's best seconds, how often it runs, and its iterations."""

    launch: Launch
    seconds: float
    count: int


def aligned(size: int) -> tuple[Array, int]:
    """That many zeroed bytes, and the address in them that a kernel may be given."""
    block = np.zeros(size + ALIGNMENT, np.uint8)
    return block, -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT


def lowered(workload: Workload) -> tuple[Compiled, Mapping[str, Sequence[Array]]]:
    """The row's kernels and program, and its arrays by space."""
    inputs = inputs_of(workload)
    jitted: Any = function(workload, inputs, types=workload.symbolic)
    arrays = list(inputs.arrays.values())
    types = [parse_spec(s) for s in workload.symbolic] or [type_of(array) for array in arrays]
    _, structure = flatten((tuple(types), {}))
    recorded = record(jitted.function, types, structure, "profiled")
    module = as_module(recorded)
    compiled = lower_module(module)
    program = compiled.programs["profiled"]
    states = {f"s{i}": tensor.array for i, tensor in enumerate(recorded.state)}
    constants = {name: constant.data for name, constant in compiled.module.constants.items()}
    if program.setup is not None:
        constants |= kept_arrays(program.setup.state)
    return compiled, {
        "input": arrays,
        "state": [states[value.name].copy() for value in program.state],
        "constant": [data for value in program.constants if (data := constants[value.name]) is not None],
    }


def sizes_of(program: Program, arrays: Sequence[Array]) -> dict[str, int]:
    """The sizes of the program's symbols, from the arguments."""
    found: dict[str, int] = {}
    for value, array in zip(program.inputs, arrays, strict=True):
        found |= {str(d): n for d, n in zip(value.shape, array.shape, strict=True) if not isinstance(d, int)}
    return found


def launches(steps: Sequence[Step], sizes: Mapping[str, int]) -> Iterator[tuple[Launch, Mapping[str, int], int]]:
    """Every launch with the sizes that hold there, a loop's first iteration for all, and how often it runs."""
    for step in steps:
        if isinstance(step, Launch):
            yield step, sizes, 1
        elif isinstance(step, Repeat):
            count = evaluate(step.count, sizes)
            for launch, inner, times in launches(step.body, {**sizes, step.iteration: 0}):
                yield launch, inner, times * count
        elif not isinstance(step, Copy):
            raise NotImplementedError(f"{type(step).__name__} has no fixed number of runs")


def timed(workload: Workload, *, rounds: int) -> list[Timed]:
    """Every launch of the row with its time, in order."""
    compiled, spaces = lowered(workload)
    program, target = compiled.programs["profiled"], host_target()
    names = [kernel.name for kernel in compiled.kernels]
    library = Library(compile_module(emit_module(compiled.kernels, target), target), names)
    sizes = sizes_of(program, spaces["input"])
    outputs = [aligned(evaluate(value.bytes, sizes)) for value in program.outputs]
    workspace = aligned(evaluate(program.workspace, sizes))
    places = {space: [array.ctypes.data for array in arrays] for space, arrays in spaces.items()}
    places |= {"output": [address for _, address in outputs], "workspace": [workspace[1]]}

    def run(launch: Launch, here: Mapping[str, int]) -> float:
        def pointer(address: Address) -> int:
            return places[address.space][address.index] + evaluate(address.offset, here)

        pointers = (ctypes.c_void_p * max(1, len(launch.buffers)))(*map(pointer, launch.buffers))
        dims = (ctypes.c_int64 * max(1, len(launch.dims)))(*(evaluate(d, here) for d in launch.dims))
        scratch = aligned(evaluate(launch.scratch, here))
        kernel, count = KERNEL(library.address(launch.kernel)), evaluate(launch.count, here)
        clock, best = CLOCKS["cpu"], float("inf")
        begin = time.perf_counter()
        for index in range(rounds):
            start = clock()
            kernel(pointers, dims, 0, count, scratch[1])
            best = min(best, clock() - start)
            if index > 1 and time.perf_counter() - begin > 1:
                break
        return best

    found = launches(program.steps, sizes)
    return [Timed(launch, run(launch, here), times) for launch, here, times in found]


@click.command()
@click.argument("name", type=click.Choice(list(WORKLOADS)))
@click.option("--rounds", default=30, show_default=True)
@click.option("--top", default=12, show_default=True, help="How many launches are shown.")
def main(name: str, rounds: int, top: int) -> None:
    """Prints the launches that take longest."""
    found = sorted(timed(WORKLOADS[name], rounds=rounds), key=lambda t: -t.seconds * t.count)
    total = sum(t.seconds * t.count for t in found)
    table = Table(title=f"{name}: {duration(total)} in {len(found)} launches")
    for heading in ("kernel", "iterations", "runs", "time each", "share"):
        table.add_column(heading, justify="left" if heading == "kernel" else "right", overflow="fold")
    for t in found[:top]:
        share = f"{t.seconds * t.count / total:.1%}"
        table.add_row(t.launch.kernel, str(t.launch.count), str(t.count), duration(t.seconds), share)
    Console().print(table)


if __name__ == "__main__":
    main()
