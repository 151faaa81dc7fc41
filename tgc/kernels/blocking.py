"""How a product goes through the caches: the cost model of contractions, over the parameters of a target.

A product of ``rows`` by ``columns``, summed over ``inner``, is made of register tiles (:mod:`tgc.kernels.tile`, which
chooses theirs by multiply-adds and loads). Around them are the loops of BLIS (Van Zee & van de Geijn), with m, n and k
of the tile, the task and the block of the sum for MR NR, MC NC and KC::

    for each task: `tiles` tiles of rows by `panels` panels of columns             (in parallel)
        for each block of `depth` products of the sum
            pack the block of the task's panels                                    (Packing.TASK)
            copy the block of the task's rows                                      (copied)
            for each panel of the task
                for each tile of rows: the register tile over the block

Times are in cycles of one core that multiplies one vector by another in each; bytes are counted at the level of the
memory that they come from. What is decided, and by which term:

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

from tgc.ir.dims import Dim
from tgc.kernels.tile import LONGEST_CHAIN, TYPICAL, TileShape, tile_work
from tgc.target import Target

# cycles for each byte of a row that is copied
_COPIED = 0.35
# cycles for each byte of a panel that is read again
_READ = 1 / 32
# cycles that a task takes by itself
_TASK = 300
_THREADS = (1, 2, 4, 8)
# into how many parts rows and columns are tried to be divided
_DIVISIONS = 16
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
    kind. ``pitch``: elements from a row of the tile to the next one in the left operand; ``right_pitch``: from a
    product to the next one in the right operand. ``left_plain``, ``right_plain``: whether the operand could be read
    where it lies, whatever that costs.
    """

    shape: TileShape
    itemsize: int
    rows: Dim
    columns: Dim
    inner: Dim
    outer_sums: Dim
    around: Dim
    pitch: Dim
    right_pitch: Dim
    left_plain: bool
    right_plain: bool

    @property
    def right_bytes(self) -> int | None:
        """Bytes of the right operand; None if they are not known."""
        sizes = (self.columns, self.inner, self.outer_sums)
        known = [d for d in sizes if isinstance(d, int)]
        return math.prod(known) * self.itemsize if len(known) == len(sizes) else None


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


def choose_blocking(problem: Problem, target: Target) -> Blocking:
    """The least cycles by the model above."""
    p, shape = problem, problem.shape
    depth = block_depth(p, target)
    copied = not p.left_plain or not isinstance(p.rows, int) or p.rows % shape.rows != 0
    # a line of a row lasts for several products: a short sum is over before it is lost
    long = not isinstance(p.inner, int) or p.inner * p.itemsize > 4 * target.line_bytes
    copied = copied or long and crowded(target, shape.rows, p.pitch, p.itemsize)
    tiles = _count(p.rows, shape.rows, TYPICAL)
    packing = _packing(p, depth, tiles, target)
    choices = _choices(p, depth, tiles, copied, packing, target)
    _, chunk, panels = min(((_cycles(p, c, g, copied, target), c, g) for c, g in choices), default=(0, 1, 1))
    return Blocking(depth, chunk, panels, packing, copied)


def block_depth(p: Problem, target: Target) -> int:
    """Products of a block: about equal blocks."""
    lanes = p.shape.lanes
    longest = max(lanes, min(LONGEST_CHAIN, target.l2_bytes // 8 // (p.shape.width * p.itemsize) // lanes * lanes))
    if not isinstance(p.inner, int):
        return longest
    blocks = max(1, -(-p.inner // longest))
    return max(1, p.inner if blocks == 1 else -(-p.inner // (blocks * lanes)) * lanes)


def is_streamed(rows: Dim, right_bytes: int | None, target: Target) -> bool:
    """Whether a right operand of that many bytes meets so few rows that reading it takes longer than multiplying."""
    few = isinstance(rows, int) and rows <= target.vector_registers // 4
    return few and (right_bytes is None or right_bytes > target.l2_bytes // 2)


def _packing(p: Problem, depth: int, tiles: int, target: Target) -> Packing:
    size = p.right_bytes
    if p.right_plain and size is not None:
        whole = isinstance(p.columns, int) and p.columns % p.shape.width == 0
        inside = size <= target.l2_bytes // 4 and not crowded(target, 8, p.right_pitch, p.itemsize)
        if whole and inside or tiles <= 2 and size <= target.l2_bytes // 2:
            return Packing.NONE
    large = size is None or size > target.l2_bytes
    if large and isinstance(p.rows, int) and _footprint(p, depth, tiles, 1, True, Packing.TASK) <= target.l2_bytes // 2:
        return Packing.TASK
    return Packing.WHOLE


def _choices(
    p: Problem, depth: int, tiles: int, copied: bool, packing: Packing, target: Target
) -> Iterator[tuple[int, int]]:
    """Tiles and panels of tasks that fit."""
    panels = _count(p.columns, p.shape.width, TYPICAL)
    groups = {-(-panels // n) for n in range(1, min(panels, _DIVISIONS) + 1)} | {1, min(2, panels), min(4, panels)}
    for chunk in [tiles] if packing is Packing.TASK else range(1, min(tiles, _DIVISIONS) + 1):
        for group in groups:
            if _footprint(p, depth, chunk, group, copied, packing) <= target.l2_bytes // 2:
                yield chunk, group


def _footprint(p: Problem, depth: int, tiles: int, panels: int, copied: bool, packing: Packing) -> int:
    """Bytes of a task's rows, sums and panels."""
    shape = p.shape
    one_block = p.outer_sums == 1 and isinstance(p.inner, int) and p.inner <= depth
    rows = tiles * shape.rows * depth if copied else 0
    sums = 0 if one_block else tiles * shape.rows * panels * shape.width
    right = (panels if packing is Packing.TASK else 1) * depth * shape.width
    return (rows + sums + right) * p.itemsize


def _cycles(p: Problem, chunk: int, group: int, copied: bool, target: Target) -> float:
    """What depends on how tiles and panels are divided into tasks."""
    shape = p.shape
    tiles, panels = _count(p.rows, shape.rows, TYPICAL), _count(p.columns, shape.width, TYPICAL)
    inner = (p.inner if isinstance(p.inner, int) else LONGEST_CHAIN) * (
        p.outer_sums if isinstance(p.outer_sums, int) else 1
    )
    chunks, groups = -(-tiles // chunk), -(-panels // group)
    around = p.around if isinstance(p.around, int) else _MANY
    tasks = around * chunks * groups
    multiplied = tiles * panels * inner * tile_work(shape.rows, shape.vectors)
    left, right = tiles * shape.rows * inner * p.itemsize, panels * shape.width * inner * p.itemsize
    idle = sum(-(-tasks // n) * n / tasks - 1 for n in _THREADS) / len(_THREADS) if tasks else 0.0
    return around * ((groups * left * _COPIED if copied else 0) + chunks * right * _READ + multiplied * idle) + (
        tasks * _TASK
    )


def _count(size: Dim, step: int, typical: int) -> int:
    return max(1, -(-size // step)) if isinstance(size, int) else max(1, typical // step)
