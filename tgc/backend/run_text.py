"""The launch loop, as text of LLVM IR: runs a table of launches and copies, on the executor where that pays."""

from __future__ import annotations

from tgc.backend.abi import (
    CALL_TYPE,
    EXECUTOR_FIELD,
    EXECUTOR_TYPE,
    KERNEL_SIGNATURE,
    PARALLEL_THRESHOLD,
    PART_COST,
    PARTS_PER_THREAD,
    STEP_TYPE,
    Status,
)

RUNTIME_DECLARATION = "declare i32 @tgc_run(ptr, ptr, i64, ptr, ptr, ptr)\n"

# Kernel, pointers, dims, scratch; then bytes of scratch, iterations, parts: there may be more parts than iterations,
# as their number tells an executor what the job is worth.
_CLOSURE = "{ ptr, ptr, ptr, ptr, i64, i64, i64 }"

_PART = f"""
define internal void @tgc_part(ptr %closure, i64 %first, i64 %last, i32 %thread) {{
  %count.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 5
  %count = load i64, ptr %count.at
  %parts.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 6
  %parts = load i64, ptr %parts.at
  %first.scaled = mul i64 %first, %count
  %last.scaled = mul i64 %last, %count
  %begin = udiv i64 %first.scaled, %parts
  %end = udiv i64 %last.scaled, %parts
  %some = icmp ult i64 %begin, %end
  br i1 %some, label %run, label %done
run:
  %kernel = load ptr, ptr %closure
  %pointers.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 1
  %pointers = load ptr, ptr %pointers.at
  %dims.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 2
  %dims = load ptr, ptr %dims.at
  %base.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 3
  %base = load ptr, ptr %base.at
  %bytes.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 4
  %bytes = load i64, ptr %bytes.at
  %index = zext i32 %thread to i64
  %offset = mul i64 %index, %bytes
  %scratch = getelementptr i8, ptr %base, i64 %offset
  call void %kernel(ptr %pointers, ptr %dims, i64 %begin, i64 %end, ptr %scratch)
  br label %done
done:
  ret void
}}
define internal i64 @tgc_number(ptr %pair, ptr %values) {{
  %constant = load i64, ptr %pair
  %slot.at = getelementptr i64, ptr %pair, i64 1
  %slot = load i64, ptr %slot.at
  %none = icmp slt i64 %slot, 0
  br i1 %none, label %plain, label %sum
plain:
  ret i64 %constant
sum:
  %value.at = getelementptr i64, ptr %values, i64 %slot
  %value = load i64, ptr %value.at
  %total = add i64 %constant, %value
  ret i64 %total
}}
"""

_RESOLVE = """
define internal void @tgc_resolve(ptr %call, ptr %addresses, i64 %n, ptr %values, ptr %pointers) {
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %resolve ]
  %done = icmp eq i64 %i, %n
  br i1 %done, label %end, label %resolve
resolve:
  %address = getelementptr [4 x i64], ptr %addresses, i64 %i
  %field = load i64, ptr %address
  %index.at = getelementptr i64, ptr %address, i64 1
  %index = load i64, ptr %index.at
  %offset.at = getelementptr i64, ptr %address, i64 2
  %offset = call i64 @tgc_number(ptr %offset.at, ptr %values)
  %field.at = getelementptr ptr, ptr %call, i64 %field
  %array = load ptr, ptr %field.at
  %workspace = icmp eq i64 %field, 5
  %table = select i1 %workspace, ptr %field.at, ptr %array
  %base.at = getelementptr ptr, ptr %table, i64 %index
  %base = load ptr, ptr %base.at
  %pointer = getelementptr i8, ptr %base, i64 %offset
  %to = getelementptr ptr, ptr %pointers, i64 %i
  store ptr %pointer, ptr %to
  %i1 = add i64 %i, 1
  br label %next
end:
  ret void
}
"""

_LAUNCH = f"""
define internal i32 @tgc_launch(ptr %call, ptr %step, i64 %count, ptr %values, ptr %pointers, ptr %scratch.base) {{
  %kernel = load ptr, ptr %step
  %slot.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 3
  %slot = load i64, ptr %slot.at
  %dims = getelementptr i64, ptr %values, i64 %slot
  %cost.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 6
  %cost = call i64 @tgc_number(ptr %cost.at, ptr %values)
  %executor.at = getelementptr {CALL_TYPE}, ptr %call, i32 0, i32 {EXECUTOR_FIELD}
  %executor = load ptr, ptr %executor.at
  %alone = icmp eq ptr %executor, null
  br i1 %alone, label %serial, label %weigh
weigh:
  %some = call i64 @llvm.umin.i64(i64 %count, i64 2147483648)
  %each = call i64 @llvm.umin.i64(i64 %cost, i64 2147483648)
  %work = mul i64 %some, %each
  %threads.at = getelementptr {EXECUTOR_TYPE}, ptr %executor, i32 0, i32 2
  %threads32 = load i32, ptr %threads.at
  %threads = sext i32 %threads32 to i64
  %small = icmp ult i64 %work, {PARALLEL_THRESHOLD}
  %single = icmp slt i64 %threads, 2
  %one = icmp ult i64 %count, 2
  %either = or i1 %small, %single
  %not = or i1 %either, %one
  br i1 %not, label %serial, label %parallel
serial:
  call void %kernel(ptr %pointers, ptr %dims, i64 0, i64 %count, ptr %scratch.base)
  ret i32 0
parallel:
  %worthwhile = udiv i64 %work, {PART_COST}
  %useful = mul i64 %threads, {PARTS_PER_THREAD}
  %parts = call i64 @llvm.umin.i64(i64 %worthwhile, i64 %useful)
  %scratch.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 8
  %scratch = call i64 @tgc_number(ptr %scratch.at, ptr %values)
  %closure = alloca {_CLOSURE}
  store ptr %kernel, ptr %closure
  %pointers.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 1
  store ptr %pointers, ptr %pointers.at
  %dims.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 2
  store ptr %dims, ptr %dims.at
  %base.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 3
  store ptr %scratch.base, ptr %base.at
  %bytes.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 4
  store i64 %scratch, ptr %bytes.at
  %count.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 5
  store i64 %count, ptr %count.at
  %parts.at = getelementptr {_CLOSURE}, ptr %closure, i32 0, i32 6
  store i64 %parts, ptr %parts.at
  %parallel_for = load ptr, ptr %executor
  %context.at = getelementptr {EXECUTOR_TYPE}, ptr %executor, i32 0, i32 1
  %context = load ptr, ptr %context.at
  %error = call i32 %parallel_for(ptr %context, ptr @tgc_part, ptr %closure, i64 %parts)
  %failed = icmp ne i32 %error, 0
  %status = select i1 %failed, i32 {int(Status.EXECUTOR)}, i32 0
  ret i32 %status
}}
"""

_RUN = f"""
define VISIBILITY i32 @tgc_run(ptr %call, ptr %steps, i64 %n, ptr %values, ptr %pointers, ptr %scratch.base) {{
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %advance ]
  %done = icmp eq i64 %i, %n
  br i1 %done, label %end, label %perform
perform:
  %step = getelementptr {STEP_TYPE}, ptr %steps, i64 %i
  %addresses.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 1
  %addresses = load ptr, ptr %addresses.at
  %length.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 2
  %length = load i64, ptr %length.at
  call void @tgc_resolve(ptr %call, ptr %addresses, i64 %length, ptr %values, ptr %pointers)
  %count.at = getelementptr {STEP_TYPE}, ptr %step, i32 0, i32 4
  %count = call i64 @tgc_number(ptr %count.at, ptr %values)
  %i1 = add i64 %i, 1
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %kind, label %advance
kind:
  %kernel = load ptr, ptr %step
  %is.copy = icmp eq ptr %kernel, null
  br i1 %is.copy, label %copy, label %launch
copy:
  %source = load ptr, ptr %pointers
  %target.at = getelementptr ptr, ptr %pointers, i64 1
  %target = load ptr, ptr %target.at
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %count, i1 false)
  br label %advance
launch:
  %error = call i32 @tgc_launch(ptr %call, ptr %step, i64 %count, ptr %values, ptr %pointers, ptr %scratch.base)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %fail, label %advance
advance:
  br label %next
fail:
  ret i32 %error
end:
  ret i32 0
}}
"""


def run_text(*, exported: bool = False) -> str:
    """LLVM IR of ``i32 tgc_run(call, steps, n, values, pointers, scratch)``, which entries call; once per module.

    It runs ``n`` steps (:data:`tgc.backend.abi.STEP_TYPE`); ``values``: the numbers that steps refer to by slot,
    ``pointers``: room for the most buffers a step has. Returns 0 or the status of the first failure.
    """
    return _PART + _RESOLVE + _LAUNCH + _RUN.replace("VISIBILITY", "" if exported else "internal")


def kernel_declaration(name: str) -> str:
    """The line that lets an entry launch a kernel of another module."""
    return f"declare void @{name}{KERNEL_SIGNATURE}\n"
