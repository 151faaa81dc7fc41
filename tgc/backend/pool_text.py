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

from tgc.backend.abi import EXECUTOR_TYPE, PARTS_PER_THREAD, Status
from tgc.backend.pool_lifetime import CREATE, DESTROY, ROUSE, START

LINE = 128
"""Words that different threads write stand so far apart: two cache lines, as processors fetch them in pairs."""

SPINS = 1500
"""How often a waiting thread looks before it sleeps: some 50 µs."""

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

# Waking a thread costs the waker 5 to 20 µs, so each one that is woken needs some parts to itself; threads that still
# spin help with any job.
_PARALLEL_FOR = """
define internal i32 @tgc_pool_parallel_for(ptr %pool, ptr %task, ptr %closure, i64 %count) {
  %busy = getelementptr i8, ptr %pool, i64 BUSY
  %swap = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue { i32, i1 } %swap, 1
  br i1 %free, label %ready, label %alone
alone:
  call void %task(ptr %closure, i64 0, i64 %count, i32 0)
  ret i32 0
ready:
  %started.at = getelementptr i8, ptr %pool, i64 STARTED
  %started = load i32, ptr %started.at
  %fresh = icmp eq i32 %started, 0
  br i1 %fresh, label %start, label %prepare
start:
  call void @tgc_pool_start(ptr %pool)
  br label %prepare
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
  %enough = udiv i64 %count, WORTH
  %helpers = trunc i64 %enough to i32
  %most = call i32 @llvm.smin.i32(i32 %helpers, i32 %asleep)
  %any = icmp sgt i32 %most, 0
  br i1 %any, label %wake, label %work
wake:
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


def has_pool(triple: str) -> bool:
    """Whether there is a pool for the target: on 64-bit Linux. Elsewhere the caller's executor or none is used."""
    architecture, _, system = triple.partition("-")
    return architecture in _SYSTEM_CALLS and "linux" in system


def rouse_text(triple: str) -> str:
    """LLVM IR of ``tgc_pool_rouse(ptr executor)`` where there is no pool."""
    return "" if has_pool(triple) else "define internal void @tgc_pool_rouse(ptr %pool) {\n  ret void\n}\n"


def pool_text(triple: str, *, prefix: str, lazy: bool = False) -> str:
    """LLVM IR of ``PREFIX_pool_size``, ``_create``, ``_prepare`` and ``_destroy``; empty where there is no pool.

    ``i64 pool_size(i32 threads)``; ``ptr pool_create(ptr memory, i32 threads)`` starts the threads and returns the
    executor, or null if it cannot; ``pool_prepare`` leaves starting them to the first job, which makes do with those
    that start; ``void pool_destroy(ptr executor)`` waits for the running job and ends the threads, and does nothing in
    a forked child. The rest is internal, and so is ``_prepare`` unless ``lazy``: one pool to a module. With ``lazy``
    there is ``void tgc_pool_rouse(ptr executor)``, which wakes the threads before a number of small jobs.
    """
    if not has_pool(triple):
        return ""
    architecture = triple.partition("-")[0]
    futex, getpid = _SYSTEM_CALLS[architecture]
    pauses = {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": "call void @llvm.aarch64.isb(i32 15)"}
    words = {
        "PREPARED": "" if lazy else "internal ",
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
        "WORTH": str(PARTS_PER_THREAD),
    }
    text = _HEADER + _WAIT + _WORK + _WORKER + _PARALLEL_FOR + START + CREATE + DESTROY + (ROUSE if lazy else "")
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    return re.sub(longest_first, lambda match: words[match.group()], text)
