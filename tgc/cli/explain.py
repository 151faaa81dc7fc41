"""``tgc explain``: what became of each operation, as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from tgc.cli.arguments import dim_option, example, level_option, make_options, parse_target, target_options
from tgc.cli.sources import jitted_functions, load_source
from tgc.inspect.explain import FunctionReport, KernelReport, OperationReport, explain
from tgc.ir.dims import Dim, evaluate, symbols
from tgc.kernels.program import Program

_LONGEST: Final = 60
_TYPICAL: Final = 32


@click.command(
    "explain",
    epilog=example(
        "tgc explain digits.py:predict",
        "tgc explain digits.py --dim batch=32",
        "tgc explain net.tgc -O1 --target aarch64-linux-gnu",
    ),
)
@click.argument("source")
@dim_option
@target_options
@level_option
@click.option("--passes", metavar="PIPELINE", help="Passes before those of -O, or up to memory-plan instead of them.")
def explain_command(
    source: str,
    dims: tuple[str, ...],
    target: str | None,
    cpu: str | None,
    features: str,
    level: str,
    passes: str | None,
) -> None:
    """Tell what became of each operation of SOURCE: in which kernel it is and from which line it comes, arithmetic and
    bytes of every kernel, the size of the arena, and for operations in different kernels, why they are.
    """
    loaded = load_source(source, dims)
    options = make_options(level, passes, parse_target(target, cpu, features))
    for report in explain(loaded.module, options):
        click.echo("\n".join(_function(report)))
    for function in jitted_functions(source):
        click.echo(f"\n{function.name} was compiled for")
        for signature, cause in function.specialisations:
            click.echo(f"  {signature}: {cause}")


def _function(report: FunctionReport) -> Iterator[str]:
    program = report.program
    inputs = ", ".join(map(str, program.inputs))
    yield f"{report.name}({inputs}) -> ({', '.join(map(str, program.outputs))})"
    launches = len(report.kernels)
    yield f"  {launches} kernel{'' if launches == 1 else 's'}, {_count(report.flops, 'FLOP')}"
    yield f"  {_count(report.bytes, 'B')} read and written, arena of {_arena(program)}"
    for kernel in report.kernels:
        yield ""
        yield from _kernel(kernel)
    if report.refusals:
        yield "\n  not joined:"
    for refusal in report.refusals:
        yield f"    {_short(refusal.producer)} -> {_short(refusal.consumer)}: {refusal.reason}"
    yield ""


def _kernel(kernel: KernelReport) -> Iterator[str]:
    again = "" if kernel.times == 1 else f", {kernel.times} times"
    work = f"{_count(kernel.flops, 'FLOP')}, {_count(kernel.bytes, 'B')}"
    yield f"  {', '.join(kernel.names)} ({kernel.kind}{again}): {work}"
    width = max((len(o.op) for o in kernel.operations), default=0)
    kinds = max((len(o.type) for o in kernel.operations), default=0)
    for operation in kernel.operations:
        lines = " ".join(operation.lines)
        yield f"    {operation.op:{width}}  {operation.type:{kinds}}  {lines}".rstrip()


def _short(operation: OperationReport) -> str:
    return f"{operation.op} ({' '.join(operation.lines)})" if operation.lines else operation.op


def _arena(program: Program) -> str:
    """The size of the workspace; of a long expression, what it is for a size."""
    size = program.workspace
    if isinstance(size, int) or len(str(size)) <= _LONGEST:
        return _count(size, "B")
    sizes = dict.fromkeys(sorted(symbols(size)), _TYPICAL)
    where = ", ".join(f"{name} = {value}" for name, value in sizes.items())
    return f"{_count(evaluate(size, sizes), 'B')} for {where}"


def _count(amount: Dim, unit: str) -> str:
    """A number with its unit, in thousands where it is large; an expression as it is.

    >>> _count(1234567, "B"), _count(12, "FLOP")
    ('1.23 MB', '12 FLOP')
    """
    if not isinstance(amount, int):
        return f"{amount} {unit}"
    size, prefixes = float(amount), iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while size >= 1000 and prefix != "P":
        size, prefix = size / 1000, next(prefixes)
    return f"{amount} {unit}" if not prefix else f"{size:.3g} {prefix}{unit}"
