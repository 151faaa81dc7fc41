"""How fast a function is, beside what this machine can do at most."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median

from tgc.compiler import Options, compile_function
from tgc.errors import UserError
from tgc.inspect.explain import explain
from tgc.inspect.limits import seconds_of
from tgc.inspect.native import inputs_for
from tgc.ir.graph import Module
from tgc.specialise import dimensions


@dataclass(frozen=True)
class BenchReport:
    """Seconds of a call, the shortest and the median of ``calls``, and the arithmetic and the bytes of one."""

    name: str
    calls: int
    best: float
    median: float
    flops: int
    bytes: int


def bench(module: Module, options: Options | None = None, *, seconds: float = 1.0) -> tuple[BenchReport, ...]:
    """Times each function of ``module`` on random inputs for so many ``seconds``; state goes on from call to call.

    Raises :class:`UserError` for a module with symbolic dimensions: see :func:`tgc.specialise.specialise`.
    """
    unknown = sorted(dimensions(module))
    if unknown:
        raise UserError(
            f"there is no size for {', '.join(unknown)}", hint=" ".join(f"--dim {name}=32" for name in unknown)
        )
    options = options or Options()
    found = []
    for report in explain(module, options=options).functions:
        function = module.function(report.name)
        compiled = compile_function(function, state=module.state, constants=module.constants, options=options)
        inputs, initial = inputs_for(module, function, {})
        state_arrays = [initial[value.name] for value in compiled.program.state]
        times = seconds_of(partial(compiled.run, inputs, state_arrays), seconds)
        flops, moved = report.flops, report.bytes
        if isinstance(flops, int) and isinstance(moved, int):
            found.append(BenchReport(report.name, len(times), min(times), median(times), flops, moved))
    return tuple(found)
