"""The chart of a run: how many times tgc's time the best peer takes, and how near tgc is to the machine's limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row

GREEN, RED, GREY = "#2a7f4f", "#b5483a", "#9a9a9a"


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Writes an SVG of the rows that have a peer or a limit, from top to bottom. Raises ImportError without matplotlib.

    Bars to the right of 1 are rows where tgc is faster than the fastest peer.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.ratio is not None or row.fraction is not None][::-1]
    mpl.rcParams["svg.hashsalt"] = "tgc"  # the same run gives the same file
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(shown))
    ratios = [row.ratio or 0.0 for row in shown]
    left.barh(places, ratios, color=[GREEN if ratio >= 1 else RED for ratio in ratios])
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlim(0, min(6, max([1.5, *ratios]) * 1.05))
    left.set_ylim(-0.7, len(shown) - 0.3)
    left.set_xlabel("time of the fastest peer / time of tgc")
    threads = len({row.threads for row in shown}) > 1
    left.set_yticks(places, [f"{row.name}, {row.threads} threads" if threads else row.name for row in shown], size=7)
    right.barh(places, [100 * (row.fraction or 0) for row in shown], color=GREY)
    right.axvline(100, color="black", linewidth=0.8)
    right.set_xlim(0, 115)
    right.set_xlabel("tgc, % of the machine's limit")
    figure.savefig(path, format="svg", metadata={"Date": None})
