"""What a run found, as JSON and as a table."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Measurement
from benchmarks.limits import Limits
from benchmarks.workloads import WORKLOADS

PACKAGES = ("tgc", "llvmlite", "numpy", "torch", "jax", "onnxruntime")


def duration(seconds: float | None) -> str:
    """Three digits and a unit.

    >>> duration(0.00123), duration(None)
    ('1.23 ms', '-')
    """
    if seconds is None:
        return "-"
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


@dataclass(frozen=True)
class Row:
    """A row's measurements beside the least time that the machine's limits allow."""

    name: str
    threads: int
    measured: Mapping[str, Measurement]
    least: float | None

    @property
    def ours(self) -> float | None:
        """tgc's seconds."""
        return self.measured.get("tgc", Measurement()).seconds

    @property
    def best_peer(self) -> tuple[str, float] | None:
        """The fastest other contestant and its seconds."""
        found = [(peer, m.seconds) for peer, m in self.measured.items() if peer != "tgc" and m.seconds is not None]
        return min(found, key=lambda item: item[1], default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time in terms of tgc's: above 1, tgc is faster."""
        return self.best_peer[1] / self.ours if self.best_peer and self.ours else None

    @property
    def fraction(self) -> float | None:
        """The least possible time in terms of tgc's."""
        return self.least / self.ours if self.least and self.ours else None

    @property
    def problems(self) -> list[str]:
        """What went wrong, by contestant."""
        return [f"{self.name}: {peer}: {m.problem}" for peer, m in self.measured.items() if m.problem]


def row(name: str, measured: Mapping[str, Measurement], limits: Limits) -> Row:
    """The row with the limit of its work."""
    workload = WORKLOADS[name]
    least = limits.seconds(workload.flops, workload.moved, peak_share=workload.peak_share)
    return Row(name, limits.threads, measured, least)


def headings(peers: Sequence[str]) -> list[str]:
    """The columns' names."""
    return ["row", *peers, "ratio", "of limit", "cold", "warm", "memory"]


def cells(row: Row, peers: Sequence[str]) -> list[str]:
    """A row of the table as text: every contestant's time, then what is said of tgc."""
    ours = row.measured.get("tgc", Measurement())
    times = [duration(row.measured.get(peer, Measurement()).seconds) for peer in peers]
    if any(m.seconds is not None and peer not in peers for peer, m in row.measured.items()):
        # rows with a rival of their own: the last column is its place
        times[-1] = next(
            f"{duration(m.seconds)} ({peer})" for peer, m in row.measured.items() if peer not in peers and m.seconds
        )
    memory = "-" if ours.memory is None else f"{ours.memory / 1e6:.0f} MB"
    others = [m.memory for peer, m in row.measured.items() if peer == "torch" and m.memory is not None]
    memory += f" (torch {others[0] / 1e6:.0f})" if others else ""
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    fraction = "-" if row.fraction is None else f"{row.fraction:.0%}"
    return [row.name, *times, ratio, fraction, duration(ours.cold), duration(ours.warm), memory]


def markdown(rows: Sequence[Row], peers: Sequence[str]) -> str:
    """The table for a README."""
    lines = [headings(peers), ["---", *["---:"] * (len(headings(peers)) - 1)], *(cells(r, peers) for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """The versions of tgc, of what it stands on and of its peers, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, rows: Sequence[Row], limits: Sequence[Limits]) -> None:
    """Everything that was measured, with the machine and the versions."""
    found: dict[str, Any] = {
        "machine": {"processor": processor(), "system": platform.platform()},
        "versions": versions(),
        "limits": [asdict(limit) for limit in limits],
        "rows": [
            {
                "name": r.name,
                "threads": r.threads,
                "least_seconds": r.least,
                "ratio": r.ratio,
                "fraction": r.fraction,
                "measured": {peer: asdict(m) for peer, m in r.measured.items()},
            }
            for r in rows
        ],
    }
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
