"""The binary interface between entries, kernels, executors and callers: struct layouts and status codes, in one place.

An entry is ``i32 NAME(ptr call)``, ``call`` a struct of seven pointers: the arrays of data pointers of inputs, outputs,
state and constants, then the dimensions (i64), the workspace (64-byte aligned) and the executor, which may be null.

An executor is ``{ i32 (*parallel_for)(ptr context, ptr task, ptr closure, i64 count); ptr context; i32 threads }``.
``parallel_for`` calls ``void task(ptr closure, i64 begin, i64 end, i32 thread)`` on ranges that together are 0..count;
``thread`` is below ``threads`` and no two calls at the same time share it. A result that is not 0 ends the entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from tgc.kernels.program import SPACES, Space

ALIGNMENT = 64
"""Alignment in bytes of the workspace, of each thread's scratch and of the state block."""

PARALLEL_THRESHOLD = 20_000
"""A launch that is estimated below this many nanoseconds runs on the calling thread."""

PART_COST = 10_000
"""A launch is handed out in parts of at least so many nanoseconds, so that how many there are tells what it costs."""

PARTS_PER_THREAD = 4
"""At most so many parts for each thread: enough to even out threads that start late or run slowly."""


class Status(IntEnum):
    """What an entry or a C function returns; 0 is success. From ``CONSTRAINT`` on: the dimensions' constraints."""

    OK = 0
    NULL = 1
    NEGATIVE = 2
    TOO_LARGE = 3
    MISALIGNED = 4
    SIZE = 5
    CPU = 6
    STATE = 7
    THREADS = 8
    EXECUTOR = 9
    CONSTRAINT = 64


MESSAGES: Mapping[Status, str] = MappingProxyType(
    {
        Status.OK: "success",
        Status.NULL: "a required pointer is null",
        Status.NEGATIVE: "a dimension is negative",
        Status.TOO_LARGE: "the dimensions need more bytes than 63 bits can count",
        Status.MISALIGNED: "a pointer is not aligned as the header demands",
        Status.SIZE: "the memory given is too small",
        Status.CPU: "this CPU lacks instructions that the library was compiled for",
        Status.STATE: "the state was not set up by this library's init function",
        Status.THREADS: "the number of threads is not positive, or the threads could not be started",
        Status.EXECUTOR: "the executor's parallel_for failed",
    }
)

CALL_FIELDS = ("inputs", "outputs", "state", "constants", "dims", "workspace", "executor")
CALL_TYPE = "{ ptr, ptr, ptr, ptr, ptr, ptr, ptr }"
EXECUTOR_TYPE = "{ ptr, ptr, i32 }"
KERNEL_SIGNATURE = "(ptr, ptr, i64, i64, ptr)"

WORKSPACE_FIELD = CALL_FIELDS.index("workspace")
EXECUTOR_FIELD = CALL_FIELDS.index("executor")
SPACE_FIELDS: Mapping[Space, int] = MappingProxyType(
    {space: WORKSPACE_FIELD if space == "workspace" else field for field, space in enumerate(SPACES)}
)

STEP_TYPE = "{ ptr, ptr, i64, i64, i64, i64, i64, i64, i64, i64 }"
"""A launch or copy as data: kernel (null: copy), addresses, how many, slot of the dims, then count, cost and scratch,
each as a constant and the slot of a value to add (-1: none). An address is four i64: field of the call, index in its
array, constant offset, slot. Straight runs of launches so cost the compiler a table, not code."""

OUT_OF_BOUNDS = "tgc_out_of_bounds_error"
"""The global in which code that checks its accesses records the first that is out of bounds."""
