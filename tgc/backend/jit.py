"""Objects in this process: placed in its memory, or loaded through an LLJIT, alive as long as somebody holds them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tgc.backend.abi import OUT_OF_BOUNDS
from tgc.backend.codegen import target_machine
from tgc.backend.host import host_target
from tgc.backend.loader import place
from tgc.backend.objects import architecture
from tgc.backend.uninterrupted import uninterrupted
from tgc.errors import CompilerBug, TargetError
from tgc.ir.dims import evaluate
from tgc.kernels.ir import SCRATCH_ALIGNMENT, Kernel
from tgc.lazy import LazyModule

if TYPE_CHECKING:
    import llvmlite.binding as llvm
else:
    llvm = LazyModule("llvmlite.binding")

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_numbers = itertools.count()


# LLVM keeps ten kilobytes of each library that was dropped, until the whole LLJIT is
_LIBRARIES = 256
# libraries that wait to be freed, five megabytes
_MOST_DROPPED = 64


class _Linker:
    """An LLJIT, and its libraries that nobody holds any more.

    To free one calls LLVM, which must not be interrupted (:func:`~tgc.backend.uninterrupted.uninterrupted`), while the
    last reference may go in any thread: they are freed before the next one is linked, or when they are many.
    """

    def __init__(self) -> None:
        self._jit = llvm.create_lljit_compiler(target_machine(host_target()))
        self._dropped: deque[llvm.ResourceTracker] = deque()

    def link(self, builder: llvm.JITLibraryBuilder, name: str) -> llvm.ResourceTracker:
        """A library; RuntimeError if it does not link."""
        self._free()
        return builder.link(self._jit, name)

    def drop(self, tracker: llvm.ResourceTracker) -> None:
        """Frees a library, soon."""
        self._dropped.append(tracker)
        if len(self._dropped) >= _MOST_DROPPED and not sys.is_finalizing():
            threading.Thread(target=self._free).start()

    def _free(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._dropped.popleft().close()


@functools.lru_cache(maxsize=1)
def _linker(generation: int) -> _Linker:
    """What links libraries now; an older one ends with the last of its libraries."""
    return _Linker()


class Library:
    """Code in memory; its addresses are valid as long as the library, and it keeps alive what it was linked with.

    ``image``: an object, or several that call one another. ``symbols``: which names are to be looked up. ``addresses``:
    names that the object may call and where they are. Raises :class:`TargetError` for an object of another
    architecture, :class:`CompilerBug` if it does not link.
    """

    def __init__(
        self,
        image: bytes | Sequence[bytes],
        symbols: Sequence[str],
        *,
        addresses: Mapping[str, int] | None = None,
        dependencies: Sequence[object] = (),
    ) -> None:
        images = (image,) if isinstance(image, bytes) else image
        self._dependencies = tuple(dependencies)
        self._placed = place(images, symbols, addresses or {})
        if self._placed is not None:
            self._addresses: Mapping[str, int] = self._placed.addresses
        else:
            uninterrupted(lambda: self._link(images, symbols, addresses or {}))

    def _link(self, images: Sequence[bytes], symbols: Sequence[str], addresses: Mapping[str, int]) -> None:
        host = host_target().triple.split("-", 1)[0]
        builder = llvm.JITLibraryBuilder().add_current_process()
        for part in images:
            found = architecture(part)
            if found != {"amd64": "x86_64", "arm64": "aarch64"}.get(host, host):
                raise TargetError(f"an object for {found or 'an unknown machine'} cannot run on {host}")
            builder.add_object_img(part)
        for name, address in addresses.items():
            builder.import_symbol(name, address)
        for name in symbols:
            builder.export_symbol(name)
        # names cannot be used again, even after a failure
        number = next(_numbers)
        linker = _linker(number // _LIBRARIES)
        try:
            tracker = linker.link(builder, f"tgc{number}")
        except RuntimeError as error:
            raise CompilerBug(str(error), stage="linking") from None
        self._addresses = {name: tracker[name] for name in symbols}
        self._code = (linker, tracker)

    def __del__(self) -> None:
        if code := getattr(self, "_code", None):
            linker, tracker = code
            linker.drop(tracker)

    def address(self, symbol: str) -> int:
        """Where a symbol lies; :class:`CompilerBug` if it is none of those that were asked for."""
        address = self._addresses.get(symbol)
        if address is None:
            raise CompilerBug(f"the library has no symbol {symbol!r}", stage="linking")
        return address


class KernelLibrary:
    """Kernels that can be called on arrays: for tests and measurements.

    >>> from tgc.backend.codegen import compile_module
    >>> from tgc.backend.emit import emit_module
    >>> from tgc.dtypes import f32
    >>> from tgc.kernels.builder import KernelBuilder
    >>> b = KernelBuilder("twice", count=4)
    >>> x = b.buffer("x", f32, 4, "readwrite")
    >>> v = b.load(x, b.iteration)
    >>> b.store(x, b.iteration, b.add(v, v))
    >>> kernels = [b.finish()]
    >>> image = compile_module(emit_module(kernels, host_target(), debug=True), host_target())
    >>> array = np.arange(4, dtype=np.float32)
    >>> KernelLibrary(image, kernels, debug=True).call("twice", [array])
    >>> array
    array([0., 2., 4., 6.], dtype=float32)
    """

    def __init__(self, image: bytes, kernels: Sequence[Kernel], *, debug: bool = False) -> None:
        self._kernels = {kernel.name: (number, kernel) for number, kernel in enumerate(kernels)}
        names = [*self._kernels, *([OUT_OF_BOUNDS] if debug else [])]
        self._library = Library(image, names)
        self._debug = debug

    def call(
        self,
        name: str,
        arrays: Sequence[npt.NDArray[np.generic]],
        dims: Mapping[str, int] | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
    ) -> None:
        """Run iterations ``begin`` to ``end`` (all by default) on one contiguous array for each buffer.

        Raises :class:`CompilerBug` if an array does not fit its buffer, or in debug code on an access out of bounds.
        """
        self.bound(name, arrays, dims, begin=begin, end=end)()
        if self._debug:
            self._check()

    def bound(
        self,
        name: str,
        arrays: Sequence[npt.NDArray[np.generic]],
        dims: Mapping[str, int] | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
    ) -> Callable[[], None]:
        """The same call with its arguments made ready, for as long as the library and the arrays are there."""
        _, kernel = self._kernels[name]
        environment = dict(dims or {})
        if len(arrays) != len(kernel.buffers):
            raise CompilerBug(f"{name} takes {len(kernel.buffers)} buffers, not {len(arrays)}", stage="kernel call")
        for array, buffer in zip(arrays, kernel.buffers, strict=True):
            size = evaluate(buffer.size, environment)
            if array.dtype != buffer.dtype.numpy or array.size != size or not array.flags.c_contiguous:
                raise CompilerBug(
                    f"{name} takes {buffer.dtype}[{size}] for {buffer.name}, not {array.dtype}{list(array.shape)}",
                    stage="kernel call",
                )
        pointers = (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))
        sizes = (ctypes.c_int64 * max(1, len(kernel.symbols)))(*(environment[s] for s in kernel.symbols))
        scratch = np.empty(evaluate(kernel.scratch_bytes, environment) + SCRATCH_ALIGNMENT, np.uint8)
        aligned = scratch[-scratch.ctypes.data % SCRATCH_ALIGNMENT :].ctypes.data_as(ctypes.c_void_p)
        last = evaluate(kernel.count, environment) if end is None else end
        return functools.partial(_KERNEL(self._library.address(name)), pointers, sizes, begin, last, aligned)

    def _check(self) -> None:
        report = (ctypes.c_int64 * 4).from_address(self._library.address(OUT_OF_BOUNDS))
        number, buffer, offset, size = report
        if not number:
            return
        report[0] = 0
        kernel = next(kernel for at, kernel in self._kernels.values() if at == number - 1)
        accessed = (kernel.buffers + kernel.scratch)[buffer]
        raise CompilerBug(
            f"kernel {kernel.name} accesses {accessed.name} of {size} elements at {offset}", stage="bounds check"
        )

    def address(self, name: str) -> int:
        """The address of a kernel's function."""
        return self._library.address(name)
