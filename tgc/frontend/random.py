"""Random tensors from counters: the same integers on every machine, whatever compiles them.

A :class:`Generator` is a key and a counter. Outside of compiled functions the counter is an ordinary input of the lazy
graph; inside it is state, which each call advances.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tgc.dtypes import DType, f32, i64, u32, u64
from tgc.errors import DTypeError, UserError
from tgc.frontend.base import MutableTensor
from tgc.frontend.initial import Initial
from tgc.frontend.movement import given_dims
from tgc.frontend.tensor import Tensor, Variable
from tgc.frontend.trace import here, recording
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, product
from tgc.ir.graph import Array, Value
from tgc.ir.types import TensorType
from tgc.ops import OPS
from tgc.ops.composite import size_of
from tgc.ops.random import Words

_PIECE = 1 << 14


class Generator:
    """A stream of random bits: Threefry-2x32-20 in counter mode (Salmon et al., SC 2011).

    Several threads may draw from one.

    >>> import tgc
    >>> a, b = tgc.random.Generator(7), tgc.random.Generator(7)
    >>> bool((tgc.random.bits(4, generator=a) == tgc.random.bits(4, generator=b)).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.key = Variable(np.zeros(2, np.uint32))
        self.counter = Variable(np.zeros((), np.uint64))
        self._lock = threading.Lock()
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begins again: the 64 bits of ``seed`` are the key, and the counter is 0."""
        number = int(seed) & 0xFFFFFFFFFFFFFFFF
        with self._lock:
            self.key.replace(np.array([number & 0xFFFFFFFF, number >> 32], np.uint32))
            self.counter.replace(np.zeros((), np.uint64))

    def named_state(self) -> tuple[tuple[str, MutableTensor], ...]:
        """(name, tensor) of the generator's state."""
        return (("key", self.key), ("counter", self.counter))

    def _advance(self, count: int) -> Array:
        """The counter's value, before it moved on by ``count``."""
        with self._lock:
            # lazy graphs only ever see copies of the counter, so none of them has to be evaluated first
            before: Array = self.counter.array.copy()
            with np.errstate(over="ignore"):
                self.counter.array[...] += np.uint64(count)
        return before

    def bits(self, shape: Sequence[Dim]) -> Tensor:
        """Uniformly random u32 of that shape."""
        size = product(shape)
        if recording() is None:
            if not isinstance(size, int):
                raise UserError(f"a shape outside of a compiled function needs numbers, not {size}", location=here())
            counter: Tensor = Tensor(self._advance(size))
        else:
            counter = self.counter.emit(lambda builder, x: x)
            self.counter.assign(self.counter.emit(lambda builder, x: _moved(builder, x, shape)))
        return self.key.apply("random_bits", counter, attributes={"shape": tuple(shape)})

    def numpy_bits(self, size: int) -> Words:
        """``size`` random u32 at once, without compiling anything: what initial values are made from."""
        return self._later(size)()

    def _later(self, size: int) -> Callable[[], Words]:
        """As :meth:`numpy_bits`, drawn now and computed when it is called."""
        return partial(_words, self.key.array.copy(), self._advance(size), size)

    def initial_uniform(self, low: float, high: float, shape: Sequence[int]) -> Initial:
        """f32 in [low, high) as :func:`uniform` gives them, bit for bit."""
        words = self._later(math.prod(shape))

        def make() -> Array:
            unit = (words() >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
            return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)

        return Initial(TensorType(f32, shape), make)

    def initial_normal(self, shape: Sequence[int]) -> Initial:
        """f32 of the standard normal distribution, computed in f64 and rounded once."""
        size = math.prod(shape)
        words = self._later(2 * size)

        def make() -> Array:
            high = words() >> np.uint32(8)
            u, v = high[:size].astype(np.float64), high[size:].astype(np.float64)
            radius = np.sqrt(-2 * np.log((u + 1) * 2.0**-24))
            return (radius * np.cos(2 * math.pi * 2.0**-24 * v)).astype(np.float32).reshape(shape)  # type: ignore[no-any-return]

        return Initial(TensorType(f32, shape), make)


def _words(key: Words, first: Array, size: int) -> Words:
    """``size`` words of the stream of ``key`` from the counter ``first`` on."""
    meaning = OPS["random_bits"].evaluate
    if meaning is None:
        raise UserError("random_bits has no meaning in NumPy")
    found = np.empty(size, np.uint32)
    # in pieces that stay in the cache
    for begin in range(0, size, _PIECE):
        length = min(_PIECE, size - begin)
        counter = np.add(first, np.uint64(begin))
        types = [TensorType(u32, (length,))]
        (found[begin : begin + length],) = meaning([key, counter], {"shape": (length,)}, types)
    return found


def _moved(builder: Builder, counter: Value, shape: Sequence[Dim]) -> Value:
    return builder.add(counter, size_of(builder, tuple(shape), tuple(range(len(shape))), u64))


_DEFAULT = Generator(0)


def default_generator() -> Generator:
    """The process's generator, which everything without an explicit one draws from."""
    return _DEFAULT


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator and gives it.

    >>> import tgc
    >>> first = (tgc.manual_seed(1), tgc.random.bits(2).numpy())[1]
    >>> bool((tgc.manual_seed(1), tgc.random.bits(2).numpy() == first)[1].all())
    True
    """
    _DEFAULT.seed(seed)
    return _DEFAULT


def bits(*shape: Dim | Sequence[Dim], generator: Generator | None = None) -> Tensor:
    """Uniformly random u32."""
    return (generator or _DEFAULT).bits(given_dims(shape))


def uniform(
    *shape: Dim | Sequence[Dim],
    low: float = 0.0,
    high: float = 1.0,
    dtype: DType = f32,
    generator: Generator | None = None,
) -> Tensor:
    """Floats in [low, high): multiples of 2⁻²⁴ (below f32's precision for the smaller types: rounded), scaled.

    >>> import tgc
    >>> x = tgc.random.uniform(100).numpy()
    >>> bool((x >= 0).all() and (x < 1).all())
    True
    """
    _require_float(dtype)
    unit = _unit((generator or _DEFAULT).bits(given_dims(shape)))
    if (low, high) != (0.0, 1.0):
        unit = unit * (high - low) + low
    return unit.astype(dtype)


def _unit(words: Tensor) -> Tensor:
    return (words >> 8).astype(f32) * 2.0**-24


def normal(
    *shape: Dim | Sequence[Dim],
    mean: float = 0.0,
    std: float = 1.0,
    dtype: DType = f32,
    generator: Generator | None = None,
) -> Tensor:
    """Normally distributed floats, by the transform of Box and Muller (1958)."""
    _require_float(dtype)
    source, sizes = generator or _DEFAULT, given_dims(shape)
    u, v = _unit(source.bits(sizes)), _unit(source.bits(sizes))
    found = (-2.0 * (u + 2.0**-24).log()).sqrt() * (v * (2 * math.pi)).cos()
    if (mean, std) != (0.0, 1.0):
        found = found * std + mean
    return found.astype(dtype)


def randint(
    low: int, high: int, *shape: Dim | Sequence[Dim], dtype: DType = i64, generator: Generator | None = None
) -> Tensor:
    """Integers in [low, high): 32 random bits times the range (Lemire, arXiv 1805.10941, without rejection).

    The probabilities of two numbers differ by at most 2⁻³². Raises :class:`UserError` for an empty range or one of
    more than 2³² numbers.
    """
    if not dtype.is_integer or not 0 < high - low <= 1 << 32:
        raise UserError(f"integers of {dtype} in [{low}, {high})", location=here())
    words = (generator or _DEFAULT).bits(given_dims(shape)).astype(u64)
    return ((words * (high - low)) >> 32).astype(i64).__add__(low).astype(dtype)


def bernoulli(probability: float | Tensor, *shape: Dim | Sequence[Dim], generator: Generator | None = None) -> Tensor:
    """True with that probability."""
    return uniform(*shape, generator=generator) < probability


def permutation(count: int, *, generator: Generator | None = None) -> Tensor:
    """The numbers from 0 to ``count`` - 1 in random order (i64): the order of random keys."""
    words = (generator or _DEFAULT).bits((2, count)).astype(u64)
    keys = (words[0] << 32) | words[1]
    return keys.apply("argsort", attributes={"axis": 0, "descending": False})


def _require_float(dtype: DType) -> None:
    if not dtype.is_float:
        raise DTypeError(f"random floats cannot be {dtype}", location=here())
