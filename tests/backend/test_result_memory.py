"""The memory of large results: used again, but never while something can still see it."""

import numpy as np

from tgc.backend.result_memory import LEAST, ResultMemory
from tgc.backend.threads import process_runtime
from tgc.frontend.jit import jit

F32 = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_that_nothing_refers_to_is_used_again() -> None:
    memory = ResultMemory(least=64, most=1000)
    first = memory.empty((5, 5), F32)
    place = address(first)
    second = memory.empty((25,), F32)
    assert address(second) != place
    del first
    assert address(memory.empty((25,), F32)) == place


def test_a_view_keeps_the_memory() -> None:
    memory = ResultMemory(least=64, most=1000)
    whole = memory.empty((100,), F32)
    part, place = memoryview(whole[3:].reshape(97, 1)), address(whole)
    del whole
    other = memory.empty((100,), F32)
    assert address(other) != place
    del part
    assert address(memory.empty((100,), F32)) == place


def test_little_is_kept() -> None:
    memory = ResultMemory(least=64, most=1000)
    assert memory.empty((3,), F32).base is None  # too small
    assert memory.empty((1000,), F32).base is None  # too large
    held = [memory.empty((100,), F32) for _ in range(3)]
    assert [x.base is None for x in held] == [False, False, True]
    del held
    # what is unused makes room
    assert memory.empty((200,), F32).base is not None


def test_calls_take_large_results_from_there() -> None:
    double = jit(lambda x: x + x)
    x = np.ones(LEAST // F32.itemsize, F32)
    first, second = double(x).array, double(x).array
    assert any(first.base is block for block in process_runtime().results._blocks)
    assert address(first) != address(second)
    place = address(first)
    del first
    assert address(double(x).array) == place
    np.testing.assert_array_equal(second, x + x)
