"""The schedule of sorting: each line by its ranks if it is short, by its digits if it is long; and binary search.

Elements are ordered by integer keys: signed integers in the order of the elements, equal where elements are equal (the
two zeros, all NaN), and greatest for NaN. Nothing branches on data but on a digit that all elements share.

- Ranks: an element's place is the number of those that come before it. Neighbouring elements lie in the lanes, so that
  it takes three instructions to compare them all with one other.
- Digits, least significant first: a first pass counts every digit of all keys; then, for each digit, the elements are
  moved in order to where their digit's bucket has got to. It is fast since the keys are made again by each pass, in
  vectors, and their digits handed to the scalar loop through memory: a move is then three loads and two stores, 1.3
  nanoseconds, and 2^20 f32 take 5 ms (merging runs without branches: 128 ms).
  Elements are moved, and not their keys, since different elements share a key. A digit that all share moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tgc.dtypes import DType, i32, i64, named
from tgc.ir.dims import Dim
from tgc.ir.graph import Graph, Node
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import OpTable
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.lines import Lines
from tgc.kernels.lowering import Lowering, Stage
from tgc.kernels.vector_loop import vector_loop
from tgc.ops import rules
from tgc.target import Target

# bytes that the cache loads and stores at once: each bucket has one such line that is being filled
_CACHE_LINE = 64
# what a line of unknown length is taken for
_TYPICAL_LENGTH = 1 << 14
# elements whose digits are handed from a vector loop to a scalar one at a time
_BLOCK = 256
# rough cycles: for a digit, of each bucket and of each element; of comparing a vector with an element
_BUCKET_CYCLES = 1.5
_MOVE_CYCLES = 7.0
_COMPARISON_CYCLES = 2.3


def lower(region: Graph, *, name: str, target: Target, table: OpTable) -> Lowering:
    """The kernel of one sort or search."""
    anchor = next(n for n in region.nodes() if table[n.op].kind is OpKind.SORT)
    if anchor.op == "searchsorted":
        return _search(anchor, name)
    return _Sort(anchor, name, target).lowering()


def digit_bits(dtype: DType, length: Dim, target: Target) -> int:
    """How many bits of the keys a pass should sort by: more of them make fewer passes, but more buckets.

    The lines of cache that the buckets fill take an eighth of a second-level cache at most.

    >>> from tgc.dtypes import f32, u8
    >>> from tgc.target import AVX512
    >>> digit_bits(f32, 1 << 20, AVX512), digit_bits(f32, 300, AVX512), digit_bits(u8, 300, AVX512)
    (11, 8, 8)
    """
    most = (target.l2_bytes // 8 // _CACHE_LINE).bit_length() - 1
    return min(range(4, most + 1), key=lambda bits: _digit_cycles(dtype, length, bits))


def _digit_cycles(dtype: DType, length: Dim, bits: int) -> float:
    number = length if isinstance(length, int) else _TYPICAL_LENGTH
    return -(-dtype.bits // bits) * ((1 << bits) * _BUCKET_CYCLES + number * _MOVE_CYCLES)


def longest_ranked(dtype: DType, target: Target) -> int:
    """The longest line, a power of two, of which ranks cost less than digits.

    >>> from tgc.dtypes import f32
    >>> from tgc.target import AVX512, SSE2
    >>> longest_ranked(f32, AVX512), longest_ranked(f32, SSE2)
    (128, 64)
    """
    lanes, length = target.lanes(_rank_type(dtype)), 1

    def ranks_are_cheaper(n: int) -> bool:
        return n * n / lanes * _COMPARISON_CYCLES < _digit_cycles(dtype, n, digit_bits(dtype, n, target))

    while ranks_are_cheaper(2 * length):
        length *= 2
    return length


def _rank_type(dtype: DType) -> DType:
    """The signed integers of keys and ranks: wide enough to count elements."""
    return i64 if dtype.bits == 64 else i32


class _Sort:
    """One iteration sorts one line."""

    def __init__(self, anchor: Node, name: str, target: Target) -> None:
        type_ = anchor.operands[0].type
        self.dtype = type_.dtype
        self.signed, self.unsigned = named(f"i{self.dtype.bits}"), named(f"u{self.dtype.bits}")
        self.lines = Lines.along(type_, rules.integer(anchor.attributes, "axis"))
        self.descending = rules.flag(anchor.attributes, "descending")
        self.target = target
        self.lanes = target.lanes(self.signed)
        self.bits = digit_bits(self.dtype, self.lines.length, target)
        self.buckets = 1 << self.bits
        self.builder = b = KernelBuilder(name, count=self.lines.count)
        positions = anchor.op == "argsort"
        self.source = b.buffer("p0", self.dtype, type_.size, "read")
        self.out = b.buffer("r0", i64 if positions else self.dtype, type_.size, "write")
        # two halves in one buffer: which one is read is then an offset. Vectors may reach beyond the end
        length = self.lines.length
        self.elements = b.scratch("elements", self.signed, 2 * length + self.lanes)
        narrow = i32 if isinstance(length, int) and length < 2**31 else i64
        self.numbers = b.scratch("numbers", narrow, 2 * length) if positions else None

    def lowering(self) -> Lowering:
        b, length = self.builder, self.lines.length
        start = self.lines.start(b, b.iteration)
        self._read(start)
        limit = longest_ranked(self.dtype, self.target)
        if not isinstance(length, int):
            with b.if_(b.compare("le", b.index(length), limit)) as branch:
                self._by_rank(start, limit)
            with branch.otherwise():
                self._by_digit(start)
        elif length <= limit:
            self._by_rank(start, length)
        else:
            self._by_digit(start)
        return Lowering((Stage(b.finish(), 100 + length * (4 + 2 * self.dtype.itemsize)),))

    # -- elements and keys -----------------------------------------------------------------------------------------

    def _each(self, start: Value, act: Callable[[Value, Value, int, Value | None], None]) -> None:
        """``act`` on the positions of the line: a vector's first, its place in memory, its lanes and its count."""
        b, inner = self.builder, self.lines.inner
        lanes = self.lanes if inner == 1 else 1

        def body(v: Value, count: Value | None) -> None:
            act(v, b.add(start, b.mul(v, b.index(inner))), lanes, count if lanes > 1 else None)

        vector_loop(b, 0, self.lines.length, lanes, body, unroll=4)

    def _read(self, start: Value) -> None:
        """The line to the first half, and the numbers of its elements."""
        b, numbers = self.builder, self.numbers

        def copy(v: Value, place: Value, lanes: int, count: Value | None) -> None:
            b.store(self.elements, v, b.bitcast(b.load(self.source, place, lanes, count=count), self.signed))

        self._each(start, copy)
        if numbers is not None:
            with b.loop(0, self.lines.length, name="number") as loop:
                b.store(numbers, loop.index, b.convert(loop.index, numbers.dtype))

    def _key(self, element: Value) -> Value:
        """The signed integers that stand for elements, which are given as their bits."""
        b, bits = self.builder, self.dtype.bits
        least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        if not self.dtype.is_float:
            key = b.bit_xor(element, least) if self.dtype.kind == "uint" else element
            return b.bit_not(key) if self.descending else key
        infinity = {"bf16": 0x7F80, "f16": 0x7C00, "f32": 0x7F800000, "f64": 0x7FF << 52}[self.dtype.name]
        magnitude = b.bit_and(element, most)
        key = b.select(b.compare("eq", magnitude, 0), magnitude, element)
        # of negative numbers the one of larger magnitude comes first
        key = b.bit_xor(key, b.bit_and(b.shift_right(key, bits - 1), most))
        key = b.bit_not(key) if self.descending else key
        return b.select(b.compare("gt", magnitude, infinity), b.constant(most, self.signed, element.lanes), key)

    # -- short lines -----------------------------------------------------------------------------------------------

    def _by_rank(self, start: Value, most: int) -> None:
        b, dtype = self.builder, _rank_type(self.dtype)
        lanes, length = self.target.lanes(dtype), b.index(self.lines.length)
        keys = b.scratch("keys", dtype, most + lanes)
        ranks = b.scratch("ranks", dtype, most + lanes)
        with b.loop(0, length, lanes, name="key") as loop:
            b.store(keys, loop.index, b.convert(self._key(b.load(self.elements, loop.index, lanes)), dtype))
        with b.loop(0, length, lanes, name="rank") as rank:
            own = b.load(keys, rank.index, lanes)
            last = b.minimum(b.add(rank.index, lanes), length)
            number = b.add(b.convert(rank.index, dtype), b.lane_indices(lanes, dtype))

            def counted(low: Value, high: Value, count: Value, before: Callable[[Value, Value], Value]) -> Value:
                with b.loop(low, high, carried=[count], name="other") as loop:
                    (count,) = loop.carried
                    loop.yield_(b.select(before(b.load(keys, loop.index), loop.index), b.add(count, 1), count))
                return loop.results[0]

            def among_themselves(other: Value, position: Value) -> Value:
                earlier = b.compare("lt", b.convert(position, dtype), number)
                return b.bit_or(b.compare("lt", other, own), b.bit_and(b.compare("eq", other, own), earlier))

            count = b.constant(0, dtype, lanes)
            count = counted(b.index(0), rank.index, count, lambda other, _: b.compare("le", other, own))
            count = counted(rank.index, last, count, among_themselves)
            count = counted(last, length, count, lambda other, _: b.compare("lt", other, own))
            b.store(ranks, rank.index, count)
        inner = b.index(self.lines.inner)
        with b.loop(0, length, name="put") as loop:
            place = b.add(start, b.mul(b.convert(b.load(ranks, loop.index), i64), inner))
            b.store(self.out, place, self._found(loop.index))

    def _found(self, at: Value, lanes: int = 1, count: Value | None = None) -> Value:
        """What the result has of the elements that lie at ``at``."""
        b = self.builder
        if self.numbers is not None:
            return b.convert(b.load(self.numbers, at, lanes, count=count), i64)
        return b.bitcast(b.load(self.elements, at, lanes, count=count), self.dtype)

    # -- long lines ------------------------------------------------------------------------------------------------

    def _by_digit(self, start: Value) -> None:
        b, length = self.builder, self.builder.index(self.lines.length)
        digits, buckets = -(-self.dtype.bits // self.bits), self.buckets
        places = b.scratch("places", i64, digits * buckets)
        handed = b.scratch("handed", self.unsigned, digits * _BLOCK)
        self._count(places, handed, digits)
        first = self._key(b.load(self.elements, 0))
        # carried: where the half begins that has the elements
        with b.loop(0, digits, carried=[b.index(0)], name="digit") as loop:
            (half,) = loop.carried
            bucket = b.convert(self._digit(first, loop.index), i64)
            base = b.mul(loop.index, buckets)
            common = b.load(places, b.add(base, bucket))
            with b.if_(b.compare("eq", common, length)) as branch:
                branch.yield_(half)
            with branch.otherwise():
                other = b.sub(length, half)
                with b.loop(base, b.add(base, buckets), carried=[other], name="bucket") as sums:
                    size = b.load(places, sums.index)
                    b.store(places, sums.index, sums.carried[0])
                    sums.yield_(b.add(sums.carried[0], size))
                self._move(places, handed, loop.index, half)
                branch.yield_(other)
            loop.yield_(*branch.results)
        (half,) = loop.results

        def write(v: Value, place: Value, lanes: int, count: Value | None) -> None:
            b.store(self.out, place, self._found(b.add(half, v), lanes, count), count=count)

        self._each(start, write)

    def _digit(self, key: Value, number: Value | int) -> Value:
        """A digit of keys, in unsigned integers of their width."""
        b, dtype = self.builder, self.unsigned
        unsigned = b.bitcast(b.bit_xor(key, -(1 << (dtype.bits - 1))), dtype)
        amount = b.convert(b.mul(b.index(number), self.bits), dtype)
        return b.bit_and(b.shift_right(unsigned, amount), self.buckets - 1)

    def _blocks(
        self, half: Value | int, hand: Callable[[Value, Value], None], act: Callable[[Value, Value], None]
    ) -> None:
        """Block by block: ``hand`` on the keys of each vector, then ``act`` on each element, and their places in it."""
        b, length = self.builder, self.lines.length
        with b.loop(0, length, _BLOCK, name="block") as block:
            begin = b.add(block.index, half)
            size = b.minimum(b.sub(b.index(length), block.index), _BLOCK)
            with b.loop(0, size, self.lanes, name="v") as loop:
                hand(self._key(b.load(self.elements, b.add(begin, loop.index), self.lanes)), loop.index)
            vector_loop(b, b.index(0), size, 1, lambda k, _: act(b.add(begin, k), k), unroll=4)

    def _count(self, places: Buffer, handed: Buffer, digits: int) -> None:
        """The number of elements in each bucket of each digit."""
        b = self.builder
        lanes = self.target.lanes(i64)
        with b.loop(0, digits * self.buckets, lanes, name="bucket") as loop:
            b.store(places, loop.index, b.constant(0, i64, lanes))

        def hand(keys: Value, v: Value) -> None:
            for d in range(digits):
                b.store(handed, b.add(v, d * _BLOCK), self._digit(keys, d))

        def add(_: Value, k: Value) -> None:
            for d in range(digits):
                bucket = b.add(b.convert(b.load(handed, b.add(k, d * _BLOCK)), i64), d * self.buckets)
                b.store(places, bucket, b.add(b.load(places, bucket), 1))

        self._blocks(0, hand, add)

    def _move(self, places: Buffer, handed: Buffer, digit: Value, half: Value) -> None:
        """Every element from ``half`` to the place that its bucket has got to."""
        b, numbers = self.builder, self.numbers
        base = b.mul(digit, self.buckets)

        def move(at: Value, k: Value) -> None:
            bucket = b.add(base, b.convert(b.load(handed, k), i64))
            place = b.load(places, bucket)
            b.store(places, bucket, b.add(place, 1))
            b.store(self.elements, place, b.load(self.elements, at))
            if numbers is not None:
                b.store(numbers, place, b.load(numbers, at))

        self._blocks(half, lambda keys, v: b.store(handed, v, self._digit(keys, digit)), move)


def _search(anchor: Node, name: str) -> Lowering:
    """For each value the number of entries before it: a binary search with a fixed number of steps."""
    entries, values = (v.type for v in anchor.operands)
    b = KernelBuilder(name, count=values.size)
    numbers = [rules.integer(v.node.attributes, "index") for v in anchor.operands]
    found: dict[int, Buffer] = {}
    for number, type_ in zip(numbers, (entries, values), strict=True):
        if number not in found:
            found[number] = b.buffer(f"p{number}", type_.dtype, type_.size, "read")
    out = b.buffer("r0", i64, values.size, "write")
    wide = values.dtype.compute
    wanted = b.convert(b.load(found[numbers[1]], b.iteration), wide)
    right = rules.text(anchor.attributes, "side") == "right"
    # carried: entries below `low` come before the value, entries from `high` on do not
    with b.while_loop([b.index(0), b.index(entries.size)]) as search:
        low, high = search.carried
        search.condition(b.compare("lt", low, high))
        middle = b.add(low, b.floor_divide(b.sub(high, low), 2))
        entry = b.convert(b.load(found[numbers[0]], middle), wide)
        before = _comes_before(b, entry, wanted, right, wide)
        search.yield_(b.select(before, b.add(middle, 1), low), b.select(before, high, middle))
    b.store(out, b.iteration, search.results[0])
    return Lowering((Stage(b.finish(), 60),))


def _comes_before(b: KernelBuilder, entry: Value, wanted: Value, right: bool, dtype: DType) -> Value:
    """entry < wanted, or entry <= wanted for the right side, NaN being the greatest."""
    if right:
        not_after = b.compare("le", entry, wanted)
        return b.bit_or(not_after, b.compare("ne", wanted, wanted)) if dtype.is_float else not_after
    before = b.compare("lt", entry, wanted)
    if not dtype.is_float:
        return before
    return b.bit_or(before, b.bit_and(b.compare("ne", wanted, wanted), b.compare("eq", entry, entry)))
