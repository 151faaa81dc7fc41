"""The thread pool, as text of LLVM IR: pthreads that spin briefly, then sleep on a futex.

A pool lives in memory its caller gives; it starts with the executor struct of :mod:`tgc.backend.abi`. The calling
thread always takes part. Parts of a job are dealt to the threads in equal runs, so that a thread meets the same data
from launch to launch, and whoever is done takes from the others. A job ends when its parts are done: a thread that
comes late, or never (after ``fork``), is not waited for. Only one job runs at a time; a second caller, or a task that
itself wants threads, runs its job alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from tgc.backend.abi import EXECUTOR_TYPE, Status

LINE = 128
"""Words that different threads write stand so far apart: two cache lines, as processors fetch them in pairs."""

SPINS = 600
"""How often a waiting thread looks before it sleeps: 10 to 40 µs."""

_SYSTEM_CALLS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"x86_64": (202, 39), "aarch64": (98, 172), "riscv64": (98, 172)}
)
"""The numbers of ``futex`` and ``getpid`` on Linux."""

# Byte offsets: what never changes, then one line for each word that is written often.
_PID, _STOP, _STARTED, _THREADS = 32, 40, 44, 16
_GENERATION, _STATE, _SLEEPERS, _BUSY, _JOB, _WAITING = (LINE * line for line in range(1, 7))
_LINES = 7 * LINE
_PTHREAD, _POOL, _INDEX = 8, 16, 24

_HEADER = """\
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i64 @syscall(i64, ...)
"""

_WAIT = """
define internal void @tgc_futex_wait(ptr %word, i32 %seen) {
  %1 = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 128, i32 %seen, ptr null)
  ret void
}
define internal void @tgc_futex_wake(ptr %word, i32 %most) {
  %1 = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 129, i32 %most)
  ret void
}
"""

_WORK = """
define internal void @tgc_pool_work(ptr %pool, i32 %index) {
  %job = getelementptr i8, ptr %pool, i64 JOB
  %task = load ptr, ptr %job
  %closure.at = getelementptr i8, ptr %job, i64 8
  %closure = load ptr, ptr %closure.at
  %count.at = getelementptr i8, ptr %job, i64 16
  %count = load i64, ptr %count.at
  %threads.at = getelementptr i8, ptr %pool, i64 THREADS
  %threads32 = load i32, ptr %threads.at
  %threads = zext i32 %threads32 to i64
  %more = add i64 %count, %threads
  %less = sub i64 %more, 1
  %run = udiv i64 %less, %threads
  %first = zext i32 %index to i64
  br label %next
next:
  %tried = phi i64 [ 0, %0 ], [ %tried1, %exhausted ]
  %done = icmp eq i64 %tried, %threads
  br i1 %done, label %end, label %victim
victim:
  %sum = add i64 %first, %tried
  %whose = urem i64 %sum, %threads
  %start = mul i64 %whose, %run
  %at = mul i64 %whose, LINE
  %offset = add i64 %at, LINES
  %counter = getelementptr i8, ptr %pool, i64 %offset
  br label %take
take:
  %taken = atomicrmw add ptr %counter, i64 1 monotonic
  %part = add i64 %start, %taken
  %mine = icmp ult i64 %taken, %run
  %exists = icmp ult i64 %part, %count
  %go = and i1 %mine, %exists
  br i1 %go, label %perform, label %exhausted
perform:
  %end.part = add i64 %part, 1
  call void %task(ptr %closure, i64 %part, i64 %end.part, i32 %index)
  br label %take
exhausted:
  %tried1 = add i64 %tried, 1
  br label %next
end:
  ret void
}
"""

# `state` counts the threads inside the job; its top bit says that the job is open. A worker enters only while it is.
_WORKER = """
define internal ptr @tgc_pool_worker(ptr %line) {
  %pool.at = getelementptr i8, ptr %line, i64 POOL
  %pool = load ptr, ptr %pool.at
  %index.at = getelementptr i8, ptr %line, i64 INDEX
  %index = load i32, ptr %index.at
  %stop.at = getelementptr i8, ptr %pool, i64 STOP
  %generation = getelementptr i8, ptr %pool, i64 GENERATION
  %state = getelementptr i8, ptr %pool, i64 STATE
  %sleepers = getelementptr i8, ptr %pool, i64 SLEEPERS
  %waiting = getelementptr i8, ptr %pool, i64 WAITING
  br label %wait
wait:
  %seen = phi i32 [ 0, %0 ], [ %now, %enter ], [ %now, %work ], [ %now, %leave ], [ %now, %wake ], [ %seen, %sleep ]
  br label %spin
spin:
  %left = phi i32 [ SPINS, %wait ], [ %left1, %idle ]
  %now = load atomic i32, ptr %generation acquire, align 4
  %same = icmp eq i32 %now, %seen
  br i1 %same, label %idle, label %called
idle:
  PAUSE
  %left1 = sub i32 %left, 1
  %tired = icmp eq i32 %left1, 0
  br i1 %tired, label %sleep, label %spin
sleep:
  %1 = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @tgc_futex_wait(ptr %generation, i32 %seen)
  %2 = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %wait
called:
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %ends = icmp ne i32 %stop, 0
  br i1 %ends, label %end, label %enter
enter:
  %inside = load atomic i32, ptr %state acquire, align 4
  %open = icmp slt i32 %inside, 0
  br i1 %open, label %try, label %wait
try:
  %inside1 = add i32 %inside, 1
  %swap = cmpxchg ptr %state, i32 %inside, i32 %inside1 seq_cst acquire
  %entered = extractvalue { i32, i1 } %swap, 1
  br i1 %entered, label %work, label %enter
work:
  call void @tgc_pool_work(ptr %pool, i32 %index)
  %before = atomicrmw sub ptr %state, i32 1 seq_cst
  %last = icmp eq i32 %before, 1
  br i1 %last, label %leave, label %wait
leave:
  %awaited = load atomic i32, ptr %waiting seq_cst, align 4
  %asleep = icmp ne i32 %awaited, 0
  br i1 %asleep, label %wake, label %wait
wake:
  call void @tgc_futex_wake(ptr %state, i32 1)
  br label %wait
end:
  ret ptr null
}
"""

_PARALLEL_FOR = """
define internal i32 @tgc_pool_parallel_for(ptr %pool, ptr %task, ptr %closure, i64 %count) {
  %busy = getelementptr i8, ptr %pool, i64 BUSY
  %swap = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue { i32, i1 } %swap, 1
  br i1 %free, label %prepare, label %alone
alone:
  call void %task(ptr %closure, i64 0, i64 %count, i32 0)
  ret i32 0
prepare:
  %job = getelementptr i8, ptr %pool, i64 JOB
  store ptr %task, ptr %job
  %closure.at = getelementptr i8, ptr %job, i64 8
  store ptr %closure, ptr %closure.at
  %count.at = getelementptr i8, ptr %job, i64 16
  store i64 %count, ptr %count.at
  %threads.at = getelementptr i8, ptr %pool, i64 THREADS
  %threads32 = load i32, ptr %threads.at
  %threads = zext i32 %threads32 to i64
  %state = getelementptr i8, ptr %pool, i64 STATE
  %generation = getelementptr i8, ptr %pool, i64 GENERATION
  %sleepers = getelementptr i8, ptr %pool, i64 SLEEPERS
  %waiting = getelementptr i8, ptr %pool, i64 WAITING
  br label %clear
clear:
  %thread = phi i64 [ 0, %prepare ], [ %thread1, %clear ]
  %at = mul i64 %thread, LINE
  %offset = add i64 %at, LINES
  %counter = getelementptr i8, ptr %pool, i64 %offset
  store atomic i64 0, ptr %counter monotonic, align 8
  %thread1 = add i64 %thread, 1
  %cleared = icmp eq i64 %thread1, %threads
  br i1 %cleared, label %open, label %clear
open:
  store atomic i32 -2147483648, ptr %state seq_cst, align 4
  %1 = atomicrmw add ptr %generation, i32 1 seq_cst
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %any = icmp sgt i32 %asleep, 0
  br i1 %any, label %wake, label %work
wake:
  %others = trunc i64 %count to i32
  %helpers = sub i32 %others, 1
  %fewer = icmp ult i32 %helpers, %asleep
  %most = select i1 %fewer, i32 %helpers, i32 %asleep
  call void @tgc_futex_wake(ptr %generation, i32 %most)
  br label %work
work:
  call void @tgc_pool_work(ptr %pool, i32 0)
  %2 = atomicrmw and ptr %state, i32 2147483647 seq_cst
  br label %join
join:
  %left = phi i32 [ SPINS, %work ], [ %left1, %idle ]
  %inside = load atomic i32, ptr %state acquire, align 4
  %empty = icmp eq i32 %inside, 0
  br i1 %empty, label %end, label %idle
idle:
  PAUSE
  %left1 = sub i32 %left, 1
  %tired = icmp eq i32 %left1, 0
  br i1 %tired, label %sleep, label %join
sleep:
  store atomic i32 1, ptr %waiting seq_cst, align 4
  %still = load atomic i32, ptr %state seq_cst, align 4
  %none = icmp eq i32 %still, 0
  br i1 %none, label %awake, label %doze
doze:
  call void @tgc_futex_wait(ptr %state, i32 %still)
  br label %sleep
awake:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  br label %end
end:
  store atomic i32 0, ptr %busy release, align 4
  ret i32 0
}
"""

_CREATE = """
define VISIBILITY i64 @PREFIX_pool_size(i32 %threads) {
  %wide = sext i32 %threads to i64
  %lines = mul i64 %wide, LINE
  %size = add i64 %lines, SLACK
  %wrong = icmp slt i32 %threads, 1
  %result = select i1 %wrong, i64 -BAD_THREADS, i64 %size
  ret i64 %result
}
define VISIBILITY ptr @PREFIX_pool_create(ptr %memory, i32 %threads) {
  %null = icmp eq ptr %memory, null
  %few = icmp slt i32 %threads, 1
  %wrong = or i1 %null, %few
  br i1 %wrong, label %fail, label %begin
fail:
  ret ptr null
begin:
  %address = ptrtoint ptr %memory to i64
  %negative = sub i64 0, %address
  %gap = and i64 %negative, MASK
  %pool = getelementptr i8, ptr %memory, i64 %gap
  %count = zext i32 %threads to i64
  %bytes = mul i64 %count, LINE
  %size = add i64 %bytes, LINES
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 %size, i1 false)
  store ptr @tgc_pool_parallel_for, ptr %pool
  %context.at = getelementptr EXECUTOR, ptr %pool, i32 0, i32 1
  store ptr %pool, ptr %context.at
  %threads.at = getelementptr i8, ptr %pool, i64 THREADS
  store i32 %threads, ptr %threads.at
  %pid.at = getelementptr i8, ptr %pool, i64 PID
  %pid = call i64 (i64, ...) @syscall(i64 GETPID)
  store i64 %pid, ptr %pid.at
  %started.at = getelementptr i8, ptr %pool, i64 STARTED
  br label %next
next:
  %thread = phi i64 [ 1, %begin ], [ %thread1, %started ]
  %thread32 = trunc i64 %thread to i32
  store i32 %thread32, ptr %started.at
  %all = icmp eq i64 %thread, %count
  br i1 %all, label %end, label %start
start:
  %at = mul i64 %thread, LINE
  %offset = add i64 %at, LINES
  %line = getelementptr i8, ptr %pool, i64 %offset
  %pool.at = getelementptr i8, ptr %line, i64 POOL
  store ptr %pool, ptr %pool.at
  %index.at = getelementptr i8, ptr %line, i64 INDEX
  store i32 %thread32, ptr %index.at
  %pthread.at = getelementptr i8, ptr %line, i64 PTHREAD
  %error = call i32 @pthread_create(ptr %pthread.at, ptr null, ptr @tgc_pool_worker, ptr %line)
  %ok = icmp eq i32 %error, 0
  br i1 %ok, label %started, label %undo
started:
  %thread1 = add i64 %thread, 1
  br label %next
undo:
  call void @PREFIX_pool_destroy(ptr %pool)
  ret ptr null
end:
  ret ptr %pool
}
"""

# The pool stays busy for ever after: whoever still holds it runs alone.
_DESTROY = """
define VISIBILITY void @PREFIX_pool_destroy(ptr %pool) {
  %null = icmp eq ptr %pool, null
  br i1 %null, label %end, label %whose
whose:
  %pid.at = getelementptr i8, ptr %pool, i64 PID
  %creator = load i64, ptr %pid.at
  %pid = call i64 (i64, ...) @syscall(i64 GETPID)
  %ours = icmp eq i64 %creator, %pid
  br i1 %ours, label %acquire, label %end
acquire:
  %busy = getelementptr i8, ptr %pool, i64 BUSY
  %swap = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue { i32, i1 } %swap, 1
  br i1 %free, label %stop, label %again
again:
  PAUSE
  br label %acquire
stop:
  %stop.at = getelementptr i8, ptr %pool, i64 STOP
  store atomic i32 1, ptr %stop.at seq_cst, align 4
  %generation = getelementptr i8, ptr %pool, i64 GENERATION
  %1 = atomicrmw add ptr %generation, i32 1 seq_cst
  call void @tgc_futex_wake(ptr %generation, i32 2147483647)
  %started.at = getelementptr i8, ptr %pool, i64 STARTED
  %started32 = load i32, ptr %started.at
  %started = zext i32 %started32 to i64
  br label %next
next:
  %thread = phi i64 [ 1, %stop ], [ %thread1, %join ]
  %all = icmp uge i64 %thread, %started
  br i1 %all, label %end, label %join
join:
  %at = mul i64 %thread, LINE
  %offset = add i64 %at, LINES
  %line = getelementptr i8, ptr %pool, i64 %offset
  %pthread.at = getelementptr i8, ptr %line, i64 PTHREAD
  %pthread = load i64, ptr %pthread.at
  %2 = call i32 @pthread_join(i64 %pthread, ptr null)
  %thread1 = add i64 %thread, 1
  br label %next
end:
  ret void
}
"""


def has_pool(triple: str) -> bool:
    """Whether there is a pool for the target: on 64-bit Linux. Elsewhere the caller's executor or none is used."""
    architecture, _, system = triple.partition("-")
    return architecture in _SYSTEM_CALLS and "linux" in system


def pool_text(triple: str, *, prefix: str, exported: bool = True) -> str:
    """LLVM IR of ``PREFIX_pool_size``, ``PREFIX_pool_create`` and ``PREFIX_pool_destroy``; empty where there is none.

    ``i64 pool_size(i32 threads)``; ``ptr pool_create(ptr memory, i32 threads)`` starts the threads and returns the
    executor, or null if it cannot; ``void pool_destroy(ptr executor)`` waits for the running job and ends the threads.
    The rest is internal: one pool to a module.
    """
    if not has_pool(triple):
        return ""
    architecture = triple.partition("-")[0]
    futex, getpid = _SYSTEM_CALLS[architecture]
    pauses = {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": "call void @llvm.aarch64.isb(i32 15)"}
    words = {
        "VISIBILITY": "dso_local" if exported else "internal",
        "PREFIX": prefix,
        "PAUSE": pauses.get(architecture, "fence seq_cst"),
        "FUTEX": str(futex),
        "GETPID": str(getpid),
        "EXECUTOR": EXECUTOR_TYPE,
        "BAD_THREADS": str(int(Status.THREADS)),
        "GENERATION": str(_GENERATION),
        "SLEEPERS": str(_SLEEPERS),
        "WAITING": str(_WAITING),
        "STARTED": str(_STARTED),
        "THREADS": str(_THREADS),
        "PTHREAD": str(_PTHREAD),
        "STATE": str(_STATE),
        "SPINS": str(SPINS),
        "SLACK": str(_LINES + LINE),
        "INDEX": str(_INDEX),
        "LINES": str(_LINES),
        "BUSY": str(_BUSY),
        "LINE": str(LINE),
        "MASK": str(LINE - 1),
        "POOL": str(_POOL),
        "STOP": str(_STOP),
        "JOB": str(_JOB),
        "PID": str(_PID),
    }
    text = _HEADER + _WAIT + _WORK + _WORKER + _PARALLEL_FOR + _CREATE + _DESTROY
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    return re.sub(longest_first, lambda match: words[match.group()], text)
