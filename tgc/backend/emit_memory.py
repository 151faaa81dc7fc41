"""LLVM IR for loads, stores, gathers and scatters, with tails, masks and, in debug emission, bounds checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tgc.backend.llvm_text import Writer, all_lanes, memory_type, vector
from tgc.dtypes import i64
from tgc.kernels.ir import Buffer, Operation, Value


def address(w: Writer, buffer: Buffer, offset: Value) -> str:
    """A pointer to an element: base and index once per block, constant displacements as immediates."""
    element, base = memory_type(buffer.dtype, 1), w.pointers[buffer]
    displacement = 0
    if offset.constant is not None:
        displacement = int(offset.constant)
        pointer = base
    else:
        inner = offset.operation
        if inner is not None and inner.name == "add" and inner.operands[1].constant is not None:
            offset, displacement = inner.operands[0], int(inner.operands[1].constant)
        key = (buffer, offset.number)
        found = w.addresses.get(key)
        if found is None:
            found = w.addresses[key] = w.op(f"getelementptr {element}, ptr {base}, i64 {w.name(offset)}")
        pointer = found
    if not displacement:
        return pointer
    return w.op(f"getelementptr i8, ptr {pointer}, i64 {displacement * buffer.dtype.itemsize}")


def load(w: Writer, operation: Operation) -> str:
    """Consecutive elements to registers."""
    (result,) = operation.results
    buffer, lanes = operation.buffer, result.lanes
    kind = operation.attributes[1]
    guard = operation.operands[1] if kind else None
    check_range(w, operation, lanes, guard)
    pointer = address(w, buffer, operation.operands[0])
    t = memory_type(buffer.dtype, lanes)
    tail = f", align {buffer.dtype.itemsize}{w.metadata.get(buffer, '')}"
    if guard is None:
        return _from_memory(w, w.op(f"load {t}, ptr {pointer}{tail}"), buffer, lanes)
    if lanes == 1:
        return _from_memory(w, _guarded_load(w, guard, t, pointer, tail), buffer, lanes)
    if kind == "count" and guard.constant is None and not _cheap_masks(w, buffer):
        return _from_memory(w, _load_loop(w, guard, buffer, lanes, pointer, tail), buffer, lanes)
    mask = _mask(w, guard, buffer, lanes)
    loaded = w.call(
        f"llvm.masked.load.{_overload(t)}.p0",
        t,
        (f"ptr align {buffer.dtype.itemsize}", pointer),
        (vector("i1", lanes), mask),
        (t, "zeroinitializer"),
    )
    return _from_memory(w, loaded, buffer, lanes)


def store(w: Writer, operation: Operation) -> str:
    """Registers to consecutive elements."""
    value = operation.operands[1]
    buffer, lanes = operation.buffer, value.lanes
    kind = operation.attributes[1]
    guard = operation.operands[2] if kind else None
    check_range(w, operation, lanes, guard)
    pointer = address(w, buffer, operation.operands[0])
    t = memory_type(buffer.dtype, lanes)
    text = _to_memory(w, value, t)
    tail = f", align {buffer.dtype.itemsize}{w.metadata.get(buffer, '')}"
    if guard is None:
        w.do(f"store {t} {text}, ptr {pointer}{tail}")
    elif lanes == 1:
        _guarded_store(w, guard, f"store {t} {text}, ptr {pointer}{tail}")
    elif kind == "count" and guard.constant is None and not _cheap_masks(w, buffer):
        _store_loop(w, guard, buffer, lanes, pointer, tail, text)
    elif kind == "count" and guard.constant == 1:
        # of a mask of one lane LLVM makes a store of 32 bits where 16 were truncated: it zeroes what lies behind
        first = w.op(f"extractelement {t} {text}, i64 0")
        w.do(f"store {memory_type(buffer.dtype, 1)} {first}, ptr {pointer}{tail}")
    else:
        mask = _mask(w, guard, buffer, lanes)
        align = f"ptr align {buffer.dtype.itemsize}"
        w.call(
            f"llvm.masked.store.{_overload(t)}.p0",
            "void",
            (t, text),
            (align, pointer),
            (vector("i1", lanes), mask),
        )
    return ""


def gather(w: Writer, operation: Operation) -> str:
    """Loads from an offset for each lane."""
    (result,) = operation.results
    buffer, lanes = operation.buffer, result.lanes
    guard = operation.operands[1] if operation.attributes[1] else None
    check_lanes(w, operation, guard)
    t, element = memory_type(buffer.dtype, lanes), memory_type(buffer.dtype, 1)
    offsets = operation.operands[0]
    pointers = w.op(f"getelementptr {element}, ptr {w.pointers[buffer]}, {w.typed(offsets)}")
    if lanes == 1:
        tail = f", align {buffer.dtype.itemsize}{w.metadata.get(buffer, '')}"
        if guard is not None:
            return _from_memory(w, _guarded_load(w, guard, t, pointers, tail), buffer, 1)
        return _from_memory(w, w.op(f"load {t}, ptr {pointers}{tail}"), buffer, 1)
    mask = all_lanes("i1", "true", lanes) if guard is None else w.name(guard)
    loaded = w.call(
        f"llvm.masked.gather.{_overload(t)}.v{lanes}p0",
        t,
        (f"<{lanes} x ptr> align {buffer.dtype.itemsize}", pointers),
        (vector("i1", lanes), mask),
        (t, "zeroinitializer"),
    )
    return _from_memory(w, loaded, buffer, lanes)


def scatter(w: Writer, operation: Operation) -> str:
    """Stores to an offset for each lane."""
    offsets, value = operation.operands[:2]
    buffer, lanes = operation.buffer, value.lanes
    guard = operation.operands[2] if operation.attributes[1] else None
    check_lanes(w, operation, guard)
    t, element = memory_type(buffer.dtype, lanes), memory_type(buffer.dtype, 1)
    text = _to_memory(w, value, t)
    pointers = w.op(f"getelementptr {element}, ptr {w.pointers[buffer]}, {w.typed(offsets)}")
    if lanes == 1:
        instruction = f"store {t} {text}, ptr {pointers}, align {buffer.dtype.itemsize}{w.metadata.get(buffer, '')}"
        if guard is None:
            w.do(instruction)
        else:
            _guarded_store(w, guard, instruction)
        return ""
    mask = all_lanes("i1", "true", lanes) if guard is None else w.name(guard)
    w.call(
        f"llvm.masked.scatter.{_overload(t)}.v{lanes}p0",
        "void",
        (t, text),
        (f"<{lanes} x ptr> align {buffer.dtype.itemsize}", pointers),
        (vector("i1", lanes), mask),
    )
    return ""


def prefetch(w: Writer, operation: Operation) -> str:
    """A hint to the cache."""
    pointer = address(w, operation.buffer, operation.operands[0])
    write = "1" if operation.attributes[1] else "0"
    w.call("llvm.prefetch.p0", "void", ("ptr", pointer), ("i32", write), ("i32", "3"), ("i32", "1"))
    return ""


# -- registers and memory ------------------------------------------------------------------------------------------


def _from_memory(w: Writer, text: str, buffer: Buffer, lanes: int) -> str:
    if buffer.dtype.kind != "bool":
        return text
    return w.op(f"icmp ne {memory_type(buffer.dtype, lanes)} {text}, {all_lanes('i8', '0', lanes)}")


def _to_memory(w: Writer, value: Value, t: str) -> str:
    return w.op(f"zext {w.typed(value)} to {t}") if value.dtype.kind == "bool" else w.name(value)


def _overload(t: str) -> str:
    short = {"float": "f32", "double": "f64"}
    lanes, _, element = t[1:-1].partition(" x ")
    return f"v{lanes}{short.get(element, element)}"


# -- tails ---------------------------------------------------------------------------------------------------------


def _cheap_masks(w: Writer, buffer: Buffer) -> bool:
    """AVX2 has masks for 32 and 64 bits only."""
    narrow = buffer.dtype.itemsize < 4 and w.target.triple.startswith("x86") and w.target.vector_bits < 512
    return w.target.masked and not narrow


def _clamped(w: Writer, count: Value, lanes: int) -> str:
    """How many lanes are valid, from 0 to ``lanes``."""
    if count.constant is not None:
        return str(min(max(int(count.constant), 0), lanes))
    low = w.call("llvm.smax.i64", "i64", ("i64", w.name(count)), ("i64", "0"))
    return w.call("llvm.smin.i64", "i64", ("i64", low), ("i64", str(lanes)))


def _mask(w: Writer, guard: Value, buffer: Buffer, lanes: int) -> str:
    if guard.dtype is not i64:
        return w.name(guard)
    valid = _clamped(w, guard, lanes)
    if guard.constant is not None:
        return "<" + ", ".join([f"i1 {'true' if lane < int(valid) else 'false'}" for lane in range(lanes)]) + ">"
    # compared in lanes as wide as the elements, which is how the hardware wants its masks
    bits = max(buffer.dtype.bits, 8 if lanes < 128 else 32)
    key = (guard.number, bits, lanes)
    if key in w.masks:
        return w.masks[key]
    element = f"i{bits}"
    number = valid if bits == 64 else w.op(f"trunc i64 {valid} to {element}")
    whole = vector(element, lanes)
    positions = ", ".join([f"{element} {lane}" for lane in range(lanes)])
    mask = w.masks[key] = w.op(f"icmp ult {whole} <{positions}>, {w.splat(element, number, lanes)}")
    return mask


def _condition(w: Writer, guard: Value) -> str:
    return w.name(guard) if guard.dtype is not i64 else w.op(f"icmp sgt i64 {w.name(guard)}, 0")


def _guarded_load(w: Writer, guard: Value, t: str, pointer: str, tail: str) -> str:
    inside, after, before = w.fresh("load"), w.fresh("loaded"), w.block
    w.do(f"br i1 {_condition(w, guard)}, label %{inside}, label %{after}")
    w.label(inside)
    loaded = w.op(f"load {t}, ptr {pointer}{tail}")
    w.do(f"br label %{after}")
    w.label(after)
    zero = "0.0" if t in ("float", "double") else "0"
    return w.op(f"phi {t} [ {zero}, %{before} ], [ {loaded}, %{inside} ]")


def _guarded_store(w: Writer, guard: Value, instruction: str) -> None:
    inside, after = w.fresh("store"), w.fresh("stored")
    w.do(f"br i1 {_condition(w, guard)}, label %{inside}, label %{after}")
    w.label(inside)
    w.do(instruction)
    w.do(f"br label %{after}")
    w.label(after)


def _load_loop(w: Writer, guard: Value, buffer: Buffer, lanes: int, pointer: str, tail: str) -> str:
    """Element by element into a vector on the stack: where masks are dear this is the cheapest."""
    t = memory_type(buffer.dtype, lanes)
    w.tail_bytes = max(w.tail_bytes, lanes * buffer.dtype.itemsize)
    w.do(f"store {t} zeroinitializer, ptr %tail, align 64")
    _copy_loop(w, _clamped(w, guard, lanes), buffer, pointer, tail, "%tail", "")
    return w.op(f"load {t}, ptr %tail, align 64")


def _store_loop(w: Writer, guard: Value, buffer: Buffer, lanes: int, pointer: str, tail: str, text: str) -> None:
    w.tail_bytes = max(w.tail_bytes, lanes * buffer.dtype.itemsize)
    w.do(f"store {memory_type(buffer.dtype, lanes)} {text}, ptr %tail, align 64")
    _copy_loop(w, _clamped(w, guard, lanes), buffer, "%tail", "", pointer, tail)


def _copy_loop(w: Writer, count: str, buffer: Buffer, source: str, load_tail: str, into: str, store_tail: str) -> None:
    element, before = memory_type(buffer.dtype, 1), w.block
    body, after = w.fresh("copy"), w.fresh("copied")
    w.do(f"br i1 {w.op(f'icmp sgt i64 {count}, 0')}, label %{body}, label %{after}")
    w.label(body)
    following = f"%{w.fresh('next')}"
    lane = w.op(f"phi i64 [ 0, %{before} ], [ {following}, %{body} ]")
    moved = w.op(f"load {element}, ptr {w.op(f'getelementptr {element}, ptr {source}, i64 {lane}')}{load_tail}")
    w.do(f"store {element} {moved}, ptr {w.op(f'getelementptr {element}, ptr {into}, i64 {lane}')}{store_tail}")
    w.do(f"{following} = add i64 {lane}, 1")
    w.do(f"br i1 {w.op(f'icmp slt i64 {following}, {count}')}, label %{body}, label %{after}")
    w.label(after)


# -- bounds --------------------------------------------------------------------------------------------------------


def check_range(w: Writer, operation: Operation, lanes: int, guard: Value | None) -> None:
    """In debug emission: return from the kernel before an access of consecutive elements leaves its buffer."""
    if w.checks is None:
        return
    offset = operation.operands[0]
    start = w.name(offset)
    if guard is not None and guard.dtype is not i64:
        lanes_text = ", ".join([f"i64 {lane}" for lane in range(lanes)])
        offsets = start
        if lanes > 1:
            offsets = w.op(f"add <{lanes} x i64> {w.splat('i64', start, lanes)}, <{lanes_text}>")
        _check_vector(w, operation.buffer, offsets, lanes, guard)
        return
    count = str(lanes) if guard is None else _clamped(w, guard, lanes)
    size = w.sizes[operation.buffer]
    end = w.op(f"add i64 {start}, {count}")
    outside = w.op(f"or i1 {w.op(f'icmp slt i64 {start}, 0')}, {w.op(f'icmp sgt i64 {end}, {size}')}")
    outside = w.op(f"and i1 {outside}, {w.op(f'icmp ne i64 {count}, 0')}")
    _leave_if(w, operation.buffer, outside, start)


def check_lanes(w: Writer, operation: Operation, guard: Value | None) -> None:
    """In debug emission: the same for offsets in a vector."""
    if w.checks is None:
        return
    offsets = operation.operands[0]
    text, lanes = w.name(offsets), offsets.lanes
    if offsets.dtype is not i64:
        text = w.op(f"sext {w.typed(offsets)} to {vector('i64', lanes)}")
    _check_vector(w, operation.buffer, text, lanes, guard)


def _check_vector(w: Writer, buffer: Buffer, offsets: str, lanes: int, mask: Value | None) -> None:
    t, bools = vector("i64", lanes), vector("i1", lanes)
    outside = w.op(f"icmp uge {t} {offsets}, {w.splat('i64', w.sizes[buffer], lanes)}")
    if mask is not None:
        outside = w.op(f"and {bools} {outside}, {w.name(mask)}")
    if lanes == 1:
        _leave_if(w, buffer, outside, offsets)
        return
    any_outside = w.call(f"llvm.vector.reduce.or.v{lanes}i1", "i1", (bools, outside))
    shown = w.op(f"select {bools} {outside}, {t} {offsets}, {t} {all_lanes('i64', str(-(2**63)), lanes)}")
    _leave_if(w, buffer, any_outside, w.call(f"llvm.vector.reduce.smax.v{lanes}i64", "i64", (t, shown)))


def _leave_if(w: Writer, buffer: Buffer, outside: str, offset: str) -> None:
    failed, passed = w.fresh("outside"), w.fresh("inside")
    w.do(f"br i1 {outside}, label %{failed}, label %{passed}")
    w.label(failed)
    number = (w.kernel.buffers + w.kernel.scratch).index(buffer)
    w.do(f"call void @tgc_out_of_bounds(i64 {w.checks}, i64 {number}, i64 {offset}, i64 {w.sizes[buffer]})")
    w.do("ret void")
    w.label(passed)


Emitter = Callable[[Writer, Operation], str]
MEMORY: Final[Mapping[str, Emitter]] = MappingProxyType(
    {"load": load, "store": store, "gather": gather, "scatter": scatter, "prefetch": prefetch}
)
