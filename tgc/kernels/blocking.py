"""How a product goes through the caches: the cost model of contractions, over the parameters of a target.

A product of ``rows`` by ``columns``, summed over ``inner``, is made of register tiles (:mod:`tgc.kernels.tile`). Around
them are the loops of BLIS (Van Zee & van de Geijn), with m, n and k of the tile, the task and the block of the sum for
MR NR, MC NC and KC::

    for each task: `tiles` tiles of rows by `panels` panels of columns             (in parallel)
        for each block of `depth` products of the sum
            pack the block of the task's panels                                    (Packing.TASK)
            copy the block of the task's rows                                      (copied)
            for each panel of the task
                for each tile of rows: the register tile over the block

Times are in cycles of one core that multiplies one vector by another in each; bytes are counted at the level of the
memory that they come from. What is decided, and by which term:

* **tile** (:func:`product_tile`): for one product of each of its sums a tile takes as many cycles as it has sums, loads
  or, if these are few, as chains of additions take (`_CHAIN`); and for each line of memory that it reads `_PANEL`, as
  panels are one stream, or `_STREAM`, as rows are more streams than prefetching follows. All tiles are counted, partial
  ones in full, and the copy of rows that do not fill tiles or are crowded. So 4 x 4 vectors win for 32 registers where
  sizes are powers of two: 16 sums are enough, and no row is left over or copied (1024 x 1024 x 1024: 94 % of the peak
  that was measured in the same run, in f64 90 %).
* **depth**: at most 512 products, the promise on the error of sums. A panel's block takes an eighth of the second
  level at most, as it is read again for each tile of rows.
* **copied**: the left operand is read where it lies, a scalar from each row of the tile, unless it is computed or
  converted on the way, its rows do not fill tiles, or the tile's rows fall on more than half of the ways of a set of
  the first level (:func:`crowded`). Copying takes about `_COPIED` cycles a byte: rows are short and each lies in a page
  of its own, where prefetching begins anew. So the copy should serve many panels: with 8 panels of 32 columns it took
  8 % of the time of a 1024 x 1024 x 1024 product, with all 32 it takes 2 %.
* **packing**: the right operand is read where it lies if it can be and stays in the second level, its rows not
  crowded and made of whole tiles (masked loads took 15 % of 200 x 200 x 200), or if two tiles of rows meet it. Else it
  is packed: if it is larger than the second level and one task has all rows, in that task (`Packing.TASK`: the panels
  never leave the second level; for 64 rows that saves a fifth of the time), or all of it by a kernel of its own that
  runs before (`Packing.WHOLE`): once for all chunks of rows, once for all iterations of a loop around, and once for all
  calls if it is a constant.
* **streamed**: if a few rows meet a matrix that is larger than half of the second level, memory decides, not
  multiply-adds, and :mod:`tgc.kernels.axpys` and :mod:`tgc.kernels.dots` go through it in whole rows.
* **tiles and panels of a task**: those with the least sum of: copying the rows once for each group of panels; reading
  the panels once for each chunk of rows, `_READ` cycles a byte (sequential, so that prefetching hides all of it on a
  quiet machine, but where others use the third level it took a ninth of a cycle); `_TASK` cycles for each task; and
  what is lost when equal tasks are spread over 1, 2, 4 or 8 threads (the mean of these: the number of threads must not
  decide). Rows, sums and panels of a task share half of the second level.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tgc.dtypes import DType
from tgc.ir.dims import Dim
from tgc.kernels.tile import LONGEST_CHAIN, TYPICAL, TileShape, tallest_tiles
from tgc.target import Target

# cycles for each line of a tile's rows and of a panel
_STREAM, _PANEL = 0.4, 0.03
# multiply-adds of a tile in whose time a chain makes the next one
_CHAIN = 12
# what an unknown number of rows may be: their mean decides
_LIKELY_ROWS = (8, 16, 32, 64, TYPICAL)
# cycles for each byte of a row that is copied
_COPIED = 0.35
# cycles for each byte of a panel that is read again
_READ = 1 / 32
# cycles that a task takes by itself
_TASK = 300
_THREADS = (1, 2, 4, 8)
# into how many parts rows and columns are tried to be divided
_DIVISIONS = 32
# what cannot be known is taken for that many tasks around
_MANY = 8


class Packing(enum.Enum):
    """Whether the right operand is read where it lies, or put into panels: by each task, or before all of them."""

    NONE = "none"
    TASK = "task"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Problem:
    """A product, as far as its cost depends on it.

    ``outer_sums``: how often the sum over ``inner`` is made and added up; ``around``: independent products of this
    kind. ``pitch`` and ``step``: elements from a row to the next one, and from a product to the next one, in the left
    operand; ``right_pitch``: from a product to the next one in the right operand. ``left_plain``, ``right_plain``:
    whether the operand could be read where it lies, whatever that costs.
    """

    dtype: DType
    rows: Dim
    columns: Dim
    inner: Dim
    outer_sums: Dim
    around: Dim
    pitch: Dim
    step: Dim
    right_pitch: Dim
    left_plain: bool
    right_plain: bool

    @property
    def right_bytes(self) -> int | None:
        """Bytes of the right operand; None if they are not known."""
        sizes = (self.columns, self.inner, self.outer_sums)
        known = [d for d in sizes if isinstance(d, int)]
        return math.prod(known) * self.dtype.itemsize if len(known) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class Blocking:
    """``depth`` products of a block, ``tiles`` of rows and ``panels`` of a task, and how the operands are read."""

    depth: int
    tiles: int
    panels: int
    packing: Packing
    copied: bool


def crowded(target: Target, lines: int, pitch: Dim, itemsize: int) -> bool:
    """Whether that many lines, ``pitch`` elements apart, take more than half of the ways of a set of the first level.

    >>> from tgc.target import AVX512
    >>> crowded(AVX512, 14, 576, 4), crowded(AVX512, 14, 1024, 4)
    (False, True)
    """
    if not isinstance(pitch, int):
        return True
    way = target.l1_bytes // target.l1_ways
    sets = way // math.gcd(max(pitch * itemsize, target.line_bytes), way)
    return lines > sets * target.l1_ways // 2


def product_tile(problem: Problem, target: Target) -> TileShape:
    """The tile that takes the least cycles.

    An unknown number of rows gets low and wide tiles, so that few rows waste little.
    """
    rows, columns, dtype = problem.rows, problem.columns, problem.dtype
    likely = (rows,) if isinstance(rows, int) else _LIKELY_ROWS
    best: tuple[float, float, TileShape] | None = None
    for most in tallest_tiles(target, dtype, columns):
        panels = -(-columns // most.width) if isinstance(columns, int) else TYPICAL // most.vectors
        highest = min(most.rows, max(1, rows) if isinstance(rows, int) else 8)
        for height in range(1, highest + 1):
            sums, loads = height * most.vectors, height + most.vectors
            lines = _STREAM * height + _PANEL * most.width
            cycles = max(sums, loads, _CHAIN) + lines * dtype.itemsize / target.line_bytes
            copy = dtype.itemsize * _COPIED if needs_copy(height, problem, target) else 0.0
            work = sum(-(-m // height) * panels * cycles / max(m, 1) + copy for m in likely)
            if best is None or (work, loads / sums) < best[:2]:
                best = (work, loads / sums, TileShape(height, most.vectors, most.lanes))
    return best[2] if best else TileShape(1, 1, target.lanes(dtype))


def needs_copy(height: int, problem: Problem, target: Target) -> bool:
    """Whether tiles of ``height`` rows read a copy of the left operand."""
    p = problem
    if not p.left_plain or not isinstance(p.rows, int) or p.rows % height != 0:
        return True
    # a line lasts for several products, or rows: a short sum is over before it is lost
    if isinstance(p.inner, int) and p.inner * p.dtype.itemsize <= 4 * target.line_bytes:
        return False
    if p.step != 1:
        return crowded(target, p.inner if isinstance(p.inner, int) else LONGEST_CHAIN, p.step, p.dtype.itemsize)
    return crowded(target, height, p.pitch, p.dtype.itemsize)


def choose_blocking(problem: Problem, shape: TileShape, target: Target) -> Blocking:
    """The least cycles by the model above."""
    return _Model(problem, shape, target).best()


def is_streamed(rows: Dim, right_bytes: int | None, target: Target) -> bool:
    """Whether a right operand of that many bytes meets so few rows that reading it takes longer than multiplying."""
    few = isinstance(rows, int) and rows <= target.vector_registers // 4
    return few and (right_bytes is None or right_bytes > target.l2_bytes // 2)


class _Model:
    """What a product with a tile costs, for the ways to divide it."""

    def __init__(self, problem: Problem, shape: TileShape, target: Target) -> None:
        self.problem = p = problem
        self.shape = shape
        self.target = target
        self.itemsize = p.dtype.itemsize
        self.tiles, self.panels = _count(p.rows, shape.rows), _count(p.columns, shape.width)
        self.copied = needs_copy(shape.rows, p, target)
        self.depth = self._depth()
        self.packing = self._packing()

    def best(self) -> Blocking:
        choices = [(self._cycles(chunk, group), chunk, group) for chunk, group in self._choices()]
        _, chunk, group = min(choices, default=(0.0, 1, 1))
        return Blocking(self.depth, chunk, group, self.packing, self.copied)

    def _depth(self) -> int:
        """Products of a block: about equal blocks."""
        lanes, inner = self.shape.lanes, self.problem.inner
        fitting = self.target.l2_bytes // 8 // (self.shape.width * self.itemsize)
        longest = max(lanes, min(LONGEST_CHAIN, fitting // lanes * lanes))
        if not isinstance(inner, int):
            return longest
        blocks = max(1, -(-inner // longest))
        return max(1, inner if blocks == 1 else -(-inner // (blocks * lanes)) * lanes)

    def _packing(self) -> Packing:
        p, target = self.problem, self.target
        size = p.right_bytes
        whole = isinstance(p.columns, int) and p.columns % self.shape.width == 0
        if p.right_plain and size is not None and (whole or target.masked):
            inside = size <= target.l2_bytes // 4 and not crowded(target, 8, p.right_pitch, self.itemsize)
            if whole and inside or self.tiles <= 2 and size <= target.l2_bytes // 2:
                return Packing.NONE
        together = isinstance(p.rows, int) and self.tiles <= _DIVISIONS and (size is None or size > target.l2_bytes)
        if together and self._footprint(self.tiles, 1, Packing.TASK) <= target.l2_bytes // 2:
            return Packing.TASK
        return Packing.WHOLE

    def _choices(self) -> Iterator[tuple[int, int]]:
        """Tiles and panels of tasks that fit."""
        panels, tiles = self.panels, self.tiles
        groups = {-(-panels // n) for n in range(1, min(panels, _DIVISIONS) + 1)} | {1, min(2, panels), min(4, panels)}
        for chunk in [tiles] if self.packing is Packing.TASK else range(1, min(tiles, _DIVISIONS) + 1):
            for group in groups:
                if self._footprint(chunk, group, self.packing) <= self.target.l2_bytes // 2:
                    yield chunk, group

    def _footprint(self, tiles: int, panels: int, packing: Packing) -> int:
        """Bytes of a task's rows, sums and panels."""
        p, shape = self.problem, self.shape
        one_block = p.outer_sums == 1 and isinstance(p.inner, int) and p.inner <= self.depth
        rows = tiles * shape.rows * self.depth if self.copied else 0
        sums = 0 if one_block else tiles * shape.rows * panels * shape.width
        right = (panels if packing is Packing.TASK else 1) * self.depth * shape.width
        return (rows + sums + right) * self.itemsize

    def _cycles(self, chunk: int, group: int) -> float:
        """What depends on how tiles and panels are divided into tasks."""
        p, shape = self.problem, self.shape
        inner = p.inner if isinstance(p.inner, int) else LONGEST_CHAIN
        inner *= p.outer_sums if isinstance(p.outer_sums, int) else 1
        chunks, groups = -(-self.tiles // chunk), -(-self.panels // group)
        around = p.around if isinstance(p.around, int) else _MANY
        tasks = around * chunks * groups
        multiplied = self.tiles * self.panels * inner * shape.rows * shape.vectors
        left, right = (n * inner * self.itemsize for n in (self.tiles * shape.rows, self.panels * shape.width))
        idle = sum(-(-tasks // n) * n / tasks - 1 for n in _THREADS) / len(_THREADS) if tasks else 0.0
        moved = groups * left * (_COPIED if self.copied else _READ) + chunks * right * _READ
        return around * (moved + multiplied * idle) + tasks * _TASK


def _count(size: Dim, step: int) -> int:
    return max(1, -(-size // step)) if isinstance(size, int) else max(1, TYPICAL // step)
