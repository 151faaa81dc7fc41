"""`python -m benchmarks`: the table of rows, each contestant beside tgc and beside the machine's limits."""

import click
from rich.console import Console
from rich.table import Table

from benchmarks.harness import PEERS, Measurement, measure_apart
from benchmarks.limits import Limits, measure
from benchmarks.workloads import SUITES, workloads


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def cells(name: str, measured: dict[str, Measurement], peers: list[str], limits: Limits) -> list[str]:
    """A row of the table: times, tgc's share of the peak, and how many times tgc's time each peer takes."""
    ours = measured.get("tgc", Measurement(None)).seconds
    flops = workloads()[name].flops
    times = [duration(m.seconds) if (m := measured.get(peer)) and m.seconds else "-" for peer in peers]
    peak = f"{flops / ours / limits.flops:.0%}" if flops and ours else "-"
    ratios = [
        f"{m.seconds / ours:.2f}" if ours and (m := measured.get(peer)) and m.seconds else "-"
        for peer in peers
        if peer != "tgc"
    ]
    return [name, *times, peak, *ratios]


@click.command()
@click.option("--suite", type=click.Choice(list(SUITES)), default="quick", show_default=True)
@click.option("--row", "rows", multiple=True, type=click.Choice(list(workloads())), help="Only these rows.")
@click.option("--threads", default="1", show_default=True, help="Numbers of threads, separated by commas.")
@click.option("--peers", default="torch", show_default=True, help="Peers, separated by commas.")
def main(suite: str, rows: tuple[str, ...], threads: str, peers: str) -> None:
    """Measures this machine's limits, then tgc beside its peers."""
    contestants = ["tgc", *(peer for peer in peers.split(",") if peer)]
    if unknown := [peer for peer in contestants if peer not in PEERS]:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(PEERS)}", param_hint="--peers")
    console = Console()
    for count in map(int, threads.split(",")):
        limits = measure(threads=count)
        table = Table(
            title=f"{count} thread(s); limits {limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.1f} GB/s"
        )
        table.add_column("row")
        for heading in [*contestants, "peak", *(f"{peer} / tgc" for peer in contestants[1:])]:
            table.add_column(heading, justify="right")
        problems = []
        with console.status("") as status:
            for name in rows or SUITES[suite]:
                status.update(name)
                measured = measure_apart(name, contestants, threads=count)
                table.add_row(*cells(name, measured, contestants, limits))
                problems += [f"{name}: {peer}: {m.problem}" for peer, m in measured.items() if m.problem]
        console.print(table)
        for problem in problems:
            console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
