"""The memory of large results, kept for the next ones.

The C library gives memory of 32 MiB and more back to the system when an array dies, and the system clears that of the
next one: as much time as it takes to fill it. (Of a concatenation of 32 MiB that was half of 4.3 ms.)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 32 << 20
MOST = 256 << 20


class ResultMemory:
    """Blocks of memory that arrays lie in; one is used again when nothing refers to it but this.

    ``least``: bytes of an array that is worth it; ``most``: bytes that are kept, in use or not.
    """

    def __init__(self, *, least: int = LEAST, most: int = MOST) -> None:
        self._least, self._most = least, most
        # every view of an array holds its block, so that the count of references tells whether there is one
        self._blocks: list[NDArray[np.uint8]] = []
        block = np.empty(0, np.uint8)
        self._alone = sys.getrefcount(block)

    def worthwhile(self, size: int) -> bool:
        """Whether results of so many bytes should come from here."""
        return self._least <= size <= self._most

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of undefined contents."""
        size = math.prod(shape) * dtype.itemsize
        block = self._taken(size) if self.worthwhile(size) else None
        if block is None:
            return np.empty(shape, dtype)
        made: NDArray[Any] = np.ndarray(shape, dtype, buffer=block)
        self._blocks.append(block)
        return made

    def _taken(self, size: int) -> NDArray[np.uint8] | None:
        """A block that is in nobody's hands, and that no other thread finds now; None if too much is kept already."""
        kept = size
        for _ in range(len(self._blocks)):
            try:
                block = self._blocks.pop(0)
            except IndexError:
                break
            unused = sys.getrefcount(block) == self._alone
            if unused and block.nbytes == size:
                return block
            if not unused or kept + block.nbytes <= self._most:
                kept += block.nbytes
                self._blocks.append(block)
        return np.empty(size, np.uint8) if kept <= self._most else None
