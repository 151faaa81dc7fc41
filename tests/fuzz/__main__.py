"""Checks random functions, each in a process of its own, and prints small ones that fail.

``python -m tests.fuzz FIRST LAST [LENGTH [BUDGET]]``: the functions of these seeds, of about LENGTH steps, every fourth
one of them short and large, compiled for this machine and lesser ones in turn. A failure is made smaller by at most
BUDGET attempts.
"""

import multiprocessing as mp
import sys
import time
import traceback
from collections import Counter
from multiprocessing.queues import SimpleQueue

from tests.fuzz.checks import Tally, check, shrunk, targets, text
from tests.fuzz.generator import Sample, sample
from tests.fuzz.grower import LARGE
from tgc.target import Target

SECONDS = 120  # for one function, making it smaller included


def kind(error: Exception) -> str:
    """What makes two failures the same: the first line without numbers, of what is not a wrong result."""
    first = str(error).partition("\n")[0]
    return type(error).__name__ + "".join(c for c in first if not c.isdigit())[: 8 if "output" in first else 40]


def failure(candidate: Sample, target: Target) -> Exception | None:
    """What goes wrong."""
    try:
        check(candidate, target=target)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def one(seed: int, length: int, budget: int, queue: "SimpleQueue[tuple[str, ...] | Tally]") -> None:
    """Checks one function, in a process that may end."""
    found = sample(seed, length=length // 2, extent=LARGE) if seed % 4 == 3 else sample(seed, length=length)
    target = targets()[seed % len(targets())]
    tally = Tally()
    try:
        check(found, tally, target)
    except Exception as error:  # noqa: BLE001
        same = kind(error)
        queue.put((same, f"for {target.cpu}\n" + "".join(traceback.format_exception(error))[-1500:]))
        small = shrunk(found, lambda c: (e := failure(c, target)) is not None and kind(e) == same, budget=budget)
        queue.put((f"small: {failure(small, target)}"[:2000], text(small)))
    else:
        queue.put(tally)


def main() -> None:
    first, last, length, budget = (*map(int, sys.argv[1:]), *(12, 100)[len(sys.argv) - 3 :])
    context = mp.get_context("fork")
    total, seen = Tally(), Counter[str]()
    for seed in range(first, last):
        queue: SimpleQueue[tuple[str, ...] | Tally] = context.SimpleQueue()
        process = context.Process(target=one, args=(seed, length, budget, queue))
        started = time.monotonic()
        process.start()
        while process.is_alive() and time.monotonic() < started + SECONDS and queue.empty():
            process.join(0.01)
        process.join(max(0.0, started + SECONDS - time.monotonic()))
        if process.is_alive():
            process.kill()
            print(f"=== seed {seed} takes more than {SECONDS} s", flush=True)
        elif process.exitcode:
            print(f"=== seed {seed} ends its process with {process.exitcode}", flush=True)
        while not queue.empty():
            item = queue.get()
            if isinstance(item, Tally):
                total = Tally(total.compared + item.compared, total.uncertain + item.uncertain)
            else:
                seen[item[0]] += not item[0].startswith("small")
                print(f"=== seed {seed}: {item[0]}\n{item[1]}", flush=True)
        if seed % 100 == 99:
            print(f"... up to seed {seed}: {total}", flush=True)
    print(f"{last - first} functions; {total}; {+seen}")


if __name__ == "__main__":
    main()
