"""Calls that Ctrl-C must not cut short."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tgc.lazy import LazyModule

T = TypeVar("T")

_futures = LazyModule("concurrent.futures")


def uninterrupted(call: Callable[[], T]) -> T:
    """The result of ``call``, computed on another thread if this is the main one, where signals interrupt.

    llvmlite's functions are Python code that takes a lock and frees memory in steps: an exception between two of these
    leaves the lock taken for good, or the memory to be freed again. A KeyboardInterrupt is raised in the main thread
    only, which here just waits.

    >>> uninterrupted(lambda: 6 * 7)
    42
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    with _futures.ThreadPoolExecutor(1) as pool:
        result: T = pool.submit(call).result()
        return result
