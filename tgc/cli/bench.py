"""``tgc bench``: how fast a function is, beside what the machine can do."""

from __future__ import annotations

from collections.abc import Iterator

import click

from tgc.cli.arguments import dim_option, example, level_option, make_options
from tgc.cli.sources import load_source
from tgc.inspect.bench import BenchReport, bench
from tgc.inspect.limits import Limits, current_limits
from tgc.inspect.text import duration


@click.command(
    "bench",
    epilog=example("tgc bench digits.py:predict --dim batch=32", "tgc bench net.tgc --seconds 5 -O1"),
)
@click.argument("source")
@dim_option
@level_option
@click.option("--passes", metavar="PIPELINE", help="Passes before those of -O, or up to memory-plan instead of them.")
@click.option("--seconds", type=click.FloatRange(0, 3600), default=1.0, show_default=True, help="How long to measure.")
def bench_command(source: str, dims: tuple[str, ...], level: str, passes: str | None, seconds: float) -> None:
    """Time the functions of SOURCE on random inputs, beside the arithmetic and the memory bandwidth that this machine
    reaches at most on as many threads. Every dimension needs a size.
    """
    loaded = load_source(source, dims)
    reports = bench(loaded.module, make_options(level, passes, None), seconds=seconds)
    limits = current_limits()
    plural = "" if limits.threads == 1 else "s"
    click.echo(
        f"this machine on {limits.threads} thread{plural}: {limits.flops / 1e9:.0f} GFLOP/s in f32, "
        f"{limits.bandwidth / 1e9:.1f} GB/s of main memory"
    )
    for report in reports:
        click.echo("\n".join(_lines(report, limits)))


def _lines(report: BenchReport, limits: Limits) -> Iterator[str]:
    rate, moved = report.flops / report.best, report.bytes / report.best
    best, middle = duration(report.best), duration(report.median)
    yield f"{report.name}: {best} at best, {middle} in the median of {report.calls} calls"
    yield f"  {rate / 1e9:.2f} GFLOP/s, {rate / limits.flops:.1%} of the peak"
    yield f"  {moved / 1e9:.2f} GB/s, {moved / limits.bandwidth:.1%} of main memory's; more is possible in caches"
