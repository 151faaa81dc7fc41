"""Several processes, and signals: the cache stays whole, and Ctrl-C leaves everything usable."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

TRAIN = """
import numpy as np
import tgc
from tgc import nn, optim

layer = nn.Linear(8, 4)
layer.load_state_dict({"weight": np.ones((4, 8), np.float32), "bias": np.zeros(4, np.float32)})
optimiser = optim.Adam(layer.parameters())

@tgc.jit
def step(x, y):
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(layer(x), y)
    loss.backward()
    optimiser.step()
    return loss

x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
print([float(step(x, np.array([0, 3, 1]))).hex() for _ in range(3)])
"""


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TGC_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return result(start(TRAIN, tmp_path_factory.mktemp("alone") / "cache"))


def test_eight_processes_compile_the_same_thing(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "cache"
    processes = [start(TRAIN, folder) for _ in range(8)]
    assert {result(process) for process in processes} == {expected}
    assert not list(folder.rglob(".*"))


def test_a_process_killed_at_any_time_leaves_a_cache_that_works(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "cache"
    for number in range(8):
        process = start(TRAIN, folder)
        time.sleep(0.3 + 0.1 * number)
        process.kill()
        process.communicate()
    assert result(start(TRAIN, folder)) == expected


def test_a_full_disk_means_no_cache(tmp_path: Path, expected: str) -> None:
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    folder = tmp_path / "cache"
    assert result(start(full + TRAIN, folder)) == expected
    assert not [path for path in folder.rglob("*") if path.is_file()]


INTERRUPTED = textwrap.dedent("""
    import os, random, signal, threading, time
    import numpy as np
    import tgc

    # who starts processes in the background lets them ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    choice = random.Random(0)
    timer = None

    def compiled(number):
        return float(tgc.jit(lambda x: ((x + number).sum(0) * x[0]).sum())(x)), float((tgc.tensor(x) * number).sum())

    compiled(0)
    interrupted = 0
    for number in range(1, 31):
        done = threading.Event()

        def interrupt():
            time.sleep(choice.random() * 0.1)
            os.kill(os.getpid(), signal.SIGINT)
            done.set()

        threading.Thread(target=interrupt, daemon=True).start()
        try:
            compiled(number)
            # the signal may come after all else is done
            done.wait()
            time.sleep(0.001)
        except KeyboardInterrupt:
            interrupted += 1
        while True:
            try:
                done.wait()
                break
            except KeyboardInterrupt:
                pass
        expected = float(((x + number).sum(0) * x[0]).sum()), float((x * number).sum())
        assert compiled(number) == expected, (compiled(number), expected)
    print(interrupted)
    """)


def test_after_an_interrupted_compilation_everything_works(tmp_path: Path) -> None:
    """An interrupt in the middle of a call of LLVM would leave its lock taken, or memory freed twice."""
    assert int(result(start(INTERRUPTED, tmp_path / "cache"))) > 20
