"""Running what a schedule makes of a region, on arrays in any layout."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.host import host_target
from tgc.backend.jit import KernelLibrary
from tgc.ir.binding import bind_dimensions
from tgc.ir.dims import evaluate
from tgc.ir.graph import Graph, Value
from tgc.ir.opdef import OpTable
from tgc.ir.types import Layout, TensorType
from tgc.kernels.lowering import Lowering
from tgc.kernels.verify import verify
from tgc.ops import OPS

Array = NDArray[np.generic]
Schedule = Callable[..., Lowering]


def _places(type_: TensorType, dims: Mapping[str, int]) -> tuple[NDArray[np.int64], int]:
    """The offset of each logical element in the buffer, and the buffer's size."""
    layout = type_.layout or Layout(tuple(range(type_.rank)))
    shape = tuple(evaluate(d, dims) for d in type_.shape)
    strides = [evaluate(s, dims) for s in layout.strides(shape)]
    index = [i.copy() for i in np.indices(shape)] if shape else []
    for d, (before, _) in enumerate(layout.margins):
        index[d] += before
    offset = np.zeros(shape, np.int64)
    for (dimension, size), stride in zip(layout.tiles, layout.tile_strides(), strict=True):
        offset += index[dimension] % size * stride
        index[dimension] //= size
    for i, stride in zip(index, strides, strict=True):
        offset += i * stride
    return offset, evaluate(layout.size(shape), dims)


class Runner:
    """Lowers a region, verifies and compiles it with bounds checks, and calls it whole and in pieces."""

    def __init__(self, schedule: Schedule, region: Graph, table: OpTable) -> None:
        self.region = region
        self.lowering = schedule(region, name="kernel", target=host_target(), table=table)
        kernels = [stage.kernel for stage in self.lowering.stages]
        for kernel in kernels:
            verify(kernel)
        self.library = KernelLibrary(
            compile_module(emit_module(kernels, host_target(), debug=True), host_target()), kernels, debug=True
        )

    def __call__(self, *inputs: Array, **dims: int) -> tuple[Array, ...]:
        types = [v.type for v in self.region.parameters]
        known = {**bind_dimensions(types, [x.shape for x in inputs]), **dims}
        whole, parts = self._run(inputs, known, 1), self._run(inputs, known, 3)
        for a, b in zip(whole, parts, strict=True):
            assert a.tobytes() == b.tobytes()
        return tuple(self._logical(v, x, known) for v, x in zip(self.region.results, whole, strict=True))

    def _run(self, inputs: Sequence[Array], dims: Mapping[str, int], pieces: int) -> list[Array]:
        buffers: dict[str, Array] = {}
        for i, (v, x) in enumerate(zip(self.region.parameters, inputs, strict=True)):
            places, size = _places(v.type, dims)
            buffers[f"p{i}"] = np.zeros(size, v.dtype.numpy)
            buffers[f"p{i}"][places] = x
        for i, v in enumerate(self.region.results):
            # what is not written shows
            buffers[f"r{i}"] = np.full(_places(v.type, dims)[1], 77, np.uint8).astype(v.dtype.numpy)
        for name, temporary in self.lowering.temporaries.items():
            buffers[name] = np.full(evaluate(temporary.size, dims), 77, np.uint8).astype(temporary.dtype.numpy)
        for stage in self.lowering.stages:
            kernel = stage.kernel
            count = evaluate(kernel.count, dims)
            cuts = [count * k // pieces for k in range(pieces + 1)]
            arrays = [buffers[b.name] for b in kernel.buffers]
            for begin, end in reversed(list(itertools.pairwise(cuts))):
                self.library.call(kernel.name, arrays, dims, begin=begin, end=end)
            assert evaluate(stage.cost, dims) > 0
        return [buffers[f"r{i}"] for i in range(len(self.region.results))]

    def _logical(self, v: Value, buffer: Array, dims: Mapping[str, int]) -> Array:
        places, size = _places(v.type, dims)
        rest = np.ones(size, bool)
        rest[places] = False
        assert not buffer[rest].any(), "margins and the rest of the last tile are zero"
        return buffer[places]


@pytest.fixture(scope="session")
def compiled() -> Callable[[Schedule, Graph], Runner]:
    """``compiled(lower, region)(*inputs)`` gives the results; the same bits whole and in pieces, or it fails."""
    return lambda schedule, region: Runner(schedule, region, OPS)
