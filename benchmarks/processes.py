"""What can only be measured in a fresh interpreter: imports, and compilation with a cache that is empty or full."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_seconds(program: str, *, setup: str = "pass", environment: dict[str, str] | None = None) -> float:
    """The seconds that `program` takes in a new interpreter, after its start and `setup`."""
    timed = (
        f"exec({setup!r})\nimport time\nstart = time.perf_counter()\nexec({program!r})\n"
        "end = time.perf_counter()\nprint(end - start)"
    )
    result = subprocess.run(
        [sys.executable, "-c", timed],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1] if result.stderr else f"exit {result.returncode}")
    return float(result.stdout.split()[-1])
