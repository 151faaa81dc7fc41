"""The kernels of a compiled module, called one fused region at a time on arrays: to be timed, and to be checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from passes.instruments import random_inputs
from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.jit import KernelLibrary
from tgc.compiler import Compiled
from tgc.ir.dims import evaluate
from tgc.ir.graph import Array, Function, Module, Node
from tgc.ir.types import Layout, TensorType


def inputs_for(
    module: Module, function: Function, sizes: Mapping[str, int], seed: int = 0
) -> tuple[list[Array], dict[str, Array]]:
    """Random inputs of a function, and the module's state: as it begins where that is known, else random."""
    inputs, state = random_inputs(module, function, np.random.default_rng(seed), sizes)
    for name, held in module.state.items():
        if held.initial is not None and held.initial.data is not None:
            state[name] = held.initial.data.copy()
    return inputs, state


class NativeKernels:
    """The kernels of ``compiled``, which must be for this machine. ``sizes``: of all symbolic dimensions.

    ``debug``: every access is checked, and a wrong one a :class:`CompilerBug`.
    """

    def __init__(self, compiled: Compiled, sizes: Mapping[str, int], *, debug: bool = False) -> None:
        self._lowering = compiled.library.lowering
        self._sizes = sizes
        text = emit_module(compiled.kernels, compiled.target, debug=debug)
        self._library = KernelLibrary(compile_module(text, compiled.target), compiled.kernels, debug=debug)

    def run(self, node: Node, operands: Sequence[Array]) -> list[Array]:
        """The results of a fusion node."""
        return self._run(node, operands, lambda name, arrays: self._library.call(name, arrays, self._sizes))

    def timed(self, node: Node, operands: Sequence[Array], seconds: float) -> tuple[list[Array], dict[str, float]]:
        """The results of a fusion node, and the seconds of each of its kernels: the fastest of runs in that time."""
        best: dict[str, float] = {}

        def call(name: str, arrays: Sequence[Array]) -> None:
            # the time of a call without iterations is Python's
            idle = _fastest(self._library.bound(name, arrays, self._sizes, end=0), seconds / 10)
            best[name] = max(0.0, _fastest(self._library.bound(name, arrays, self._sizes), seconds) - idle)

        return self._run(node, operands, call), best

    def _run(self, node: Node, operands: Sequence[Array], call: Callable[[str, Sequence[Array]], None]) -> list[Array]:
        lowering, sizes = self._lowering(node), self._sizes
        region = node.regions[0]
        buffers: dict[str, Array] = {}
        for i, (value, array) in enumerate(zip(region.parameters, operands, strict=True)):
            buffers[f"p{i}"] = to_buffer(array, value.type, sizes)
        for i, value in enumerate(region.results):
            buffers[f"r{i}"] = np.empty(evaluate(value.type.buffer_size, sizes), value.dtype.numpy)
        for name, temporary in lowering.temporaries.items():
            buffers[name] = np.empty(evaluate(temporary.size, sizes), temporary.dtype.numpy)
        for stage in lowering.stages:
            call(stage.kernel.name, [buffers[b.name] for b in stage.kernel.buffers])
        return [from_buffer(buffers[f"r{i}"], v.type, sizes) for i, v in enumerate(region.results)]


def _fastest(call: Callable[[], None], seconds: float) -> float:
    """The shortest of the calls that fit into ``seconds``, one at least."""
    best, now = float("inf"), time.perf_counter()
    end = now + seconds
    while True:
        start = now
        call()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


def to_buffer(array: Array, type_: TensorType, sizes: Mapping[str, int]) -> Array:
    """The elements as they lie in memory.

    >>> from tgc.dtypes import f32
    >>> x = np.arange(4, dtype=np.float32).reshape(2, 2)
    >>> to_buffer(x, TensorType(f32, (2, 2), Layout((1, 0), margins=((0, 0), (0, 1)))), {})
    array([0., 2., 1., 3., 0., 0.], dtype=float32)
    """
    if type_.layout is None:
        return np.ascontiguousarray(array).reshape(-1)
    places = _places(type_.layout, array.shape)
    buffer = np.zeros(evaluate(type_.buffer_size, sizes), array.dtype)
    buffer[places] = array
    return buffer


def from_buffer(buffer: Array, type_: TensorType, sizes: Mapping[str, int]) -> Array:
    """The inverse of :func:`to_buffer`."""
    shape = tuple(evaluate(d, sizes) for d in type_.shape)
    if type_.layout is None:
        return buffer.reshape(shape)
    found: Array = buffer[_places(type_.layout, shape)]
    return found


def _places(layout: Layout, shape: tuple[int, ...]) -> Array:
    """Where in the buffer each element lies."""
    offset = np.zeros(shape, np.int64)
    indices = [np.arange(size) for size in shape]
    for d, (before, _) in enumerate(layout.margins):
        indices[d] = indices[d] + before
    strides = [evaluate(s, {}) for s in layout.strides(shape)]
    for (d, size), stride in zip(layout.tiles, layout.tile_strides(), strict=True):
        offset += _along(indices[d] % size * stride, d, len(shape))
        indices[d] = indices[d] // size
    for d, (index, stride) in enumerate(zip(indices, strides, strict=True)):
        offset += _along(index * stride, d, len(shape))
    return offset


def _along(index: Array, dimension: int, rank: int) -> Array:
    return index.reshape([-1 if d == dimension else 1 for d in range(rank)])
