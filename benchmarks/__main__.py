"""`python -m benchmarks`: the table of rows, each contestant beside tgc and beside the machine's limits."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.chart import draw
from benchmarks.harness import CLOCKS, GENERAL, measure_apart
from benchmarks.limits import Limits, measure
from benchmarks.report import Row, cells, headings, markdown, row, write_json
from benchmarks.workloads import SUITES, WORKLOADS


def parsed_peers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """tgc and the peers of a list separated by commas."""
    peers = tuple(peer for peer in text.split(",") if peer and peer != "tgc")
    if unknown := [peer for peer in peers if peer not in GENERAL]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(GENERAL[1:])}")
    return ("tgc", *peers)


def parsed_threads(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """Numbers of threads separated by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text} is not a list of numbers") from None


@click.command()
@click.option("--suite", type=click.Choice(list(SUITES)), default="quick", show_default=True)
@click.option("--row", "names", multiple=True, type=click.Choice(list(WORKLOADS)), help="Only these rows.")
@click.option("--threads", default="1", show_default=True, callback=parsed_threads, help="Separated by commas.")
@click.option("--peers", default=",".join(GENERAL[1:]), show_default=True, callback=parsed_peers)
@click.option("--seconds", default=1.0, show_default=True, help="For each contestant of each row.")
@click.option(
    "--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True, help="cpu: one thread only."
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where table, JSON and chart go.")
def main(
    suite: str,
    names: tuple[str, ...],
    threads: tuple[int, ...],
    peers: tuple[str, ...],
    seconds: float,
    clock: str,
    output: Path | None,
) -> None:
    """Measures this machine's limits, then tgc beside its peers."""
    if clock == "cpu" and threads != (1,):
        raise click.BadParameter("the processor's time says nothing of several threads", param_hint="--clock")
    console = Console()
    rows: list[Row] = []
    limits: list[Limits] = []
    for count in threads:
        limit = measure(threads=count, clock=CLOCKS[clock])
        limits.append(limit)
        rates = ", ".join(f"{rate / 1e9:.0f} GB/s in {size >> 10} KiB" for size, rate in limit.bandwidths)
        table = Table(title=f"{count} thread(s); limits {limit.flops / 1e9:.0f} GFLOP/s, {rates}")
        for index, heading in enumerate(headings(peers)):
            table.add_column(heading, justify="right" if index else "left")
        found = []
        with console.status("") as status:
            for name in names or SUITES[suite]:
                status.update(name)
                found.append(row(name, measure_apart(name, peers, threads=count, seconds=seconds, clock=clock), limit))
                table.add_row(*cells(found[-1], peers))
                if output is not None:
                    # a long run that is stopped keeps what it has
                    write(output, [*rows, *found], limits, peers)
        console.print(table)
        for problem in (problem for one in found for problem in one.problems):
            console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        rows += found


def write(folder: Path, rows: Sequence[Row], limits: Sequence[Limits], peers: Sequence[str]) -> None:
    """The run so far, as JSON, as a table and as a chart."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "benchmarks.json", rows, limits)
    (folder / "benchmarks.md").write_text(markdown(rows, peers), encoding="utf-8")
    draw(folder / "benchmarks.svg", rows)


if __name__ == "__main__":
    main()
