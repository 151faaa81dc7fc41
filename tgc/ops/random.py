"""Random bits: Threefry-2x32 with 20 rounds in counter mode, the same on every machine.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, §3.3. Integer maps only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

import tgc.ops.rules as rules
from tgc.dtypes import u32, u64
from tgc.ir.dims import product, symbol
from tgc.ir.graph import Array, Attributes, Graph, Value
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, GraphBuilder, OpDef
from tgc.ir.types import TensorType

_ROUNDS = 20
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_KEY = TensorType(u32, (2,))
_COUNTER = TensorType(u64, ())

Words = NDArray[np.uint32]


def threefry(key: tuple[Words, Words], counter: tuple[Words, Words]) -> tuple[Words, Words]:
    """The block of two words that Threefry-2x32-20 makes of ``counter`` under ``key``, elementwise.

    >>> zero = np.zeros((), np.uint32)
    >>> [hex(word) for word in threefry((zero, zero), (zero, zero))]
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(_PARITY))
    with np.errstate(over="ignore"):
        a, b = counter[0] + schedule[0], counter[1] + schedule[1]
        for i in range(_ROUNDS):
            distance = _ROTATIONS[i % 8]
            a = a + b
            b = (b << np.uint32(distance)) | (b >> np.uint32(32 - distance))
            b = b ^ a
            if i % 4 == 3:
                turn = i // 4 + 1
                a, b = a + schedule[turn % 3], b + schedule[(turn + 1) % 3] + np.uint32(turn)
    return a, b


def _type(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    shape = rules.shape(attributes)
    key, counter = types
    rules.require_dtypes("random_bits, as its key,", [key], [u32])
    rules.require_dtypes("random_bits, as its counter,", [counter], [u64])
    rules.common_shape("random_bits, as its key,", [key, _KEY])
    rules.require_rank("random_bits, as its counter,", counter, 0)
    return (TensorType(u32, shape),)


def _evaluate(operands: Sequence[Array], attributes: Attributes, types: Sequence[TensorType]) -> tuple[Array, ...]:
    key, counter = operands
    shape = rules.concrete(types[0])
    with np.errstate(over="ignore"):
        index = np.arange(prod(shape), dtype=np.uint64)
        place: NDArray[np.uint64] = np.add(np.asarray(counter, np.uint64), index)
    low, high = (place & np.uint64(0xFFFFFFFF)).astype(np.uint32), (place >> np.uint64(32)).astype(np.uint32)
    return (threefry((key[0], key[1]), (low, high))[0].reshape(shape),)


class _Cipher:
    """The same in nodes."""

    def __init__(self, b: GraphBuilder, like: Value) -> None:
        self.b = b
        self.like = like

    def constant(self, value: int) -> Value:
        return self.b.full_like(self.like, value)

    def xor(self, x: Value, y: Value) -> Value:
        return self.b.op("bitwise_xor", x, y)

    def rotate(self, x: Value, distance: int) -> Value:
        left = self.b.op("shift_left", x, self.constant(distance))
        right = self.b.op("shift_right", x, self.constant(32 - distance))
        return self.b.op("bitwise_or", left, right)

    def first_word(self, key: tuple[Value, Value], counter: tuple[Value, Value]) -> Value:
        """:func:`threefry`'s first word."""
        add = self.b.add
        schedule = (*key, self.xor(self.xor(key[0], key[1]), self.constant(_PARITY)))
        a, b = add(counter[0], schedule[0]), add(counter[1], schedule[1])
        for i in range(_ROUNDS):
            a = add(a, b)
            b = self.xor(self.rotate(b, _ROTATIONS[i % 8]), a)
            if i % 4 == 3:
                turn = i // 4 + 1
                a = add(a, schedule[turn % 3])
                b = add(b, add(schedule[(turn + 1) % 3], self.constant(turn)))
        return a


def _body(b: GraphBuilder, operands: Sequence[Value], attributes: Attributes) -> tuple[Value, ...]:
    key, counter = operands
    shape = rules.shape(attributes)
    size = (product(shape),)
    index = b.op("iota", attributes={"shape": size, "axis": 0, "dtype": u64})
    place = b.add(b.broadcast_to(counter, size), index)
    low = b.cast(b.op("bitwise_and", place, b.full_like(place, 0xFFFFFFFF)), u32)
    high = b.cast(b.op("shift_right", place, b.full_like(place, 32)), u32)
    words = [b.op("slice", key, attributes={"start": (i,), "stop": (i + 1,), "step": (1,)}) for i in (0, 1)]
    first, second = (b.broadcast_to(b.reshape(word, ()), size) for word in words)
    return (b.reshape(_Cipher(b, low).first_word((first, second), (low, high)), shape),)


OPS_RANDOM: tuple[OpDef, ...] = (
    OpDef(
        name="random_bits",
        doc="""(key u32[2], counter u64[]) -> uniformly random bits, u32 of ``shape``.

        The element at row-major place i is the first word of Threefry-2x32-20 of counter + i (low word first).""",
        kind=OpKind.COMPOSITE,
        operands=2,
        infer=_type,
        attributes={"shape": AttributeSpec("the result's shape")},
        evaluate=_evaluate,
        body=_body,
        cases=(
            ((_KEY, _COUNTER), {"shape": (3, 5)}),
            ((_KEY, _COUNTER), {"shape": ()}),
            ((_KEY, _COUNTER), {"shape": (symbol("n"), 2)}),
        ),
        differentiable=False,
        foldable=True,
    ),
)
