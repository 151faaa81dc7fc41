"""Shuffled batches of arrays."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgc.errors import ShapeError


def batches(
    *arrays: NDArray[Any], size: int, rng: np.random.Generator | None = None, drop_last: bool = False
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Batches of `size` along the arrays' first dimension, which they share: one pass, in the order that `rng` draws.

    Without `rng` the order is the arrays' own. The last batch is smaller where `size` does not divide their length, and
    left out with `drop_last`.

    Raises ShapeError if the arrays differ in length or `size` is not positive.

    >>> [x.tolist() for x, in batches(np.arange(5), size=2)]
    [[0, 1], [2, 3], [4]]
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ShapeError(f"batches needs arrays of one length, not {[len(array) for array in arrays]}")
    if size < 1:
        raise ShapeError(f"a batch has at least one element, not {size}")
    (length,) = lengths
    order = np.arange(length) if rng is None else rng.permutation(length)
    stop = length - length % size if drop_last else length
    return (tuple(array[order[at : at + size]] for array in arrays) for at in range(0, stop, size))
