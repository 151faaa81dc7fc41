"""The memory of a call from CPython, as text of LLVM IR: workspaces kept between calls, and arrays for the outputs."""

# A slot whose workspace is large enough or is replaced; fresh memory if all slots are taken. Returns the slot or null.
WORKSPACE = """
define internal ptr @tgc_workspace_allocate(i64 %size) noinline {
  %large = icmp uge i64 %size, 4194304
  %alignment = select i1 %large, i64 2097152, i64 64
  %mask = sub i64 %alignment, 1
  %more = add i64 %size, %mask
  %inverse = xor i64 %mask, -1
  %rounded = and i64 %more, %inverse
  %memory = call ptr @aligned_alloc(i64 %alignment, i64 %rounded)
  br i1 %large, label %advise, label %end
advise:
  %1 = call i32 @madvise(ptr %memory, i64 %rounded, i32 14)
  br label %end
end:
  ret ptr %memory
}
define internal ptr @tgc_workspace_acquire(ptr %slots, i64 %size, ptr %to) {
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %taken ]
  %all = icmp eq i64 %i, SLOT_COUNT
  br i1 %all, label %fresh, label %try
try:
  %slot = getelementptr { i64, i64, ptr }, ptr %slots, i64 %i
  %swap = cmpxchg ptr %slot, i64 0, i64 1 acquire monotonic
  %free = extractvalue { i64, i1 } %swap, 1
  br i1 %free, label %mine, label %taken
taken:
  %i1 = add i64 %i, 1
  br label %next
mine:
  %size.at = getelementptr { i64, i64, ptr }, ptr %slot, i32 0, i32 1
  %had = load i64, ptr %size.at
  %memory.at = getelementptr { i64, i64, ptr }, ptr %slot, i32 0, i32 2
  %memory = load ptr, ptr %memory.at
  %enough = icmp uge i64 %had, %size
  br i1 %enough, label %reuse, label %grow
reuse:
  store ptr %memory, ptr %to
  ret ptr %slot
grow:
  call void @free(ptr %memory)
  %grown = call ptr @tgc_workspace_allocate(i64 %size)
  %failed = icmp eq ptr %grown, null
  %has = select i1 %failed, i64 0, i64 %size
  store i64 %has, ptr %size.at
  store ptr %grown, ptr %memory.at
  store ptr %grown, ptr %to
  ret ptr %slot
fresh:
  %new = call ptr @tgc_workspace_allocate(i64 %size)
  store ptr %new, ptr %to
  ret ptr null
}
define internal void @tgc_workspace_release(ptr %slot, ptr %memory) {
  %none = icmp eq ptr %slot, null
  br i1 %none, label %drop, label %keep
drop:
  call void @free(ptr %memory)
  ret void
keep:
  store atomic i64 0, ptr %slot release, align 8
  ret void
}
"""

OUTPUTS = """
define internal ptr @tgc_shape(ptr %extents, i64 %rank) {
  %tuple = call ptr @PyTuple_New(i64 %rank)
  %failed = icmp eq ptr %tuple, null
  br i1 %failed, label %end, label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %set ]
  %done = icmp eq i64 %i, %rank
  br i1 %done, label %end, label %make
make:
  %extent.at = getelementptr i64, ptr %extents, i64 %i
  %extent = load i64, ptr %extent.at
  %number = call ptr @PyLong_FromLongLong(i64 %extent)
  %none = icmp eq ptr %number, null
  br i1 %none, label %undo, label %set
set:
  %1 = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %number)
  %i1 = add i64 %i, 1
  br label %next
undo:
  call void @Py_DecRef(ptr %tuple)
  ret ptr null
end:
  ret ptr %tuple
}
define internal i64 @tgc_outputs(ptr %empty, ptr %results, i64 %count, ptr %extents, ptr %objects, ptr %pointers) {
  %arguments = alloca [2 x ptr]
  %dtype.to = getelementptr ptr, ptr %arguments, i64 1
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %made ]
  %extent = phi i64 [ 0, %0 ], [ %extent1, %made ]
  %done = icmp eq i64 %i, %count
  br i1 %done, label %end, label %one
one:
  %result = getelementptr { ptr, i64, ptr }, ptr %results, i64 %i
  %dtype = load ptr, ptr %result
  store ptr %dtype, ptr %dtype.to
  %rank.at = getelementptr { ptr, i64, ptr }, ptr %result, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %shape.at = getelementptr { ptr, i64, ptr }, ptr %result, i32 0, i32 2
  %fixed = load ptr, ptr %shape.at
  %symbolic = icmp eq ptr %fixed, null
  br i1 %symbolic, label %build, label %keep
build:
  %own = getelementptr i64, ptr %extents, i64 %extent
  %built = call ptr @tgc_shape(ptr %own, i64 %rank)
  %failed = icmp eq ptr %built, null
  br i1 %failed, label %end, label %make
keep:
  call void @Py_IncRef(ptr %fixed)
  br label %make
make:
  %shape = phi ptr [ %built, %build ], [ %fixed, %keep ]
  store ptr %shape, ptr %arguments
  %array = call ptr @PyObject_Vectorcall(ptr %empty, ptr %arguments, i64 2, ptr null)
  call void @Py_DecRef(ptr %shape)
  %none = icmp eq ptr %array, null
  br i1 %none, label %end, label %made
made:
  %object.to = getelementptr ptr, ptr %objects, i64 %i
  store ptr %array, ptr %object.to
  %data.at = getelementptr i8, ptr %array, i64 DATA
  %data = load ptr, ptr %data.at
  %pointer.to = getelementptr ptr, ptr %pointers, i64 %i
  store ptr %data, ptr %pointer.to
  %i1 = add i64 %i, 1
  %extent1 = add i64 %extent, %rank
  br label %next
end:
  ret i64 %i
}
define internal void @tgc_drop(ptr %objects, i64 %count) {
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i1, %one ]
  %done = icmp eq i64 %i, %count
  br i1 %done, label %end, label %one
one:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  call void @Py_DecRef(ptr %object)
  %i1 = add i64 %i, 1
  br label %next
end:
  ret void
}
define internal ptr @tgc_returned(ptr %objects, i64 %count) {
  %alone = icmp eq i64 %count, 1
  br i1 %alone, label %single, label %several
single:
  %only = load ptr, ptr %objects
  ret ptr %only
several:
  %tuple = call ptr @PyTuple_New(i64 %count)
  %failed = icmp eq ptr %tuple, null
  br i1 %failed, label %drop, label %next
drop:
  call void @tgc_drop(ptr %objects, i64 %count)
  ret ptr null
next:
  %i = phi i64 [ 0, %several ], [ %i1, %one ]
  %done = icmp eq i64 %i, %count
  br i1 %done, label %end, label %one
one:
  %at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %at
  %1 = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %object)
  %i1 = add i64 %i, 1
  br label %next
end:
  ret ptr %tuple
}
"""
