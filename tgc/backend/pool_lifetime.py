"""How a thread pool begins and ends, as text of LLVM IR; the words in capitals are filled in by its other half."""

START = """
define internal void @tgc_pool_start(ptr %pool) noinline optnone {
  %threads.at = getelementptr i8, ptr %pool, i64 THREADS
  %threads32 = load i32, ptr %threads.at
  %threads = zext i32 %threads32 to i64
  %started.at = getelementptr i8, ptr %pool, i64 STARTED
  br label %next
next:
  %thread = phi i64 [ 1, %0 ], [ %thread1, %started ]
  %thread32 = trunc i64 %thread to i32
  store i32 %thread32, ptr %started.at
  %all = icmp eq i64 %thread, %threads
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
  br i1 %ok, label %started, label %end
started:
  %thread1 = add i64 %thread, 1
  br label %next
end:
  ret void
}
"""

CREATE = """
define i64 @PREFIX_pool_size(i32 %threads) noinline optnone {
  %wide = sext i32 %threads to i64
  %lines = mul i64 %wide, LINE
  %size = add i64 %lines, SLACK
  %wrong = icmp slt i32 %threads, 1
  %result = select i1 %wrong, i64 -BAD_THREADS, i64 %size
  ret i64 %result
}
define PREPAREDptr @PREFIX_pool_prepare(ptr %memory, i32 %threads) noinline optnone {
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
  ret ptr %pool
}
define ptr @PREFIX_pool_create(ptr %memory, i32 %threads) noinline optnone {
  %pool = call ptr @PREFIX_pool_prepare(ptr %memory, i32 %threads)
  %null = icmp eq ptr %pool, null
  br i1 %null, label %fail, label %begin
fail:
  ret ptr null
begin:
  call void @tgc_pool_start(ptr %pool)
  %started.at = getelementptr i8, ptr %pool, i64 STARTED
  %started = load i32, ptr %started.at
  %all = icmp eq i32 %started, %threads
  br i1 %all, label %end, label %undo
undo:
  call void @PREFIX_pool_destroy(ptr %pool)
  ret ptr null
end:
  ret ptr %pool
}
"""

# The pool stays busy for ever after: whoever still holds it runs alone.
DESTROY = """
define void @PREFIX_pool_destroy(ptr %pool) noinline optnone {
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

# Wakes sleeping threads without a job: they look for one until they are tired again.
ROUSE = """
define internal void @tgc_pool_rouse(ptr %pool) {
  %sleepers = getelementptr i8, ptr %pool, i64 SLEEPERS
  %asleep = load atomic i32, ptr %sleepers monotonic, align 4
  %any = icmp sgt i32 %asleep, 0
  br i1 %any, label %wake, label %end
wake:
  %generation = getelementptr i8, ptr %pool, i64 GENERATION
  %1 = atomicrmw add ptr %generation, i32 1 seq_cst
  call void @tgc_futex_wake(ptr %generation, i32 %asleep)
  br label %end
end:
  ret void
}
"""
