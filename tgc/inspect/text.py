"""An explanation as text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tgc.inspect.limits import Limits
from tgc.inspect.memory import amount, table
from tgc.inspect.report import Findings, FunctionReport, KernelReport
from tgc.ir.dims import Dim, evaluate

_LONGEST: Final = 60
_TENSORS: Final = 8


def as_text(findings: Findings) -> str:
    """Every function with its kernels, memory and refusals; then the rules that were applied, and specialisations."""
    lines: list[str] = []
    for function in findings.functions:
        lines += [*_function(function, findings.limits), ""]
    if findings.rules:
        lines.append("rules that were applied")
        lines += table(
            [
                (f"{r.count}×", r.by, r.rule, " ".join(r.lines), f"({r.because})" * bool(r.because))
                for r in findings.rules
            ]
        )
        lines.append("")
    for name in dict.fromkeys(s.function for s in findings.specialisations):
        lines.append(f"{name} was compiled for")
        lines += [f"  {s.signature}: {s.cause}" for s in findings.specialisations if s.function == name]
    if findings.limits is not None:
        limits = findings.limits
        lines.append(
            f"one thread of this machine: {limits.flops / 1e9:.0f} GFLOP/s in f32, "
            f"{limits.bandwidth / 1e9:.1f} GB/s of main memory; more is possible in caches"
        )
    return "\n".join(lines).rstrip()


def _function(report: FunctionReport, limits: Limits | None) -> Iterator[str]:
    program, sizes = report.program, report.sizes
    yield f"{report.name}({', '.join(map(str, program.inputs))}) -> ({', '.join(map(str, program.outputs))})"
    count = len(report.kernels)
    where = "" if not sizes else " for " + ", ".join(f"{name} = {size}" for name, size in sizes.items())
    times = [f"about {duration(evaluate(report.nanoseconds, sizes) * 1e-9)} by the compiler's guess"]
    if report.seconds is not None:
        times.append(f"{duration(report.seconds)} measured")
    yield f"  {count} kernel{'' if count == 1 else 's'}, {quantity(report.flops, 'FLOP')}"
    yield f"  {quantity(report.bytes, 'B')} read and written"
    yield f"  workspace of {_bytes(report.workspace, report)}"
    yield f"  {', '.join(times)}, on one thread{where}"
    for kernel in report.kernels:
        yield ""
        yield from _kernel(kernel, report, limits)
    if report.tensors:
        yield "\n  memory:"
        rows = [
            (_bytes(t.bytes, report), t.place, t.name, t.type, " ".join(t.lines)) for t in report.tensors[:_TENSORS]
        ]
        yield from ("  " + line for line in table(rows))
        if len(report.tensors) > _TENSORS:
            yield f"    and {len(report.tensors) - _TENSORS} smaller ones"
    if report.refusals:
        yield "\n  not joined:"
    for refusal in report.refusals:
        yield f"    {refusal.producer} -> {refusal.consumer}: {refusal.reason}"


def _kernel(kernel: KernelReport, report: FunctionReport, limits: Limits | None) -> Iterator[str]:
    again = "" if kernel.times == 1 else f", {kernel.times} times"
    work = f"{quantity(kernel.flops, 'FLOP')}, {quantity(kernel.bytes, 'B')}"
    yield f"  {kernel.id}: {', '.join(kernel.names)} ({kernel.kind}{again}): {work}"
    guess = f"about {duration(evaluate(kernel.nanoseconds, report.sizes) * 1e-9)}"
    if kernel.seconds is not None and limits is not None:
        peak, bandwidth = shares(kernel, report, limits)
        guess += (
            f", {duration(kernel.seconds)} measured: {peak:.1%} of the peak, {bandwidth:.1%} of main memory's speed"
        )
    yield f"    {guess}"
    rows = [(o.op, o.type, " ".join(o.lines)) for o in kernel.operations]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    for op, type_, lines in rows:
        yield f"      {op:{widths[0]}}  {type_:{widths[1]}}  {lines}".rstrip()


def shares(kernel: KernelReport, report: FunctionReport, limits: Limits) -> tuple[float, float]:
    """Which parts of the machine's arithmetic and of its main memory's speed a kernel reached."""
    seconds = kernel.seconds or float("inf")
    work, moved = (evaluate(each * kernel.times, report.sizes) for each in (kernel.flops, kernel.bytes))
    return work / seconds / limits.flops, moved / seconds / limits.bandwidth


def _bytes(size: Dim, report: FunctionReport) -> str:
    """Bytes; of an expression, what it is at the function's sizes."""
    return amount(evaluate(size, report.sizes))


def duration(seconds: float) -> str:
    """A duration in the unit that fits it.

    >>> duration(0.0000123), duration(0.0456), duration(7)
    ('12.3 µs', '45.6 ms', '7.0 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def quantity(amount: Dim, unit: str) -> str:
    """A number with its unit, in thousands where it is large; an expression as it is.

    >>> quantity(1234567, "B"), quantity(12, "FLOP")
    ('1.23 MB', '12 FLOP')
    """
    if not isinstance(amount, int):
        return f"{amount} {unit}"
    size, prefixes = float(amount), iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while size >= 1000 and prefix != "P":
        size, prefix = size / 1000, next(prefixes)
    return f"{amount} {unit}" if not prefix else f"{size:.3g} {prefix}{unit}"
