"""The call from CPython, as text of LLVM IR: one function for all programs, which reads a program's description.

It takes NumPy arrays by their public, ABI-stable head (``PyArrayObject_fields``), so that an array costs a few
nanoseconds where the buffer protocol costs thirty, and bfloat16 arrays, which have no buffer, pass as well. Whatever is
not exactly as described goes to a Python function, with the same arguments.
"""

from __future__ import annotations

import ctypes
import re

from tgc.backend.abi import CALL_TYPE, EXECUTOR_TYPE, PARALLEL_THRESHOLD
from tgc.backend.call_memory import OUTPUTS, WORKSPACE

DESCRIPTION_FIELDS = (
    *("entry", "check", "workspace", "shapes", "cost", "arguments", "outputs", "bound_state", "constants"),
    *("executor_cell", "slots", "array_type", "slow", "empty"),
    *("inputs", "states", "results", "symbols", "extents"),
)
_COUNTS = DESCRIPTION_FIELDS.index("inputs")


class Description(ctypes.Structure):
    """What the native call knows of a program: addresses (0: none), Python objects by address, then numbers."""

    _fields_ = tuple(
        (name, ctypes.c_void_p if index < _COUNTS else ctypes.c_int64) for index, name in enumerate(DESCRIPTION_FIELDS)
    )


class Argument(ctypes.Structure):
    """An input or state: its dtype object, rank, NumPy flags, and extents (-1 - k: the k-th symbol)."""

    _fields_ = (
        ("dtype", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("flags", ctypes.c_int64),
        ("extents", ctypes.c_void_p),
    )


class Result(ctypes.Structure):
    """An output: its dtype object, rank, and its shape as a tuple, 0 if it depends on symbols."""

    _fields_ = (("dtype", ctypes.c_void_p), ("rank", ctypes.c_int64), ("shape", ctypes.c_void_p))


class Slot(ctypes.Structure):
    """A workspace kept between calls."""

    _fields_ = (("busy", ctypes.c_int64), ("size", ctypes.c_int64), ("memory", ctypes.c_void_p))


SLOTS = 16
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400

# A program of so many nanoseconds wakes the threads at once, though none of its launches might be worth that alone.
_ROUSE_COST = 200_000

PYTHON_FUNCTIONS = (
    *("PyTuple_GetItem", "PyTuple_SetItem", "PyTuple_New", "PyCapsule_GetPointer", "PyObject_Vectorcall"),
    *("PyLong_FromLongLong", "Py_IncRef", "Py_DecRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyErr_Clear"),
)
MEMORY_FUNCTIONS = ("aligned_alloc", "free", "madvise")

_DECLARATIONS = """\
declare ptr @PyTuple_GetItem(ptr, i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyTuple_New(i64)
declare ptr @PyCapsule_GetPointer(ptr, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyLong_FromLongLong(i64)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @PyErr_Clear()
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i32 @madvise(ptr, i64, i32)
"""

# Returns whether the array fits; binds symbols in %dims, where -1 means "not known yet".
_ACCEPT = """
define internal i1 @tgc_accept(ptr %object, ptr %argument, ptr %array.type, ptr %dims, ptr %to) {
  %type.at = getelementptr i8, ptr %object, i64 TYPE
  %type = load ptr, ptr %type.at
  %is.array = icmp eq ptr %type, %array.type
  br i1 %is.array, label %array, label %no
array:
  %data.at = getelementptr i8, ptr %object, i64 DATA
  %data = load ptr, ptr %data.at
  store ptr %data, ptr %to
  %rank.at = getelementptr i8, ptr %object, i64 RANK
  %rank32 = load i32, ptr %rank.at
  %rank = sext i32 %rank32 to i64
  %sizes.at = getelementptr i8, ptr %object, i64 SIZES
  %sizes = load ptr, ptr %sizes.at
  %dtype.at = getelementptr i8, ptr %object, i64 DTYPE
  %dtype = load ptr, ptr %dtype.at
  %flags.at = getelementptr i8, ptr %object, i64 FLAGS
  %flags32 = load i32, ptr %flags.at
  %flags = zext i32 %flags32 to i64
  %dtype.wanted = load ptr, ptr %argument
  %rank.wanted.at = getelementptr i64, ptr %argument, i64 1
  %rank.wanted = load i64, ptr %rank.wanted.at
  %flags.wanted.at = getelementptr i64, ptr %argument, i64 2
  %flags.wanted = load i64, ptr %flags.wanted.at
  %extents.at = getelementptr i64, ptr %argument, i64 3
  %extents = load ptr, ptr %extents.at
  %flags.common = and i64 %flags, %flags.wanted
  %same.dtype = icmp eq ptr %dtype, %dtype.wanted
  %same.rank = icmp eq i64 %rank, %rank.wanted
  %same.flags = icmp eq i64 %flags.common, %flags.wanted
  %1 = and i1 %same.dtype, %same.rank
  %2 = and i1 %1, %same.flags
  br i1 %2, label %next, label %no
next:
  %i = phi i64 [ 0, %array ], [ %i1, %fits ]
  %done = icmp eq i64 %i, %rank
  br i1 %done, label %yes, label %extent
extent:
  %size.at = getelementptr i64, ptr %sizes, i64 %i
  %size = load i64, ptr %size.at
  %wanted.at = getelementptr i64, ptr %extents, i64 %i
  %wanted = load i64, ptr %wanted.at
  %i1 = add i64 %i, 1
  %symbolic = icmp slt i64 %wanted, 0
  br i1 %symbolic, label %symbol, label %fixed
fixed:
  %equal = icmp eq i64 %size, %wanted
  br i1 %equal, label %fits, label %no
symbol:
  %which = xor i64 %wanted, -1
  %dim.at = getelementptr i64, ptr %dims, i64 %which
  %dim = load i64, ptr %dim.at
  %unknown = icmp slt i64 %dim, 0
  br i1 %unknown, label %bind, label %bound
bind:
  store i64 %size, ptr %dim.at
  br label %fits
bound:
  %agrees = icmp eq i64 %size, %dim
  br i1 %agrees, label %fits, label %no
fits:
  br label %next
yes:
  ret i1 true
no:
  ret i1 false
}
"""

_CALL = """
define ptr @tgc_call(ptr %self, ptr %args, i64 %n) {
  %capsule = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %d = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr null)
  [inputs] [states] [results] [symbols] [extents] [arguments] [array_type]
  %expected = add i64 %inputs, %states
  %right = icmp eq i64 %n, %expected
  br i1 %right, label %begin, label %python
begin:
  %symbols.some = add i64 %symbols, 1
  %dims = alloca i64, i64 %symbols.some
  %dims.bytes = mul i64 %symbols, 8
  call void @llvm.memset.p0.i64(ptr %dims, i8 -1, i64 %dims.bytes, i1 false)
  %expected.some = add i64 %expected, 1
  %pointers = alloca ptr, i64 %expected.some
  br label %argument
argument:
  %i = phi i64 [ 0, %begin ], [ %i1, %accept ]
  %all = icmp eq i64 %i, %expected
  br i1 %all, label %verify, label %accept
accept:
  %object.at = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %object.at
  %specification = getelementptr { ptr, i64, i64, ptr }, ptr %arguments, i64 %i
  %to = getelementptr ptr, ptr %pointers, i64 %i
  %ok = call i1 @tgc_accept(ptr %object, ptr %specification, ptr %array_type, ptr %dims, ptr %to)
  %i1 = add i64 %i, 1
  br i1 %ok, label %argument, label %python
verify:
  [check]
  %broken = call i32 %check(ptr %dims)
  %valid = icmp eq i32 %broken, 0
  br i1 %valid, label %measure, label %python
measure:
  [executor_cell]
  %executor = load atomic ptr, ptr %executor_cell acquire, align 8
  %serial = icmp eq ptr %executor, null
  br i1 %serial, label %size, label %threaded
threaded:
  %threads.at = getelementptr EXECUTOR, ptr %executor, i32 0, i32 2
  %threads.many = load i32, ptr %threads.at
  br label %size
size:
  %threads = phi i32 [ 1, %measure ], [ %threads.many, %threaded ]
  [workspace]
  %bytes = call i64 %workspace(ptr %dims, i32 %threads)
  %overflow = icmp slt i64 %bytes, 0
  br i1 %overflow, label %python, label %shape
shape:
  [shapes]
  %extents.some = add i64 %extents, 1
  %sizes = alloca i64, i64 %extents.some
  %static = icmp eq ptr %shapes, null
  br i1 %static, label %allocate, label %evaluate
evaluate:
  call void %shapes(ptr %dims, ptr %sizes)
  br label %allocate
allocate:
  [outputs] [empty]
  %results.some = add i64 %results, 1
  %objects = alloca ptr, i64 %results.some
  %result.pointers = alloca ptr, i64 %results.some
  %made = call i64 @tgc_outputs(ptr %empty, ptr %outputs, i64 %results, ptr %sizes, ptr %objects, ptr %result.pointers)
  %complete = icmp eq i64 %made, %results
  br i1 %complete, label %reserve, label %undo
undo:
  call void @tgc_drop(ptr %objects, i64 %made)
  call void @PyErr_Clear()
  br label %python
reserve:
  %memory.at = alloca ptr
  store ptr null, ptr %memory.at
  %needs = icmp sgt i64 %bytes, 0
  [slots]
  br i1 %needs, label %acquire, label %fill
acquire:
  %acquired = call ptr @tgc_workspace_acquire(ptr %slots, i64 %bytes, ptr %memory.at)
  %memory.new = load ptr, ptr %memory.at
  %exhausted = icmp eq ptr %memory.new, null
  br i1 %exhausted, label %memory.error, label %fill
memory.error:
  call void @tgc_workspace_release(ptr %acquired, ptr null)
  call void @tgc_drop(ptr %objects, i64 %results)
  br label %python
fill:
  %slot = phi ptr [ null, %reserve ], [ %acquired, %acquire ]
  %memory = load ptr, ptr %memory.at
  [bound_state] [constants] [entry] [cost]
  %own.state = getelementptr ptr, ptr %pointers, i64 %inputs
  %unbound = icmp eq ptr %bound_state, null
  %state = select i1 %unbound, ptr %own.state, ptr %bound_state
  %call = alloca CALL
  store ptr %pointers, ptr %call
  %outputs.to = getelementptr CALL, ptr %call, i32 0, i32 1
  store ptr %result.pointers, ptr %outputs.to
  %state.to = getelementptr CALL, ptr %call, i32 0, i32 2
  store ptr %state, ptr %state.to
  %constants.to = getelementptr CALL, ptr %call, i32 0, i32 3
  store ptr %constants, ptr %constants.to
  %dims.to = getelementptr CALL, ptr %call, i32 0, i32 4
  store ptr %dims, ptr %dims.to
  %memory.to = getelementptr CALL, ptr %call, i32 0, i32 5
  store ptr %memory, ptr %memory.to
  %executor.to = getelementptr CALL, ptr %call, i32 0, i32 6
  store ptr %executor, ptr %executor.to
  %total = call i64 %cost(ptr %dims)
  %long = icmp uge i64 %total, RELEASE_COST
  br i1 %long, label %release, label %hold
release:
  %rousing = icmp uge i64 %total, ROUSE_COST
  %pooled = icmp ne ptr %executor, null
  %worth = and i1 %rousing, %pooled
  br i1 %worth, label %rouse, label %leave
rouse:
  call void @tgc_pool_rouse(ptr %executor)
  br label %leave
leave:
  %thread = call ptr @PyEval_SaveThread()
  %status.released = call i32 %entry(ptr %call)
  call void @tgc_workspace_release(ptr %slot, ptr %memory)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %finish
hold:
  %status.held = call i32 %entry(ptr %call)
  call void @tgc_workspace_release(ptr %slot, ptr %memory)
  br label %finish
finish:
  %status = phi i32 [ %status.released, %leave ], [ %status.held, %hold ]
  %success = icmp eq i32 %status, 0
  br i1 %success, label %return, label %failed
failed:
  call void @tgc_drop(ptr %objects, i64 %results)
  ret ptr null
return:
  %returned = call ptr @tgc_returned(ptr %objects, i64 %results)
  ret ptr %returned
python:
  [slow]
  %explained = call ptr @PyObject_Vectorcall(ptr %slow, ptr %args, i64 %n, ptr null)
  ret ptr %explained
}
"""


def call_text(header_bytes: int) -> str:
    """LLVM IR of ``tgc_call``, a METH_FASTCALL function whose ``self`` is a tuple that begins with a capsule of a
    :class:`Description`. ``header_bytes``: the size of a bare Python object, whose last word is its type."""
    words = {
        "EXECUTOR": EXECUTOR_TYPE,
        "CALL": CALL_TYPE,
        "SLOT_COUNT": str(SLOTS),
        "RELEASE_COST": str(PARALLEL_THRESHOLD),
        "ROUSE_COST": str(_ROUSE_COST),
        "TYPE": str(header_bytes - 8),
        "DATA": str(header_bytes),
        "RANK": str(header_bytes + 8),
        "SIZES": str(header_bytes + 16),
        "DTYPE": str(header_bytes + 40),
        "FLAGS": str(header_bytes + 48),
    }
    text = _DECLARATIONS + _ACCEPT + WORKSPACE + OUTPUTS + _CALL
    text = re.sub(r"\b(?:" + "|".join(words) + r")\b", lambda match: words[match.group()], text)
    return re.sub(r"\[(\w+)\](?= |\n)", _load_field, text)


def _load_field(match: re.Match[str]) -> str:
    """``[name]`` at the end of a line or before another: the code that loads a field of the description."""
    name = match[1]
    if name not in DESCRIPTION_FIELDS:
        return match[0]
    index = DESCRIPTION_FIELDS.index(name)
    kind = "ptr" if index < _COUNTS else "i64"
    return f"%{name}.at = getelementptr i64, ptr %d, i64 {index}\n  %{name} = load {kind}, ptr %{name}.at\n "
