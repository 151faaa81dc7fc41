"""Memory that is not there, and memory that comes back."""

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

import tgc

PREAMBLE = """
import resource
import numpy as np
import tgc

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more,) * 2)

def refused(call, what):
    try:
        call()
    except MemoryError as error:
        assert isinstance(error, tgc.errors.UserError), error
        assert what in str(error) and "take smaller sizes" in str(error), error
    else:
        raise AssertionError("it had memory enough")
"""


def in_process(program: str) -> None:
    """Runs a program whose memory it limits itself."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_result_or_workspace_that_does_not_fit_is_an_error_and_changes_nothing() -> None:
    in_process("""
        seen = tgc.nn.Buffer(np.zeros((), np.float32))

        @tgc.export("f32[n]", "f32[m]")
        def middle(x, y):
            seen.assign(seen + 1)
            return tgc.sort(x[:, None] * y[None, :], axis=0).sum()

        @tgc.export("f32[n]")
        def large(x):
            return x[:, None] + x[None, :]

        x, y = np.ones(8, np.float32), np.ones(8192, np.float32)
        middle(x, x)
        large(x)
        limit(64 << 20)
        refused(lambda: middle(y, y), "the workspace for n = 8192, m = 8192 needs")
        refused(lambda: large(y), "the result out0 : f32[n, n] for n = 8192 needs 268435456 bytes (0.25 GiB)")
        assert float(seen) == 1.0
        assert float(middle(x, x)) == 64.0
        """)


def mappings() -> int:
    """How many pieces of memory the process has: code that is loaded has its own."""
    return len(Path("/proc/self/maps").read_text().splitlines())


def test_compiled_functions_that_nobody_holds_return_their_memory() -> None:
    x = np.ones(4, np.float32)

    def use(number: int) -> None:
        assert float(tgc.jit(lambda x: (x + number).sum())(x)) == 4.0 + 4 * number

    use(0)
    before = mappings()
    for number in range(1, 201):
        use(number)
    gc.collect()
    # two or three mappings each while they live; up to 64 may wait to be freed
    assert mappings() - before < 3 * 80
