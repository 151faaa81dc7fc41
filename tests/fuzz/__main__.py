"""Checks random functions, each in a process of its own, and prints small ones that fail.

``python -m tests.fuzz --seed S --seconds N``: the functions of the seeds from S on, for this machine and lesser ones
in turn, until N seconds have passed, but at least one. ``--seconds 0`` is the function of S alone.
"""

import argparse
import multiprocessing as mp
import time
import traceback
from collections import Counter
from multiprocessing.queues import SimpleQueue

from tests.fuzz.checks import Tally, check, shrunk, targets, text
from tests.fuzz.generator import Sample, any_kind
from tgc.target import Target

SECONDS = 240  # for one function, making it smaller included
ATTEMPTS = 100  # to make one smaller


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


def one(seed: int, queue: "SimpleQueue[tuple[str, str] | Tally]") -> None:
    """Checks one function, in a process that may end."""
    found = any_kind(seed)
    target = targets()[seed // 2 % len(targets())]
    tally = Tally()
    try:
        check(found, tally, target)
    except Exception as error:  # noqa: BLE001
        same = kind(error)
        queue.put((same, f"for {target.cpu}\n" + "".join(traceback.format_exception(error))[-1500:]))
        small = shrunk(found, lambda c: (e := failure(c, target)) is not None and kind(e) == same, budget=ATTEMPTS)
        queue.put((f"small: {failure(small, target)}"[:2000], text(small)))
    else:
        queue.put(tally)


def attended(seed: int) -> tuple[list[tuple[str, str]], Tally]:
    """What one function's process tells, or how it ends."""
    context = mp.get_context("fork")
    queue: SimpleQueue[tuple[str, str] | Tally] = context.SimpleQueue()
    process = context.Process(target=one, args=(seed, queue))
    said: list[tuple[str, str]] = []
    tally = Tally()
    deadline = time.monotonic() + SECONDS
    process.start()
    while process.is_alive() or not queue.empty():
        if not queue.empty():
            item = queue.get()
            if isinstance(item, Tally):
                tally = item
            else:
                said.append(item)
        elif time.monotonic() > deadline:
            process.kill()
            process.join()
            said.append((f"takes more than {SECONDS} s", ""))
        else:
            process.join(0.01)
    if process.exitcode and not any(what.startswith("takes") for what, _ in said):
        said.append((f"ends its process with {process.exitcode}", ""))
    return said, tally


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Checks random functions.")
    parser.add_argument("--seed", type=int, default=0, help="of the first function")
    parser.add_argument("--seconds", type=float, default=60.0, help="begin no function after this time")
    options = parser.parse_args()
    started, total, seen, seed = time.monotonic(), Tally(), Counter[str](), options.seed
    while seed == options.seed or time.monotonic() < started + options.seconds:
        said, tally = attended(seed)
        total = Tally(total.compared + tally.compared, total.uncertain + tally.uncertain)
        seen.update(what for what, _ in said[:1])
        for what, detail in said:
            print(f"=== seed {seed}: {what}\n{detail}", flush=True)
        seed += 1
        if seed % 100 == 0:
            print(f"... up to seed {seed}: {total}", flush=True)
    print(f"{seed - options.seed} functions, {sum(seen.values())} wrong; {total}; {dict(seen)}")


if __name__ == "__main__":
    main()
