"""Transposing in registers: squares of vectors, for what is read along one dimension and wanted along another."""

from __future__ import annotations

from collections.abc import Sequence

from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Value


def square_size(lanes: int) -> int:
    """Lanes of a square's vectors, given those of a whole one; 1 if there are too few to transpose.

    Larger squares take longer to compile.
    """
    return min(lanes, 8) if lanes >= 4 else 1


def transposed(builder: KernelBuilder, rows: Sequence[Value]) -> list[Value]:
    """The transpose of a square of vectors, of a power of two lanes: result i holds lane i of every row.

    Squares of 4 x 4 by two rounds of unpacking, as most CPUs have it for 128 bits, then exchanges of ever larger
    blocks.
    """
    values = list(rows)
    n = len(values)
    if n == 2:
        return [builder.shuffle(values[0], values[1], (lane, 2 + lane)) for lane in range(n)]
    low = tuple(x for q in range(0, n, 4) for x in (q, n + q, q + 1, n + q + 1))
    low_pairs = tuple(x for q in range(0, n, 4) for x in (q, q + 1, n + q, n + q + 1))
    high, high_pairs = tuple(x + 2 for x in low), tuple(x + 2 for x in low_pairs)
    for i in range(0, n, 4):
        a, b, c, d = values[i : i + 4]
        ab, cd = builder.shuffle(a, b, low), builder.shuffle(c, d, low)
        values[i : i + 2] = builder.shuffle(ab, cd, low_pairs), builder.shuffle(ab, cd, high_pairs)
        ab, cd = builder.shuffle(a, b, high), builder.shuffle(c, d, high)
        values[i + 2 : i + 4] = builder.shuffle(ab, cd, low_pairs), builder.shuffle(ab, cd, high_pairs)
    block = 4
    while block < n:
        low = tuple(i if not i & block else n + (i ^ block) for i in range(n))
        high = tuple((i | block) if not i & block else n + i for i in range(n))
        for i in range(n):
            if not i & block:
                a, b = values[i], values[i | block]
                values[i], values[i | block] = builder.shuffle(a, b, low), builder.shuffle(a, b, high)
        block *= 2
    return values
