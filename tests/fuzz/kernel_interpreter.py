"""Kernel IR on NumPy arrays, one instruction after the other: what compiled kernels must give, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgc.dtypes import DType, bf16, bool_, from_numpy
from tgc.ir.dims import evaluate
from tgc.kernels.ir import Block, Buffer, Kernel, Operation
from tgc.kernels.numpy_scalar import NumpyScalarBuilder
from tgc.target import Target

Array = NDArray[Any]


class Interpreter:
    """Runs iterations of a kernel on one array for each buffer; IndexError for an access beyond one.

    A value is an array of its lanes. Scratch holds what no kernel may read: a pattern.
    """

    def __init__(self, kernel: Kernel, target: Target, arrays: Sequence[Array], dims: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.dims = dims
        self.scalars = NumpyScalarBuilder(fused=target.fma)
        self.memory: dict[Buffer, Array] = dict(zip(kernel.buffers, arrays, strict=True))
        self.values: dict[int, Array] = {}

    def run(self, begin: int, end: int) -> None:
        self._block(self.kernel.prelude)
        for i in range(begin, end):
            for buffer in self.kernel.scratch:
                size = evaluate(buffer.size, self.dims) * buffer.dtype.itemsize
                self.memory[buffer] = np.full(size, 0xA5 if buffer.dtype is not bool_ else 1, np.uint8).view(
                    buffer.dtype.numpy
                )
            self.values[self.kernel.iteration.number] = np.array([i], np.int64)
            self._block(self.kernel.body)

    # -- control ---------------------------------------------------------------------------------------------------

    def _block(self, block: Block) -> None:
        for operation in block.operations:
            operands = [self.values[v.number] for v in operation.operands]
            if operation.blocks:
                results = getattr(self, f"_{operation.name}")(operation, operands)
            else:
                results = self._instruction(operation, operands)
            for value, result in zip(operation.results, results, strict=True):
                if result.dtype != value.dtype.numpy or result.shape != (value.lanes,):
                    raise TypeError(f"{operation.name} gives {result.dtype}{result.shape} for {value}")
                self.values[value.number] = result

    def _yielded(self, block: Block) -> list[Array]:
        self._block(block)
        return [self.values[v.number] for v in block.yields]

    def _enter(self, block: Block, values: Sequence[Array]) -> None:
        self.values.update(zip((v.number for v in block.arguments), values, strict=True))

    def _for(self, operation: Operation, operands: list[Array]) -> list[Array]:
        (body,) = operation.blocks
        low, high, step, *carried = operands
        for i in range(int(low[0]), int(high[0]), int(step[0])):
            self._enter(body, [np.array([i], np.int64), *carried])
            carried = self._yielded(body)
        return carried

    def _while(self, operation: Operation, operands: list[Array]) -> list[Array]:
        condition, body = operation.blocks
        while True:
            self._enter(condition, operands)
            (holds,) = self._yielded(condition)
            if not holds[0]:
                return operands
            operands = self._yielded(body)

    def _if(self, operation: Operation, operands: list[Array]) -> list[Array]:
        return self._yielded(operation.blocks[0 if operands[0][0] else 1])

    # -- instructions ----------------------------------------------------------------------------------------------

    def _instruction(self, operation: Operation, operands: list[Array]) -> list[Array]:
        special: Callable[..., Array | None] | None = getattr(self, f"_op_{operation.name}", None)
        if special is None:
            return [np.asarray(getattr(self.scalars, operation.name)(*operands))]
        result = special(operation, *operands)
        return [] if result is None else [result]

    def _op_constant(self, operation: Operation) -> Array:
        (value,) = operation.results
        # a literal bf16 is rounded once
        wide = np.array([operation.attributes[0]], np.float64 if value.dtype.is_float else value.dtype.numpy)
        return np.repeat(converted(wide, value.dtype), value.lanes)

    def _op_symbol(self, operation: Operation) -> Array:
        return np.array([self.dims[str(operation.attributes[0])]], np.int64)

    def _op_compare(self, operation: Operation, a: Array, b: Array) -> Array:
        return self.scalars.compare(str(operation.attributes[0]), a, b)

    def _op_select(self, operation: Operation, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def _op_floor_divide(self, operation: Operation, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.where(b == 0, 0, a // b).astype(a.dtype)

    def _op_modulo(self, operation: Operation, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.where(b == 0, 0, a % b).astype(a.dtype)

    def _op_count_leading_zeros(self, operation: Operation, x: Array) -> Array:
        bits = 8 * x.dtype.itemsize
        return np.array([bits - (int(v) % 2**bits).bit_length() for v in x], x.dtype)

    def _op_population_count(self, operation: Operation, x: Array) -> Array:
        return np.array([(int(v) % 2 ** (8 * x.dtype.itemsize)).bit_count() for v in x], x.dtype)

    def _op_convert(self, operation: Operation, x: Array) -> Array:
        return converted(x, operation.results[0].dtype)

    def _op_bitcast(self, operation: Operation, x: Array) -> Array:
        return np.ascontiguousarray(x).view(operation.results[0].dtype.numpy)

    def _op_splat(self, operation: Operation, x: Array) -> Array:
        return np.repeat(x, operation.results[0].lanes)

    def _op_extract(self, operation: Operation, x: Array) -> Array:
        lane = operation.attributes[0]
        return x[lane : lane + 1]  # type: ignore[operator, misc]

    def _op_insert(self, operation: Operation, x: Array, value: Array) -> Array:
        result = x.copy()
        result[operation.attributes[0]] = value[0]
        return result

    def _op_lane_indices(self, operation: Operation) -> Array:
        (value,) = operation.results
        return np.arange(value.lanes).astype(value.dtype.numpy)

    def _op_shuffle(self, operation: Operation, a: Array, b: Array) -> Array:
        return np.concatenate([a, b])[list(operation.attributes)]

    def _op_reduce(self, operation: Operation, x: Array) -> Array:
        while x.size > 1:
            half = x.size // 2
            x = np.asarray(getattr(self.scalars, str(operation.attributes[0]))(x[:half], x[half:]))
        return x

    # -- memory ----------------------------------------------------------------------------------------------------

    def _places(self, operation: Operation, offsets: Array, guard: Sequence[Array]) -> tuple[Array, Array]:
        """Which lanes are accessed, and where."""
        lanes = np.arange(offsets.size)
        active = np.ones(offsets.size, bool)
        if guard:
            active = guard[0] if operation.attributes[1] == "mask" else lanes < guard[0][0]
        places = offsets.astype(np.int64)[active]
        size = self.memory[operation.buffer].size
        if np.any(places < 0) or np.any(places >= size):
            raise IndexError(f"{operation.name} of {operation.buffer.name} at {places} of {size}")
        return active, places

    def _take(self, operation: Operation, offsets: Array, guard: Sequence[Array]) -> Array:
        active, places = self._places(operation, offsets, guard)
        result = np.zeros(offsets.size, operation.buffer.dtype.numpy)
        result[active] = self.memory[operation.buffer][places]
        return result

    def _put(self, operation: Operation, offsets: Array, value: Array, guard: Sequence[Array]) -> None:
        active, places = self._places(operation, offsets, guard)
        for place, element in zip(places, value[active], strict=True):
            self.memory[operation.buffer][place] = element

    def _op_load(self, operation: Operation, offset: Array, *guard: Array) -> Array:
        return self._take(operation, offset + np.arange(operation.results[0].lanes), guard)

    def _op_store(self, operation: Operation, offset: Array, value: Array, *guard: Array) -> None:
        self._put(operation, offset + np.arange(value.size), value, guard)

    def _op_gather(self, operation: Operation, offsets: Array, *guard: Array) -> Array:
        return self._take(operation, offsets, guard)

    def _op_scatter(self, operation: Operation, offsets: Array, value: Array, *guard: Array) -> None:
        self._put(operation, offsets, value, guard)

    def _op_prefetch(self, operation: Operation, offset: Array) -> None:
        return None


def converted(x: Array, dtype: DType) -> Array:
    """The numbers in another dtype, rounded once; integers go to floats of 16 bits through f32."""
    source = from_numpy(x.dtype)
    with np.errstate(all="ignore"):
        if dtype is bool_:
            return np.asarray(x != 0)
        if source.is_float and dtype.is_integer:
            return NumpyScalarBuilder().convert(x.astype(np.float64), dtype)
        if source.is_integer and dtype.compute is not dtype:
            x = x.astype(np.float32)
        if dtype is bf16 and x.dtype == np.float64:
            # to f32 rounded to odd, after which rounding to fewer bits is as if it had been the only one
            near = x.astype(np.float32)
            bits = near.view(np.uint32)
            away = np.abs(near.astype(np.float64)) > np.abs(x)
            odd = np.where(away, bits - np.uint32(1), bits) | np.uint32(1)
            x = np.where(np.isnan(x) | (near == x), bits, odd).astype(np.uint32).view(np.float32)
        return x.astype(dtype.numpy)
